"""What the pages say can be typed, and where they point is there."""

import re
import shlex

import pytest

from lightning_metakd.cli.command import build
from lightning_metakd.cli.front_door import COMMANDS
from lightning_metakd.cli.front_door import main as metakd_main
from tests.commands import CONFIGS, work_in
from tests.docs.pages import PAGES, ROOT, anchors, commands, links, name, prose, without_blocks

BASE = f"--config={CONFIGS / 'experiment' / 'meta_kd_synthetic_5w5s.yaml'}"
PLACEHOLDER = re.compile(r"[<>]|\.\.\.|\b[A-Z]{3,}\b|my_package")

every = pytest.mark.parametrize("page", PAGES, ids=name)
"""Every page."""

TYPED = [(name(page), line) for page in PAGES for line in commands(page)]
METAKD = [
    line
    for page, line in TYPED
    if line.startswith("metakd ") and not PLACEHOLDER.search(line)
    if page != "docs/extending.md"  # whose files have a test of their own
]


def options_in_prose(page):
    """Options with a value, outside of blocks; of several values that are offered the first."""
    for option in re.findall(r"`[^`]*`", without_blocks(prose(page))):
        for word in re.findall(r"(--(?:model|data|trainer)\.[\w.+]+=[^\s`]+)", option):
            if not PLACEHOLDER.search(word):
                yield word.split("|")[0]


def test_pages_are_short_enough_to_be_read():
    for page, most in {"README.md": 200, "CONTRIBUTING.md": 120, "CHANGELOG.md": 120}.items():
        assert len((ROOT / page).read_text().splitlines()) <= most, page


@every
def test_every_relative_link_and_anchor_resolves(page):
    for path, anchor in links(page):
        assert path.exists(), f"{name(page)} -> {path}"
        assert not anchor or anchor in anchors(path), f"{name(page)} -> {path}#{anchor}"


def test_every_page_is_reached_from_the_readme():
    reached, ahead = set(), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        if page in PAGES and page not in reached:
            reached.add(page)
            ahead += [path for path, _ in links(page)]
    assert set(PAGES) - reached == set()


@every
def test_the_files_modules_and_targets_that_it_names_exist(page):
    text = prose(page)
    for path in set(
        re.findall(r"(?:configs|tests|experiments|benchmarks)/[\w/]+\.(?:yaml|py)", text)
    ):
        assert (ROOT / path).is_file(), path
    targets = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert set(re.findall(r"(?:^|`)make ([a-z0-9-]+)", text, flags=re.MULTILINE)) <= set(targets)
    for module in set(
        re.findall(r"(?:^|`)python -m ((?:experiments|benchmarks)\.\w+)", text, re.M)
    ):
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), module


def test_rows_of_tables_are_experiments():
    table = prose(ROOT / "docs" / "results" / "cifar-fs.md")
    rows = re.findall(r"^\| \w \| `(\w+)` \|", table, flags=re.MULTILINE)
    assert len(rows) == 4
    assert all((CONFIGS / "experiment" / f"{row}.yaml").is_file() for row in rows)


@pytest.mark.parametrize("line", sorted(set(METAKD)))
def test_a_command_in_a_block_builds_a_run(line, tmp_path, monkeypatch, capsys):
    _, command, *words = shlex.split(line)
    words = [] if command == "export" else words  # they name the checkpoint of a run
    if command in (*COMMANDS, "export") or words == ["--help"]:
        with pytest.raises(SystemExit) as end:
            metakd_main([command, *words, *(["--help"] if "--help" not in words else [])])
        assert end.value.code == 0
        assert "usage: metakd" in capsys.readouterr().out
        return
    if command == "test":  # the configuration is that of the run
        (experiment,) = re.findall(r"runs/(\w+)/latest/", line)
        assert (CONFIGS / "experiment" / f"{experiment}.yaml").is_file()
        return
    work_in(tmp_path, monkeypatch)
    monkeypatch.chdir(ROOT)
    words = [word for word in words if word not in ("--resume", "--print_config")]
    build([*words, "--trainer.accelerator=cpu"], run=False)


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore:.*logging interval")
def test_the_lines_of_python_of_other_libraries_run(tmp_path, monkeypatch):
    text = (ROOT / "docs" / "other-libraries.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    for many in ("max_steps=100", "n_episodes=100"):
        assert many in block
        block = block.replace(many, many.replace("100", "2"))
    work_in(tmp_path, monkeypatch)
    settings = {}
    exec(compile(block, "other-libraries.md", "exec"), settings)
    student, y = settings["student"], settings["y"]
    assert len(student.classes_) == len(y[:2000:50].unique()) > 1


@pytest.mark.parametrize("page", [p for p in PAGES if list(options_in_prose(p))], ids=name)
def test_options_in_prose_are_understood(page, tmp_path, monkeypatch):
    work_in(tmp_path, monkeypatch)
    monkeypatch.chdir(ROOT)
    learner = f"--model.learner={CONFIGS / 'learner' / 'maml.yaml'}"
    with pytest.raises(SystemExit) as end:  # the parser takes them, and nothing is built
        build([BASE, learner, *dict.fromkeys(options_in_prose(page)), "--print_config"], run=False)
    assert end.value.code in (0, None)

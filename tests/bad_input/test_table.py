"""Each bad input of the table is refused in one line, and leaves nothing that looks like a result."""

import re

import pytest
import yaml

from lightning_metakd.cli import command
from lightning_metakd.cli.parser import Parser
from tests.bad_input import plants
from tests.bad_input.table import ROWS, rows
from tests.commands import MAML

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("parsers")]

MISTAKES = (1, 2)
"""Exit codes of what a user can mend: said by the program, or by its parser."""


def of_need(need):
    return pytest.mark.parametrize("row", rows(need), ids=str)


def check(row, code, text):
    *_, line = text.splitlines() or [""]
    assert code in MISTAKES, f"exit code {code}: {line}"
    assert "Traceback" not in text
    assert re.fullmatch(row.pattern, line), f"\n{line}\nis not\nmetakd: {row.line}"


def whole(folder):
    """What says that something is complete, and where `latest` points."""
    actual = {p: p.stat().st_mtime_ns for p in folder.rglob("final.ckpt")}
    actual |= {p: p.read_text() for p in folder.rglob("results.jsonl")}
    return actual | {p: p.readlink() for p in folder.glob("runs/*/latest")}


@of_need("parse")
def test_the_parser_refuses_it(row, console, trained):
    code, text = console(*row.words, folder=trained)
    check(row, code, text)
    assert text.count("\n") == 1


@of_need("build")
def test_it_is_refused_before_anything_is_read(row, console, trained, monkeypatch):
    monkeypatch.setattr("lightning_metakd.data.sources.synthetic.generate", None)
    # what takes two thirds of the time and is no part of it
    monkeypatch.setattr(Parser, "validate", lambda *args, **kwargs: None)
    monkeypatch.setattr(command.MetaKDCLI, "_dump_config", no_dump)
    check(row, *console(*row.words, folder=trained))


def no_dump(self):
    self.config_dump = {}


@pytest.mark.thorough
@of_need("start")
def test_a_run_refuses_it_at_its_start(row, console, trained):
    before = whole(trained)
    check(row, *console(*row.words, "--trainer.fast_dev_run=1", folder=trained))
    assert whole(trained) == before


@of_need("files")
def test_a_file_that_is_no_good_is_named(row, console, folder):
    if row.plant is not None:
        getattr(plants, row.plant)(folder)
    before = whole(folder)
    check(row, *console(*row.words, folder=folder))
    assert whole(folder) == before


@of_need("report")
def test_the_report_refuses_it(row, console, tmp_path):
    plants.results(tmp_path)
    check(row, *console(*row.words, folder=tmp_path))


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"runs": None}, "runs=None names no folder; leave it out to write into runs/."),
        ({"trainer": None}, "trainer=None must be a group of settings, such as max_epochs."),
        (
            {"trainer": {"detect_anomaly": None}},
            "trainer.detect_anomaly=null says nothing; leave it out for False.",
        ),
    ],
)
def test_null_in_a_file_is_refused(settings, line, console, trained):
    (trained / "null.yaml").write_text(yaml.safe_dump(MAML | settings))
    assert console("fit", "--config", "null.yaml", folder=trained) == (1, f"metakd: {line}\n")


def test_the_table_is_whole():
    assert len(ROWS) >= 500
    assert len(set(map(str, ROWS))) == len(ROWS)
    assert {row.need for row in ROWS} == {"parse", "build", "start", "files", "report"}


MAML_CHECKPOINT = "--ckpt_path=runs/maml/latest/checkpoints/final.ckpt"
LATE = {
    "no_test_rows": (
        *("test", "--config=teacher.yaml", "--data.val_fraction=0"),
        "--ckpt_path=runs/teacher/latest/checkpoints/final.ckpt",
    ),
    "too_small_images": (
        *("fit", "--config=maml.yaml", "--model.student=Preprocessed", "--model.student.size=8"),
        "--model.student.model={class_path: Conv4, init_args: {n_classes: 5}}",
    ),
    "another_network": ("test", "--config=maml.yaml", "--model.student=ResNet12", MAML_CHECKPOINT),
    "another_width": ("validate", "--config=maml.yaml", "--model.student.width=6", MAML_CHECKPOINT),
    "other_settings": ("fit", "--config=maml.yaml", "--data.k_shot=1", MAML_CHECKPOINT),
}
"""What is seen only when files are open, networks built, or loaders asked for."""


@pytest.mark.parametrize("experiment", LATE)
def test_a_refusal_costs_no_directory(experiment, console, trained):
    code, text = console(*LATE[experiment], f"--experiment={experiment}", folder=trained)
    assert code in MISTAKES
    assert text.splitlines()[-1].startswith("metakd: ")
    assert not (trained / "runs" / experiment).exists()

"""What docs/extending.md shows is run as it stands there, in a folder of its own."""

import ast
import importlib
import re
import sys
from pathlib import Path

import pytest

from lightning_metakd.teachers import preparation
from tests.commands import fresh

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
FILES: dict[str, str] = dict(
    re.findall(r'^```\w+ title="([\w.]+)"\n(.*?)^```', PAGE.read_text(), re.DOTALL | re.MULTILINE)
)
MODULES = [Path(name).stem for name in FILES if f"test_{name}" in FILES]
COMPLETE = ("mimic", "unit_steps")
"""Configurations that stand alone; the others lie over the first."""
MOST_LINES = 25


@pytest.fixture
def folder(tmp_path, monkeypatch, metakd):
    """The files of the page in the working directory, importable, and forgotten afterwards."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(preparation, "CALIBRATION_EPISODES", 2)
    yield tmp_path
    for name in [n for n, m in sys.modules.items() if in_folder(m, tmp_path)]:
        del sys.modules[name]


def in_folder(module, folder):
    return Path(getattr(module, "__file__", None) or "/").parent == folder


def test_every_kind_of_addition_is_shown():
    kinds = re.findall(r"^\| \[.+?\]\(#.+?\) \|", PAGE.read_text(), re.MULTILINE)
    assert len(kinds) == len(MODULES) == 7
    for module in MODULES:
        assert {f"{module}.py", f"{module}.yaml", f"test_{module}.py"} <= set(FILES)
    assert len(FILES) == 3 * len(MODULES)


def test_an_addition_is_short():
    for name in (f"{module}.py" for module in MODULES):
        tree = ast.parse(FILES[name])
        prose = {
            line
            for node in ast.walk(tree)
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
        }
        lines = [text for at, text in enumerate(FILES[name].splitlines(), 1) if at not in prose]
        code = [text for text in lines if text.strip() and not text.startswith(("from", "import"))]
        assert len(code) <= MOST_LINES, (name, len(code))


@pytest.mark.thorough
@pytest.mark.parametrize("module", MODULES)
def test_an_addition_passes_its_test(module, folder):
    members = vars(importlib.import_module(f"test_{module}"))
    tests = [test for name, test in members.items() if name.startswith("test_")]
    assert tests
    for test in tests:
        test()


def test_additions_train_together_by_their_class_paths(folder, metakd):
    importlib.import_module("test_arrays").test_splits_have_classes_of_their_own()  # writes images
    over_the_first = [module for module in MODULES if module not in COMPLETE]
    words = [word for name in ("mimic", *over_the_first) for word in ("--config", f"{name}.yaml")]
    run = metakd("fit", *words)
    assert run.trainer.global_step > 1
    parts = [*run.model.modules(), *run.trainer.callbacks, run.datamodule.source]
    assert {"mimic", *over_the_first} <= {type(part).__module__ for part in parts}


@pytest.mark.thorough
def test_a_class_with_a_name_of_ours_is_found_by_its_full_path_in_the_working_directory(folder):
    (folder / "mine.py").write_text(FILES["unit_steps.py"].replace("UnitSteps", "MAML"))
    words = ["fit", "--config", "unit_steps.yaml", "--trainer.fast_dev_run=1"]
    process = fresh(folder, *words, "--model.learner=mine.MAML", "--model.learner.length=0.2")
    assert process.returncode == 0, process.stderr  # ours has no such setting

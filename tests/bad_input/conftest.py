"""The command as its console script runs it, with a parser that all share, and folders to run it in."""

import copy
import shutil
import sys

import jaxtyping
import pytest

from lightning_metakd.cli import command, front_door
from tests.commands import MAML, STUDENT, TEACHER, work_in, written

SINGLE = {
    **TEACHER,
    "model": {
        "class_path": "SingleTask",
        "init_args": {
            **TEACHER["model"]["init_args"],
            "loss": {"class_path": "MatchGate", "init_args": {"gate": 0.5}},
            "teachers": [
                {
                    "class_path": "lightning_metakd.teachers.Teacher",
                    "init_args": {
                        "model": TEACHER["model"]["init_args"]["student"],
                        "checkpoint": "runs/teacher/latest/checkpoints/final.ckpt",
                        "head": {"class_path": "SlicedHead"},
                    },
                }
            ],
        },
    },
}
"""A student of the teacher's classes, taught by its own logits."""
PARSER = ("parser", "_subcommand_parsers", "_subcommand_method_arguments")


@pytest.fixture(scope="session")
def parsers():
    """Have the parsers built once: they take longer than most of what they refuse."""
    made = {}

    def setup(self, run, *settings):
        key = type(self), run
        if key not in made:
            original(self, run, *settings)
            mine = {name: vars(self)[name] for name in PARSER if name in vars(self)}
            made[key] = mine, copy.copy(self.parser._instantiators)
        mine, instantiators = made[key]
        vars(self).update(mine)
        for parser in (self.parser, *mine.get("_subcommand_parsers", {}).values()):
            parser.refusal = None
        self.parser._instantiators = copy.copy(instantiators)

    original = command.MetaKDCLI.setup_parser
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command.MetaKDCLI, "setup_parser", setup)
        yield


@pytest.fixture(scope="session")
def trained(tmp_path_factory, parsers):
    """A folder with a trained teacher and MAML student."""
    folder = tmp_path_factory.mktemp("trained")
    written(folder, teacher=TEACHER, student=STUDENT, maml=MAML, single=SINGLE)
    with pytest.MonkeyPatch.context() as patch:
        work_in(folder, patch)
        command.main(["fit", "--config", "teacher.yaml", "--trainer.limit_train_batches=1"])
        command.main(["fit", "--config", "maml.yaml", "--trainer.max_epochs=1"])
    return folder


@pytest.fixture
def untyped():
    """Without the run-time check of types, which answers before our message can."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture
def folder(trained, tmp_path, untyped):
    """A copy of the trained folder, in which files may be spoilt."""
    shutil.copytree(trained, tmp_path, symlinks=True, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def console(monkeypatch, capfd, untyped):
    """Run the console script in this process; returns its exit code and what it says on stderr."""
    monkeypatch.setattr(front_door, "tidy_terminal", lambda: None)  # what it switches off stays off
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(*words, folder):
        work_in(folder, monkeypatch)
        monkeypatch.setattr(sys, "argv", ["metakd", *words])
        capfd.readouterr()
        try:
            front_door.console()
        except SystemExit as done:
            return done.code, capfd.readouterr().err
        return 0, capfd.readouterr().err

    return run

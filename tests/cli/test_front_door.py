"""What answers without torch, and finds what comes with the package."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import lightning_metakd
from lightning_metakd.cli import doctor, front_door
from lightning_metakd.cli.class_names import named_classes
from lightning_metakd.cli.command import import_everything
from lightning_metakd.cli.command_words import with_shipped_configs
from lightning_metakd.cli.help_texts import FIT_OPTIONS
from lightning_metakd.cli.listing import BASES, classes_of, experiments
from lightning_metakd.data.source_data import SourceData
from lightning_metakd.data.sources.source import Source
from lightning_metakd.learners.learner import Learner
from lightning_metakd.losses.coefficient import Coefficient
from lightning_metakd.losses.loss import Loss
from lightning_metakd.models.model import Model
from lightning_metakd.recipes.recipe import Recipe
from lightning_metakd.teachers.heads import Head
from tests.commands import CONFIGS, MAML, written
from tests.left_results import leave

WITHOUT_TORCH = """
import sys

class Away:
    def find_spec(self, name, *args):
        if name.split(".")[0] in ("torch", "lightning", "torchvision", "pytorch_lightning"):
            raise ImportError(f"{name} is not installed")

sys.meta_path.insert(0, Away())
from lightning_metakd.cli.front_door import main
main(sys.argv[1:])
"""
LIGHT = {
    ("--version",): "0.1.0",
    ("--help",): "usage: metakd COMMAND",
    ("fit", "--help"): "--data.k_shot",
    ("list",): "MatchGate",
    ("list", "--kind=zoo"): "zoo:conv4_64_cifar_fs_start",
    ("configs", "--output=mine"): "configurations copied to mine",
    ("report", "--folder=runs"): "| maml",
    ("completion", "--shell=zsh"): "--data.k_shot",
}


@pytest.mark.parametrize("words", LIGHT, ids=" ".join)
def test_it_answers_where_torch_is_not_installed(words, tmp_path):
    leave(tmp_path / "runs" / "maml" / "0")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert LIGHT[words] in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100 or words[0] in ("report", "completion")


KINDS = {
    "recipes": Recipe,
    "data": SourceData,
    "sources": Source,
    "models": Model,
    "learners": Learner,
    "losses": Loss,
    "coefficients": Coefficient,
    "heads": Head,
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_classes_that_are_listed_are_those_that_a_configuration_can_name(kind):
    import_everything()
    assert KINDS[kind].__name__ == BASES[kind]
    listed = classes_of(kind)
    assert set(listed) == {c.__name__ for c in named_classes(KINDS[kind])}
    assert all(summary.endswith(".") for summary in listed.values())


def test_every_experiment_is_listed():
    assert set(experiments()) == {path.stem for path in (CONFIGS / "experiment").glob("*.yaml")}
    assert all(experiments().values())


VALUES = {
    "--config": "again.yaml",
    "--data.source": "Synthetic",
    "--data.source.path": "pictures",
    "--data.k_shot": 2,
    "--model.student": "Conv4",
    "--model.learner": "ProtoNet",
    "--model.loss": "CrossEntropy",
    "--model.optimisation.lr": 0.1,
    "--trainer.max_time": "00:00:01:00",
    "--experiment": "mine",
    "--seed_everything": 1,
    "--resume": "true",
}


@pytest.mark.parametrize("option", FIT_OPTIONS)
def test_the_options_of_the_short_help_are_options(option, metakd, tmp_path, capsys):
    written(tmp_path, maml=MAML, again={"seed_everything": 3})
    source = ["--data.source=Folder"] if option.endswith(".path") else []
    with pytest.raises(SystemExit) as done:
        metakd(
            *("fit", "--config=maml.yaml", *source, f"{option}={VALUES[option]}", "--print_config")
        )
    assert done.value.code in (0, None)
    assert yaml.safe_load(capsys.readouterr().out)


def test_all_options_are_a_word_away(metakd, capsys):
    with pytest.raises(SystemExit):
        metakd("fit", "--help-all")
    assert "--trainer.log_every_n_steps" in capsys.readouterr().out


@pytest.mark.parametrize(
    "word", ["configs/learner/maml.yaml", "learner/maml", "--model.learner=configs/learner/maml"]
)
def test_a_configuration_is_taken_from_the_package_where_there_is_none_here(
    word, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (path,) = with_shipped_configs([word])
    assert Path(path.removeprefix("--model.learner=")) == CONFIGS / "learner" / "maml.yaml"


def test_a_configuration_of_ones_own_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "learner").mkdir()
    written(tmp_path / "learner", maml={})
    words = ["learner/maml.yaml", "learner/nobody", "--experiment=maml", "../learner/maml"]
    assert with_shipped_configs(words) == words


def test_configurations_are_not_written_over(metakd, tmp_path):
    (tmp_path / "configs").mkdir()
    with pytest.raises(FileExistsError, match="output='configs' is there already; name a new"):
        metakd("configs")


def test_the_doctor_names_what_is_there_and_what_to_do(metakd, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "version_or_none", {"torch": "2.0"}.get)
    (tmp_path / "pictures" / "cats").mkdir(parents=True)
    metakd("doctor", "--data=pictures")
    lines = capsys.readouterr().out.splitlines()
    assert "  torch            2.0" in lines
    assert "! wandb            missing; pip install wandb" in lines
    assert any("pip install 'lightning_metakd[text]'" in line for line in lines)
    assert any(
        "pictures: none of CIFAR-100, Omniglot, intents, 1 folders" in line for line in lines
    )


def test_every_name_of_the_package_is_there():
    assert {name for name in lightning_metakd.__all__ if getattr(lightning_metakd, name)} >= {
        *("EpisodicData", "MetaKD", "SingleTask", "Student", "SupervisedData", "Teacher"),
        *("Trainer", "distil", "load"),
    }
    with pytest.raises(AttributeError, match="MetaKDD"):
        lightning_metakd.MetaKDD  # noqa: B018


def test_commands_say_what_they_do(capsys):
    with pytest.raises(SystemExit):
        front_door.main(["--help"])
    text = capsys.readouterr().out
    assert all(
        f"\n  {name} " in text for name in (*front_door.TRAINER_COMMANDS, *front_door.COMMANDS)
    )

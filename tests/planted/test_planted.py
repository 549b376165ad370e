"""Problems with a known answer: what is learned of teaching goes where the quiz gets lower, by configuration.

Small students of synthetic images learn from teachers whose faults are planted (`heads.py`). The training
configuration is written as a file and given to the command, as a user would. Short here, over five seeds in
the slow suite.
"""

import csv
from pathlib import Path
from statistics import fmean

import pytest
import torch
from sklearn.metrics import roc_auc_score

from lightning_metakd.functional import detach
from lightning_metakd.seeds import over_seeds
from lightning_metakd.types import Context
from tests.commands import written

PER_CLASS = 40
SEEDS = range(5)
LEARNED = {"class_path": "Learned"}


def teacher(head: str, **settings: float) -> dict:
    """A teacher that knows every image, and answers through a planted head."""
    planted = {"class_path": f"tests.planted.heads.{head}", "init_args": {"scale": 5.0, **settings}}
    oracle = {"class_path": "tests.planted.heads.Oracle", "init_args": {"per_class": PER_CLASS}}
    return {
        "class_path": "lightning_metakd.teachers.Teacher",
        "init_args": {"model": oracle, "bank": True, "head": planted},
    }


def configuration(loss: dict, teachers: list[dict], steps: int = 300) -> dict:
    """A Conv4 with 8 channels learns 5 classes from 5 images each, and the strategy from other classes."""
    return {
        "model": {
            "class_path": "MetaKD",
            "init_args": {
                "student": {"class_path": "Conv4", "init_args": {"width": 8}},
                "learner": {
                    "class_path": "ProtoNet",
                    "init_args": {"metric": "cosine", "scale": 10.0},
                },
                "loss": loss,
                "teachers": teachers,
                "strategy_lr": 0.05,
                "optimisation": {"lr": 3e-3},
            },
        },
        "data": {
            "class_path": "EpisodicData",
            "init_args": {
                "source": {"class_path": "Synthetic", "init_args": {"per_class": PER_CLASS}},
                "strategy_split": "strategy",
                "augment": False,
                "n_query": 10,
                "meta_batch_size": 1,
                "n_episodes": 200,
            },
        },
        "trainer": {
            "max_epochs": -1,
            "max_steps": steps,
            "accelerator": "cpu",
            "devices": 1,
            "limit_val_batches": 0,
            "log_every_n_steps": 10,
        },
    }


def two_teachers(weights: list) -> dict:
    hinton = {"class_path": "Hinton", "init_args": {"temperature": 2.0}}
    return {"class_path": "MultiTeacher", "init_args": {"loss": hinton, "weights": weights}}


def trained(metakd, folder: Path, config: dict, seed: int, *words: str):
    """The run of a configuration under a seed."""
    written(folder, planted=config)
    told = ("fit", "--config", "planted.yaml", f"--seed_everything={seed}", f"--data.seed={seed}")
    return metakd(*told, *words)


def last_said(name: str) -> float:
    """What a coefficient said at the end."""
    with Path("runs/planted/latest/metrics.csv").open(newline="") as file:
        return [
            float(row[key]) for row in csv.DictReader(file) if row.get(key := f"strategy/{name}")
        ][-1]


def accuracy(run) -> float:
    """Of the student on 200 episodes of novel classes."""
    run.trainer.test(run.model, datamodule=run.datamodule, verbose=False)
    return run.model.record["accuracy"]


# --- one good teacher and one that takes every class for another --------------------------------------


def pool(order: str) -> list[dict]:
    both = [teacher("Right"), teacher("Permuted")]
    return both if order == "good first" else both[::-1]


def share_of_the_good(order: str) -> float:
    return last_said(f"weights.{0 if order == 'good first' else 1}_mean")


def test_learned_weights_leave_a_teacher_that_is_wrong(metakd, tmp_path):
    config = configuration(two_teachers([LEARNED, LEARNED]), pool("good first"), steps=150)
    trained(metakd, tmp_path, config, 0)
    assert share_of_the_good("good first") > 0.9


@pytest.mark.slow
def test_in_both_orders_and_five_seeds_and_the_student_is_better_for_it(metakd, tmp_path):
    gains = []
    for seed in SEEDS:
        found = {}
        for order in ("good first", "good second"):
            config = configuration(two_teachers([LEARNED, LEARNED]), pool(order))
            found[order] = accuracy(trained(metakd, tmp_path, config, seed))
            assert share_of_the_good(order) > 0.9
        uniform = trained(metakd, tmp_path, config, seed, "--model.control=uniform")
        assert share_of_the_good(order) == pytest.approx(0.5)
        gains.append(fmean(found.values()) - accuracy(uniform))
    mean, half_width = over_seeds(gains)
    assert mean - half_width > 0, gains


# --- a teacher that is right on half of the classes ---------------------------------------------------


def gates(run, n_episodes: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """(the gate, whether the teacher is wrong) of query rows of novel classes."""
    recipe, data = run.model, run.datamodule
    recipe.teachers[0].store(data.source.rows("test"), range(-1, 0))
    objective, theta = recipe.objective(), detach(recipe.meta())
    strategy, found, wrong = detach(dict(recipe.strategy_parameters())), [], []
    for k in range(n_episodes):
        episode = recipe.asked(data.on_after_batch_transfer(data.evaluation_episodes("test")[k], 0))
        query = episode.query
        with torch.no_grad():
            told = objective.taught(strategy, episode.support, episode)
            seen = objective.adapt(theta, told, episode).predict(query.x)
            context = Context(episode.classes[query.y], torch.ones(()), seen)
            found.append(recipe.loss.gate(query, context))
        wrong.append(query.teachers[0].logits.argmax(-1) != query.y)
    return torch.cat(found), torch.cat(wrong)


@pytest.mark.slow
def test_a_gate_for_each_row_separates_what_the_teacher_knows(metakd, tmp_path):
    hinton = {"class_path": "Hinton", "init_args": {"temperature": 2.0}}
    loss = {
        "class_path": "MatchGate",
        "init_args": {"gate": {"class_path": "LearnedPerSample"}, "match": hinton},
    }
    for seed in SEEDS:
        config = configuration(loss, [teacher("HalfRight")])
        gate, wrong = gates(trained(metakd, tmp_path, config, seed))
        assert (
            gate[wrong].mean() > 0.9 > 0.5 > gate[~wrong].mean()
        )  # alone there, with the teacher here
        assert roc_auc_score(wrong, gate) > 0.95

"""MAML of this package against a second one, written with `higher`: same start, episodes and steps.

Grefenstette et al. (2019), "Generalized Inner Loop Meta-Learning", arXiv:1910.01727, is the library
`higher`. Ours is `MetaKD` with `MAML`, run by Lightning's Trainer. The rival shares the first weights
and the episodes with it and nothing else: its network, inner loop, outer step and evaluation are plain
PyTorch, in `experiments.maml_by_higher`. Both are second order, with Conv4-32 and the hyper-parameters of
Finn et al. (2017, arXiv:1703.03400), whose elementwise clipping at 10 is here one of the norm at 10, and
without augmentation. In double precision the two stay equal to 1e-8 and better (tests/experiments); in single
precision round-off leads them apart within a few steps, so what is compared is where they arrive.
An interrupted run goes on where it was saved.

    python -m experiments.maml_against_higher                      one after the other, on CIFAR-FS
    python -m experiments.maml_against_higher --side ours          one of them; whichever ends last
    python -m experiments.maml_against_higher --side higher        writes the result
"""

import argparse
import json
import os
import statistics
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from torch import Tensor

from experiments.maml_by_higher import (
    GRAD_CLIP,
    INNER_LR,
    INNER_STEPS,
    META_BATCH,
    N_QUERY,
    N_WAY,
    OUTER_LR,
    TEST_STEPS,
    WIDTH,
    Pace,
    run_rival,
)
from lightning_metakd.callbacks.results import processor, versions
from lightning_metakd.data.episodic_data import EpisodicData
from lightning_metakd.data.sources.cifar import CIFARFS
from lightning_metakd.data.sources.synthetic import Synthetic
from lightning_metakd.learners.maml import MAML
from lightning_metakd.metrics.intervals import interval, paired_difference
from lightning_metakd.models.conv4 import Conv4
from lightning_metakd.recipes.meta_kd import MetaKD
from lightning_metakd.recipes.optimisation import Optimisation
from lightning_metakd.reporting.markdown import fill_section, markdown, percent
from lightning_metakd.storage.atomic_checkpoint_io import AtomicCheckpointIO
from lightning_metakd.storage.atomic_files import atomic_write

SIDES = ("ours", "higher")


# --- ours -------------------------------------------------------------------------------------


class Watch(Callback):
    """Times the steps of a Trainer and saves it every so often."""

    def __init__(self, pace: Pace, path: Path, every: int) -> None:
        self.pace, self.path, self.every = pace, path, every

    def state_dict(self) -> dict[str, Any]:
        return self.pace.state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.pace.resume(state_dict)

    def on_train_batch_start(self, *args: Any) -> None:
        self.pace.start()

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        self.pace.stop(float(trainer.callback_metrics["train/outer_loss"]))
        if trainer.global_step % self.every == 0:
            trainer.save_checkpoint(self.path)


def ours(student: Conv4) -> MetaKD:
    """The recipe, with batch statistics of the query rows as in the published MAML."""
    return MetaKD(
        student,
        MAML(INNER_LR, INNER_STEPS, TEST_STEPS),
        optimisation=Optimisation(lr=OUTER_LR, grad_clip=GRAD_CLIP),
        norm="batch",
    )


def train_ours(
    recipe: MetaKD, data: EpisodicData, pace: Pace, folder: Path, every: int = 100
) -> Trainer:
    """Fit the recipe, from where it was saved last."""
    path = folder / "ours.ckpt"
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=pace.steps,
        max_epochs=-1,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        use_distributed_sampler=False,
        callbacks=[Watch(pace, path, every)],
        plugins=[AtomicCheckpointIO()],
    )
    trainer.fit(recipe, data, ckpt_path=path if path.exists() else None)
    return trainer


def run_ours(student: Conv4, data: EpisodicData, pace: Pace, folder: Path, every: int) -> Tensor:
    """Accuracy on each test episode after training."""
    recipe = ours(student)
    train_ours(recipe, data, pace, folder, every).test(recipe, data, verbose=False)
    return recipe.record.episode_rows["accuracy"]


# --- both -------------------------------------------------------------------------------------

RUNS: dict[str, Callable[..., Tensor]] = {"ours": run_ours, "higher": run_rival}


def arguments(args: list[str] | None) -> argparse.Namespace:
    """What to run, and where to put it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000, help="meta-steps of 4 episodes")
    parser.add_argument("--seed", type=int, default=0, help="of the start and the episodes")
    parser.add_argument("--k_shot", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=600, help="test episodes, novel classes")
    parser.add_argument("--source", choices=("cifar_fs", "synthetic"), default="cifar_fs")
    parser.add_argument("--data", default="../shared/data", help="directory that holds CIFAR-100")
    parser.add_argument("--side", choices=("both", *SIDES), default="both")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--save_every", type=int, default=100, help="meta-steps")
    parser.add_argument("--out", type=Path, default=Path("runs/maml_against_higher"))
    result = Path(__file__).parent / "results" / "maml_against_higher.json"
    parser.add_argument("--result", type=Path, default=result)
    parser.add_argument("--output", type=Path, help="Markdown file with a section maml to fill")
    return parser.parse_args(args)


def episodic(options: argparse.Namespace) -> EpisodicData:
    """The episodes of both sides: images as they are, normalised."""
    return EpisodicData(
        CIFARFS(options.data) if options.source == "cifar_fs" else Synthetic(per_class=40),
        n_way=N_WAY,
        k_shot=options.k_shot,
        n_query=N_QUERY,
        meta_batch_size=META_BATCH,
        steps_per_epoch=options.steps,
        n_episodes=options.episodes,
        seed=options.seed,
        augment=False,
    )


def first_student(seed: int) -> Conv4:
    """The start that both sides share."""
    torch.manual_seed(seed)
    return Conv4(width=WIDTH, n_classes=N_WAY)


def run(side: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """What one side reached, trained and evaluated if that was not done before."""
    path = folder / f"{side}.{options.episodes}.json"
    if not path.exists():
        pace = Pace(side, options.steps)
        accuracy = RUNS[side](
            first_student(options.seed), episodic(options), pace, folder, options.save_every
        )
        settings = {
            "accuracy": accuracy.tolist(),
            **pace.state(),
            "provenance": provenance(options),
        }
        with atomic_write(path) as part:
            part.write_text(json.dumps(settings))
    return json.loads(path.read_text())


def provenance(options: argparse.Namespace) -> dict[str, Any]:
    """The machine and the libraries."""
    machine = {"cpu": processor(), "cores": os.cpu_count(), "threads": options.threads}
    return machine | {"versions": versions() | {"higher": version("higher")}}


def summary(side: dict[str, Any]) -> dict[str, Any]:
    """What one side reached, and what a step took."""
    accuracy, ci95 = interval(side["accuracy"])
    return {
        "accuracy": accuracy,
        "ci95": ci95,
        "wall_s_per_step": statistics.median(side["wall"]),
        "cpu_s_per_step": statistics.median(side["cpu"]),
        **side["provenance"],
    }


def compare(arguments_: argparse.Namespace, sides: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """One row of results: accuracies in [0, 1], half-widths of 95% intervals over episodes."""
    student, rival = (sides[name]["accuracy"] for name in SIDES)
    difference, ci95 = paired_difference(student, rival)
    options = ("steps", "seed", "k_shot", "episodes", "source", "threads")
    command = " ".join(f"--{name} {getattr(arguments_, name)}" for name in options)
    return {
        **{name: summary(sides[name]) for name in SIDES},
        "paired_difference": difference,
        "paired_ci95": ci95,
        "within_2_points": abs(difference) <= 0.02,
        "largest_gradient_norm": sides["higher"]["largest_norm"],
        "grad_clip": GRAD_CLIP,
        "split": "test",
        "n_way": N_WAY,
        "n_query": N_QUERY,
        "transductive": True,
        **{name: getattr(arguments_, name) for name in options},
        "command": f"python -m experiments.maml_against_higher {command}",
    }


def sentence(result: dict[str, Any]) -> str:
    """The result in a line."""
    text = [
        f"{name} {100 * result[name]['accuracy']:.2f} +- {100 * result[name]['ci95']:.2f} % "
        f"({result[name]['cpu_s_per_step']:.2f} processor s a step)"
        for name in SIDES
    ]
    difference = f"{100 * result['paired_difference']:+.2f} +- {100 * result['paired_ci95']:.2f}"
    return f"{', '.join(text)}; paired difference {difference} points"


def table(result: dict[str, Any]) -> str:
    """Both sides, and how they were run, as Markdown."""
    rows = [
        {
            "implementation": {"ours": "lightning_metakd"}.get(name, name),
            "accuracy": percent(result[name]["accuracy"], result[name]["ci95"]),
            "processor time of a step": f"{result[name]['cpu_s_per_step']:.2f} s",
        }
        for name in SIDES
    ]
    ours = result["ours"]
    difference = percent(result["paired_difference"], result["paired_ci95"], sign="+")
    return (
        f"{markdown(rows)}\n\n{result['n_way']}-way {result['k_shot']}-shot on {result['source']}, "
        f"{result['steps']} meta-steps, {result['episodes']} episodes of the {result['split']} split, seed "
        f"{result['seed']}; paired difference {difference} points. {ours['cpu']}, {ours['threads']} thread, "
        f"torch {ours['versions']['torch']}: `{result['command']}`"
    )


def main(args: list[str] | None = None) -> None:
    """Run what is missing; write the result when both sides are done."""
    options = arguments(args)
    torch.set_num_threads(options.threads)
    folder = (
        options.out
        / f"{options.source}_{N_WAY}w{options.k_shot}s_{options.steps}_seed{options.seed}"
    )
    folder.mkdir(parents=True, exist_ok=True)
    for side in SIDES if options.side == "both" else (options.side,):
        run(side, options, folder)
    if not all((folder / f"{side}.{options.episodes}.json").exists() for side in SIDES):
        print(f"{options.side} is done; the result is written when the other side is done too")
        return
    result = compare(options, {side: run(side, options, folder) for side in SIDES})
    with atomic_write(options.result) as part:
        part.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{sentence(result)}; written to {options.result}")
    if options.output is not None:
        fill_section(options.output, "maml", table(result))


if __name__ == "__main__":
    main()

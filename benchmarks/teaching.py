"""Ways of teaching beside one another on CIFAR-FS, with the controls of what is learned, over seeds.

All rows train the same student from the same start for the same number of steps; what differs is the loss
and what of it is learned. There are three tables. In `teaching` the student learns from all base classes, and
what is learned is judged within episodes of those classes that the teachers have not seen. In `held_out` the
student is not trained on them either (the network that embeds for it was): it learns from the teachers'
classes, and what is learned is judged by what a step on them does to the others. In `unseen` that network has
not seen them either. Each run that is complete is left alone, so that the command goes on where it was
stopped: `python -m benchmarks.teaching --data FOLDER`, after the teachers and starts of `make
cifar-fs-teaching`.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

from lightning_metakd.cli.command import main as metakd

LOSSES, EXPERIMENTS = Path("configs/loss"), Path("configs/experiment")
ALONE = "meta_kd_cifar_fs_teaching"
LEARNING = ("--model.strategy_training.lr=0.02",)
ALL = ("frozen", "shuffled", "step_size", "final_constant")


class Way(NamedTuple):
    """A row of the table.

    Attributes:
        loss: its file.
        words: further words of the command.
        controls: what is taken away from it for comparison.
        experiment: its configuration.
    """

    loss: str
    words: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()
    experiment: str = ALONE


WAYS = {
    "alone": Way("targets"),
    "KD": Way("match_gate_constant"),
    "KD, logit standardisation": Way("match_gate_standardised"),
    "DKD": Way("match_gate_dkd"),
    "prototype matching": Way("match_gate_prototypes"),
    "two teachers, uniform": Way("match_gate_two_teachers_uniform"),
    "two teachers, learned": Way("match_gate_two_teachers", LEARNING, (*ALL, "uniform")),
    "two teachers, learned per sample": Way(
        "match_gate_two_teachers_per_sample", LEARNING, (*ALL, "uniform")
    ),
    "learned temperature": Way("match_gate_temperature", LEARNING, ALL),
    "Match-Gate": Way("match_gate", LEARNING, ALL),
    "Match-Gate per sample": Way("match_gate_per_sample", LEARNING, ALL),
    "Match-Gate per sample, plain quiz": Way(
        "match_gate_per_sample", (*LEARNING, "--model.strategy_training.quiz=CrossEntropy"), ()
    ),
    "MetaDistil": Way(
        "match_gate_constant", (), ("frozen", "shuffled"), "meta_kd_cifar_fs_meta_distil"
    ),
}
HELD_OUT, OTHER = (
    ("--data.train_split=teacher",),
    (*LEARNING, "--model.strategy_training.quiz_classes=other"),
)
UNSEEN = (
    *HELD_OUT,
    "--data.source.checkpoint=runs/single_task_cifar_fs_start_held_out/latest/checkpoints/final.ckpt",
)
BOTH = ("shuffled", "final_constant")
TABLES = {
    "teaching": WAYS,
    "held_out": {
        "alone": Way("targets", HELD_OUT),
        "KD": Way("match_gate_constant", HELD_OUT),
        "KD, logit standardisation": Way("match_gate_standardised", HELD_OUT),
        "two teachers, uniform": Way("match_gate_two_teachers_uniform", HELD_OUT),
        "two teachers, learned per sample": Way(
            "match_gate_two_teachers_per_sample", (*HELD_OUT, *OTHER), (*BOTH, "uniform")
        ),
        "learned temperature": Way("match_gate_temperature", (*HELD_OUT, *OTHER), BOTH),
        "Match-Gate, same classes": Way("match_gate", (*HELD_OUT, *LEARNING)),
        "Match-Gate": Way("match_gate", (*HELD_OUT, *OTHER), (*BOTH, "frozen", "step_size")),
        "Match-Gate per sample": Way(
            "match_gate_per_sample", (*HELD_OUT, *OTHER), (*BOTH, "frozen", "step_size")
        ),
        "MetaDistil": Way(
            "match_gate_constant",
            (*HELD_OUT, "--model.strategy_training.quiz_classes=other"),
            ("shuffled",),
            "meta_kd_cifar_fs_meta_distil",
        ),
    },
    "unseen": {
        "alone": Way("targets", UNSEEN),
        "KD": Way("match_gate_constant", UNSEEN),
        "Match-Gate same": Way("match_gate", (*UNSEEN, *LEARNING)),
        "Match-Gate": Way("match_gate", (*UNSEEN, *OTHER)),
    },
}
SHOTS = (1, 5)


class Run(NamedTuple):
    """One training, and where it and its tests are kept."""

    name: str
    way: Way
    control: str
    seed: int
    folder: Path

    def at(self, stage: str) -> Path:
        return self.folder / stage / f"seed{self.seed}" / self.control

    @property
    def experiment(self) -> str:
        """The name as one word."""
        return self.name.replace(", ", "_").replace(" ", "_")

    @property
    def trained(self) -> Path:
        return self.at("fit") / self.experiment / "latest"


def train(run: Run, words: list[str]) -> None:
    """Train, unless it is done."""
    way = run.way
    if (run.trained / "checkpoints/final.ckpt").is_file():
        return
    if run.control == "final_constant":
        strategies = run._replace(control="none").trained / "strategy.safetensors"
        words = [*words, f"--model.initialisation.strategy_file={strategies}"]
    metakd(
        [
            *("fit", "--resume", "--config", str(EXPERIMENTS / f"{way.experiment}.yaml")),
            *(f"--runs={run.at('fit')}", f"--experiment={run.experiment}"),
            *(f"--seed_everything={run.seed}", f"--data.seed={run.seed}"),
            *(
                f"--model.loss={LOSSES / way.loss}.yaml",
                f"--model.strategy_training.control={run.control}",
            ),
            *(*way.words, *words),
        ]
    )


def test(run: Run, k_shot: int, words: list[str]) -> None:
    """Test by nearest class mean, unless it is done; one row is enough to show what the teachers know."""
    place = run.at(f"{k_shot}shot")
    alone = [] if (run.name, run.seed) == ("alone", 0) else ["--model.teachers=[]"]
    embedded = [word for word in run.way.words if word.startswith("--data.source")]
    if (place / run.experiment / "latest/results.jsonl").is_file():
        return
    metakd(
        [
            *("test", "--config", str(EXPERIMENTS / f"{ALONE}.yaml")),
            *(f"--runs={place}", f"--experiment={run.experiment}"),
            *(
                f"--model.initialisation.checkpoint={run.trained / 'checkpoints/final.ckpt'}",
                f"--data.k_shot={k_shot}",
            ),
            *(*alone, *embedded, *words),
        ]
    )


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder of the images")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--table", choices=TABLES, default="teaching")
    parser.add_argument("--ways", nargs="+", help="rows of the table, all of them by default")
    parser.add_argument("--folder", type=Path, help="runs/<table> by default")
    parser.add_argument("--steps", type=int, default=2000, help="outer steps of every training")
    options = parser.parse_args()
    ways, folder = TABLES[options.table], options.folder or Path("runs") / options.table
    if unknown := [name for name in options.ways or () if name not in ways]:
        parser.error(f"--ways {unknown[0]!r} is no row of {options.table}: {', '.join(ways)}")
    data = f"--data.source.source.root={options.data}"
    for seed in options.seeds:
        for name in options.ways or ways:
            for control in ("none", *ways[name].controls):
                run = Run(name, ways[name], control, seed, folder)
                train(run, [data, f"--trainer.max_steps={options.steps}"])
                for k_shot in SHOTS:
                    test(run, k_shot, [data])


if __name__ == "__main__":
    main()

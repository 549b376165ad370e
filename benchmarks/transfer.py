"""A strategy carried to another student, another teacher and other tasks, beside constant coefficients.

The strategies are those of rows of `benchmarks.teaching`, under the same seed; each task trains its
student alone, with constant coefficients, and by each strategy as it is: `python -m benchmarks.transfer
--data FOLDER`, after `make cifar-fs-teaching` and the teachers of `make transfer`. What is complete is left
alone.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

from lightning_metakd.cli.command import main as metakd

TASKS = ("cifar_fs", "fc100", "omniglot")
LOSSES = Path("configs/loss")


class Way(NamedTuple):
    """A row of the table.

    Attributes:
        loss: its file.
        carried: where the runs lie whose strategies it takes, by seed.
    """

    loss: str
    carried: str | None = None


WAYS = {
    "alone": Way("targets"),
    "constant": Way("match_gate_constant"),
    "carried_learned_temperature": Way(
        "match_gate_temperature", "runs/teaching/fit/seed{}/none/learned_temperature"
    ),
    "carried_Match-Gate_per_sample": Way(
        "match_gate_per_sample", "runs/teaching/fit/seed{}/none/Match-Gate_per_sample"
    ),
    "carried_Match-Gate_per_sample_held_out": Way(
        "match_gate_per_sample", "runs/held_out/fit/seed{}/none/Match-Gate_per_sample"
    ),
}
SHOTS = (1, 5)


def run(task: str, way: str, seed: int, options: argparse.Namespace) -> None:
    """Train and test what is missing."""
    config = ["--config", f"configs/experiment/meta_kd_{task}_apply.yaml"]
    loss, carried = WAYS[way]
    strategy = f"{carried.format(seed)}/latest/strategy.safetensors" if carried else "null"
    root = [f"--data.source.root={options.data}"]
    fit = options.folder / "fit" / f"seed{seed}" / task
    final = fit / way / "latest/checkpoints/final.ckpt"
    if not final.is_file():
        seeds = [f"--seed_everything={seed}", f"--data.seed={seed}"]
        place = [f"--runs={fit}", f"--experiment={way}", f"--trainer.max_steps={options.steps}"]
        teach = [
            f"--model.loss={LOSSES / loss}.yaml",
            f"--model.initialisation.strategy_file={strategy}",
        ]
        metakd(["fit", "--resume", *config, *root, *place, *seeds, *teach])
    for k_shot in SHOTS:
        place = options.folder / f"{k_shot}shot" / f"seed{seed}" / task
        if (place / way / "latest/results.jsonl").is_file():
            continue
        requested = [f"--runs={place}", f"--experiment={way}", f"--data.k_shot={k_shot}"]
        alone = [f"--model.loss={LOSSES}/targets.yaml", "--model.initialisation.strategy_file=null"]
        if (way, seed) != ("alone", 0):  # one row is enough to show what the teacher knows
            alone.append("--model.teachers=[]")
        metakd(
            [
                "test",
                *config,
                *root,
                *requested,
                *alone,
                f"--model.initialisation.checkpoint={final}",
            ]
        )


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder of the images")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--folder", type=Path, default=Path("runs/transfer"))
    parser.add_argument("--steps", type=int, default=1500, help="outer steps of every training")
    options = parser.parse_args()
    for seed in options.seeds:
        for task in options.tasks:
            for way in options.ways:
                run(task, way, seed, options)


if __name__ == "__main__":
    main()

"""The demonstration: four labels in ten are wrong, for the teacher too, and students learn nevertheless."""

import importlib
from pathlib import Path

from lightning_metakd.cli.console import quiet_lightning
from lightning_metakd.cli.doctor import version_or_none
from lightning_metakd.cli.front_door import main
from lightning_metakd.reporting.report import report

CONFIG = "configs/experiment/single_task_synthetic_wrong_labels.yaml"
FIXED = "--model.strategy_training.lr=0"
ALONE = ("--model.teachers=null", FIXED)
CONSTANT = (FIXED, "--model.loss=configs/loss/match_gate_constant.yaml")
SLOWER = "--model.optimisation.lr=0.05"
"""At the rate of the others students alone reach less."""
ROWS = {
    "teacher": (
        *ALONE,
        "--model.loss=null",
        "--model.student.width=64",
        "--trainer.max_steps=500",
    ),
    "alone": (*ALONE, SLOWER, "--model.loss=null"),
    "alone_by_robust_loss": (
        *(*ALONE, SLOWER),
        "--model.loss=configs/loss/generalised_cross_entropy.yaml",
        "--model.loss.q=0.4",
    ),
    "taught": CONSTANT,
    "taught_with_trusted_rows": (*CONSTANT, "--data.quiz_in_training=3"),
    "taught_as_learned": (),
    "taught_off_the_shelf": (FIXED, "--model.initialisation.strategy_file=zoo:wrong_labels"),
}
"""What is another for each row. Trusted rows train in one, judge what is learned in the next, and are not
used in the others; the last takes from the zoo what is to be learned."""
RUNS = Path("runs")
FOLDER = RUNS / "demo"
PAGE = RUNS / "report.html"


def demo() -> None:
    """Train a teacher and six students on synthetic images, test them, and write a page to look at.

    It takes four to seven minutes on two cores. What is complete in runs/demo is not done again; remove it
    to begin anew.
    """
    importlib.import_module(
        "lightning_metakd.cli.command"
    )  # and Lightning, after its terminal was tidied
    quiet_lightning()
    for name, options in ROWS.items():
        words = [f"--config={CONFIG}", f"--experiment={name}", *options]
        final = FOLDER / "fit" / name / "latest/checkpoints/final.ckpt"
        if not final.is_file():
            main(["fit", *words, f"--runs={FOLDER / 'fit'}"])
        if not (FOLDER / "test" / name / "latest/results.jsonl").is_file():
            main(["test", *words, f"--runs={FOLDER / 'test'}", f"--ckpt_path={final}"])
    can_draw = version_or_none("plotly") is not None
    report(FOLDER / "test", baseline="taught", html=PAGE if can_draw else None)
    if not can_draw:
        print("a page to look at needs plotly: pip install 'lightning_metakd[report]'")

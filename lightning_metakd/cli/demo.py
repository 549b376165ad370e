"""The demonstration: a teacher, and students of new classes - alone, taught, and taught as was learned."""

from pathlib import Path

from lightning_metakd.cli.doctor import version_or_none
from lightning_metakd.cli.front_door import main
from lightning_metakd.reporting.report import report

TEACHER, STUDENT = "single_task_synthetic_teacher", "meta_kd_synthetic_5w5s"
CONSTANT = "--model.strategy_training.lr=0"
STUDENTS = {
    "alone": ("--model.teachers=null", "--model.loss=null", CONSTANT),
    "taught": ("--model.loss=configs/loss/match_gate_constant.yaml", CONSTANT),
    "taught_as_learned": (),
}
"""What is another for each student; the last learns how far to follow the teacher."""
RUNS = Path("runs")
FOLDER = RUNS / "demo"
PAGE = RUNS / "report.html"


def demo() -> None:
    """Train a teacher and three students on synthetic images, test them, and write a page to look at.

    Three minutes on two cores. What is complete in runs/ is not done again; remove runs/demo to begin anew.
    """
    if not (RUNS / TEACHER / "latest/checkpoints/final.ckpt").is_file():
        main(["fit", f"--config=configs/experiment/{TEACHER}.yaml"])
    for name, options in STUDENTS.items():
        words = [f"--config=configs/experiment/{STUDENT}.yaml", f"--experiment={name}", *options]
        final = FOLDER / "fit" / name / "latest/checkpoints/final.ckpt"
        if not final.is_file():
            main(["fit", *words, f"--runs={FOLDER / 'fit'}"])
        if not (FOLDER / "test" / name / "latest/results.jsonl").is_file():
            main(["test", *words, f"--runs={FOLDER / 'test'}", f"--ckpt_path={final}"])
    report(FOLDER / "test", baseline="alone", html=PAGE if version_or_none("plotly") else None)

"""What one waits for before a command answers, beside `import lightning`.

    python -m benchmarks.start_up

Whole processes that take turns. What only looks things up must not need torch: a tenth of the time of
`import lightning` is the aim, and 1.2 times it for the options of a training.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.steps import provenance, provenance_text, write
from lightning_metakd.callbacks.results import code_version
from lightning_metakd.reporting.markdown import markdown

IMPORT = "`import lightning`"
TRAINING = "--config=experiment/meta_kd_synthetic_5w5s"
WITHOUT_TEACHERS = (
    "--model.teachers=[]",
    "--model.loss=CrossEntropy",
    "--model.strategy_training.lr=0",
)
COMMANDS = {
    "`metakd --version`": ("--version",),
    "`metakd --help`": ("--help",),
    "`metakd list`": ("list",),
    "`metakd report`": ("report", "--folder=runs"),
    "`metakd completion`": ("completion", "--shell=bash"),
    "`metakd fit --help`": ("fit", "--help"),
    "`metakd fit`, one step of the demonstration": (
        *("fit", TRAINING, *WITHOUT_TEACHERS, "--trainer.fast_dev_run=1"),
    ),
}
PROCESSES = {
    IMPORT: ("-c", "import lightning"),
    "`import lightning_metakd`": ("-c", "import lightning_metakd"),
    "`from lightning_metakd import MetaKD`": ("-c", "from lightning_metakd import MetaKD"),
    **{name: ("-m", "lightning_metakd", *words) for name, words in COMMANDS.items()},
}
FINISHED = (
    ("fit", TRAINING, *WITHOUT_TEACHERS, "--trainer.max_steps=1", "--trainer.limit_val_batches=0"),
    ("test", "--ckpt_path=runs/meta_kd_synthetic_5w5s/latest/checkpoints/final.ckpt"),
)
"""Commands whose results the report reads."""


def measure(rounds: int, folder: Path) -> list[dict[str, Any]]:
    """Seconds of each process, in turns."""
    for words in FINISHED:
        seconds_of(("-m", "lightning_metakd", *words), folder)
    seconds: dict[str, list[float]] = {name: [] for name in PROCESSES}
    for _ in range(rounds):
        for name, words in PROCESSES.items():
            seconds[name].append(seconds_of(words, folder))
    base = statistics.median(seconds[IMPORT])
    return [
        {"process": name, "median_s": statistics.median(took), "min_s": min(took)}
        | {"max_s": max(took), "of_lightning": statistics.median(took) / base}
        for name, took in seconds.items()
    ]


def seconds_of(words: tuple[str, ...], folder: Path) -> float:
    """How long a process takes in a folder.

    Raises:
        RuntimeError: if it fails.
    """
    began = time.perf_counter()
    done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True)
    took = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} failed: {done.stderr[-500:]}")
    return took


def table(rows: list[dict[str, Any]]) -> str:
    return markdown(
        [
            {
                "a process": row["process"],
                "time": f"{row['median_s']:.2f} s",
                "least, most": f"{row['min_s']:.2f}, {row['max_s']:.2f}",
                "times `import lightning`": f"{row['of_lightning']:.2f}",
            }
            for row in rows
        ]
    )


def main(args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="turns of each process")
    result = Path(__file__).parent / "results" / "start_up.json"
    parser.add_argument("--result", type=Path, default=result)
    parser.add_argument("--output", type=Path, help="Markdown file with a section start_up to fill")
    options = parser.parse_args(args)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(options.rounds, Path(folder))
    made = provenance(torch.get_num_threads()) | {"git": code_version()}
    note = f"{provenance_text(made, 'python -m benchmarks.start_up')}; code {str(made['git'])[:10]}"
    text = f"{table(rows)}\n\n{note}"
    write({"rows": rows, "provenance": made}, options.result, options.output, "start_up", text)
    print(text)


if __name__ == "__main__":
    main()

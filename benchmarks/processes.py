"""How much more two processes of one thread train than one, by DDP on a CPU.

    python -m benchmarks.processes

Second-order MAML with Conv4-32 on synthetic images, four episodes a step in each process, uncompiled. Times
are from one step's end to the next, so drawing, averaging and the outer update count. One process and two
take turns. With --processes it is one such training, which prints its rate.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer

from benchmarks.steps import provenance, provenance_text, write
from benchmarks.training import Marks
from lightning_metakd.callbacks.results import code_version
from lightning_metakd.data.episodic_data import EpisodicData
from lightning_metakd.data.sources.synthetic import Synthetic
from lightning_metakd.learners.maml import MAML
from lightning_metakd.models.conv4 import Conv4
from lightning_metakd.recipes.execution import Execution
from lightning_metakd.recipes.host_allocator import keep_large_blocks
from lightning_metakd.recipes.meta_kd import MetaKD
from lightning_metakd.reporting.markdown import markdown

META_BATCH = 4


def train(processes: int, steps: int) -> float:
    """Median seconds of a step; the first two are left out."""
    keep_large_blocks()
    torch.set_num_threads(1)
    marks = Marks()
    trainer = Trainer(
        max_steps=steps + 3,
        callbacks=[marks],
        accelerator="cpu",
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        use_distributed_sampler=False,
    )
    execution = Execution(compile_step=False)
    recipe = MetaKD(Conv4(32, n_classes=5), MAML(), norm="batch", execution=execution)
    trainer.fit(
        recipe, datamodule=EpisodicData(Synthetic(per_class=40), meta_batch_size=META_BATCH)
    )
    return statistics.median(b - a for a, b in pairwise(marks.at[2:]))


def measured(processes: int, steps: int) -> float:
    """Seconds of a step of a training of its own, as its first process says."""
    command = [sys.executable, "-m", "benchmarks.processes", f"--steps={steps}"]
    command.append(f"--processes={processes}")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{processes} processes failed: {done.stderr[-500:]}")
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def table(rows: list[dict[str, Any]]) -> str:
    alone = rows[0]["episodes_s"]
    return markdown(
        [
            {
                "processes of one thread": str(row["processes"]),
                "time of a step": f"{1e3 * row['median_s']:.0f} ms",
                "episodes a second": f"{row['episodes_s']:.2f}",
                "times one": f"{row['episodes_s'] / alone:.2f}",
            }
            for row in rows
        ]
    )


def main(args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--processes", type=int, help="one training in so many processes")
    parser.add_argument("--steps", type=int, default=10, help="counted steps of a training")
    parser.add_argument("--rounds", type=int, default=3, help="trainings of each kind")
    result = Path(__file__).parent / "results" / "processes.json"
    parser.add_argument("--result", type=Path, default=result)
    parser.add_argument(
        "--output", type=Path, help="Markdown file with a section processes to fill"
    )
    options = parser.parse_args(args)
    if options.processes is not None:
        warnings.simplefilter("ignore")
        seconds = train(options.processes, options.steps)
        if os.environ.get("LOCAL_RANK", "0") == "0":
            print(json.dumps({"seconds": seconds}))
        return
    times: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(options.rounds):
        for processes, seconds_of in times.items():
            seconds_of.append(measured(processes, options.steps))
    rows = [
        {"processes": n, "median_s": statistics.median(took), "git": code_version()}
        | {"episodes_s": n * META_BATCH / statistics.median(took), "rounds": len(took)}
        for n, took in times.items()
    ]
    made = provenance(1)
    text = f"{table(rows)}\n\n{provenance_text(made, 'python -m benchmarks.processes')}"
    text += f"; code {str(rows[0]['git'])[:10]}"
    write({"rows": rows, "provenance": made}, options.result, options.output, "processes", text)
    print(text)


if __name__ == "__main__":
    main()

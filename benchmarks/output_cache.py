"""What two teachers cost a meta-step, from the cache and live, and whether the two say the same.

    python -m benchmarks.output_cache

A step is a training step of `MetaKD` as the Trainer makes it: ask the teachers, adapt, one outer update.
ProtoNet with Conv4-64 (5 ways, 5 shots, 15 query rows a class, 32 x 32, float32, four tasks) learns alone, or
follows a ResNet-12 of half width and a WRN-16-2. The trainings take turns of a few steps in one process,
on the same episodes.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch import Callback

from benchmarks.steps import provenance, provenance_text, write
from lightning_metakd.callbacks.results import code_version
from lightning_metakd.data.episodic_data import EpisodicData
from lightning_metakd.data.sources.synthetic import Synthetic
from lightning_metakd.learners.protonet import ProtoNet
from lightning_metakd.losses.hinton import Hinton
from lightning_metakd.losses.loss import CrossEntropy
from lightning_metakd.losses.match_gate import MatchGate
from lightning_metakd.losses.multi_teacher import MultiTeacher
from lightning_metakd.models.conv4 import Conv4
from lightning_metakd.models.resnet12 import ResNet12
from lightning_metakd.models.wide_resnet import WideResNet
from lightning_metakd.recipes.meta_kd import MetaKD
from lightning_metakd.reporting.markdown import markdown
from lightning_metakd.teachers.heads import PrototypeHead
from lightning_metakd.teachers.teacher import Teacher

ALONE, STORED, LIVE = "no teacher", "two teachers, from the cache", "two teachers, live"
VIEWS = 2


def networks() -> list[torch.nn.Module]:
    torch.manual_seed(0)
    return [ResNet12((32, 64, 128, 256)), WideResNet(16, 2)]


def contestant(name: str) -> MetaKD:
    """A student of its own, the same for all, with its teachers."""
    teachers = [] if name == ALONE else networks()
    cache = name == STORED
    pool = [Teacher(model, head=PrototypeHead(scale=10.0), cache=cache) for model in teachers]
    loss = MatchGate(match=MultiTeacher(Hinton())) if pool else CrossEntropy()
    torch.manual_seed(1)
    return MetaKD(Conv4(), ProtoNet(metric="cosine", scale=10.0), loss, pool, norm="batch")


class StepTimes(Callback):
    """How long the steps of a training took."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_batch_start(self, *args: Any) -> None:
        self.began = time.perf_counter()

    def on_train_batch_end(self, *args: Any) -> None:
        self.seconds.append(time.perf_counter() - self.began)


def turn(recipe: MetaKD, data: EpisodicData, steps: int) -> list[float]:
    """Seconds of some steps, the first of a training left out."""
    times = StepTimes()
    trainer = Trainer(
        max_steps=steps + 1,
        callbacks=[times],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        use_distributed_sampler=False,
    )
    trainer.fit(recipe, datamodule=data)
    return times.seconds[1:]


def distances(stored: MetaKD, live: MetaKD, data: EpisodicData) -> list[float]:
    """Relative distance of each teacher's stored embeddings from the live ones, over one batch of rows."""
    episode = data.training_episodes(data.train_split, 5, 15)[0]
    rows = data.on_after_batch_transfer(episode, 0).query
    pairs = zip(stored.teachers, live.teachers, strict=True)
    answers = [(a.embed(rows).embedding, b.embed(rows).embedding) for a, b in pairs]
    return [float((a - b).norm() / b.norm()) for a, b in answers]


def measure(rounds: int, steps: int) -> tuple[list[dict[str, Any]], list[float]]:
    """A row for each contestant, and how far the cache is from the teachers."""
    recipes = {name: contestant(name) for name in (ALONE, STORED, LIVE)}
    data = EpisodicData(Synthetic(per_class=40), views=VIEWS)
    times: dict[str, list[float]] = {name: [] for name in recipes}
    for _ in range(rounds):
        for name, recipe in recipes.items():
            times[name] += turn(recipe, data, steps)
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    rows = [
        {
            "name": name,
            "median_s": median,
            "min_s": min(times[name]),
            "max_s": max(times[name]),
            "steps": len(times[name]),
            "of_alone": median / medians[ALONE],
            "git": code_version(),
        }
        for name, median in medians.items()
    ]
    return rows, distances(recipes[STORED], recipes[LIVE], data)


def table(rows: Sequence[dict[str, Any]]) -> str:
    return markdown(
        [
            {
                "step of a student with": row["name"],
                "time": f"{1e3 * row['median_s']:.0f} ms",
                "least, most": f"{1e3 * row['min_s']:.0f}, {1e3 * row['max_s']:.0f}",
                "times the step alone": f"{row['of_alone']:.2f}",
            }
            for row in rows
        ]
    )


def main(args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contestant")
    parser.add_argument("--steps", type=int, default=8, help="counted steps of a turn")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    result = Path(__file__).parent / "results" / "output_cache.json"
    parser.add_argument("--result", type=Path, default=result)
    parser.add_argument(
        "--output", type=Path, help="Markdown file with a section output_cache to fill"
    )
    options = parser.parse_args(args)
    torch.set_num_threads(options.threads)
    rows, apart = measure(options.rounds, options.steps)
    made = provenance(options.threads)
    words = ", ".join(f"{distance:.1e}" for distance in apart)
    note = (
        f"Medians of {rows[0]['steps']} steps. Relative distance of the stored embeddings from the live "
        f"teachers': {words}. {provenance_text(made, 'python -m benchmarks.output_cache')}; "
        f"code {str(rows[0]['git'])[:10]}"
    )
    settings = {"rows": rows, "distances": apart, "provenance": made}
    write(settings, options.result, options.output, "output_cache", f"{table(rows)}\n\n{note}")
    print(f"{table(rows)}\n\n{note}")


if __name__ == "__main__":
    main()

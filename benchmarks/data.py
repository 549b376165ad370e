"""Episodes per second, and the time of a test of 2,000 episodes, beside learn2learn and easyfsl.

    python -m benchmarks.data --data <folder of CIFAR-100>

5 ways, 5 shots, 15 query rows a class, normalised and not augmented. This package draws from uint8 images in
memory and normalises whole meta-batches of four episodes; the peers are given the same images in memory as
their users give them: an image is turned into a PIL picture, then `ToTensor` and `Normalize`. The test is
nearest class mean on Conv4-64 in evaluation mode, `Trainer.test` here and `easyfsl.utils.evaluate` there, on
the novel classes of CIFAR-FS, from the images to the accuracy. Contestants take turns in one process.
"""

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from lightning import Trainer
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import Compose, Normalize, ToTensor

from benchmarks.plain_conv4 import PlainConv4
from benchmarks.steps import installed, provenance, provenance_text, write
from lightning_metakd.data.episodic_data import EpisodicData
from lightning_metakd.data.sources.cifar import CIFARFS
from lightning_metakd.data.sources.source import Source
from lightning_metakd.data.sources.synthetic import Synthetic
from lightning_metakd.learners.protonet import ProtoNet
from lightning_metakd.models.conv4 import Conv4
from lightning_metakd.recipes.host_allocator import keep_large_blocks
from lightning_metakd.recipes.meta_kd import MetaKD
from lightning_metakd.reporting.markdown import markdown

N_WAY, K_SHOT, N_QUERY, META_BATCH = 5, 5, 15, 4


class Pictures(Dataset[tuple[Tensor, int]]):
    """A split as peers are given it, pixels in memory."""

    def __init__(self, source: Source, split: str) -> None:
        everything, rows = source.all_rows(), source.rows(split)
        self.pixels = everything.x[rows].permute(0, 2, 3, 1).numpy()
        self.labels = everything.y[rows].tolist()
        self.finish = Compose([ToTensor(), Normalize(*source.normalisation())])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.finish(Image.fromarray(self.pixels[i])), self.labels[i]

    def get_labels(self) -> list[int]:
        return self.labels


# --- the data path -----------------------------------------------------------------------------


def ours(source: Source) -> Iterator[Any]:
    """Meta-batches as a Trainer's loop receives them."""
    data = EpisodicData(source, N_WAY, K_SHOT, N_QUERY, META_BATCH, 10**6, augment=False)
    for batch in data.train_dataloader():
        yield data.on_after_batch_transfer(batch, 0)


def learn2learn_tasks(source: Source) -> Iterator[Any]:
    from learn2learn.data import MetaDataset, TaskDataset
    from learn2learn.data.transforms import ConsecutiveLabels, KShots, LoadData, NWays, RemapLabels

    pictures: Any = MetaDataset(Pictures(source, "train"))
    rows = [NWays(pictures, N_WAY), KShots(pictures, K_SHOT + N_QUERY)]
    rows += [LoadData(pictures), RemapLabels(pictures), ConsecutiveLabels(pictures)]
    tasks = TaskDataset(pictures, rows, num_tasks=-1)
    while True:
        yield [tasks.sample() for _ in range(META_BATCH)]


def easyfsl_loader(source: Source, split: str, n_tasks: int) -> DataLoader[Any]:
    from easyfsl.samplers import TaskSampler

    pictures: Any = Pictures(source, split)
    # its call of Sampler.__init__(data_source=None) is an error in torch of today
    with patch.object(Sampler, "__init__", lambda self, data_source=None: None):
        sampler = TaskSampler(pictures, N_WAY, K_SHOT, N_QUERY, n_tasks)
    return DataLoader(pictures, batch_sampler=sampler, collate_fn=sampler.episodic_collate_fn)


def easyfsl_tasks(source: Source) -> Iterator[Any]:
    tasks = iter(easyfsl_loader(source, "train", 10**6))
    while True:
        yield [next(tasks) for _ in range(META_BATCH)]


def draw_in_turns(source: Source, rounds: int) -> dict[str, list[float]]:
    """Episodes per second of each contestant in each round."""
    paths: dict[str, tuple[Callable[[Source], Iterator[Any]], int]] = {
        "lightning_metakd": (ours, 250),
        "learn2learn": (learn2learn_tasks, 10),
        "easyfsl": (easyfsl_tasks, 10),
    }
    drawing = {
        name: (path(source), batches) for name, (path, batches) in paths.items() if installed(name)
    }
    rates: dict[str, list[float]] = {name: [] for name in drawing}
    for turn in range(rounds + 1):
        for name, (batches, n) in drawing.items():
            began = time.perf_counter()
            for _ in range(n):
                next(batches)
            if turn:  # the first warms up
                rates[name].append(n * META_BATCH / (time.perf_counter() - began))
    return rates


# --- a whole test ------------------------------------------------------------------------------


def test_ours(source: Source, net: Conv4, n_episodes: int) -> float:
    """Accuracy, by the Trainer."""
    data = EpisodicData(source, N_WAY, K_SHOT, N_QUERY, n_episodes=n_episodes)
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    recipe = MetaKD(net, ProtoNet(), norm="running")
    trainer.test(recipe, data, verbose=False)
    return float(recipe.record.episode_rows["accuracy"].mean())


def test_easyfsl(source: Source, net: Conv4, n_episodes: int) -> float:
    from easyfsl.methods import PrototypicalNetworks
    from easyfsl.utils import evaluate

    plain = PlainConv4(net)
    for (_, norm), mine in zip(norms(plain), net.norms, strict=True):
        norm.track_running_stats = True
        norm.running_mean, norm.running_var = mine.running_mean, mine.running_var
    loader = easyfsl_loader(source, "test", n_episodes)
    return evaluate(PrototypicalNetworks(plain.eval()), loader, device="cpu", use_tqdm=False)


def norms(net: PlainConv4) -> list[tuple[str, Any]]:
    return [(n, m) for n, m in net.named_modules() if isinstance(m, torch.nn.BatchNorm2d)]


def test_in_turns(source: Source, rounds: int, n_episodes: int) -> dict[str, Any]:
    """Seconds of a test by each contestant in each round, and its accuracy."""
    torch.manual_seed(0)
    net = Conv4(64).eval()
    tests = {"lightning_metakd": test_ours, "easyfsl": test_easyfsl}
    seconds: dict[str, list[float]] = {name: [] for name in tests if installed(name)}
    accuracy: dict[str, float] = {}
    for _ in range(rounds):
        for name in seconds:
            began = time.perf_counter()
            accuracy[name] = tests[name](source, net, n_episodes)
            seconds[name].append(time.perf_counter() - began)
    return {"seconds": seconds, "accuracy": accuracy, "episodes": n_episodes}


# --- both --------------------------------------------------------------------------------------


def table(result: dict[str, Any], fastest_step: float | None) -> str:
    """Episodes per second and seconds of a test as Markdown."""
    peers = [name for name in result["rates"] if name != "lightning_metakd"]
    rate = {name: statistics.median(values) for name, values in result["rates"].items()}
    best = max((rate[name] for name in peers), default=None)
    drawn = [
        {
            "data path": name,
            "episodes a second": f"{rate[name]:.0f}",
            "least, most": f"{min(values):.0f}, {max(values):.0f}",
            "beside the best peer": "-" if best is None else f"{rate[name] / best:.1f}",
        }
        for name, values in result["rates"].items()
    ]
    seconds = {n: statistics.median(v) for n, v in result["test"]["seconds"].items()}
    theirs = seconds.get("easyfsl")
    tested = [
        {
            f"test of {result['test']['episodes']} episodes": name,
            "time": f"{took:.1f} s",
            "times as fast": "-" if theirs is None else f"{theirs / took:.1f}",
            "accuracy of random weights": f"{100 * result['test']['accuracy'][name]:.2f}",
        }
        for name, took in seconds.items()
    ]
    part = META_BATCH / rate["lightning_metakd"]
    text = f"{markdown(drawn)}\n\nA meta-batch of {META_BATCH} takes {1e3 * part:.2f} ms"
    if fastest_step is not None:
        text += f", {100 * part / fastest_step:.1f} % of the fastest meta-step of the tables above"
    return f"{text}.\n\n{markdown(tested)}"


def fastest(path: Path) -> float | None:
    """Seconds of the fastest step of four tasks that benchmarks/steps.py measured here."""
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    mine = [r["median_s"] for r in rows if r["name"].startswith("lightning_metakd")]
    return min(mine, default=None)


def arguments(args: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", choices=("cifar_fs", "synthetic"), default="cifar_fs")
    parser.add_argument("--data", default="../shared/data", help="directory that holds CIFAR-100")
    parser.add_argument("--rounds", type=int, default=7, help="of the data path")
    parser.add_argument("--tests", type=int, default=3, help="rounds of the test")
    parser.add_argument("--episodes", type=int, default=2000)
    results = Path(__file__).parent / "results"
    parser.add_argument("--result", type=Path, default=results / "data.json")
    parser.add_argument("--steps", type=Path, default=results / "steps.json")
    parser.add_argument("--output", type=Path, help="Markdown file with a section data to fill")
    return parser.parse_args(args)


def main(args: list[str] | None = None) -> None:
    options = arguments(args)
    warnings.simplefilter("ignore")  # of libraries that are no longer maintained
    keep_large_blocks()
    source = CIFARFS(options.data) if options.source == "cifar_fs" else Synthetic(per_class=40)
    result: dict[str, Any] = {"rates": draw_in_turns(source, options.rounds)}
    result["test"] = test_in_turns(source, options.tests, options.episodes)
    result["provenance"] = provenance(torch.get_num_threads())
    command = f"python -m benchmarks.data --source {options.source}"
    text = f"{table(result, fastest(options.steps))}\n\n{provenance_text(result['provenance'], command)}"
    write(result, options.result, options.output, "data", text)
    print(text)


if __name__ == "__main__":
    main()

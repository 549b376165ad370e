"""MAML in plain PyTorch and `higher`; it shares the start and the episodes with ours, and nothing else.

Grefenstette et al. (2019), "Generalized Inner Loop Meta-Learning", arXiv:1910.01727, is the library `higher`.
Second order, Conv4-32, and the hyper-parameters of Finn et al. (2017, arXiv:1703.03400), whose elementwise
clipping at 10 is here one of the norm at 10.
"""

import statistics
import time
from pathlib import Path
from typing import Any

import higher
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.plain_conv4 import PlainConv4
from lightning_metakd.data.episodic_data import EpisodicData
from lightning_metakd.models.conv4 import Conv4
from lightning_metakd.storage.atomic_files import atomic_write
from lightning_metakd.types import Episode

WIDTH, N_WAY, N_QUERY, META_BATCH = 32, 5, 15, 4
INNER_LR, INNER_STEPS, TEST_STEPS = 0.01, 5, 10
OUTER_LR, GRAD_CLIP = 1e-3, 10.0


class Pace:
    """Wall and processor seconds of every outer step, and the largest gradient before clipping."""

    def __init__(self, name: str, steps: int) -> None:
        self.name, self.steps = name, steps
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self.largest_norm = 0.0

    def start(self) -> None:
        self.began = time.perf_counter(), time.process_time()

    def stop(self, loss: float, norm: float = 0.0) -> None:
        self.largest_norm = max(self.largest_norm, norm)
        self.wall.append(time.perf_counter() - self.began[0])
        self.cpu.append(time.process_time() - self.began[1])
        if len(self.wall) % 20 == 0:
            seconds = statistics.median(self.wall[-20:])
            left = (self.steps - len(self.wall)) * seconds / 60
            print(
                f"{self.name}: step {len(self.wall)}/{self.steps}, query loss {loss:.4f}, "
                f"{seconds:.2f} s a step, {left:.0f} min left",
                flush=True,
            )

    def state(self) -> dict[str, Any]:
        return {"wall": self.wall, "cpu": self.cpu, "largest_norm": self.largest_norm}

    def resume(self, state: dict[str, Any]) -> None:
        self.wall, self.cpu = list(state["wall"]), list(state["cpu"])
        self.largest_norm = state["largest_norm"]


def answer(net: nn.Module, episode: Episode, steps: int, training: bool) -> Tensor:
    """Logits of the query rows after some steps of gradient descent on the support rows."""
    descent = torch.optim.SGD(net.parameters(), lr=INNER_LR)
    with higher.innerloop_ctx(
        net, descent, copy_initial_weights=False, track_higher_grads=training
    ) as (fast, steps_of):
        for _ in range(steps):
            steps_of.step(F.cross_entropy(fast(episode.support.x), episode.support.y))
        return fast(episode.query.x)


def outer_step(
    net: nn.Module, optimiser: torch.optim.Optimizer, episodes: list[Episode]
) -> tuple[float, float]:
    """One update by the mean query loss of the episodes: (loss, norm of its gradient)."""
    optimiser.zero_grad()
    total = 0.0
    for episode in episodes:
        logits = answer(net, episode, INNER_STEPS, training=True)
        loss = F.cross_entropy(logits, episode.query.y) / len(episodes)
        loss.backward()
        total += loss.item()
    norm = nn.utils.clip_grad_norm_(net.parameters(), GRAD_CLIP)
    optimiser.step()
    return total, norm.item()


def train_rival(
    net: PlainConv4, data: EpisodicData, pace: Pace, folder: Path, every: int = 100
) -> None:
    """Train the rival, from where it was saved last."""
    path, optimiser = folder / "higher.pt", torch.optim.Adam(net.parameters(), lr=OUTER_LR)
    if path.exists():
        saved = torch.load(path, weights_only=True)
        net.load_state_dict(saved["net"])
        optimiser.load_state_dict(saved["optimiser"])
        pace.resume(saved["pace"])
    episodes = data.training_episodes("train", data.train_n_way, data.train_n_query)
    size = data.meta_batch_size
    for step in range(len(pace.wall), pace.steps):
        batch = [shown(data, episodes[i]) for i in range(step * size, (step + 1) * size)]
        pace.start()
        pace.stop(*outer_step(net, optimiser, batch))
        if (step + 1) % every == 0:
            state = {
                "net": net.state_dict(),
                "optimiser": optimiser.state_dict(),
                "pace": pace.state(),
            }
            with atomic_write(path) as part:
                torch.save(state, part)


def run_rival(student: Conv4, data: EpisodicData, pace: Pace, folder: Path, every: int) -> Tensor:
    """Accuracy on each test episode after training."""
    net = PlainConv4(student)
    train_rival(net, data, pace, folder, every)
    episodes, rows = data.evaluation_episodes("test"), []
    for i in range(data.n_episodes):
        episode = shown(data, episodes[i])
        logits = answer(net, episode, TEST_STEPS, training=False)
        rows.append((logits.argmax(-1) == episode.query.y).double().mean())
    return torch.stack(rows)


def shown(data: EpisodicData, episode: Episode) -> Episode:
    """The episode with its pixels as a network sees them."""
    return data.on_after_batch_transfer(episode, 0)

"""A training killed at random moments ends as if nothing had been: `pytest -s -m slow` tells where."""

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.commands import STUDENT, TEACHER, checkpoint, fresh, numbers, same, written
from tests.processes import ROOT

KILLS, STEPS, PER_EPOCH = 50, 96, 6
OFTEN = [
    {"class_path": "Checkpoints", "init_args": {"every_minutes": 1e-9}},
    {"class_path": "tests.commands.Trace", "init_args": {"path": "trace"}},
]
WORDS = (
    *("fit", "--resume", "--config=student.yaml", f"--data.steps_per_epoch={PER_EPOCH}"),
    *(f"--trainer.max_epochs={STEPS // PER_EPOCH}", f"--trainer.callbacks={json.dumps(OFTEN)}"),
)
PARTS = ("global_step", "state_dict", "optimizer_states", "lr_schedulers")


class Kill(NamedTuple):
    """A signal, sent some events and seconds after the first event of a kind from a step on."""

    step: int
    event: str
    events_later: int
    seconds_later: float
    number: signal.Signals


def kills(chance: random.Random) -> list[Kill]:
    """The kills of the training, in the order of their steps."""
    steps = sorted(chance.randrange(2, STEPS - PER_EPOCH) for _ in range(KILLS))
    return [kill_from(step, i, chance) for i, step in enumerate(steps)]


def kill_from(step: int, i: int, chance: random.Random) -> Kill:
    """The i-th kill: one of eight in start-up, one in a validation, the others in a step or after it."""
    number = chance.choice([signal.SIGKILL, signal.SIGTERM])
    if i % 8 == 7:
        return Kill(-1, "start-up", 0, chance.uniform(0, 4), number)
    if i % 8 == 3:
        return Kill(step, "in a validation", 0, chance.uniform(0, 0.02), number)
    return Kill(step, "in a step", chance.randrange(3), chance.uniform(0, 0.05), number)


class Run:
    """The training in a process of its own, and where it is."""

    def __init__(self, experiment: str) -> None:
        Path("trace").write_text("")
        with Path("messages").open("a") as messages:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lightning_metakd", *WORDS, f"--experiment={experiment}"],
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=messages,
                stderr=messages,
            )

    def events(self) -> list[tuple[int, str]]:
        """What has happened, and the steps that had ended by then; start-up is before step 0."""
        lines = [line.split(" ", 1) for line in Path("trace").read_text().split("\n")[:-1]]
        return [(-1, "start-up"), *((int(step), event) for step, event in lines)]

    def wait_for(self, kill: Kill) -> None:
        """Wait for the moment of a kill."""
        while self.process.poll() is None:
            events = self.events()
            matches = (i for i, (n, e) in enumerate(events) if n >= kill.step and e == kill.event)
            if len(events) > next(matches, math.inf) + kill.events_later:
                break
            time.sleep(0.002)
        time.sleep(kill.seconds_later)

    def end(self, number: signal.Signals | None = None) -> int:
        """Send a signal and return the exit code."""
        if number is not None:
            self.process.send_signal(number)
        return self.process.wait(timeout=300)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_fifty_kills_leave_no_trace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("METAKD_CACHE", str(tmp_path / "cache"))
    written(tmp_path, teacher=TEACHER, student=STUDENT)
    assert fresh(tmp_path, "fit", "--config=teacher.yaml").returncode == 0
    assert Run("whole").end() == 0
    hits = []
    for kill in kills(random.Random(0)):
        run = Run("cut")
        run.wait_for(kill)
        step, event = run.events()[-1]
        code = run.end(kill.number)
        by_default = [-signal.SIGTERM] if event == "start-up" else []  # before there is a handler
        assert code in ([-signal.SIGKILL] if kill.number == signal.SIGKILL else [143, *by_default])
        hits.append((kill.number.name, step, event))
        assert not Path("runs/cut/0/checkpoints/final.ckpt").exists()
    assert Run("cut").end() == 0

    signals = Counter(name for name, _, _ in hits)
    steps = {step for _, step, _ in hits if step >= 0}
    places = Counter(event for _, _, event in hits)
    print(
        f"\n{len(hits)} kills of {STEPS} steps: {dict(signals)}; {dict(places)}; at {sorted(steps)}"
    )
    assert len(hits) == KILLS
    assert min(signals["SIGKILL"], signals["SIGTERM"]) > KILLS / 4
    assert places["start-up"] < KILLS / 4
    assert min(places[event] for event in ("in a step", "after a step", "in a validation")) > 0
    assert len({step * 5 // STEPS for step in steps}) == 5  # hit in each fifth of the training

    assert sorted(path.name for path in Path("runs/cut").iterdir()) == ["0", "latest"]
    for name in ("final", "last", "best"):
        one, other = checkpoint("whole", name), checkpoint("cut", name)
        for part in PARTS:
            assert same(one[part], other[part]), (name, part)
        assert same(*(c["callbacks"]["Checkpoints"] for c in (one, other)))
    files = [Path(f"runs/{e}/0/strategy.safetensors").read_bytes() for e in ("whole", "cut")]
    assert files[0] == files[1]
    rows = [numbers(Path(f"runs/{e}/0")) for e in ("whole", "cut")]
    assert rows[0] == rows[1]
    logged = [row["step"] for row in rows[1] if row["train/outer_loss"]]
    assert logged == [str(step) for step in range(STEPS)]  # none twice, none missing
    print(f"equal, {len(rows[1])} rows")

"""A training that is killed at random moments ends as if nothing had been: `pytest -s --slow` tells where."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.commands import STUDENT, TEACHER, checkpoint, fresh, numbers, same, written
from tests.processes import ROOT

KILLS, STEPS, PER_EPOCH = 50, 72, 6
OFTEN = [
    {"class_path": "Checkpoints", "init_args": {"every_minutes": 1e-9}},
    {"class_path": "tests.commands.Trace", "init_args": {"path": "trace"}},
]
WORDS = (
    *("fit", "--resume", "--config=student.yaml", f"--data.steps_per_epoch={PER_EPOCH}"),
    *(f"--trainer.max_epochs={STEPS // PER_EPOCH}", f"--trainer.callbacks={json.dumps(OFTEN)}"),
)
PARTS = ("global_step", "state_dict", "optimizer_states", "lr_schedulers")


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

    def place(self) -> tuple[int, str]:
        """Steps that have ended, and what is being done; (-1, "start-up") before the training."""
        lines = Path("trace").read_text().split("\n")[:-1]
        step, where = lines[-1].split(" ", 1) if lines else ("-1", "start-up")
        return int(step), where

    def wait(self, step: int, where: str) -> None:
        """Wait until this is being done, at this step or a later one."""
        while self.process.poll() is None:
            places = [line.split(" ", 1) for line in Path("trace").read_text().split("\n")[:-1]]
            if where == "start-up" or any(int(n) >= step and w == where for n, w in places):
                return
            time.sleep(0.002)

    def end(self, number: signal.Signals | None = None) -> int:
        """Send a signal and return the exit code."""
        if number is not None:
            self.process.send_signal(number)
        return self.process.wait(timeout=300)


def schedule(chance: random.Random, step_time: float) -> list[tuple[int, str, float]]:
    """Where the training is killed: from which step on, at what, and how long after it has begun.

    Args:
        step_time: seconds that a step takes.
    """
    aims = {3: ("in a validation", step_time / 10), 7: ("start-up", 6.0)}
    steps = sorted(chance.randrange(2, STEPS - 4) for _ in range(KILLS))
    found = []
    for i, step in enumerate(steps):
        where, longest = aims.get(i % 8, ("in a step", 1.5 * step_time))
        found.append((step, where, chance.uniform(0, longest)))
    return found


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_fifty_kills_leave_no_trace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("METAKD_CACHE", str(tmp_path / "cache"))
    written(tmp_path, teacher=TEACHER, student=STUDENT)
    assert fresh(tmp_path, "fit", "--config=teacher.yaml").returncode == 0
    whole = Run("whole")
    whole.wait(0, "in a step")
    begun = time.monotonic()
    assert whole.end() == 0
    chance = random.Random(0)
    hits = []
    for step, where, seconds in schedule(chance, (time.monotonic() - begun) / STEPS):
        run, number = Run("cut"), chance.choice([signal.SIGKILL, signal.SIGTERM])
        run.wait(step, where)
        time.sleep(seconds)
        place = run.place()
        code = run.end(number)
        in_start_up = place[1] == "start-up"
        assert code in ({-number} if number == signal.SIGKILL else {143, *[-15] * in_start_up})
        hits.append((number.name, *place))
        assert not Path("runs/cut/0/checkpoints/final.ckpt").exists()
    assert Run("cut").end() == 0

    places = Counter(where for _, _, where in hits)
    signals = Counter(name for name, _, _ in hits)
    steps = {step for _, step, _ in hits if step >= 0}
    print(
        f"\n{len(hits)} kills: {dict(signals)}; {dict(places)}; at steps {sorted(steps)}, ", end=""
    )
    assert len(hits) == KILLS
    assert min(signals["SIGKILL"], signals["SIGTERM"]) > KILLS / 4
    assert places["start-up"] < KILLS / 4
    assert min(places[where] for where in ("in a step", "after a step", "in a validation")) > 0
    assert len({step * 6 // STEPS for step in steps}) == 6  # hit in each sixth of the training

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
    print("equal: yes")

"""What a plan is made of: commands of `metakd`, each with the runs that it needs.

Folders lie in `runs/` of the working directory, where the files of experiments look for starts and teachers.
"""

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
MARKS = {"fit": "latest/checkpoints/final.ckpt", "test": "latest/results.jsonl"}
"""The file by which a run of a command is complete; other commands are always run."""


@dataclass(frozen=True)
class Run:
    """One command.

    Attributes:
        command: `fit`, `test`, `precompute` or `report`.
        folder: where it writes, or what it reports, under runs/.
        config: stem of its experiment's file; a report has none.
        options: further words.
        needs: runs that come before it.
    """

    command: str
    folder: str
    config: str = ""
    options: tuple[str, ...] = ()
    needs: tuple["Run", ...] = ()

    @property
    def name(self) -> str:
        """As a plan prints it."""
        return f"{self.command} {self.folder}"

    @property
    def mark(self) -> Path:
        """The file that is there when the run is complete."""
        return Path("runs", self.folder, MARKS.get(self.command, ""))

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do."""
        return self.mark.is_file()

    @property
    def stopped(self) -> bool:
        """Whether it began, and can be resumed."""
        return not self.complete and self.mark.with_name("last.ckpt").is_file()

    @property
    def words(self) -> list[str]:
        """What is typed behind `metakd`."""
        folder = Path("runs", self.folder)
        if self.command == "report":
            return ["report", f"--folder={folder}", *self.options]
        resume = ["--resume"] if self.command == "fit" else []
        config = ["--config", shipped(f"configs/experiment/{self.config}.yaml")]
        place = [f"--runs={folder.parent}", f"--experiment={folder.name}"]
        return [self.command, *resume, *config, *place, *self.options]

    def prepare(self) -> None:
        """What is to be done once its needs are complete, before the command."""

    @property
    def minutes(self) -> float:
        """Time on two cores, as the head of the experiment's file has it: `# Time: fit 7 min, ...`.

        Of a training whose options set another number of steps than the file, in proportion.
        """
        if self.command == "report":
            return 0.0
        file = (ROOT / f"configs/experiment/{self.config}.yaml").read_text()
        times = re.findall(rf"^# Time.*\b{self.command} ([\d.]+) min", file, re.MULTILINE)
        usual = re.search(r"^  max_steps: (\d+)$", file, re.MULTILINE)
        steps = re.search(r"--trainer\.max_steps=(\d+)", " ".join(self.options))
        share = int(steps[1]) / int(usual[1]) if usual and steps and self.command == "fit" else 1.0
        return share * float(times[0])


def shipped(path: str) -> str:
    """A file of the repository, as it is called from the working directory."""
    return os.path.relpath(ROOT / path)


def loss(name: str) -> str:
    """The option that names the file of a loss."""
    return f"--model.loss={shipped(f'configs/loss/{name}.yaml')}"


def images(data: str) -> str:
    """The option that names the folder of the images."""
    return f"--data.source.root={data}"


def initial_checkpoint(training: Run) -> str:
    """The option that starts a student from what a training left."""
    return f"--model.initialisation.checkpoint={training.mark}"


def strategy_of(run: str) -> str:
    """The option that takes the strategy of a run's directory."""
    return f"--model.initialisation.strategy_file={run}/strategy.safetensors"


def fit(name: str, data: str, *needs: Run) -> Run:
    """An experiment trained as its file says."""
    return Run("fit", name, name, (images(data),), needs)


def report(folder: str, page: str, section: str, tests: Iterable[Run], *options: str) -> Run:
    """The table of all tests in a folder, put into its page under docs/results/."""
    output = f"--output={shipped(f'docs/results/{page}.md')}"
    return Run("report", folder, "", (*options, output, f"--section={section}"), tuple(tests))


def in_order(runs: Iterable[Run], skip: Callable[[Run], bool] = lambda run: False) -> list[Run]:
    """Each run once and behind what it needs; one that is skipped needs nothing."""
    order: dict[Run, None] = {}
    for run in runs:
        order |= {} if skip(run) else dict.fromkeys([*in_order(run.needs, skip), run])
    return list(order)

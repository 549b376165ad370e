"""The command `metakd export`: a trained student as a file that runs elsewhere, with its card.

The experiment is built and tested as `metakd test` does it; what is exported is what was tested.
"""

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jsonargparse import auto_cli
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser

from lightning_metakd.arguments.ranges import check_integer
from lightning_metakd.callbacks.cost import CostReport
from lightning_metakd.callbacks.results import (
    code_version,
    device_name,
    package_version,
    versions,
)
from lightning_metakd.cli.command import MetaKDCLI, build
from lightning_metakd.cli.command_words import experiment_name
from lightning_metakd.cli.parser import Parser
from lightning_metakd.cli.trainer import SETTINGS
from lightning_metakd.data.episodic_data import EpisodicData
from lightning_metakd.export.export import Format, Provenance, export_student
from lightning_metakd.export.packages import check_packages
from lightning_metakd.export.plan import Head
from lightning_metakd.storage.atomic_checkpoint_io import AtomicCheckpointIO
from lightning_metakd.storage.zoo import located


class Options(NamedTuple):
    """What `metakd export` is told beside the settings of the experiment."""

    ckpt_path: Path | None
    format: Format
    output: Path
    head: Head
    episodes: int


def export(
    ckpt_path: Path | None = None,
    format: Format = "onnx",
    output: Path | None = None,
    head: Head = "auto",
    episodes: int = 600,
) -> Options:
    """Write a trained student as a file, compare both, and write a card of it.

    Further options are those of metakd test, such as --config, --data.source.root or --model.teachers=null.

    Args:
        ckpt_path: checkpoint of a run, whose configuration lies beside it; without it --config and
            --model.initialisation.checkpoint name what is exported, which may be a file of the zoo.
        format: onnx; onnx-int8 (that and one in eight bits); torch-export; safetensors (weights alone); or
            executorch.
        output: folder for the files; by default `export` in the run's directory.
        head: auto (the student's own way of adapting or classifying), prototypes (nearest class mean of its
            embeddings), or none (embeddings alone).
        episodes: on which the file is compared with the student.
    """
    if output is None:
        output = Path("export") if ckpt_path is None else ckpt_path.parent.parent / "export"
    check_integer("episodes", episodes, 2, hint="for instance 600")
    return Options(ckpt_path, format, output, head, episodes)


OWN_WORDS = (*Options._fields, "help")


class ExportCLI(MetaKDCLI):
    """Builds an experiment and tests it, and writes nothing of that down."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        parser.add_argument("--episodes", type=int, default=600, help="episodes of the test")

    def instantiate_classes(self) -> None:
        """Data of as many episodes as are compared."""
        super().instantiate_classes()
        if isinstance(self.datamodule, EpisodicData):
            self.datamodule.n_episodes = self._get(self.config, "episodes")

    def _run_subcommand(self, subcommand: str) -> None:
        """Test, by a Trainer without the callbacks of the training."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Be aware that when using `ckpt_path`")
            super()._run_subcommand(subcommand)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """One that runs here and leaves no directory."""
        return Trainer(
            **SETTINGS,
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            callbacks=[CostReport()],
            plugins=[AtomicCheckpointIO()],
        )

    @property
    def experiment(self) -> str:
        """Name of the experiment that trained the student."""
        name = self._get(self.config, "experiment")
        if name is None:
            name = experiment_name(self._get(self.config, "config"), "fit")
        return str(name).removesuffix(".export").removesuffix(".test")


def parted(words: list[str]) -> tuple[list[str], list[str]]:
    """The words of this command, and those of the experiment's settings."""
    ours: list[str] = []
    others: list[str] = []
    into = ours
    for word in words:
        if word.startswith("-"):
            into = ours if word.lstrip("-").partition("=")[0] in (*OWN_WORDS, "h") else others
        into.append(word)
    return ours, others


def run_export(words: list[str]) -> dict[str, Any]:
    """Run the command by its words, and return the card."""
    ours, settings = parted(words)
    options = auto_cli(
        export, args=ours, as_positional=False, parser_class=Parser, prog="metakd export"
    )
    check_packages(options.format)
    if options.ckpt_path is None and not settings:
        raise ValueError(
            "ckpt_path=null: name a checkpoint, for instance "
            "runs/<experiment>/latest/checkpoints/final.ckpt, or an experiment by --config and its weights "
            "by --model.initialisation.checkpoint."
        )
    checkpoint = [] if options.ckpt_path is None else [f"--ckpt_path={options.ckpt_path}"]
    built = build(
        ["test", *settings, *checkpoint, f"--episodes={options.episodes}"], kind=ExportCLI
    )
    assert isinstance(built, ExportCLI)
    start = built.model.initialisation.checkpoint
    card = export_student(
        built.model,
        built.datamodule,
        built.trainer,
        Provenance(
            built.experiment,
            located(options.ckpt_path or start),
            {"device": device_name(torch.device("cpu")), "threads": torch.get_num_threads()},
            software(),
        ),
        options.output,
        options.format,
        options.head,
        options.episodes,
    )
    print(summary(card, options.output))
    return card


def software() -> dict[str, str | None]:
    """What a file is made with."""
    names = ("onnx", "onnxscript", "onnxruntime", "executorch")
    packages = {name: package_version(name) for name in names}
    return {**versions(), **packages, "code": (code_version() or "")[:10] or None}


def summary(card: dict[str, Any], folder: Path) -> str:
    """What was written and how near it is, for a human."""
    lines, noun = [], "texts" if card["mode"] == "text" else "pictures"
    for name, result in card["results"].items():
        if "accuracy" in result:
            text = (
                f"{name}: accuracy {100 * result['accuracy']:.2f} +- {100 * result['ci95']:.2f} %"
            )
        else:
            text = f"{name}: {result['rows']:,} embeddings"
        if "agreement" in result:
            text += f", largest difference {result['largest_difference']:.1e}"
        if "accuracy" in result and "agreement" in result:
            same = f"{100 * result['agreement']:.2f} % of {result['rows']:,} {noun}"
            text += f", the same class for {same}"
        lines.append(text)
    lines.append(f"({card['judged_on']})")
    sizes = [f"{name} ({about['bytes']:,} bytes)" for name, about in card["files"].items()]
    lines.append(
        f"written to {folder}: {', '.join([*sizes, 'student-card.md', 'student-card.json'])}"
    )
    return "\n".join(lines)

"""The command `metakd`: fit, validate, test and predict through Lightning, report without it.

Configurations name classes of the package by their short names and of anybody by their full path: they are
code, and run what they name. Checkpoints are not: nothing is built from what a file of weights says, so the
configuration is named beside it, or is found in the run's directory.
"""

import importlib
import logging
import os
import pkgutil
import sys
from pathlib import Path
from typing import Any

from jsonargparse import auto_cli
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

import lightning_metakd
from lightning_metakd.callbacks.checkpoints import Checkpoints
from lightning_metakd.callbacks.cost_report import CostReport
from lightning_metakd.callbacks.progress import Progress
from lightning_metakd.callbacks.replicas import FrozenStaysFrozen, ReplicaConsistency
from lightning_metakd.callbacks.results import Results
from lightning_metakd.callbacks.saving import SaveConfig
from lightning_metakd.callbacks.strategy_report import StrategyReport
from lightning_metakd.checkpoint_io import AtomicCheckpointIO
from lightning_metakd.data.datamodules import SourceData
from lightning_metakd.loggers import with_run_logger
from lightning_metakd.recipes.recipe import Recipe
from lightning_metakd.report import report

COMMANDS: dict[str, Any] = {"report": report}
"""Commands that need no Trainer."""


class MetaKDCLI(LightningCLI):
    """LightningCLI over our recipes and data."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--experiment",
            type=str | None,
            default=None,
            help="name of the run's directory under runs/; by default the stem of the first --config",
        )

        parser.add_argument("--runs", type=str, default="runs", help="folder of all runs")

    def _parse_ckpt_path(self) -> None:
        """The configuration decides, not what a checkpoint says of itself."""

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """A directory of its own for each run; other loggers of the configuration stand beside it."""
        config = self._get(self.config_init, "trainer")
        if str(config.precision).startswith("16"):
            raise ValueError(
                f"trainer.precision={config.precision} loses hyper-gradients to underflow; use bf16-mixed or "
                "32-true."
            )
        name = self._get(self.config, "experiment") or experiment_name(
            self._get(self.config, "config"), self.subcommand or "fit"
        )
        kwargs["logger"] = with_run_logger(config.logger, name, self._get(self.config, "runs"))
        plugins = config.plugins if isinstance(config.plugins, list) else [config.plugins]
        kwargs["plugins"] = [AtomicCheckpointIO(), *(p for p in plugins if p is not None)]
        return super().instantiate_trainer(**kwargs)


def experiment_name(configs: Any, command: str) -> str:
    """Stem of the first configuration file; other commands than fit stand beside it, not in its place."""
    paths = [str(path) for path in configs or []]
    stem = Path(paths[0]).stem if paths else "default"
    return stem if command == "fit" else f"{stem}.{command}"


def import_everything() -> None:
    """Make short class names known to the parser."""
    for module in pkgutil.walk_packages(lightning_metakd.__path__, "lightning_metakd."):
        if not module.name.endswith(("__main__", "cli")):
            importlib.import_module(module.name)


def with_found_config(args: list[str]) -> list[str]:
    """Where a checkpoint is named and no configuration, that of the run which wrote it."""
    checkpoint = option(args, "--ckpt_path")
    if checkpoint is None or option(args, "--config") is not None:
        return args
    run = Path(checkpoint).parent.parent
    if not (run / "config.fit.yaml").is_file():
        return args
    beside = f"{run.resolve().parent.name}.{args[0]}"
    name = [] if option(args, "--experiment") else [f"--experiment={beside}"]
    return [args[0], f"--config={run / 'config.fit.yaml'}", *name, *args[1:]]


def resumed(args: list[str]) -> list[str]:
    """`--resume`: go on from the last checkpoint of the experiment, or begin where there is none."""
    if "--resume" not in args:
        return args
    args = [arg for arg in args if arg != "--resume"]
    name = option(args, "--experiment") or experiment_name([option(args, "--config")], "fit")
    last = Path(option(args, "--runs") or "runs") / name / "latest" / "checkpoints" / "last.ckpt"
    return [*args, f"--ckpt_path={last.resolve()}"] if last.is_file() else args


def option(args: list[str], name: str) -> str | None:
    """The first value given for an option, as `--name value` or `--name=value`."""
    for arg, following in zip(args, [*args[1:], ""], strict=True):
        if arg == name:
            return following
        if arg.startswith(f"{name}="):
            return arg.removeprefix(f"{name}=")
    return None


NOISE = ("Tip: For seamless", "`weights_only` was not set", "TPU available")


def quiet(record: logging.LogRecord) -> bool:
    """Whether a message of Lightning tells a user anything."""
    return not any(noise in record.getMessage() for noise in NOISE)


def console() -> None:
    """The console script: what a user can mend is said in one line, without a trace."""
    try:
        # rewritten in place: further processes are started with the very same words
        sys.argv[1:] = with_found_config(resumed(sys.argv[1:]))
        main()
    except (ValueError, OSError, FloatingPointError) as error:
        if os.environ.get("METAKD_DEBUG"):
            raise
        print(f"metakd: {error}\n(METAKD_DEBUG=1 shows where it arose)", file=sys.stderr)
        sys.exit(1)


def main(args: list[str] | None = None) -> LightningCLI | None:
    """Run one command; the Trainer's commands return what they ran with.

    Args:
        args: the words of the command, by default those of the process.
    """
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(quiet)
    words = sys.argv[1:] if args is None else with_found_config(resumed(args))
    if words[:1] == ["--version"]:
        print(lightning_metakd.__version__)
        return None
    if words and words[0] in COMMANDS:
        auto_cli(COMMANDS, args=words, as_positional=False)
        return None
    import_everything()
    return MetaKDCLI(
        Recipe,
        SourceData,
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        seed_everything_default=0,
        save_config_callback=SaveConfig,
        trainer_defaults={
            "use_distributed_sampler": False,
            "num_sanity_val_steps": 0,
            "enable_model_summary": False,
            "callbacks": [
                Checkpoints(),
                CostReport(),
                StrategyReport(),
                ReplicaConsistency(),
                FrozenStaysFrozen(),
                Results(),
                Progress(),
            ],
        },
        parser_kwargs={
            "prog": "metakd",
            "description": f"Commands without a Trainer: {', '.join(COMMANDS)}.",
        },
        args=None if args is None else words,
    )

"""The command `metakd`: fit, validate, test and predict through Lightning, report without it.

Configurations name classes of the package by their short names and of anybody by their full path: they are
code, and run what they name. Checkpoints are not: nothing is built from what a file of weights says, so the
configuration is named beside it, or is found in the run's directory.
"""

import importlib
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonargparse import auto_cli
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

import lightning_metakd
from lightning_metakd.callbacks.saving import SaveConfig
from lightning_metakd.data.datamodules import SourceData
from lightning_metakd.loggers import RunLogger
from lightning_metakd.recipes.recipe import Recipe
from lightning_metakd.report import report

COMMANDS: dict[str, Callable[..., Any]] = {"report": report}
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

    def _parse_ckpt_path(self) -> None:
        """The configuration decides, not what a checkpoint says of itself."""

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """A directory of its own for each run; other loggers of the configuration stand beside it."""
        config = self._get(self.config_init, "trainer")
        loggers = config.logger if isinstance(config.logger, list) else [config.logger]
        others = [logger for logger in loggers if logger not in (None, True, False)]
        name = self._get(self.config, "experiment") or experiment_name(
            self._get(self.config, "config")
        )
        if config.logger is not False:
            kwargs["logger"] = [RunLogger(name), *others]
        return super().instantiate_trainer(**kwargs)


def experiment_name(configs: Any) -> str:
    """Stem of the first configuration file."""
    paths = [str(path) for path in configs or []]
    return Path(paths[0]).stem if paths else "default"


def import_everything() -> None:
    """Make short class names known to the parser."""
    for module in pkgutil.walk_packages(lightning_metakd.__path__, "lightning_metakd."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def with_found_config(args: list[str]) -> list[str]:
    """Where a checkpoint is named and no configuration, that of the run which wrote it."""
    if any(arg.startswith("--config") for arg in args):
        return args
    joined = [arg.split("=", 1)[1] for arg in args if arg.startswith("--ckpt_path=")]
    apart = [args[i + 1] for i, arg in enumerate(args[:-1]) if arg == "--ckpt_path"]
    for path in map(Path, joined + apart):
        config = path.parent.parent / "config.fit.yaml"
        if config.is_file():
            return [args[0], "--config", str(config), *args[1:]]
    return args


def main(args: list[str] | None = None) -> LightningCLI | None:
    """The console script."""
    args = sys.argv[1:] if args is None else args
    if args[:1] == ["--version"]:
        print(lightning_metakd.__version__)
        return None
    if args and args[0] in COMMANDS:
        auto_cli(COMMANDS, args=args, as_positional=False)
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
        trainer_defaults={"use_distributed_sampler": False},
        parser_kwargs={
            "prog": "metakd",
            "description": f"Commands without a Trainer: {', '.join(COMMANDS)}.",
        },
        args=with_found_config(args) if args else args,
    )

"""The command `metakd`: fit, validate, test and predict through Lightning, bank and report without it.

Configurations name classes of the package by their short names and of anybody by their full path: they are
code, and run what they name. Checkpoints are not: nothing is built from what a file of weights says, so the
configuration is named beside it, or is found in the run's directory.
"""

import importlib
import inspect
import os
import pkgutil
import sys
from functools import reduce
from operator import or_
from typing import Any, NoReturn, get_args

from jsonargparse import auto_cli
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

import lightning_metakd
from lightning_metakd.ahead import make_banks
from lightning_metakd.callbacks.checkpoints import Checkpoints
from lightning_metakd.callbacks.cost_report import CostReport
from lightning_metakd.callbacks.predictions import Predictions
from lightning_metakd.callbacks.progress import Progress
from lightning_metakd.callbacks.replicas import FrozenStaysFrozen, ReplicaConsistency
from lightning_metakd.callbacks.results import Results
from lightning_metakd.callbacks.saving import SaveConfig
from lightning_metakd.callbacks.strategy_report import StrategyReport
from lightning_metakd.checkpoint_io import AtomicCheckpointIO
from lightning_metakd.data.datamodules import SourceData
from lightning_metakd.recipes.recipe import Recipe
from lightning_metakd.report import report
from lightning_metakd.terminal import plainly, tidy_terminal, told
from lightning_metakd.wandb_logger import with_run_logger
from lightning_metakd.words import (
    experiment_name,
    refuse_settings,
    refuse_untrained,
    resumed,
    with_found_config,
)

COMMANDS: dict[str, Any] = {"report": report}
"""Commands that need no Trainer."""


class Parser(LightningArgumentParser):
    """Says what is wrong, and not all that it was given."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        super().error(plainly(message), ex)


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

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> Any:
        """The result is said in a sentence and kept in a file, not in a table or in memory."""
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        unless_asked = {"validate": "verbose", "test": "verbose", "predict": "return_predictions"}
        if subcommand in unless_asked:
            parser.set_defaults({unless_asked[subcommand]: False})
        return parser

    def instantiate_classes(self) -> None:
        """What a class says of its arguments, without what the parser says around it."""
        refuse_untrained(self.subcommand, self.config)
        try:
            super().instantiate_classes()
        except ValueError as error:
            said = plainly(str(error))
            if said == str(error):
                raise
            raise ValueError(said.strip().removeprefix("- ")) from error
        self.model.resumes = self._get(self.config, "ckpt_path") is not None

    def _parse_ckpt_path(self) -> None:
        """The configuration decides, not what a checkpoint says of itself."""

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """A directory of its own for each run; other loggers of the configuration stand beside it."""
        config = self._get(self.config_init, "trainer")
        refuse_settings(config)
        name = self._get(self.config, "experiment") or experiment_name(
            self._get(self.config, "config"), self.subcommand or "fit"
        )
        kwargs["logger"] = with_run_logger(config.logger, name, self._get(self.config, "runs"))
        plugins = config.plugins if isinstance(config.plugins, list) else [config.plugins]
        kwargs["plugins"] = [AtomicCheckpointIO(), *(p for p in plugins if p is not None)]
        return super().instantiate_trainer(**kwargs)


def import_everything() -> None:
    """Make short class names known to the parser."""
    for module in pkgutil.walk_packages(lightning_metakd.__path__, "lightning_metakd."):
        if not module.name.endswith(("__main__", "cli")):
            importlib.import_module(module.name)


MENDABLE = (ValueError, TypeError, OSError, FloatingPointError, MisconfigurationException)


def console() -> None:
    """The console script: what a user can mend is said in one line, without a trace."""
    tidy_terminal()
    try:
        # rewritten in place: further processes are started with the very same words
        sys.argv[1:] = with_found_config(resumed(sys.argv[1:]))
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except MENDABLE as error:
        if os.environ.get("METAKD_DEBUG"):
            raise
        print(f"metakd: {told(error)}\n(METAKD_DEBUG=1 shows where it arose)", file=sys.stderr)
        sys.exit(1)


def main(args: list[str] | None = None) -> LightningCLI | None:
    """Run one command; the Trainer's commands return what they ran with.

    Args:
        args: the words of the command, by default those of the process.
    """
    words = sys.argv[1:] if args is None else with_found_config(resumed(args))
    if words[:1] == ["--version"]:
        print(lightning_metakd.__version__)
        return None
    if words[:1] == ["bank"]:
        if args is None:
            del sys.argv[1]  # the parser reads the words of the process
        bank(None if args is None else words[1:])
        return None
    if words and words[0] in COMMANDS:
        auto_cli(COMMANDS, args=words, as_positional=False)
        return None
    if words and not words[0].startswith("-") and words[0] not in MetaKDCLI.subcommands():
        known = ", ".join([*MetaKDCLI.subcommands(), "bank", *COMMANDS])
        print(f"metakd: {words[0]!r} is no command; choose one of {known}.", file=sys.stderr)
        sys.exit(2)
    return build(None if args is None else words)


def bank(args: list[str] | None) -> None:
    """Build an experiment as fit does, and store what its teachers would be asked."""
    built = build(args, run=False)
    make_banks(built.model.teachers, built.datamodule, built.trainer.strategy.root_device)


def usage(command: str) -> dict[str, str]:
    """A short first line of the help, which is printed above every mistake."""
    return {
        "usage": f"metakd {command} --config FILE [--config FILE ...] [--model.NAME VALUE] "
        "[--data.NAME VALUE] [--trainer.NAME VALUE] ..."
    }


def whole_numbers_first() -> None:
    """Read `--trainer.limit_train_batches=1` as one batch, never as 1.0, which is all of them.

    The Trainer says Optional[Union[int, float]], and typing may answer with an equal, cached union that
    names float first; which one depends on what was imported before. A union by `|` keeps its order.
    """
    hints = inspect.unwrap(Trainer.__init__).__annotations__
    for name, hint in hints.items():
        if {int, float} <= set(get_args(hint)):
            hints[name] = reduce(or_, sorted(get_args(hint), key=lambda kind: kind is not int))


def build(args: list[str] | None, run: bool = True) -> MetaKDCLI:
    """Parse, instantiate, and run.

    Args:
        run: false stops before the command, which is then not among the words.
    """
    import_everything()
    whole_numbers_first()
    commands: dict[str, Any] = (
        {name: usage(name) for name in MetaKDCLI.subcommands()} if run else usage("bank")
    )
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
                Predictions(),
                Progress(),
            ],
        },
        parser_kwargs={
            "prog": "metakd",
            "description": f"Commands without a Trainer: bank, {', '.join(COMMANDS)}.",
            **commands,
        },
        parser_class=Parser,
        run=run,
        args=args,
    )

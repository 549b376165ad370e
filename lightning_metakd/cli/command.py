"""The commands that run networks: fit, validate, test and predict through Lightning, and precompute.

Configurations name classes of the package by their short names and of anybody by their full path: they are
code, and run what they name. Checkpoints are not: nothing is built from what a file of weights says, so the
configuration is named beside it, or is found in the run's directory.
"""

import importlib
import inspect
import pkgutil
import sys
import warnings
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any, get_args

from jsonargparse import Namespace
from jsonargparse._instantiation import default_class_instantiator
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

import lightning_metakd
from lightning_metakd.arguments.ranges import check_seed
from lightning_metakd.callbacks.save_config import SaveConfig
from lightning_metakd.cli.command_words import (
    check_groups,
    check_trained,
    check_trainer_settings,
    complete_words,
    experiment_name,
    last_checkpoint,
    refusal_of_trainer,
    version_of,
)
from lightning_metakd.cli.console import note_fault
from lightning_metakd.cli.parser import Parser
from lightning_metakd.cli.processes import check_others
from lightning_metakd.cli.trainer import SETTINGS, as_list, with_built_in
from lightning_metakd.data.source_data import SourceData
from lightning_metakd.loggers.run_logger import RunLogger, directory_made, first_process
from lightning_metakd.loggers.wandb_logger import with_run_logger
from lightning_metakd.recipes.precompute import fill_caches
from lightning_metakd.recipes.recipe import Recipe
from lightning_metakd.storage.atomic_checkpoint_io import AtomicCheckpointIO
from lightning_metakd.storage.read_checkpoint import local_file
from lightning_metakd.storage.zoo import refuse_as_run


class ClassParser(Parser, LightningArgumentParser):
    """The parser of classes: recipes, data and the Trainer."""


class MetaKDCLI(LightningCLI):
    """LightningCLI over our recipes and data."""

    parser: ClassParser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--experiment",
            type=str | None,
            default=None,
            help="name of the run's directory under runs/; by default the stem of the first --config",
        )

        parser.add_argument("--runs", type=str, default="runs", help="folder of all runs")
        parser.add_argument(
            "--resume",
            type=bool,
            nargs="?",
            const=True,
            default=False,
            help="fit: go on from the last checkpoint of the experiment, or begin where there is none",
        )

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> Any:
        """The result is said in a sentence and kept in a file, not in a table or in memory."""
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        unless_asked = {"validate": "verbose", "test": "verbose", "predict": "return_predictions"}
        if subcommand in unless_asked:
            parser.set_defaults({unless_asked[subcommand]: False})
        return parser

    def _set_seed(self) -> None:
        """As always, with a seed that all generators take."""
        seed = self._get(self.config, "seed_everything")
        if not isinstance(seed, bool):
            check_seed("seed_everything", seed)
        super()._set_seed()

    def _add_instantiators(self) -> None:
        """Have every class built by the parser's own way, which names what a constructor refuses."""
        super()._add_instantiators()
        self.parser.add_instantiator(default_class_instantiator, object)

    def instantiate_classes(self) -> None:
        """What a class says of its arguments, without what the parser says around it."""
        check_trained(self.subcommand, self.config)
        check_groups(self._get(self.config, "model"))
        self.check_checkpoint(self._get(self.config, "ckpt_path"))
        try:
            super().instantiate_classes()
        except Exception as error:
            raise self.parser.refusal_in(error) from error
        if self.subcommand in (None, "fit"):
            self.model.teaching.check_teachers("fit")  # before the data are read
        self.model.record.is_resuming = self.checkpoint() is not None

    def check_checkpoint(self, path: str | None) -> None:
        """Refuse a checkpoint that is no file; Lightning has words too, for files among its own."""
        if path is None:
            return
        if self._get(self.config, "resume"):
            raise ValueError(
                f"resume=true and ckpt_path={path} both say where to go on; leave one of them out."
            )
        refuse_as_run(path)
        local_file(path, "ckpt_path")

    def checkpoint(self) -> Any:
        """What the command goes on from, or judges; None where it begins."""
        return self._get(self.config_init, "ckpt_path")

    def go_on(self, run: RunLogger | None) -> None:
        """Find the checkpoint of `--resume`; a run goes on from its last one in its own directory."""
        resume = self._get(self.config, "resume")
        settings = self.config.get(str(self.subcommand), self.config)
        settings["resume"] = False  # the configuration that is kept repeats the run
        if self.subcommand != "fit" or run is None:
            return
        experiment, path = Path(run.root_dir), self.checkpoint()
        if resume:
            path = self.config_init[self.subcommand]["ckpt_path"] = last_checkpoint(experiment)
            if path is None and first_process():
                print(f"nothing to resume in {experiment}; training begins", file=sys.stderr)
        version = None if path is None else version_of(Path(path), experiment)
        if version is not None and not self._get(self.config, "trainer").fast_dev_run:
            run.write_in(version)

    def _run_subcommand(self, subcommand: str) -> None:
        """Run it; a fault of the program is written down in the run's directory."""
        self.model.check_data(self.datamodule, subcommand)
        try:
            super()._run_subcommand(subcommand)
        except Exception as error:
            check_others(self.trainer, error)
            note_fault(error, directory_made(self.trainer))
            raise

    def _parse_ckpt_path(self) -> None:
        """The configuration decides, not what a checkpoint says of itself."""

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """A directory of its own for each run; other loggers of the configuration stand beside it."""
        config = self._get(self.config_init, "trainer")
        if not isinstance(config, Namespace):
            raise ValueError(f"trainer={config} must be a group of settings, such as max_epochs.")
        check_trainer_settings(config)
        name = self._get(self.config, "experiment")
        if name is None:
            name = experiment_name(self._get(self.config, "config"), self.subcommand or "fit")
        runs = self._get(self.config, "runs")
        if not runs:
            raise ValueError(f"runs={runs!r} names no folder; leave it out to write into runs/.")
        kwargs["logger"] = with_run_logger(config.logger, name, runs)
        self.go_on(next((log for log in kwargs["logger"] if isinstance(log, RunLogger)), None))
        kwargs["plugins"] = [AtomicCheckpointIO(), *as_list(config.plugins)]
        return super().instantiate_trainer(**kwargs)

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        """A callback of the configuration takes the place of the built-in one of its class."""
        shows_progress = config["enable_progress_bar"] is not False
        config["callbacks"] = with_built_in(as_list(config["callbacks"]), shows_progress)
        try:
            return super()._instantiate_trainer(config, callbacks)
        except Exception as error:
            usual = self._parser(self.subcommand).get_defaults()["trainer"]
            settings = self._get(self.config, "trainer")
            raise refusal_of_trainer(error, vars(settings), vars(usual)) from error


def import_everything() -> None:
    """Make short class names known to the parser."""
    for module in pkgutil.walk_packages(lightning_metakd.__path__, "lightning_metakd."):
        if not module.name.endswith(("__main__", "cli")):
            importlib.import_module(module.name)


def main(args: list[str] | None = None) -> LightningCLI | None:
    """Run a command of the Trainer, precompute or export.

    Args:
        args: the words of the command, by default those of the process.

    Returns:
        What the command ran with; None for precompute and export.
    """
    words = complete_words(sys.argv[1:] if args is None else args)
    if args is None:
        sys.argv[1:] = words  # in place: further processes are started with the very same words
    if words[:1] == ["precompute"]:
        if args is None:
            del sys.argv[1]  # the parser reads the words of the process
        precompute_outputs(None if args is None else words[1:])
        return None
    if words[:1] == ["export"]:
        importlib.import_module("lightning_metakd.cli.export_command").run_export(words[1:])
        return None
    return build(None if args is None else words)


def precompute_outputs(args: list[str] | None) -> None:
    """Build an experiment as fit does, and store what its teachers would be asked."""
    built = build(args, run=False)
    built.model.check_data(built.datamodule, "fit")
    fill_caches(built.model.teachers, built.datamodule, built.trainer.strategy.root_device)


def usage(command: str) -> dict[str, str]:
    """A short first line of the help."""
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


def build(args: list[str] | None, run: bool = True, kind: type = MetaKDCLI) -> MetaKDCLI:
    """Parse, instantiate, and run.

    Args:
        run: false stops before the command, which is then not among the words.
        kind: what builds and runs.
    """
    # from Python, words of the calling program may lie in sys.argv, and mean nothing here
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter is intended")
    import_everything()
    whole_numbers_first()
    commands: dict[str, Any] = (
        {name: usage(name) for name in MetaKDCLI.subcommands()} if run else usage("precompute")
    )
    return kind(
        Recipe,
        SourceData,
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        seed_everything_default=0,
        save_config_callback=SaveConfig,
        trainer_defaults=SETTINGS,
        parser_kwargs={
            "prog": "metakd",
            "description": "`metakd --help` lists the other commands.",
            **commands,
        },
        parser_class=ClassParser,
        run=run,
        args=args,
    )

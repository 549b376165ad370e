"""The command `metakd`: fit, validate, test and predict through Lightning, report without it.

Configurations name classes of the package by their short names and of anybody by their full path: they are
code, and run what they name. Checkpoints are not: nothing is built from what a file of weights says, so the
configuration is named beside it, or is found in the run's directory.
"""

import importlib
import logging
import os
import pkgutil
import re
import sys
import warnings
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import auto_cli
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

import lightning_metakd
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
from lightning_metakd.loggers import with_run_logger
from lightning_metakd.recipes.recipe import Recipe, refuse_sharding
from lightning_metakd.report import report

COMMANDS: dict[str, Any] = {"report": report}
"""Commands that need no Trainer."""


AROUND = re.compile(
    r"\s*(- )?(Does not validate against any|Subtypes:|Errors:$|Given value|Expected a <class '\w+'>$|$)"
)
"""Lines in which the parser tells what else it has tried."""


def plainly(message: str) -> str:
    """A message of the parser without what surrounds the mistake itself."""
    kept = [line for line in message.splitlines() if not AROUND.match(line)]
    return "\n".join(kept) or message


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


def refuse_settings(config: Any) -> None:
    """Raise where the Trainer is asked for what it cannot do here, and say what can.

    Raises:
        ValueError: names the setting and the one to use.
    """
    if str(config.precision).startswith("16"):
        raise ValueError(
            f"trainer.precision={config.precision} loses hyper-gradients to underflow; use bf16-mixed or "
            "32-true."
        )
    refuse_sharding(config.strategy)
    if config.gradient_clip_val:
        raise ValueError(
            f"trainer.gradient_clip_val={config.gradient_clip_val} does not act on the outer update; set "
            "model.optimisation.grad_clip instead."
        )
    if config.accumulate_grad_batches != 1:
        raise ValueError(
            f"trainer.accumulate_grad_batches={config.accumulate_grad_batches} does not act on the outer "
            "update; raise data.meta_batch_size (episodes) or data.batch_size (rows) instead."
        )


def refuse_untrained(command: str | None, config: Any) -> None:
    """Raise where a student would be judged that nobody has trained."""
    if command in (None, "fit") or config[command].ckpt_path is not None:
        return
    if config[command].get("model.init_args.init") is None:
        raise ValueError(
            f"ckpt_path=null and model.init=null: {command} would judge random weights; add --ckpt_path "
            "runs/<experiment>/latest/checkpoints/final.ckpt, or --model.init to start from other weights."
        )


def experiment_name(configs: Any, command: str) -> str:
    """Stem of the first configuration file; other commands than fit stand beside it, not in its place.

    The configuration that a run has left in its directory stands for the experiment of that run.
    """
    paths = [Path(str(path)) for path in configs or []]
    stem = paths[0].stem if paths else "default"
    if re.fullmatch(r"config\.\w+(\.\d+)?", stem):
        stem = paths[0].resolve().parent.parent.name
    beside = f".{command}"
    return stem if command == "fit" or stem.endswith(beside) else f"{stem}{beside}"


def import_everything() -> None:
    """Make short class names known to the parser."""
    for module in pkgutil.walk_packages(lightning_metakd.__path__, "lightning_metakd."):
        if not module.name.endswith(("__main__", "cli")):
            importlib.import_module(module.name)


def with_found_config(args: list[str]) -> list[str]:
    """Where a checkpoint is named and no configuration, that of the run which wrote it.

    Raises:
        ValueError: if it is no file, or no configuration lies beside it.
    """
    checkpoint = option(args, "--ckpt_path")
    if checkpoint is None or option(args, "--config") or option(args, "-c"):
        return args
    run = Path(checkpoint).parent.parent
    if not Path(checkpoint).is_file():
        raise ValueError(
            f"ckpt_path={checkpoint} is no file; name one, for instance "
            "runs/<experiment>/latest/checkpoints/final.ckpt."
        )
    if not (run / "config.fit.yaml").is_file():
        raise ValueError(
            f"no configuration lies beside ckpt_path={checkpoint} (as {run / 'config.fit.yaml'}); add the "
            "--config that it was trained with."
        )
    beside = f"{run.resolve().parent.name}.{args[0]}"
    name = [] if option(args, "--experiment") else [f"--experiment={beside}"]
    return [args[0], f"--config={run / 'config.fit.yaml'}", *name, *args[1:]]


def resumed(args: list[str]) -> list[str]:
    """`--resume`: go on from the last checkpoint of the experiment, or begin where there is none."""
    if "--resume" not in args:
        return args
    args = [arg for arg in args if arg != "--resume"]
    config = option(args, "--config") or option(args, "-c")
    name = option(args, "--experiment") or experiment_name([config] if config else None, "fit")
    last = last_checkpoint(Path(option(args, "--runs") or "runs") / name)
    return args if last is None else [*args, f"--ckpt_path={last}"]


def last_checkpoint(experiment: Path) -> Path | None:
    """`last.ckpt` of the newest version that has one: a start that failed early has none."""
    versions = [p for p in experiment.glob("*") if p.name.isdigit()]
    newest_first = sorted(versions, key=lambda p: int(p.name), reverse=True)
    found = [p / "checkpoints" / "last.ckpt" for p in newest_first]
    return next((path.resolve() for path in found if path.is_file()), None)


def option(args: list[str], name: str) -> str | None:
    """The first value given for an option, as `--name value` or `--name=value`."""
    for arg, following in zip(args, [*args[1:], ""], strict=True):
        if arg == name:
            return following
        if arg.startswith(f"{name}="):
            return arg.removeprefix(f"{name}=")
    return None


NOISE = (
    *("Tip: For seamless", "`weights_only` was not set", "GPU available", "TPU available"),
    *("Seed set to", "Initializing distributed", "distributed_backend=", "`fast_dev_run` mode"),
    "Loaded model weights",
)
"""Messages of Lightning that tell a user nothing, or nothing that our own line does not."""

ADVICE = (
    *("is deprecated", "does not have many workers", "smaller than the logging interval"),
    *("in eval mode at the start", "treespec, LeafSpec", "across ranks is zero"),
    "It is recommended to use `self.log(",  # to average what is the same on all processes already
)
"""Warnings about what is done on purpose, or inside the libraries below."""


def quiet(record: logging.LogRecord) -> bool:
    """Whether a message of Lightning tells a user anything."""
    return not any(noise in record.getMessage() for noise in NOISE)


def one_line(message: Any, category: type[Warning], *where: Any, line: Any = None) -> str:
    """A warning without the line of a library that raised it."""
    return f"{category.__name__}: {message}\n"


def tidy_terminal() -> None:
    """Nothing but what a user can act on."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        for handler in logging.getLogger(name).handlers:
            handler.addFilter(quiet)
    for text in ADVICE:
        warnings.filterwarnings("ignore", f"[\\s\\S]*{re.escape(text)}")
    warnings.formatwarning = one_line  # type: ignore[assignment]


MENDABLE = (ValueError, TypeError, OSError, FloatingPointError, MisconfigurationException)


def told(error: Exception) -> str:
    """What an error says, without the number that the operating system gives it."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + (f": {error.filename}" if error.filename else "")
    return str(error)


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
    if words and words[0] in COMMANDS:
        auto_cli(COMMANDS, args=words, as_positional=False)
        return None
    if words and not words[0].startswith("-") and words[0] not in MetaKDCLI.subcommands():
        known = ", ".join([*MetaKDCLI.subcommands(), *COMMANDS])
        print(f"metakd: {words[0]!r} is no command; choose one of {known}.", file=sys.stderr)
        sys.exit(2)
    return build(None if args is None else words)


def usage(command: str) -> dict[str, str]:
    """A short first line of the help, which is printed above every mistake."""
    return {
        "usage": f"metakd {command} --config FILE [--config FILE ...] [--model.NAME VALUE] "
        "[--data.NAME VALUE] [--trainer.NAME VALUE] ..."
    }


def build(args: list[str] | None, run: bool = True) -> MetaKDCLI:
    """Parse, instantiate, and run.

    Args:
        run: false stops before the command, which is then not among the words.
    """
    import_everything()
    commands = {name: usage(name) for name in MetaKDCLI.subcommands()} if run else {}
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
            "description": f"Commands without a Trainer: {', '.join(COMMANDS)}.",
            **commands,
        },
        parser_class=Parser,
        run=run,
        args=args,
    )

"""The words of a command: which configuration, which checkpoint, which run's directory they mean."""

import inspect
import os
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import NoneType
from typing import Any, get_args

from jsonargparse import Namespace
from lightning.pytorch import Trainer

from lightning_metakd.arguments.ranges import check_integer, check_positive
from lightning_metakd.cli.console import is_mistake, message_of
from lightning_metakd.cli.parser import shortened
from lightning_metakd.recipes.outer_update import check_precision, check_unsharded
from lightning_metakd.storage.read_checkpoint import check_address
from lightning_metakd.storage.shipped import shipped
from lightning_metakd.storage.zoo import refuse_as_run

MOST_DEVICES = max(64, os.cpu_count() or 1)


def check_trainer_settings(config: Any) -> None:
    """Raise where the Trainer is asked for what it cannot do here, and say what can.

    Raises:
        ValueError: names the setting and the one to use.
    """
    check_nulls(vars(config))
    check_precision(config.precision)
    without = "and trainer.limit_val_batches=0 leaves validation out"
    epochs, steps = config.check_val_every_n_epoch, config.val_check_interval
    check_integer("trainer.check_val_every_n_epoch", epochs, 1, hint=without, optional=True)
    if steps == 0:
        check_positive("trainer.val_check_interval", steps, without)
    check_integer("trainer.log_every_n_steps", config.log_every_n_steps, 0, optional=True)
    check_integer("trainer.num_sanity_val_steps", config.num_sanity_val_steps, -1, optional=True)
    check_integer("trainer.min_epochs", config.min_epochs, 0, optional=True)
    check_integer("trainer.min_steps", config.min_steps, 0, optional=True)
    if isinstance(config.max_time, dict):
        check_time("trainer.max_time", config.max_time)
    if str(config.devices).isdecimal():  # on a CPU each is a process
        check_integer("trainer.devices", int(config.devices), 1, MOST_DEVICES)
    if config.enable_checkpointing is False:
        raise ValueError(
            "trainer.enable_checkpointing=false would leave nothing to test or to go on from; leave it out, "
            "or rehearse by trainer.fast_dev_run, which writes nothing."
        )
    if config.barebones:
        raise ValueError(
            "trainer.barebones=true leaves out what writes numbers and weights; leave the setting out."
        )
    check_unsharded(config.strategy)
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


def check_nulls(settings: Mapping[str, Any]) -> None:
    """Raise where a file says null of what the Trainer has to know; the parser lets it pass."""
    for name, parameter in inspect.signature(Trainer).parameters.items():
        if settings[name] is None and NoneType not in get_args(parameter.annotation):
            raise ValueError(
                f"trainer.{name}=null says nothing; leave it out for {parameter.default!r}."
            )


def check_time(name: str, parts: Mapping[str, Any]) -> None:
    """Raise where days, hours and so on are no length of time."""
    try:
        timedelta(**parts)
    except (TypeError, OverflowError) as error:
        raise ValueError(
            f"{name}={dict(parts)} is no length of time ({error}); give numbers of days, hours, minutes and "
            "seconds, or text as DD:HH:MM:SS."
        ) from error


def refusal_of_trainer(
    error: Exception, settings: Mapping[str, Any], usual: Mapping[str, Any]
) -> Exception:
    """What the Trainer refuses, with the settings that it speaks of; all that were given where it names none.

    Args:
        settings: those of the configuration.
        usual: what they are where nobody gives them.
    """
    if not is_mistake(error):
        return error
    text = message_of(error)
    changed = {name: value for name, value in settings.items() if value != usual.get(name)}

    def is_named(name: str, value: Any) -> bool:
        words = [name, value] if isinstance(value, str) else [name]
        return any(re.search(rf"\b{re.escape(word)}\b", text) for word in words if word)

    about = {name: value for name, value in changed.items() if is_named(name, value)} or changed
    values = {name: getattr(value, "class_path", value) for name, value in about.items()}
    assignments = [f"trainer.{name}={shortened(str(value))}" for name, value in values.items()]
    return ValueError(f"{', '.join(assignments) or 'trainer'}: {text}")


def check_trained(command: str | None, config: Any) -> None:
    """Raise where a student would be judged that nobody has trained."""
    if command in (None, "fit") or config[command].ckpt_path is not None:
        return
    if config[command].get("model.init_args.initialisation.checkpoint") is None:
        raise ValueError(
            f"ckpt_path=null and model.initialisation.checkpoint=null: {command} would judge random weights; "
            "add --ckpt_path runs/<experiment>/latest/checkpoints/final.ckpt, or "
            "--model.initialisation.checkpoint to start from other weights."
        )


GROUPS = ("optimisation", "strategy_training", "initialisation", "execution")
"""Arguments of a recipe that are groups of settings."""


def check_groups(config: Any) -> None:
    """Raise where a group of settings is something else: null, a number.

    Args:
        config: of the model, with its class and its arguments.
    """
    arguments = (config.get("init_args") or {}) if config else {}
    for name in GROUPS:
        if name in arguments and not isinstance(arguments[name], Mapping | Namespace):
            value = "null" if arguments[name] is None else arguments[name]
            raise ValueError(
                f"model.{name}={value} must be a group of settings; give single settings of it, such as "
                f"--model.{name}.NAME=VALUE."
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


def add_config_of_checkpoint(args: list[str]) -> list[str]:
    """Where a checkpoint is named and no configuration, that of the run which wrote it.

    Raises:
        ValueError: if it is no file, or no configuration lies beside it.
    """
    checkpoint = option(args, "--ckpt_path")
    if checkpoint is None or option(args, "--config") or option(args, "-c"):
        return args
    check_address(checkpoint, "ckpt_path")
    refuse_as_run(checkpoint)
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


def complete_words(args: Sequence[str]) -> list[str]:
    """The words of a command with what they mean: files of the package, the configuration of a checkpoint."""
    words = ["--help" if word == "--help-all" else word for word in args]
    return add_config_of_checkpoint(with_shipped_configs(words))


PATH = re.compile(
    r"(configs/)?((?:experiment|data|learner|loss|logger|model|source|trainer)/\w+)(\.yaml)?"
)
"""How a configuration of the package may be named: as in a checkout, or without folder and ending."""


def with_shipped_configs(args: Sequence[str]) -> list[str]:
    """The words, with configurations that are not there taken from the package: those of a checkout are."""

    def located(value: str) -> str:
        match = PATH.fullmatch(value)
        if match is None or Path(value).exists():
            return value
        file = shipped("configs") / f"{match[2]}.yaml"
        return str(file) if file.is_file() else value

    words = []
    for arg in args:
        option, equals, value = arg.partition("=")
        words.append(f"{option}={located(value)}" if equals else located(arg))
    return words


def last_checkpoint(experiment: Path) -> Path | None:
    """`last.ckpt` of the newest version that has one: a start that failed early has none."""
    versions = [p for p in experiment.glob("*") if p.name.isdigit()]
    newest_first = sorted(versions, key=lambda p: int(p.name), reverse=True)
    checkpoints = [p / "checkpoints" / "last.ckpt" for p in newest_first]
    return next((path.resolve() for path in checkpoints if path.is_file()), None)


def version_of(checkpoint: Path, experiment: Path) -> str | None:
    """The version of an experiment whose `last.ckpt` this is; None where it is another file."""
    checkpoints = checkpoint.resolve().parent
    version = checkpoints.parent
    here = version.parent == experiment.resolve() and version.name.isdigit()
    last = checkpoint.name == "last.ckpt" and checkpoints.name == "checkpoints"
    return version.name if here and last else None


def option(args: list[str], name: str) -> str | None:
    """The first value given for an option, as `--name value` or `--name=value`."""
    for arg, following in zip(args, [*args, ""][1:], strict=True):
        if arg == name:
            return following
        if arg.startswith(f"{name}="):
            return arg.removeprefix(f"{name}=")
    return None

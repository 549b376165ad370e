"""What a run was made of: its settings under dotted names, and which of them tell it from another run.

Two trainings are seeds of one another where all settings agree that train, and two results are where those
agree too that test. Seeds, places, and ways of running the same numbers faster are none of these. A file that
a setting names counts by the training that wrote it, whatever its seed and wherever it lies, and images
count by what they are.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Timer

from lightning_metakd.settings.row_names import ORIGIN, Settings
from lightning_metakd.storage.atomic_files import file_sha256
from lightning_metakd.storage.read_checkpoint import read_checkpoint
from lightning_metakd.storage.read_strategy import read_strategy
from lightning_metakd.storage.zoo import PREFIX, located

PACKAGE = "lightning_metakd."
RUNNING = {
    *("seed", "root", "path", "download"),
    *("num_workers", "tasks_at_once", "compile_step", "cache"),
}
"""Last parts of names of settings that change neither training nor testing."""
TRAINER = ("max_epochs", "max_steps", "limit_train_batches", "overfit_batches", "precision")
"""What of the Trainer trains, beside its time and its processes."""
TRAINER_TESTS = ("precision", "limit_test_batches")
"""What of the Trainer tests."""
TRAINER_CHOOSES = ("limit_val_batches", "val_check_interval", "check_val_every_n_epoch")
"""What of the Trainer decides which state of a training is its best."""
TRAINS_ALONE = {
    *("optimisation", "strategy_training", "initialisation", "execution"),
    *("train_split", "strategy_split", "train_n_way", "train_n_query", "meta_batch_size"),
    *("steps_per_epoch", "batch_size", "views", "augment"),
}
"""What of model and data does not change a test."""
TEACHES = ("model.loss", "model.teachers", "model.initialisation.strategy_file")
"""What changes a test only where teachers help in it."""
LENGTH = 16
"""Digits of a digest."""


def flat_settings(config: Any, name: str = "") -> Settings:
    """A parsed configuration under dotted names: `model.student: Conv4`, `model.student.width: 64`.

    Args:
        config: as nested mappings and lists of plain values.
        name: under which it stands.
    """
    if isinstance(config, Mapping):
        if "class_path" not in config:
            parts = {f"{name}.{key}".lstrip("."): part for key, part in config.items()}
            return joined(parts)
        arguments = {**(config.get("init_args") or {}), **(config.get("dict_kwargs") or {})}
        return {name: class_name(config["class_path"])} | flat_settings(arguments, name)
    if isinstance(config, list | tuple):
        if any(isinstance(part, Mapping | list | tuple) for part in config):
            return joined({f"{name}.{i}": part for i, part in enumerate(config)})
        return {name: list(config)} if config else {}
    return {} if config is None else {name: config}


def joined(parts: Mapping[str, Any]) -> Settings:
    """The settings of several parts."""
    return {
        key: value
        for name, part in parts.items()
        for key, value in flat_settings(part, name).items()
    }


def class_name(path: str) -> str:
    """A class of this package by its own name, one from elsewhere by its full path."""
    return path.rsplit(".", 1)[-1] if path.startswith(PACKAGE) else path


def trainer_settings(trainer: Trainer) -> Settings:
    """What of the Trainer trains: how long, on how much, how precisely, on how many processes."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    times = [c._duration for c in callbacks if isinstance(c, Timer) and c._duration is not None]
    values = {name: getattr(trainer, name) for name in (*TRAINER, *TRAINER_TESTS, *TRAINER_CHOOSES)}
    values |= {"world_size": trainer.world_size, "max_time": min(times, default=None)}
    return flat_settings(values, "trainer")


def with_origins(settings: Settings) -> Settings:
    """The settings, and beside each that names a file who wrote it."""
    files = {key: located(value) for key, value in settings.items() if names_file(key, value)}
    return settings | {f"{key}.{ORIGIN}": origin(path) for key, path in files.items()}


def names_file(key: str, value: Any) -> bool:
    """Whether a setting of model or data is the path of a file; images count by what they are."""
    counts = key.startswith(("model.", "data.")) and key.rsplit(".", 1)[-1] not in RUNNING
    if not counts or not isinstance(value, str):
        return False
    return value.startswith(PREFIX) or (bool(Path(value).suffix) and Path(value).is_file())


def origin(path: Path) -> str:
    """Digest of the settings of the training that wrote a file; the hash of a file that says none."""
    try:
        if path.suffix == ".safetensors":
            return read_strategy(path)[0].get("settings_sha256") or content(path)
        return digest(trained_with(read_checkpoint(path), path))
    except ValueError:  # a file of another kind
        return content(path)


def content(path: Path) -> str:
    """Short hash of a file."""
    return str(file_sha256(path))[:LENGTH]


def digest(settings: Settings) -> str:
    """Short hash of settings, whatever their order."""
    text = json.dumps(settings, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]


def training_settings(settings: Settings) -> Settings:
    """Those that train."""
    return chosen(settings, "resumed", *named_trainer(*TRAINER, "world_size", "max_time"))


def evaluation_settings(settings: Settings) -> Settings:
    """Those that test: the network and how it adapts, the episodes, and teachers that help."""
    teaches = bool(settings.get("model.teacher_at_test"))
    return {
        key: value
        for key, value in chosen(settings, *named_trainer(*TRAINER_TESTS)).items()
        if (teaches if key.startswith(TEACHES) else tests(key))
    }


def tests(key: str) -> bool:
    """Whether a setting of model or data changes a test."""
    return [*key.split("."), ""][1] not in TRAINS_ALONE


def chosen(settings: Settings, *others: str) -> Settings:
    """Settings of model and data, and others, that change more than how it is run; files by their origin."""
    return {
        key: value
        for key, value in settings.items()
        if key.partition(".")[0] in ("model", "data") or key in others
        if key.rsplit(".", 1)[-1] not in RUNNING and f"{key}.{ORIGIN}" not in settings
    }


def named_trainer(*names: str) -> list[str]:
    """Names of settings of the Trainer."""
    return [f"trainer.{name}" for name in names]


def trained_with(checkpoint: Mapping[str, Any], path: Path) -> Settings:
    """What trained the weights in a checkpoint; of weights from elsewhere the hash of their file.

    A training that is not complete has the number of its steps as a setting, and the best state of a run is
    another than its last, by the validations that chose it.
    """
    if "settings" not in checkpoint:
        return {"weights": content(path)}
    earlier, states = checkpoint["settings"], checkpoint.get("callbacks", {})
    settings = training_settings(earlier)
    if states.get("Checkpoints", {}).get("is_best"):
        chosen_by = named_trainer(*TRAINER_CHOOSES)
        by = {name: earlier[name] for name in chosen_by if name in earlier}
        return settings | {"checkpoint": "best"} | by
    complete = states.get("Results", {}).get("complete", False)
    return settings | ({} if complete else {"steps": checkpoint.get("global_step")})


def resumed_from(settings: Settings, earlier: Settings) -> Settings:
    """The settings of a run that goes on; where others began it, it is another training than either.

    Args:
        earlier: the settings in the checkpoint. Its files need no longer be there.
    """
    kept = {
        key: value
        for key, value in earlier.items()
        if key == "resumed" or key.endswith(f".{ORIGIN}")
    }
    settings = kept | settings
    began, goes_on = training_settings(earlier), training_settings(settings)
    return settings if began == goes_on else settings | {"resumed": digest(began)}


def result_settings(trained: Settings, run: Settings) -> Settings:
    """What a result depends on.

    Args:
        trained: what trained the weights.
        run: the settings of the test.
    """
    return {f"train.{key}": value for key, value in trained.items()} | {
        f"test.{key}": value for key, value in evaluation_settings(run).items()
    }

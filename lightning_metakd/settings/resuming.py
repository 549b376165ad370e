"""What may differ between a training and its checkpoint: how long, where and how fast, but not what.

Weights, the optimisers' memory and the place in the course are of one training. With other settings they
belong to none: the rest would be silently ignored, or fail inside the optimiser.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_metakd.settings.row_names import ORIGIN, Settings
from lightning_metakd.settings.run_settings import RUNNING

MAY_CHANGE = RUNNING - {"seed"} | {"n_episodes", "eval_seed", "grad_clip"}
"""Last parts of names of settings of model and data with which a training goes on."""
ARE_BEHIND = {
    "model.initialisation.checkpoint",
    "model.initialisation.strategy_file",
    "model.initialisation.support_weight",
    "model.student.trained_by",
}
"""What a training begins from, and one that goes on does not read."""
AROUND = ("trainer.callbacks", "trainer.logger")
"""What watches a training."""
STAYS = ("trainer.limit_train_batches", "trainer.overfit_batches")
"""What of the Trainer decides on what a step is."""
SHOWN = 4
"""So many differences are named."""


def check_resumable(checkpoint: Mapping[str, Any], path: Path, settings: Settings) -> str | None:
    """A line on the settings that have changed; None where none has.

    Args:
        checkpoint: of the training that goes on.
        path: where it lies, for a message.
        settings: of the run that would go on.

    Raises:
        ValueError: if a setting has changed without which it is another training, or if the file is no
            checkpoint of a training.
    """
    if not {"optimizer_states", "lr_schedulers"} <= checkpoint.keys():
        raise ValueError(
            f"ckpt_path={path} holds weights and no training that could go on; begin from it by "
            f"--model.initialisation.checkpoint={path}."
        )
    earlier: Settings = checkpoint.get("settings", {})
    if not any(key.startswith("model.") for key in earlier):  # written without the command
        return None
    before, now = comparable(earlier, settings), comparable(settings, earlier)
    names = sorted(
        (key for key in {*before, *now} if before.get(key) != now.get(key)),
        key=lambda key: (key.count("."), key),  # a class before its arguments
    )
    refused = [key for key in names if not may_change(key)]
    if refused:
        what = "; ".join(
            f"{key.removesuffix(f'.{ORIGIN}')}={now.get(key)} was {before.get(key)}"
            for key in refused[:SHOWN]
        )
        more = f" and {len(refused) - SHOWN} more" if len(refused) > SHOWN else ""
        raise ValueError(
            f"{what}{more} in {path}: it cannot go on with other settings; leave them as they were, start "
            f"anew without it, or begin from its weights by --model.initialisation.checkpoint={path}."
        )
    around = [name for name in AROUND if any(key.startswith(name) for key in names)]
    changed = [
        f"{key}={now.get(key)} (was {before.get(key)})"
        for key in names
        if not key.startswith(AROUND)
    ]
    return ", ".join([*changed, *(f"other {name}" for name in around)]) or None


def comparable(settings: Settings, other: Settings) -> Settings:
    """What is compared: a file by who wrote it, where that is known of both or only in the checkpoint."""
    files = {key.removesuffix(f".{ORIGIN}") for key in {*settings, *other} if key.endswith(ORIGIN)}
    kept = {key: value for key, value in other.items() if key.removesuffix(f".{ORIGIN}") in files}
    return {
        key: value
        for key, value in {**kept, **settings}.items()
        if key.startswith(("model.", "data.", "trainer."))
        if key not in files and key.removesuffix(f".{ORIGIN}") not in ARE_BEHIND
    }


def may_change(key: str) -> bool:
    """Whether a training goes on with another value."""
    if key.startswith("trainer."):
        return key not in STAYS
    return key.rsplit(".", 1)[-1] in MAY_CHANGE

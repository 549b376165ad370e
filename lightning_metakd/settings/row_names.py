"""By which settings results differ, in words short enough to name the row of a table."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

Settings = dict[str, Any]
"""Plain values by dotted name; what is null is left out."""

ORIGIN = "origin"
"""Last part of the name under which it is kept who wrote the file that a setting names."""


def differing_settings(several: Sequence[Settings]) -> list[list[str]]:
    """Of each of several settings those in which they differ, in short: `lr 0.001`.

    What follows from a difference around it is left out, such as the arguments of another class.
    """
    values = {
        key: [value_text(settings.get(key)) for settings in several]
        for key in dict.fromkeys(key for settings in several for key in settings)
    }
    values = {key: row for key, row in values.items() if len(set(row)) > 1}
    kept = [key for key in values if not follows(key, values)]
    return [
        [
            f"{short_name(key, kept)} {values[key][i]}"
            for key in kept
            if key in settings or not around(key, values)
        ]
        for i, settings in enumerate(several)
    ]


def value_text(value: Any) -> str:
    """A value as YAML has it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def follows(key: str, values: Mapping[str, Sequence[str]]) -> bool:
    """Whether the values of a setting follow from those of one around it, or a test repeats its training."""
    trained = values.get(key.replace("test.", "train.", 1))
    if key.startswith("test.") and trained == values[key]:
        return True
    return any(determines(values[name], values[key]) for name in around(key, values))


def around(key: str, names: Collection[str]) -> list[str]:
    """Those of some names in which a setting is nested."""
    return [key[:i] for i, letter in enumerate(key) if letter == "." and key[:i] in names]


def determines(cause: Sequence[object], effect: Sequence[object]) -> bool:
    """Whether the effect is the same wherever the cause is."""
    return len(set(zip(cause, effect, strict=True))) == len(set(cause))


def short_name(key: str, others: Sequence[str]) -> str:
    """The last parts of a name, as few as tell it from the others."""
    parts, names = key.removesuffix(f".{ORIGIN}").split("."), set(others) - {key}
    endings = [".".join(parts[i:]) for i in range(len(parts) - 1, -1, -1)]
    taken = {name.removesuffix(f".{ORIGIN}") for name in names}
    free = (e for e in endings if not any(f".{name}".endswith(f".{e}") for name in taken))
    return next(free, endings[-1])

"""Secrets in settings, words of a command and addresses: hidden in what is written and said."""

import re
from collections.abc import Sequence
from typing import Any

SECRET = re.compile(r"(^|[_.-])(key|api_?key|token|secret|password)s?$", re.IGNORECASE)
IN_URL = re.compile(
    r"(?<=://)[^/\s?#]+(?=@)|(?<=[?&;])([\w.-]*(?:key|token|secret|password|sig|signature)=)[^&;#\s]+",
    re.IGNORECASE,
)
"""Who calls, and words of access among the arguments of an address."""


def redact(value: Any, name: str = "") -> Any:
    """The value with every text under a name like `api_key`, and access inside URLs, hidden."""
    if isinstance(value, dict):
        return {k: redact(v, str(k)) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [redact(v, name) for v in value]
    if isinstance(value, str):
        return "***" if SECRET.search(name) else IN_URL.sub(r"\g<1>***", value)
    return value


def redact_words(words: Sequence[str]) -> list[str]:
    """The words of a command with the same hidden, given as `--name value` or `--name=value`."""
    redacted, name = [], ""
    for word in words:
        option, equals, value = word.partition("=")
        if word.startswith("--") and equals:
            redacted.append(f"{option}={redact(value, option)}")
        else:
            redacted.append(redact(word, "" if word.startswith("--") else name))
        name = word if word.startswith("--") and not equals else ""
    return redacted

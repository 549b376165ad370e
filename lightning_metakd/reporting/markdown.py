"""Numbers and tables as Markdown, for people."""

import re
from collections.abc import Iterable
from pathlib import Path

from lightning_metakd.storage.atomic_files import atomic_write

Number = int | float | None


def percent(value: Number, half_width: Number, sign: str = "") -> str:
    """An accuracy in [0, 1] as percent."""
    if value is None:
        return "-"
    width = "" if half_width is None or half_width != half_width else f" ± {100 * half_width:.2f}"
    return f"{100 * value:{sign}.2f}{width}"


def count(value: Number) -> str:
    """A number with a prefix: 1.23 M."""
    if value is None:
        return "-"
    for size, prefix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return (
                f"{value / size:.3g}{prefix}"
                if value < 999.5 * size
                else f"{value / size:.0f}{prefix}"
            )
    return f"{value:g}"


def milliseconds(value: Number) -> str:
    """A time per input."""
    return "-" if value is None else f"{value:.3g} ms"


def duration(seconds: Number) -> str:
    """A time of training."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    return (
        f"{minutes // 60} h {minutes % 60:02d} min"
        if minutes >= 60
        else f"{minutes} min {rest:02d} s"
    )


def markdown(rows: list[dict[str, str]]) -> str:
    """A table; the first column to the left, numbers to the right."""
    columns = list(rows[0])
    widths = [max(len(name), *(len(row[name]) for row in rows)) for name in columns]

    def line(texts: Iterable[str]) -> str:
        padded = [
            text.ljust(width) if i == 0 else text.rjust(width)
            for i, (text, width) in enumerate(zip(texts, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * width if i == 0 else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    return "\n".join([line(columns), line(rule), *(line(row[c] for c in columns) for row in rows)])


def nonempty_columns(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """The rows without the columns in which nothing is known."""
    columns = [name for name in rows[0] if any(row[name] != "-" for row in rows)]
    return [{name: row[name] for name in columns} for row in rows]


def fill_section(page: Path, section: str, table: str) -> None:
    """Put a table into its section of a page, or change nothing and raise.

    Raises:
        ValueError: if the page is no text, or its section is missing or not closed.
    """
    try:
        text = page.read_text()
    except UnicodeDecodeError as error:
        raise ValueError(f"output={str(page)!r} is no text; name a Markdown file.") from error
    changed = between_markers(text, section, table)
    with atomic_write(page) as part:
        part.write_text(changed)


def between_markers(text: str, section: str, table: str) -> str:
    """The text with the table in its section.

    Raises:
        ValueError: if the section is missing, or not closed.
    """
    begin, end = f"<!-- results:begin {section} -->", "<!-- results:end -->"
    pattern = re.escape(begin) + r".*?" + re.escape(end)
    changed, times = re.subn(
        pattern, lambda _: f"{begin}\n\n{table}\n\n{end}", text, flags=re.DOTALL
    )
    if times != 1:
        raise ValueError(
            f"section={section!r} is there {times} times, not once; put the lines {begin} and {end} where "
            "the table is to stand."
        )
    return changed

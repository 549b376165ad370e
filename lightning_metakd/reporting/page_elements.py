"""Parts of the page: tables that can be sorted, figures with their words, pictures."""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

ROWS_AT_FIRST = 25
"""Rows of a table that are shown before all are asked for."""
LONG_NAME = 60
"""Letters from which on names of rows get a wider column."""

PALETTE = ("#0a7abf", "#d55e00", "#009e73", "#b5588f", "#a67c00", "#7a6fd0")
"""Colours that differ for the colour-blind, each legible on white and on near-black."""
DASHES = ("solid", "dash", "dot")
SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up")
GREY = "#8a8f98"


class Cell(NamedTuple):
    """A cell of a table.

    Attributes:
        text: what it shows.
        value: by which it is sorted; None sorts by the text, nan last.
    """

    text: str
    value: float | None = None


class Figure(NamedTuple):
    """A figure of the plotting library.

    Attributes:
        title: what it is of.
        traces: the library's traces.
        layout: the library's layout, but for colours, which follow the theme.
        caption: what it shows, in words.
        height: in pixels.
    """

    title: str
    traces: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any]
    caption: str
    height: int = 340


def style(i: int) -> dict[str, Any]:
    """Colour, dash and symbol of the i-th of several lines; no two of 18 look alike."""
    colour, dash = PALETTE[i % len(PALETTE)], DASHES[i // len(PALETTE) % len(DASHES)]
    marker = {"color": colour, "symbol": SYMBOLS[i % len(SYMBOLS)], "size": 7}
    return {"line": {"color": colour, "dash": dash, "width": 2}, "marker": marker}


def axis(title: str, **options: Any) -> dict[str, Any]:
    """An axis with its name and unit."""
    return {"title": {"text": title, "standoff": 8}, "automargin": True, **options}


def label(text: str, letters: int = 0) -> str:
    """A text as the plotting library shows it, which reads a few tags of HTML.

    Args:
        letters: most that are shown; 0 is all.
    """
    return escape(shortened(text, letters) if letters else text, quote=False)


def shortened(text: str, letters: int) -> str:
    """A long text without its middle."""
    if len(text) <= letters:
        return text
    end = (letters - 1) // 2
    return f"{text[: letters - 1 - end]}…{text[len(text) - end :]}"


def breakable(text: str) -> str:
    """A name as HTML that goes on on the next line after an underscore."""
    return escape(text).replace("_", "_<wbr>")


def rounded(value: Any) -> Any:
    """Numbers with as many digits as a figure shows, no number as null."""
    if isinstance(value, Mapping):
        return {key: rounded(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value


def in_script(value: Any) -> str:
    """JSON that stands inside an element of the page, and cannot end it."""
    text = json.dumps(rounded(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def figure_html(figure: Figure, key: str) -> str:
    """A figure, drawn when the page is opened.

    Args:
        key: its name in the page.
    """
    content = in_script({"data": figure.traces, "layout": figure.layout})
    return (
        f'<figure class="plot" id="{key}" tabindex="0" role="group" aria-labelledby="{key}-title" '
        f'aria-describedby="{key}-words"><h4 id="{key}-title">{escape(figure.title)}</h4>'
        f'<div class="legend"></div><div class="canvas" style="height:{figure.height}px" '
        f'role="img" aria-label="{escape(figure.title)}"></div>'
        f'<script type="application/json">{content}</script>'
        f'<figcaption id="{key}-words">{escape(figure.caption)}</figcaption></figure>'
    )


def table_html(
    caption: str,
    rows: Sequence[Mapping[str, Cell]],
    titled: bool = False,
    most: int = ROWS_AT_FIRST,
) -> str:
    """A table whose columns sort it; the first names the rows, and empty ones are left out.

    Args:
        caption: what it is of.
        titled: whether a heading says so already.
        most: rows that are shown before all are asked for.
    """
    columns = [name for name in rows[0] if any(row[name].text not in ("", "-") for row in rows)]
    numeric = {name: any(row[name].value is not None for row in rows) for name in columns}
    head = "".join(
        f'<th scope="col" aria-sort="none"{text_class(numeric[name])}>'
        f'<button type="button">{escape(name)}</button></th>'
        for name in columns
    )
    lines = [
        "".join(
            f'<th scope="row">{breakable(row[name].text)}</th>'
            if i == 0
            else f"<td{text_class(numeric[name])}{value_of(row[name])}>{escape(row[name].text)}</td>"
            for i, name in enumerate(columns)
        )
        for row in rows
    ]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    more = (
        f'<button type="button" class="more" data-rows="{most}">Show all {len(rows)} rows</button>'
        if len(rows) > most
        else ""
    )
    hidden = ' class="hidden"' if titled else ""
    long = " long" if any(len(row[columns[0]].text) > LONG_NAME for row in rows) else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f'<table class="sortable{long}"><caption{hidden}>{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{more}"
    )


def text_class(numeric: bool) -> str:
    """How a cell that is no number is set."""
    return "" if numeric else ' class="t"'


def value_of(cell: Cell) -> str:
    """By what a cell is sorted."""
    if cell.value is None or not math.isfinite(cell.value):
        return ""
    return f' data-v="{cell.value:.6g}"'


def picture_html(picture: bytes, words: str) -> str:
    """A small picture in the page itself."""
    content = base64.b64encode(picture).decode()
    return f'<img src="data:image/webp;base64,{content}" alt="{escape(words)}">'


def paragraphs(*texts: str) -> str:
    """Each text that there is as a paragraph."""
    return "".join(f"<p>{escape(text)}</p>" for text in texts if text)


def items(texts: Sequence[str]) -> str:
    """Texts as a list; a dash before them is left out."""
    lines = "".join(f"<li>{escape(text.removeprefix('- '))}</li>" for text in texts)
    return f"<ul>{lines}</ul>" if texts else ""


def section(key: str, title: str, *parts: str) -> str:
    """A part of the page with a heading; nothing where it holds nothing."""
    content = "".join(parts)
    return f'<section id="{key}"><h2>{escape(title)}</h2>{content}</section>' if content else ""

"""Pictures of a result: thumbnails with the class of each, and what was taken for what."""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lightning_metakd.classify.pictures import THUMBNAIL, printable

COLUMNS, ROWS = 8, 10
MARGIN, LINE = 10, 15
CELL = (THUMBNAIL + 2 * MARGIN, THUMBNAIL + MARGIN + 2 * LINE + 8)
RIGHT, WRONG, PLAIN, INK, PALE = "#2e7d32", "#c62828", "#9aa5b1", "#1f2933", "#616e7c"
SQUARE, MOST_NAMED = 44, 40
"""Side of a cell of a confusion picture, and classes up to which it has counts and names."""


@runtime_checkable
class Shown(Protocol):
    """What a contact sheet shows of a picture."""

    @property
    def thumbnail(self) -> Image.Image:
        """Of the size of a thumbnail."""

    @property
    def label(self) -> str:
        """Its class; empty where it is not on record."""

    @property
    def answer(self) -> str:
        """What the student takes it for."""

    @property
    def probability(self) -> float:
        """That the student gives its answer."""


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font that comes with Pillow."""
    return ImageFont.load_default(size)


def fitting(text: str, width: int, size: int) -> str:
    """The text on one line, shortened to fit."""
    text = " ".join(printable(text).split())
    if font(size).getlength(text) <= width:
        return text
    while text and font(size).getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."


def contact_sheets(predictions: Sequence[Shown]) -> Iterator[tuple[str, Image.Image]]:
    """Name and picture of each sheet: class by class, the most probable first."""
    ordered = sorted(predictions, key=lambda p: (p.answer, -p.probability))
    for start in range(0, len(ordered), COLUMNS * ROWS):
        page = start // (COLUMNS * ROWS)
        name = "contact_sheet.png" if page == 0 else f"contact_sheet_{page + 1}.png"
        yield name, contact_sheet(ordered[start : start + COLUMNS * ROWS])


def contact_sheet(predictions: Sequence[Shown]) -> Image.Image:
    """Thumbnails in a grid, each with its class and probability; framed green or red where it has a label."""
    n_rows = -(-len(predictions) // COLUMNS)
    n_columns = min(len(predictions), COLUMNS)
    sheet = Image.new("RGB", (n_columns * CELL[0], n_rows * CELL[1] + MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for place, shown in enumerate(predictions):
        left = place % COLUMNS * CELL[0] + MARGIN
        top = place // COLUMNS * CELL[1] + MARGIN
        sheet.paste(shown.thumbnail, (left, top))
        right = shown.label == shown.answer
        frame = PLAIN if not shown.label else RIGHT if right else WRONG
        corner = (left + THUMBNAIL, top + THUMBNAIL)
        draw.rectangle((left - 2, top - 2, *corner), outline=frame, width=2)
        answer = f"{100 * shown.probability:.0f}% {shown.answer}"
        lines = [(answer, INK if not shown.label else frame)]
        if shown.label and not right:
            lines.append((f"is {shown.label}", PALE))
        for k, (text, colour) in enumerate(lines):
            at = (left, top + THUMBNAIL + 4 + k * LINE)
            draw.text(at, fitting(text, THUMBNAIL + MARGIN, 12), fill=colour, font=font(12))
    return sheet


def confusion_picture(counts: np.ndarray, classes: Sequence[str]) -> Image.Image:
    """A square for each pair of classes, the darker the more of its row; rows are what pictures are.

    Args:
        counts: pictures of each class (rows) that were taken for each (columns).
        classes: their names.
    """
    n, side = len(classes), SQUARE if len(classes) <= MOST_NAMED else 12
    left, top = 170, 170
    picture = Image.new("RGB", (left + n * side + 20, top + n * side + 20), "white")
    draw = ImageDraw.Draw(picture)
    draw.text((14, 12), "rows: what it is", fill=PALE, font=font(12))
    draw.text((14, 28), "columns: taken for", fill=PALE, font=font(12))
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    for i in range(n):
        for j in range(n):
            corner = (left + j * side, top + i * side)
            tint = shade(float(shares[i, j]), i == j)
            draw.rectangle((*corner, corner[0] + side - 2, corner[1] + side - 2), fill=tint)
            if counts[i, j] and n <= MOST_NAMED:
                ink = "white" if shares[i, j] > 0.5 else INK
                middle = (corner[0] + side / 2 - 1, corner[1] + side / 2 - 1)
                draw.text(middle, str(counts[i, j]), fill=ink, font=font(13), anchor="mm")
    if n <= MOST_NAMED:
        write_names(picture, classes, (left, top), side)
    return picture


def write_names(
    picture: Image.Image, classes: Sequence[str], corner: tuple[int, int], side: int
) -> None:
    """The names of the classes beside the rows, and upright above the columns."""
    draw, (left, top) = ImageDraw.Draw(picture), corner
    for k, name in enumerate(classes):
        text = fitting(name, left - 24, 13)
        draw.text((left - 8, top + (k + 0.5) * side), text, fill=INK, font=font(13), anchor="rm")
        strip = Image.new("L", (top - 16, 18), 0)
        ImageDraw.Draw(strip).text((0, 9), text, fill=255, font=font(13), anchor="lm")
        upright = strip.rotate(90, expand=True)
        at = (round(left + (k + 0.5) * side) - upright.width // 2, top - 8 - upright.height)
        picture.paste(INK, at, upright)


def shade(share: float, right: bool) -> tuple[int, int, int]:
    """White where there is nothing; towards green on the diagonal, towards red beside it."""
    full = (46, 125, 50) if right else (198, 40, 40)
    red, green, blue = (round(245 + (part - 245) * share) for part in full)
    return red, green, blue

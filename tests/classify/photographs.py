"""Photographs as people have them, in every form that goes wrong somewhere."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (30, 60, 220), "green": (40, 180, 60), "red": (220, 40, 50)}
ORIENTATION = 274
"""Number of the EXIF tag."""


def table(folder):
    """The rows of predictions.csv."""
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def photograph(colour, shade=0, size=(40, 30)):
    """A picture of one colour with some noise."""
    noise = np.random.default_rng(shade).integers(-15, 16, (size[1], size[0], 3))
    return Image.fromarray(np.clip(np.asarray(colour) + noise, 0, 255).astype(np.uint8))


def class_folders(folder: Path, per_class=2, classes=COLOURS):
    """A folder for each class, with a few pictures."""
    for name, colour in classes.items():
        (folder / name).mkdir(parents=True)
        for k in range(per_class):
            photograph(colour, k).save(folder / name / f"{k}.jpg", quality=95)
    return folder


def plant_oddities(folder: Path, colour=COLOURS["red"]):
    """Pictures of one colour in odd forms; names of those that can be read, and of those that cannot."""
    folder.mkdir(parents=True, exist_ok=True)
    image = photograph(colour, 7)
    image.convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    image.quantize(32).save(folder / "palette.png")
    image.quantize(32).save(folder / "palette with transparency.png", transparency=255)
    clear = image.convert("RGBA")
    clear.putalpha(255)
    clear.save(folder / "alpha.png")
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    image.save(folder / "rotated.jpg", exif=exif, quality=95)
    others = [photograph(COLOURS["blue"], k) for k in range(3)]
    image.save(folder / "frames.gif", save_all=True, append_images=others)
    image.save(folder / "Urlaub Größe 東京 😀.png")
    image.save(folder / f"{'very long name ' * 16}.png")
    image.save(folder / "UPPER.JPEG", format="JPEG", quality=95)
    image.save(folder / "png called.jpg", format="PNG")
    grey = Image.fromarray(np.full((30, 40), 200 * 256, dtype=np.uint16))
    grey.save(folder / "16 bit.png")
    good = sorted(path.name for path in folder.iterdir())
    photograph(colour, 7, (200, 150)).save(folder / "whole.jpg")
    content = (folder / "whole.jpg").read_bytes()
    (folder / "whole.jpg").unlink()
    (folder / "truncated.jpg").write_bytes(content[: len(content) // 2])
    (folder / "text.jpg").write_text("This is no picture.")
    (folder / "empty.png").write_bytes(b"")
    (folder / "notes.txt").write_text("for me")
    bad = ["empty.png", "notes.txt", "text.jpg", "truncated.jpg"]
    return good, bad

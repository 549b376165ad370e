"""A picture file as a viewer shows it, and as the square that a network reads.

Turned as its EXIF data say, transparent parts on white, 16 bits of grey scaled to 8, of several frames the
first. Needs neither torch nor lightning, so that a photograph is read alike in training and where a student
is used.
"""

import io
from functools import cache

import numpy as np
from PIL import Image, ImageOps

from lightning_metakd.storage.limits import check_size

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".webp": "WEBP",
    ".avif": "AVIF",
    ".heic": "HEIF",
    ".heif": "HEIF",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".ppm": "PPM",
    ".pgm": "PPM",
    ".pbm": "PPM",
    ".pnm": "PPM",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
"""Pillow's name of the format behind each ending."""
PER_PIXEL = 16
"""Bytes of memory that a pixel takes while an image is decoded and converted."""


@cache
def readable() -> dict[str, str]:
    """The formats that can be read here: `.heic` and `.heif` only with the package pillow-heif."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return {ending: name for ending, name in FORMATS.items() if name != "HEIF"}
    register_heif_opener()
    return FORMATS


def opened(content: bytes, ending: str) -> Image.Image:
    """The image in a file, as a viewer shows it.

    Args:
        content: of the file.
        ending: of its name, in lower case with the point; a file of another format is opened too.

    Raises:
        Exception: of the format's own, where it cannot be read.
    """
    # the format that the ending names comes first; many a file has the ending of another
    formats = dict.fromkeys((FORMATS[ending], *readable().values()))
    with Image.open(io.BytesIO(content), formats=list(formats)) as image:
        check_size(PER_PIXEL * image.width * image.height, "it")
        image.load()
        return as_shown(image)


def as_square(image: Image.Image, size: int, mode: str = "RGB") -> np.ndarray:
    """The middle of an image, scaled to cover a square, as uint8 `[ch, size, size]`.

    Args:
        image: of any size.
        size: side of the square in pixels.
        mode: RGB for three channels, L for a grey one.
    """
    colours = image.convert(mode)
    if colours.size != (size, size):
        colours = ImageOps.fit(colours, (size, size), Image.Resampling.BICUBIC)
    return np.asarray(colours).reshape(size, size, -1).transpose(2, 0, 1)


def square_pixels(image: Image.Image, size: int, mode: str = "RGB") -> np.ndarray:
    """An image of Pillow, which nobody has turned yet, as `as_square` has it.

    Raises:
        ValueError: if it is too large, or its pixels are numbers of no known range.
    """
    check_size(PER_PIXEL * image.width * image.height, "it")
    return as_square(as_shown(image), size, mode)


def as_shown(image: Image.Image) -> Image.Image:
    """The image as a viewer shows it.

    Raises:
        ValueError: if its pixels are numbers of no known range.
    """
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I;16"):  # Pillow's own conversion makes all above 255 white
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(
            "its pixels are 32-bit numbers of no known range; save it with 8 or 16 bits"
        )
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA"))
    return image

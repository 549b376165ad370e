import zipfile
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from PIL import Image

from lightning_metakd.data.sources import images
from lightning_metakd.data.sources.folder import Folder

ORIENTATION = 274
"""Number of the EXIF tag."""
ENDINGS = sorted(images.FORMATS)


def picture(colours=((255, 0, 0), (0, 0, 255))):
    """Left half of one colour, right half of the other."""
    image = Image.new("RGB", (32, 32), colours[0])
    image.paste(colours[1], (16, 0, 32, 32))
    return image


def save(image, path, **settings):
    """An image and a grey one beside it, in a class folder of their own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = images.FORMATS[path.suffix.lower()]
    image.save(path, **({} if name == "HEIF" else {"format": name}), **settings)
    Image.new("RGB", (32, 32), "grey").save(path.parent / "z.png")
    return path.parents[1]


def first(folder):
    return Folder(str(folder)).all_rows().x[0].permute(1, 2, 0).numpy()


@pytest.fixture
def heif():
    pytest.importorskip("pillow_heif")
    images.readable()


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("ending", ENDINGS)
def test_every_format_is_read_in_upper_and_lower_case(ending, upper, tmp_path, heif):
    grey = ending in (".pgm", ".pbm")
    colours = ((255,) * 3, (0,) * 3) if grey else ((255, 0, 0), (0, 0, 255))
    image = picture(colours).convert({".pgm": "L", ".pbm": "1"}.get(ending, "RGB"))
    path = tmp_path / "images" / "a" / f"a{ending.upper() if upper else ending}"
    recorded = first(save(image, path)).astype(int)
    assert np.abs(recorded - np.asarray(picture(colours)))[:, [4, 28]].max() < 8


TURNED = {  # orientation -> what turns an upright image into the stored one
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp", ".tif", ".avif", ".heic"])
@pytest.mark.parametrize("orientation", TURNED)
def test_images_stand_upright_as_their_exif_data_say(orientation, ending, tmp_path, heif):
    upright = picture(((255, 255, 255), (0, 0, 0)))
    upright.paste((255, 0, 0), (0, 0, 16, 16))
    turn = TURNED[orientation]
    stored = upright if turn is None else upright.transpose(turn)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    folder = save(stored, tmp_path / "images" / "a" / f"a{ending}", exif=exif.tobytes())
    recorded = first(folder).astype(int)
    assert np.abs(recorded - np.asarray(upright))[4::24, 4::24].max() < 16


def test_an_archive_is_read_as_its_folder(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 3
    folder = save(picture(), tmp_path / "images" / "a" / "a.PNG", exif=exif)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(tmp_path))
    assert (first(tmp_path / "a.zip") == first(folder)).all()


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        (np.full((32, 32), 0x8040, np.uint16), 0x80),
        (np.stack([np.full((32, 32), v, np.uint8) for v in (9, 9, 9, 0)], 2), 255),
        (np.stack([np.full((32, 32), v, np.uint8) for v in (9, 9, 9, 255)], 2), 9),
    ],
    ids=["16 bits", "transparent", "opaque"],
)
def test_pixels_are_those_that_a_viewer_shows(stored, shown, tmp_path):
    assert (
        first(save(Image.fromarray(stored), tmp_path / "images" / "a" / "a.png")) == shown
    ).all()


def test_pixels_of_no_known_range_are_refused(tmp_path):
    image = Image.fromarray(np.full((32, 32), 0.5, np.float32))
    folder = save(image, tmp_path / "images" / "a" / "a.tif")
    with pytest.raises(
        ValueError, match=r"a/a.tif .* 32-bit numbers of no known range; save it with"
    ):
        first(folder)


def test_the_ending_may_be_of_another_format(tmp_path):
    folder = save(picture(), tmp_path / "images" / "a" / "a.png")
    (folder / "a" / "a.png").rename(folder / "a" / "a.jpg")
    assert (first(folder) == np.asarray(picture())).all()


@pytest.fixture
def without_heif(monkeypatch):
    few = {ending: name for ending, name in images.FORMATS.items() if name != "HEIF"}
    monkeypatch.setattr(images, "readable", lambda: few)
    monkeypatch.setattr("lightning_metakd.data.sources.folder.readable", lambda: few)


def test_files_that_are_left_out_are_counted_once(without_heif, tmp_path):
    folder = save(picture(), tmp_path / "images" / "a" / "a.png")
    for name in ("a/1.HEIC", "a/2.heic", "a/notes.txt", "a/3.svg", "a/README", ".hidden"):
        (folder / name).write_bytes(b"")
    picture().save(folder / "loose.png")
    message = (
        r"images holds files that are left out: 2 .heic, 1 .svg, 1 .txt, 1 without ending, 1 images outside "
        r"of a class folder; for .heic install pillow-heif \(the extra 'pictures'\)\."
    )
    with pytest.warns(UserWarning, match=message):
        assert len(Folder(str(folder)).all_rows().y) == 2
    assert len(Folder(str(folder)).all_rows().y) == 2  # in silence: warnings are errors


def test_a_folder_of_nothing_else_says_what_is_missing(without_heif, tmp_path):
    (tmp_path / "images" / "a").mkdir(parents=True)
    (tmp_path / "images" / "a" / "a.heic").write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"no class folders .*, but there are 1 .heic; for .heic inst"
    ):
        Folder(str(tmp_path / "images")).all_rows()


def test_what_was_decoded_otherwise_is_decoded_anew(tmp_path, monkeypatch):
    folder = save(picture(), tmp_path / "images" / "a" / "a.png")
    before = images.fingerprint([folder], 32)
    monkeypatch.setattr(images, "DECODER", images.DECODER + 1)
    assert images.fingerprint([folder], 32) != before


def test_images_that_fill_many_pieces_stay_in_order(tmp_path, monkeypatch):
    recorded = []
    for i in range(5):
        Image.new("L", (8, 8), i).save(tmp_path / f"{i}.png")
        recorded.append(images.Found(Path(tmp_path), PurePosixPath(f"{i}.png")))
    monkeypatch.setattr(images, "PIECE", 2 * 8 * 8)
    pieces = list(images.decode(recorded, 8, "L"))
    assert [len(piece) for piece in pieces] == [2, 2, 1]
    assert [int(image.max()) for piece in pieces for image in piece] == list(range(5))

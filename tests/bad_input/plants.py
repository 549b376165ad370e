"""Files that are no good, where the command finds them."""

import os
import shutil
import zipfile
from pathlib import Path

import torch
from PIL import Image


def picture(path, colour=0, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (colour % 256, 0, 0)).save(path)


def images(folder, classes=12, single=8):
    for c in range(classes):
        for i in range(single):
            picture(folder / f"class{c}" / f"{i}.png", 20 * c + i)


def archive(folder, there):
    """The images as `pictures`, which is an archive."""
    with zipfile.ZipFile(folder / "pictures", "w") as file:
        for path in there.rglob("*.png"):
            file.write(path, path.relative_to(there))


def no_images(folder):
    (folder / "pictures").mkdir()


def one_image_in_a_class(folder):
    images(folder / "pictures", 3)
    picture(folder / "pictures" / "lonely" / "0.png")


def truncated_archive(folder):
    images(folder / "there")
    archive(folder, folder / "there")
    truncate(folder / "pictures")


def damaged_image(folder):
    images(folder / "pictures")
    path = folder / "pictures" / "class3" / "1.png"
    path.write_bytes(path.read_bytes()[:40])


def few_classes(folder):
    images(folder / "pictures", 6)


def truncate(path):
    path = path.resolve()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


# --- weights ---------------------------------------------------------------------------------------


def truncated_student(folder):
    truncate(folder / "runs" / "maml" / "0" / "checkpoints" / "final.ckpt")


def truncated_teacher(folder):
    truncate(folder / "runs" / "teacher" / "0" / "checkpoints" / "final.ckpt")


def no_teacher(folder):
    shutil.rmtree(folder / "runs" / "teacher")


def code(folder):
    torch.save({"state_dict": {"x": Path("a path is code")}}, folder / "code.ckpt")


# --- results ---------------------------------------------------------------------------------------


def results(folder):
    """Result lines of a run in `runs`, and files that are none in folders of their own."""
    row = b'{"experiment": "a", "accuracy": 0.5, "ci95": 0.1, "source": "S", "split": "test"}\n'
    lines = {"runs": row, "text": b'{"accuracy": "high"}\n', "array": b"[1]\n", "empty": b""}
    for name, content in {**lines, "binary": os.urandom(500)}.items():
        path = folder / name / "a" / "0" / "results.jsonl"
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    (folder / "page.md").write_text("A page.\n")
    (folder / "binary.md").write_bytes(b"\xff\xfe\x00" * 99)

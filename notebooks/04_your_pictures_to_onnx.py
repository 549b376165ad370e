# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Your pictures, sorted by a small file
#
# A few pictures of each class are all that a student needs to sort others. It becomes one ONNX file, which runs without torch.
# The pictures are of CIFAR-100 where `METAKD_DATA` names a folder that has it, and drawn shapes elsewhere; put folders of
# your own in their place.

# %%
import os
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown, display
from PIL import Image

from lightning_metakd.data.sources import CIFARFS, Synthetic

DATA = Path(os.environ.get("METAKD_DATA") or "data").resolve()
is_real = any(DATA.glob("cifar*100*"))
source = CIFARFS(str(DATA)) if is_real else Synthetic()
FOLDER = Path("runs/notebooks/your_pictures")
SUPPORT, PHOTOS = FOLDER / "my_classes", FOLDER / "photos"
shutil.rmtree(FOLDER, ignore_errors=True)
print(f"pictures of {source.name}")

# %% [markdown]
# ## Two folders
#
# Five classes that the student has not met in training, with five pictures each to adapt to and sixteen to be sorted. These lie in
# folders that are called as their classes, so that the answers can be judged; loose pictures are sorted all the same.

# %%
x, y, _, names = source.all_rows()
rows, generator = source.rows("test"), np.random.default_rng(10)
classes = generator.choice(y[rows].unique().numpy(), 5, replace=False)
for c in classes:
    drawn = generator.permutation(rows[y[rows] == c].numpy())[:21]
    for k, row in enumerate(drawn):
        folder = (SUPPORT if k < 5 else PHOTOS) / names[c]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(x[row].permute(1, 2, 0).numpy()).save(folder / f"{k}.png")

figure, axes = plt.subplots(5, 5, figsize=(5, 5.4))
for column, c in zip(axes.T, classes, strict=True):
    column[0].set_title(fill(names[c].replace("_", " "), 12), fontsize=8)
    for axis, path in zip(column, sorted((SUPPORT / names[c]).iterdir()), strict=True):
        axis.imshow(Image.open(path))
        axis.axis("off")
figure.tight_layout()

# %% [markdown]
# ## A student
#
# For photographs there is one in the package, `zoo:conv4_64_cifar_fs_start`. Drawn shapes are another world, for which one is
# trained in half a minute.


# %%
def metakd(*words):
    """The command, as it is typed in a terminal."""
    done = subprocess.run(
        [sys.executable, "-m", "lightning_metakd", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(done.stdout)
    done.check_returncode()


if is_real:
    student = (
        *("--config", "experiment/meta_kd_cifar_fs_5w5s_evaluate", "--model.teachers=[]"),
        "--model.student=configs/model/conv4_64_average.yaml",
        "--model.initialisation.checkpoint=zoo:conv4_64_cifar_fs_start",
        f"--data.source.root={DATA}",
    )
else:
    metakd(
        *("fit", "--config", "experiment/meta_kd_synthetic_5w5s", "--experiment", "shapes"),
        *("--runs", FOLDER / "runs", "--trainer.enable_progress_bar=false"),
        *("--model.teachers=[]", "--model.loss=null", "--model.strategy_training.lr=0"),
    )
    student = ("--ckpt_path", FOLDER / "runs/shapes/latest/checkpoints/final.ckpt")

# %% [markdown]
# ## One file
#
# `metakd export` tests the student, writes the file, tests that too, and says how far they differ. A student of yours is named by
# `--ckpt_path` alone; one of the zoo has no run, so that its network and data are named.

# %%
export = ("export", "--format", "onnx-int8", "--output", FOLDER / "export", "--episodes", 100)
metakd(*export, *student)

# %% [markdown]
# The student, the file, and the file in eight bits, on the same 100 episodes. What else there is to know stands on a card.

# %%
display(Markdown((FOLDER / "export/student-card.md").read_text()))

# %% [markdown]
# ## The photographs, sorted
#
# By the file in eight bits, on any machine that has `onnxruntime`, `numpy` and `pillow`. The one in full precision stands beside it
# as a teacher, in the table and in what is printed; a larger network can, too.

# %%
metakd(
    *("classify", "--model", FOLDER / "export/student.int8.onnx", "--support", SUPPORT),
    *("--query", PHOTOS, "--output", FOLDER / "classified"),
    *("--teacher", FOLDER / "export/student.onnx"),
)
print("\n".join((FOLDER / "classified/predictions.csv").read_text().splitlines()[:6]))

# %% [markdown]
# Class by class, the most certain first; a red frame is a mistake.

# %%
display(Image.open(FOLDER / "classified/contact_sheet.png"))

# %% [markdown]
# What it is, and what it was taken for.

# %%
display(Image.open(FOLDER / "classified/confusion.png"))

# %% [markdown]
# ## How many pictures of a class does it need?
#
# The same file in a program of one's own: whole pixels go in and logits come out, for any number of classes.

# %%
from lightning_metakd.classify.onnx_student import OnnxStudent  # without torch and lightning
from lightning_metakd.classify.pictures import Gallery

reader = OnnxStudent(FOLDER / "export/student.int8.onnx")
gallery = Gallery(reader.size, reader.mode)
support = gallery.support(SUPPORT)
query = list(gallery.query(PHOTOS, list(support)))
pixels = np.stack([row.x for row in query])
truth = np.array([list(support).index(row.label) for row in query])
shares = []
for shots in range(1, 6):
    few = np.stack([picture for pictures in support.values() for picture in pictures[:shots]])
    labels = np.repeat(np.arange(len(support)), shots)
    shares.append((reader.adapt_and_predict(few, labels, pixels).argmax(-1) == truth).mean())

figure, axis = plt.subplots(figsize=(5, 3))
axis.plot(range(1, 6), 100 * np.array(shares), marker="o")
axis.axhline(20, color="grey", linestyle=":", label="chance")
axis.set_xticks(range(1, 6))
axis.set_xlabel("pictures of each class to adapt to")
axis.set_ylabel("accuracy, %")
axis.set_ylim(0, 100)
axis.legend()
figure.tight_layout()

# %% [markdown]
# Eighty answers know an accuracy to ten points, and other five pictures give another curve. The card has the accuracy over many
# episodes, with its interval.

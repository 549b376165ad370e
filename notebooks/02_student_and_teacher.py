# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # A student and its teacher
#
# A wide network is trained on 48 classes of drawn shapes. A small one is to tell *new* classes apart from five pictures of each:
# alone, and taught by the wide one. Both students train on the same episodes, and answer for the same ones afterwards.

# %%
import logging
import warnings

import matplotlib.pyplot as plt
import numpy as np

from lightning_metakd import EpisodicData, MetaKD, SingleTask, SupervisedData, Trainer, distil
from lightning_metakd.cli.student import Student
from lightning_metakd.data.sources import Synthetic
from lightning_metakd.learners import ProtoNet
from lightning_metakd.models import Conv4
from lightning_metakd.recipes import Optimisation

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore")
source = Synthetic()
QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "runs": "runs/notebooks"}
STEPS = 300

# %% [markdown]
# ## The teacher
#
# Plain training on the classes that `split="teacher"` names. Half a minute.

# %%
teacher = SingleTask(
    Conv4(width=64, n_classes=48),
    optimisation=Optimisation(lr=0.1, optimiser="sgd", weight_decay=5e-4, schedule="one_cycle"),
)
Trainer("teacher", max_steps=500, **QUIET).fit(
    teacher, SupervisedData(source, split="teacher", batch_size=64)
)

# %% [markdown]
# ## Two students
#
# `distil` is half the labels, half the teacher. The student alone is the same recipe without one.


# %%
def episodes():
    return EpisodicData(
        source, k_shot=5, train_n_way=10, train_n_query=5, meta_batch_size=1, n_episodes=100
    )


taught = distil(Conv4(width=32), teacher.student, episodes(), max_steps=STEPS, **QUIET)

recipe = MetaKD(Conv4(width=32), ProtoNet(metric="cosine", scale=10.0))
Trainer("alone", max_steps=STEPS, **QUIET).fit(recipe, episodes())
alone = Student(recipe)

# %% [markdown]
# ## New classes
#
# Twenty tasks of five classes that nobody has met in training, with one to ten pictures of each to adapt to.

# %%
x, y, *_ = source.all_rows()
rows = {int(c): np.flatnonzero(y == c) for c in y[source.rows("test")].unique()}
generator = np.random.default_rng(0)


def task(shots):
    """Pictures and labels to adapt to, and others to answer for."""
    classes = generator.choice(list(rows), 5, replace=False)
    drawn = [generator.permutation(rows[c])[: shots + 10] for c in classes]
    support, query = (
        np.concatenate([d[:shots] for d in drawn]),
        np.concatenate([d[shots:] for d in drawn]),
    )
    return x[support], y[support].tolist(), x[query], y[query].tolist()


students = {
    "the teacher": Student(teacher),
    "a student that is taught": taught,
    "a student alone": alone,
}
accuracies = {name: [] for name in students}
for shots in (1, 2, 5, 10):
    tasks = [task(shots) for _ in range(20)]
    for name, student in students.items():
        scores = [student.fit(*one[:2]).score(*one[2:]) for one in tasks]
        accuracies[name].append((np.mean(scores), 1.96 * np.std(scores) / np.sqrt(len(scores))))

figure, axis = plt.subplots(figsize=(6, 4))
for name, values in accuracies.items():
    means, widths = np.array(values).T * 100
    axis.errorbar((1, 2, 5, 10), means, widths, marker="o", capsize=3, label=name)
axis.set_xscale("log")
axis.set_xticks((1, 2, 5, 10), ("1", "2", "5", "10"))
axis.set_xlabel("pictures of each class to adapt to")
axis.set_ylabel("accuracy among five new classes, %")
axis.axhline(20, color="grey", linestyle=":", label="chance")
axis.legend()
figure.tight_layout()

# %% [markdown]
# The bars are 95 % intervals over twenty tasks: differences smaller than they are say nothing. `metakd report` compares students
# episode by episode, which tells smaller ones apart.

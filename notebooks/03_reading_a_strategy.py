# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Reading a strategy
#
# Four labels in ten are made wrong on purpose. A teacher has learned from them; a student learns from labels and teacher, and a
# gate says for every picture how far to believe the label: 1 is the label alone, 0 the teacher alone. Nobody tells the gate
# which labels are wrong. It is trained by what a step does for a few pictures whose labels are right.

# %%
import logging
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from lightning.pytorch import seed_everything

from lightning_metakd import SingleTask, SupervisedData, Teacher, Trainer
from lightning_metakd.data.sources import LabelNoise, Synthetic
from lightning_metakd.losses import Hinton, LearnedPerSample, MatchGate
from lightning_metakd.models import Conv4
from lightning_metakd.recipes import Optimisation, StrategyTraining
from lightning_metakd.teachers import SlicedHead
from lightning_metakd.types import Batch, Context

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore")
seed_everything(0, verbose=False)
source = LabelNoise(Synthetic(per_class=300), rate=0.4, split="val")
n_classes = len(source.all_rows().y[source.rows("val")].unique())
QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "runs": "runs/notebooks"}


def rows():
    return SupervisedData(
        source, split="val", batch_size=64, test_fraction=0.2, quiz_fraction=0.1, views=4
    )


def rate(lr):
    return Optimisation(lr=lr, optimiser="sgd", weight_decay=5e-4, schedule="one_cycle")


# %%
teacher = SingleTask(Conv4(width=64, n_classes=n_classes), optimisation=rate(0.1))
Trainer("noisy_teacher", max_steps=500, **QUIET).fit(teacher, rows())

student = SingleTask(
    Conv4(width=32, n_classes=n_classes),
    MatchGate(gate=LearnedPerSample(), match=Hinton(temperature=4.0)),
    [Teacher(teacher.student, head=SlicedHead(), classes=rows().train_class_names())],
    optimisation=rate(0.1),
    strategy_training=StrategyTraining(lr=0.01, every=2),
)
data = rows()
Trainer("gated_student", max_steps=400, **QUIET).fit(student, data)

# %% [markdown]
# ## What the gate says of right and of wrong labels

# %%
x, y, index, names = source.all_rows()
at = data.parts["train"]
classes = data.train_classes()
labels = torch.searchsorted(classes, y[at])  # as they are, right or wrong
view = torch.full_like(index[at], -1)  # each picture as it is

with torch.no_grad():
    inputs = source.inputs(x[at], index[at], view, student.student.reading)
    batch = student.with_teacher_outputs(Batch(inputs, labels, index[at], view))
    context = Context(classes[labels], torch.ones(()), student.student.eval()(inputs))
    gate = student.loss.gate(batch, context)

wrong = source.wrong[at]
figure, axis = plt.subplots(figsize=(6, 3.5))
bins = torch.linspace(0, 1, 26).tolist()
axis.hist(gate[~wrong].tolist(), bins, alpha=0.7, label="label is right")
axis.hist(gate[wrong].tolist(), bins, alpha=0.7, label="label is wrong")
axis.set_xlabel("gate: 0 follows the teacher, 1 the label")
axis.set_ylabel("pictures")
axis.legend()
figure.tight_layout()
print(
    f"mean gate: {gate[~wrong].mean():.2f} for right labels, {gate[wrong].mean():.2f} for wrong ones"
)

# %% [markdown]
# ## On which pictures
#
# Above, the pictures whose labels the gate trusts least; below, those it trusts most. The title is the label that the student
# was shown, and in brackets what the picture is.

# %%
order = gate.argsort()
truth = source.source.all_rows().y[at]
figure, axes = plt.subplots(2, 8, figsize=(11, 3.6))
for axis, i in zip(axes.flat, [*order[:8].tolist(), *order[-8:].tolist()], strict=True):
    axis.imshow(x[at[i]].permute(1, 2, 0).numpy())
    axis.set_title(f"{names[y[at[i]]]}\n({names[truth[i]]})\ngate {gate[i]:.2f}", fontsize=7)
    axis.axis("off")
figure.tight_layout()

# %% [markdown]
# ## What it learned from
#
# The gate never sees whether a label is right. It sees what student and teacher say of the row - their losses, their confidence,
# how far they agree - and nothing of the picture or its class. So the file of the strategy, a few kB, may be carried to
# other classes and other students: `--model.initialisation.strategy_file=...`. What that is worth on real pictures, and what simple
# rivals reach, is in docs/results/wrong-labels.md.

# %%
curve = Path("runs/notebooks/gated_student/latest/metrics.csv").read_text().splitlines()
columns = curve[0].split(",")
values = [dict(zip(columns, line.split(","), strict=True)) for line in curve[1:]]
name = next(c for c in columns if c.startswith("strategy/") and c.endswith("gate_mean"))
figure, axis = plt.subplots(figsize=(6, 3))
points = [(int(row["step"]), float(row[name])) for row in values if row[name]]
axis.plot(*zip(*points, strict=True), marker=".")
axis.set_xlabel("step")
axis.set_ylabel("mean gate")
axis.set_ylim(0, 1)
figure.tight_layout()

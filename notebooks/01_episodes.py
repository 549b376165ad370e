# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Episodes, looked at
#
# An *episode* is one small task: a few classes, a few labelled images of each (the support set), and images to be asked
# about (the query set). This notebook draws some, shows that an episode is a pure function of its number, and asks how
# hard they are for a classifier that has learned nothing yet.

# %%
import matplotlib.pyplot as plt
import torch

from lightning_metakd.data import EpisodicData
from lightning_metakd.data.sources import Synthetic

source = Synthetic()  # CIFARFS("path/to/images") draws from real ones
data = EpisodicData(source, n_way=5, k_shot=5, n_query=3)
episodes = data.evaluation_episodes("test")
episode = episodes[0]
episode.support.x.shape, episode.query.x.shape, episode.classes


# %% [markdown]
# Rows are interleaved by class (0 1 2 3 4 0 1 ...), so each column of the picture is one class; the support set stands
# above the line, the query set below.


# %%
def show(episode, names):
    images = torch.cat([episode.support.x, episode.query.x])
    n_way, shots = len(episode.classes), len(episode.support.y) // len(episode.classes)
    figure, axes = plt.subplots(
        len(images) // n_way, n_way, figsize=(n_way * 1.3, len(images) // n_way * 1.2)
    )
    for i, (axis, image) in enumerate(zip(axes.flat, images, strict=True)):
        axis.imshow(image.permute(1, 2, 0).numpy())
        axis.set_xticks([])
        axis.set_yticks([])
        if i < n_way:
            axis.set_title(names[episode.classes[i]], fontsize=7)
        if i % n_way == 0:
            axis.set_ylabel("support" if i // n_way < shots else "query", fontsize=7)
    figure.tight_layout()
    return figure


names = source.all_rows().class_names
show(episode, names)
# %% [markdown]
# ## The same number, the same episode
#
# Nothing keeps a random state: split, seed and number determine everything, in whatever order and process. That is what
# lets two students be compared episode by episode, and a stopped run go on where it was.

# %%
again = EpisodicData(source, n_way=5, k_shot=5, n_query=3).evaluation_episodes("test")[0]
assert torch.equal(again.support.x, episode.support.x)
assert torch.equal(again.query.index, episode.query.index)
assert not set(episode.support.index.tolist()) & set(
    episode.query.index.tolist()
)  # never asked about what it saw
show(episodes[1], names)
# %% [markdown]
# ## Augmented views
#
# In training each image is shifted and mirrored. A view, too, is a pure function of image and view number, so that a
# teacher's answer for it can be computed once and kept.

# %%
x, index = episode.support.x[:1].repeat(8, 1, 1, 1), episode.support.index[:1].repeat(8)
pixels = source.inputs(x, index, torch.arange(8) - 1)  # view -1 is the image as it is
mean, std = (torch.tensor(m)[:, None, None] for m in source.normalisation())
figure, axes = plt.subplots(1, 8, figsize=(10, 1.5))
for axis, image, view in zip(axes, pixels * std + mean, range(-1, 7), strict=True):
    axis.imshow(image.clamp(0, 1).permute(1, 2, 0).numpy())
    axis.set_title("as it is" if view < 0 else f"view {view}", fontsize=8)
    axis.axis("off")

# %% [markdown]
# ## How hard is it?
#
# Nearest class mean, in pixels and in the embedding of an untrained Conv4: close to the 20 % of guessing, and far from
# what a trained student reaches (`make demo`).

# %%
from lightning_metakd.functional import bind
from lightning_metakd.learners import ProtoNet
from lightning_metakd.metrics import accuracy, interval
from lightning_metakd.models import Conv4
from lightning_metakd.models.norm import make_episodic
from lightning_metakd.types import Output

torch.manual_seed(0)
untrained = make_episodic(Conv4(32), "support")


class Pixels:
    def observe(self, params, x):
        return self(params, x), {}

    def __call__(self, params, x):
        return Output(x.flatten(1), x.flatten(1))


def nearest_mean(forward, params, number):
    episode_batch = data.on_after_batch_transfer(
        EpisodicData(source).evaluation_episodes("test")[number], 0
    )
    with torch.no_grad():
        adapted = ProtoNet().adapt(forward, params, None, episode_batch.support, 5)
        return accuracy(adapted.predict(episode_batch.query.x).logits, episode_batch.query.y)


params = {f"student.{name}": p for name, p in untrained.named_parameters()}
for name, forward, given in (
    ("pixels", Pixels(), {}),
    ("untrained Conv4", bind(untrained), params),
):
    mean, ci95 = interval(torch.stack([nearest_mean(forward, given, i) for i in range(60)]))
    print(f"{name}: {100 * mean:.1f} +- {100 * ci95:.1f} %")

"""What ways of reading a finished student are worth: nothing of it is trained.

`python -m experiments.read_outs --data <folder of the images>` asks the Conv4-64 of the package for the
embeddings of the novel images, as they are and in augmented views, classifies the episodes of the other
tables by the nearest class mean, and fills its table of `docs/results/plain-conv4.md`. A read-out that needs
several views of the query rows costs as many times the student.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from experiments.kept_answers import from_command_line
from experiments.plan import ROOT
from lightning_metakd.data import EpisodicData
from lightning_metakd.data.sources import CIFARFS, Source
from lightning_metakd.metrics.intervals import interval
from lightning_metakd.models import Conv4, Model
from lightning_metakd.models.prototypes import unit
from lightning_metakd.reporting.markdown import fill_section, markdown, percent
from lightning_metakd.teachers.teacher_file import load_network

PAGE, STUDENT = ROOT / "docs/results/plain-conv4.md", "zoo:conv4_64_cifar_fs"
SHOTS, EPISODES, TOGETHER = (1, 5), 2000, 100
VIEWS, EVERY = 5, 6
"""Augmented views of an image, and of how many base images one is in the mean."""
Reading = Callable[[Tensor, Tensor], Tensor]
"""What is made of embeddings [..., d], by the mean over the base images [d]."""


class ReadOut(NamedTuple):
    """A way to classify query rows by class means of support rows, by the cosine.

    Args:
        reading: of an embedding.
        support: augmented views of each support row, beside the row as it is.
        query: likewise.
    """

    reading: Reading = lambda embedding, mean: embedding
    support: int = 0
    query: int = 0


def centred(embedding: Tensor, mean: Tensor) -> Tensor:
    """Less the mean of the base images, at length one (CL2N of Wang et al. 2019, arXiv:1911.04623)."""
    return unit(embedding - mean)


def by_power(embedding: Tensor, mean: Tensor) -> Tensor:
    """The root of each number, at length one (power transform of Hu et al. 2021, arXiv:2006.03806)."""
    return unit(embedding.clamp(min=0).sqrt())


READ_OUTS = {
    "as it is": ReadOut(),
    "centred by the mean of the base images": ReadOut(centred),
    "root of each number": ReadOut(by_power),
    f"{VIEWS} more views of the support rows": ReadOut(support=VIEWS),
    f"{VIEWS} more views of all rows": ReadOut(support=VIEWS, query=VIEWS),
}


def embedded(student: Model, source: Source, rows: Tensor, view: int) -> Float[Tensor, "n d"]:
    """The embeddings of some rows in a view."""
    images, parts = source.all_rows().x, []
    with torch.no_grad():
        for index in rows.split(500):
            x = source.inputs(images[index], index, torch.full_like(index, view), student.reading)
            parts.append(student(x).embedding)
    return torch.cat(parts)


def accuracies(views: Tensor, data: EpisodicData, read_out: ReadOut) -> list[float]:
    """Of each episode.

    Args:
        views: of all rows of the source as they are and in each view [v, n, d], read.
        data: of the episodes.
        read_out: how many views are averaged.
    """
    episodes, shares = data.evaluation_episodes("test"), []
    means = {n: views[: 1 + n].mean(0) for n in (read_out.support, read_out.query)}
    for begin in range(0, data.n_episodes, TOGETHER):
        episode = episodes.__getitems__(range(begin, min(begin + TOGETHER, data.n_episodes)))
        support = means[read_out.support][episode.support.index]
        query = means[read_out.query][episode.query.index]
        classes = support.unflatten(1, (-1, data.n_way)).mean(1)  # a row of each class in turn
        nearest = (unit(query) @ unit(classes).mT).argmax(-1)
        shares += (nearest == episode.query.y).double().mean(1).tolist()
    return shares


def main(root: str) -> None:
    """Embed, classify, fill."""
    source, student = CIFARFS(root=root), Conv4(pooling="average").eval()
    load_network(student, STUDENT)
    novel, base = source.rows("test"), source.rows("train")[::EVERY]
    mean = embedded(student, source, base, -1).mean(0)
    table = torch.zeros(1 + VIEWS, len(source.all_rows().y), len(mean))
    for view in range(1 + VIEWS):
        table[view, novel] = embedded(student, source, novel, view - 1)
    lines: dict[str, dict[str, str]] = {name: {"": name} for name in READ_OUTS}
    for shots in SHOTS:
        data = EpisodicData(source, k_shot=shots, n_episodes=EPISODES)
        plain = accuracies(table, data, READ_OUTS["as it is"])
        for name, read_out in READ_OUTS.items():
            values = accuracies(read_out.reading(table, mean), data, read_out)
            differences = [a - b for a, b in zip(values, plain, strict=True)]
            lines[name][f"{shots} shot"] = percent(*interval(values))
            minus = "-" if values == plain else percent(*interval(differences), sign="+")
            lines[name][f"minus the first, {shots} shot"] = minus
    made = f"`{STUDENT}`; percent, 95 % intervals over {EPISODES:,} episodes; `{__spec__.name}`"
    fill_section(PAGE, "plain-conv4-read-outs", f"{markdown(list(lines.values()))}\n\n{made}")


if __name__ == "__main__":
    from_command_line(__doc__, main)

"""A student in a file reads whole pixels, and says what it says in its recipe."""

import pytest
import torch

from lightning_metakd.data.sources.augment import normalise
from lightning_metakd.export.network import (
    EpisodeNetwork,
    Pixels,
    PrototypeNetwork,
    RidgeNetwork,
    RowNetwork,
    deployed,
)
from lightning_metakd.functional import bind
from lightning_metakd.learners.ridge import ridge_weights
from lightning_metakd.models import Conv4
from lightning_metakd.models.norm import EpisodicNorm, make_episodic
from lightning_metakd.models.prototypes import class_means, metric_logits
from tests.export.graphs import READING


def conv4(form="running", n_classes=0):
    """A small student whose norms have statistics as after a training."""
    student = Conv4(width=8, pooling="average", n_classes=n_classes)
    for norm in student.norms:
        torch.nn.init.uniform_(norm.running_var, 0.5, 2.0)
        torch.nn.init.normal_(norm.running_mean, std=0.3)
        torch.nn.init.normal_(norm.weight)  # some are negative
        torch.nn.init.normal_(norm.bias, std=0.3)
    return make_episodic(student, form).eval()


def images(n, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8, generator=draw)


def test_pixels_are_normalised_as_a_source_does_it():
    torch.testing.assert_close(Pixels(READING)(images(4)), normalise(images(4), *READING))


@pytest.mark.parametrize("form", ["running", "tracked"])
def test_rows_are_embedded_as_in_the_recipe(form):
    student = conv4(form, n_classes=3)
    x = normalise(images(5), *READING)
    with torch.no_grad():
        output = student(x)
        embedding = RowNetwork(deployed(student), READING, classifies=False)(images(5))
        logits = RowNetwork(deployed(student), READING, classifies=True)(images(5))
    torch.testing.assert_close(embedding, output.embedding)
    torch.testing.assert_close(logits, output.logits)


def test_norms_of_a_support_set_take_its_statistics_in_a_file_too():
    student, support, query = conv4("support"), images(6), images(4, seed=1)
    forward = bind(student)
    with torch.no_grad():
        output, statistics = forward.observe({}, normalise(support, *READING))
        expected = forward(statistics, normalise(query, *READING)).embedding
        ours = EpisodeNetwork(deployed(student), READING)(support, query)
    torch.testing.assert_close(ours[0], output.embedding)
    torch.testing.assert_close(ours[1], expected)


def test_what_is_deployed_is_a_copy_without_norms_for_episodes():
    student = conv4()
    copy = deployed(student)
    assert not any(isinstance(m, EpisodicNorm) for m in copy.modules())
    assert any(isinstance(m, EpisodicNorm) for m in student.modules())
    assert not any(p.requires_grad for p in copy.parameters())
    assert all(p.requires_grad for p in student.parameters())


def test_heads_of_torch_are_those_of_the_learners():
    network = RowNetwork(deployed(conv4()), READING, classifies=False)
    support, query, y = images(6), images(4, seed=1), torch.arange(3).repeat(2)
    targets = torch.eye(3)[y]
    with torch.no_grad():
        s, q = network(support), network(query)
        by_means = metric_logits(q, class_means(s, y, 3)[None], "cosine")
        by_ridge = q @ ridge_weights(s, targets, torch.tensor(0.5))
        means = PrototypeNetwork(network, "cosine", 10.0)(support, targets, query)
        ridge = RidgeNetwork(network, 0.5, 4.0)(support, targets, query)
    torch.testing.assert_close(means, 10 * by_means)
    torch.testing.assert_close(ridge, 4 * by_ridge, rtol=1e-4, atol=1e-4)

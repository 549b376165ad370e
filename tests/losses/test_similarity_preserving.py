import numpy as np
import pytest
import torch

from lightning_metakd.losses.similarity_preserving import (
    SimilarityPreserving,
    similarities,
    similarity_loss,
)
from tests.tiny import answered, batch, context, student_answer

ROWS = 6


@pytest.fixture
def rows():
    return answered(batch(ROWS))


@pytest.fixture
def student(rows):
    return student_answer(rows)


def of(loss, student, rows):
    return loss(student, rows, context(rows, student))


def paper(student, teacher):
    """|G_T - G_S|_F^2 / b^2, whose rows have length one."""
    grams = []
    for features in (student, teacher):
        a = features.numpy().reshape(len(features), -1)
        g = a @ a.T
        grams.append(g / np.linalg.norm(g, axis=1, keepdims=True))
    return np.linalg.norm(grams[0] - grams[1], "fro") ** 2 / len(student) ** 2


@pytest.mark.parametrize("layers", [("low", "high"), ("embedding", "embedding")])
def test_the_mean_over_rows_is_the_loss_of_the_paper(layers, rows, student):
    every = [{**o.features, "embedding": o.embedding} for o in (student, rows.teacher_outputs[0])]
    actual = of(SimilarityPreserving(dict([layers])), student, rows)
    expected = paper(every[0][layers[0]], every[1][layers[1]])
    assert actual.shape == (ROWS,)
    assert actual.mean().item() == pytest.approx(expected, rel=1e-9)


def test_a_row_has_the_share_of_its_own_similarities():
    student, teacher = torch.randn(4, 3).double(), torch.randn(4, 7).double()
    difference = similarities(student) - similarities(teacher)
    expected = difference.square().sum(1) / 4
    torch.testing.assert_close(similarity_loss(student, teacher), expected, rtol=1e-12, atol=0)


def test_embeddings_are_compared_unless_told_otherwise(rows, student):
    (read,) = SimilarityPreserving().layer_pairs()
    assert (read.student_layer, read.teacher_layer, read.adapted) == ("embedding", "embedding", 0)


def test_pairs_are_added_and_weighed(rows, student):
    one, other = (
        of(SimilarityPreserving(pair), student, rows) for pair in ({"low": "low"}, {"high": "high"})
    )
    both = SimilarityPreserving({"low": "low", "high": "high"}, {"high": 0.5})
    torch.testing.assert_close(of(both, student, rows), one + 0.5 * other, rtol=1e-12, atol=0)


def test_a_turned_and_stretched_student_has_nothing_to_learn():
    teacher = torch.randn(5, 4).double()
    turn, _ = torch.linalg.qr(torch.randn(4, 4).double())
    student = (3 * teacher @ turn).requires_grad_()
    loss = similarity_loss(student, teacher)
    (slope,) = torch.autograd.grad(loss.sum(), student)
    assert loss.max() < 1e-20
    assert slope.abs().max() < 1e-9


def test_a_dead_row_has_finite_derivatives():
    at = torch.randn(4, 3).double()
    at[1] = 0
    at.requires_grad_()
    loss = similarity_loss(at, torch.randn(4, 5).double())
    (slope,) = torch.autograd.grad(loss.sum(), at, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.square().sum(), at)
    assert slope.isfinite().all()
    assert curvature.isfinite().all()


def test_mixed_precision_does_not_round_similarities():
    features = torch.randn(8, 64)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(similarities(features), similarities(features.double().float()))
        mixed = similarities(features)
    torch.testing.assert_close(mixed, similarities(features), rtol=0, atol=0)


def test_another_number_of_rows_is_refused(as_users_run_it):
    with pytest.raises(ValueError, match=r"student \[4 rows\] and teacher \[3 rows\]"):
        similarity_loss(torch.zeros(4, 2), torch.zeros(3, 2))

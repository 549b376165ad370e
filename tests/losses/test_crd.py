import math

import numpy as np
import pytest
import torch

from lightning_metakd.losses.crd import CRD
from lightning_metakd.losses.layer_pairs import LayerPair, hint_name
from lightning_metakd.models.model import EMBEDDING
from tests.tiny import answered, batch, context, student_answer

NAME = hint_name(0, EMBEDDING, EMBEDDING)


@pytest.fixture
def rows():
    return answered(batch(9))


@pytest.fixture
def student(rows):
    return student_answer(rows)


def by_loops(student, teacher, y, temperature, same_class):
    """InfoNCE row by row: the own row against the sum over all that are asked."""
    recorded = []
    for i, a in enumerate(student.numpy()):
        scores = {
            j: math.exp(a @ b / np.linalg.norm(a) / np.linalg.norm(b) / temperature)
            for j, b in enumerate(teacher.numpy())
            if j == i or same_class or y[j] != y[i]
        }
        recorded.append(-math.log(scores[i] / sum(scores.values())))
    return recorded


@pytest.mark.parametrize("same_class", [True, False])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_it_is_info_nce_over_the_batch(rows, student, same_class, temperature):
    loss = CRD(temperature, same_class_negatives=same_class)
    actual = loss(student, rows, context(rows, student))
    teacher = rows.teacher_outputs[0].embedding
    expected = by_loops(student.hints[NAME], teacher, rows.y, temperature, same_class)
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-9)


def test_where_the_teacher_does_not_tell_rows_apart_the_loss_is_the_log_of_their_number(
    rows, student
):
    teacher = rows.teacher_outputs[0]._replace(embedding=torch.ones(9, 5).double())
    rows = rows._replace(teacher_outputs=(teacher,))
    actual = CRD()(student, rows, context(rows, student))
    assert actual.tolist() == pytest.approx([math.log(9)] * 9, rel=1e-9)


def test_without_rows_of_its_class_a_batch_of_one_class_has_nothing_to_tell_apart(rows, student):
    rows = rows._replace(y=torch.zeros_like(rows.y))
    loss = CRD(same_class_negatives=False)
    assert (loss(student, rows, context(rows, student)) == 0).all()


def test_it_wants_the_students_embedding_at_the_teachers_width():
    assert list(CRD().layer_pairs()) == [LayerPair(0, EMBEDDING, EMBEDDING, adapted=True)]

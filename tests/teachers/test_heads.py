import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

from lightning_metakd.models.prototypes import leave_one_out_means, metric_logits, unit
from lightning_metakd.teachers.heads import PrototypeHead, SlicedHead
from lightning_metakd.types import Output

N_WAY, WIDTH = 4, 5
CLASSES = torch.tensor([7, 3, 11, 5])
NAMES = [f"class {c}" for c in range(14)]


def rows(per_class, spread=1.0):
    y = torch.arange(N_WAY).repeat(per_class)
    centres = torch.randn(N_WAY, WIDTH, generator=torch.Generator().manual_seed(2)).double()
    e = centres[y] + spread * torch.randn(len(y), WIDTH).double()
    return Output(torch.randn(len(y), 6).double(), e), y


def fitted(metric, support, y):
    return PrototypeHead(metric).fit(support, y, CLASSES)


@pytest.mark.parametrize("shots", [2, 3])
def test_prototypes_decide_as_the_nearest_centroid(shots):
    (support, y), (query, _) = rows(shots), rows(8)
    oracle = NearestCentroid().fit(support.embedding.numpy(), y.numpy())
    actual = fitted("euclidean", support, y)(query).argmax(1)
    np.testing.assert_array_equal(actual.numpy(), oracle.predict(query.embedding.numpy()))


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_one_shot_is_the_nearest_neighbour(metric):
    (support, y), (query, _) = rows(1), rows(8)
    oracle = KNeighborsClassifier(1, metric=metric).fit(support.embedding.numpy(), y.numpy())
    actual = fitted(metric, support, y)(query).argmax(1)
    np.testing.assert_array_equal(actual.numpy(), oracle.predict(query.embedding.numpy()))


def test_logits_are_minus_squared_distances_or_cosines():
    e, p = torch.randn(6, WIDTH).double().numpy(), torch.randn(N_WAY, WIDTH).double().numpy()
    squared = ((e[:, None] - p[None]) ** 2).sum(-1)
    cosine = (e @ p.T) / np.outer(np.linalg.norm(e, axis=1), np.linalg.norm(p, axis=1))
    for metric, expected in (("euclidean", -squared), ("cosine", cosine)):
        actual = metric_logits(torch.tensor(e), torch.tensor(p)[None], metric)
        np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-10, atol=1e-12)


def test_a_dead_row_has_finite_first_and_second_derivatives():
    x = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(unit(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    assert first.isfinite().all()
    assert second.isfinite().all()


# --- held out ------------------------------------------------------------------------------------------


def test_leave_one_out_means_leave_one_out():
    (support, y), n = rows(3), 3 * N_WAY
    actual = leave_one_out_means(support.embedding, y, N_WAY)
    for i in range(n):
        kept = torch.arange(n) != i
        expected = torch.stack([support.embedding[kept & (y == c)].mean(0) for c in range(N_WAY)])
        torch.testing.assert_close(actual[i], expected, rtol=1e-10, atol=1e-12)


def test_a_row_alone_in_its_class_stays_in_its_mean_and_a_class_without_rows_is_the_origin():
    embedding, y = torch.randn(3, 2, dtype=torch.float64), torch.tensor([0, 0, 1])
    actual = leave_one_out_means(embedding, y, 3)
    torch.testing.assert_close(actual[2, 1], embedding[2], rtol=0, atol=0)
    torch.testing.assert_close(actual[0, 0], embedding[1], rtol=1e-12, atol=1e-14)
    assert (actual[:, 2] == 0).all()


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_a_support_row_is_answered_as_if_the_head_had_been_fitted_without_it(metric):
    support, y = rows(3)
    actual = PrototypeHead(metric).held_out(support, y, CLASSES, support)
    for i in range(len(y)):
        kept = torch.arange(len(y)) != i
        others = Output(support.logits[kept], support.embedding[kept])
        alone = Output(support.logits[i : i + 1], support.embedding[i : i + 1])
        expected = fitted(metric, others, y[kept])(alone)[0]
        torch.testing.assert_close(actual[i], expected, rtol=1e-9, atol=1e-12)


def test_a_centred_head_compares_directions_from_the_mean():
    """Against class means and cosines written out, for query rows and for support rows held out."""
    (support, y), (query, _), mean = rows(3), rows(2), 5 + torch.randn(WIDTH).double()
    head = PrototypeHead(centre=True).double()
    head.centre_on(mean)

    def directions(e):
        e = e.numpy() - mean.numpy()
        return e / np.linalg.norm(e, axis=1, keepdims=True)

    def cosines(e, prototypes):
        return e @ (prototypes / np.linalg.norm(prototypes, axis=1, keepdims=True)).T

    s, q, of = directions(support.embedding), directions(query.embedding), y.numpy()
    prototypes = np.stack([s[of == c].mean(0) for c in range(N_WAY)])
    actual = head.fit(support, y, CLASSES)(query)
    np.testing.assert_allclose(actual.numpy(), cosines(q, prototypes), rtol=1e-9)
    held_out = head.held_out(support, y, CLASSES, support)
    for i in range(len(of)):
        kept = np.arange(len(of)) != i
        prototypes = np.stack([s[kept & (of == c)].mean(0) for c in range(N_WAY)])
        np.testing.assert_allclose(held_out[i].numpy(), cosines(s[i], prototypes), rtol=1e-9)
    assert (actual - PrototypeHead().fit(support, y, CLASSES)(query)).abs().max() > 0.01


def test_a_centred_head_that_knows_no_mean_says_so():
    support, y = rows(2)
    with pytest.raises(
        ValueError, match=r"centre=true subtracts a mean .*; call Teacher\.centre first"
    ):
        PrototypeHead(centre=True).fit(support, y, CLASSES)


def test_a_row_inside_its_own_mean_is_answered_too_well():
    support, y = rows(2, spread=3.0)
    inside = fitted("euclidean", support, y)(support)
    outside = PrototypeHead("euclidean").held_out(support, y, CLASSES, support)
    correct = [(z.argmax(1) == y).double().mean() for z in (inside, outside)]
    assert correct[0] > correct[1] + 0.2


def test_one_shot_is_answered_on_another_view():
    (support, y), (other, _) = rows(1), rows(1)
    actual = PrototypeHead("euclidean").held_out(support, y, CLASSES, other)
    torch.testing.assert_close(actual, fitted("euclidean", other, y)(support), rtol=1e-12, atol=0)


# --- the network's own logits ------------------------------------------------------------------------


def sliced(*names):
    head = SlicedHead()
    head.set_classes([NAMES[c] for c in names], NAMES)
    return head


def test_sliced_logits_are_those_of_the_episodes_classes_in_its_order():
    head = sliced(3, 5, 7, 9, 11, 13)
    support, y = rows(2)
    actual = head.fit(support, y, CLASSES)(support)
    assert torch.equal(actual, support.logits[:, [2, 0, 4, 1]])  # 7 3 11 5
    assert torch.equal(head.held_out(support, y, CLASSES, support), actual)


def test_a_class_that_the_teacher_does_not_know_is_refused():
    with pytest.raises(
        ValueError, match=r"cannot answer for class 11, class 5: .*\(class 3, class 7\); use Proto"
    ):
        sliced(3, 7).position(CLASSES)


def test_permuting_the_classes_permutes_the_answers():
    (support, y), order = rows(3), torch.randperm(N_WAY)
    there = order.argsort()
    for head in (PrototypeHead("cosine"), sliced(3, 5, 7, 9, 11, 13)):
        actual = head.fit(support, y, CLASSES)(support)
        moved = head.fit(support, there[y], CLASSES[order])(support)
        torch.testing.assert_close(moved, actual[:, order], rtol=1e-12, atol=1e-14)


# --- scale -------------------------------------------------------------------------------------------


def test_a_head_is_calibrated_once_its_scale_is_known():
    head = PrototypeHead("euclidean")
    support, y = rows(3)
    assert not head.calibrated
    assert head.scale.isnan()
    head.calibrate(head.held_out(support, y, CLASSES, support), y)
    assert head.calibrated
    assert head.scale > 0
    other = PrototypeHead()
    other.load_state_dict(head.state_dict())
    assert other.calibrated
    assert PrototypeHead(scale=3.0).calibrated
    assert SlicedHead().scale == 1


@pytest.mark.parametrize("scale", [0.0, -1.0])
def test_a_scale_that_is_not_positive_is_refused(scale):
    with pytest.raises(
        ValueError, match=rf"scale={scale} must be positive and finite, or left out"
    ):
        PrototypeHead(scale=scale)


@pytest.mark.parametrize(("unknown", "other"), [("mark", -torch.inf), ("least", -2.0)])
def test_a_specialist_answers_for_classes_that_it_does_not_know(unknown, other):
    head = SlicedHead(unknown=unknown)
    head.set_classes(["b", "a"], ["a", "b", "c"])
    output = Output(torch.tensor([[3.0, -2.0]]), torch.zeros(1, 1))
    answer = head.fit(output, torch.tensor([0]), torch.tensor([0, 1, 2]))(output)
    assert answer.tolist() == [[-2.0, 3.0, other]]

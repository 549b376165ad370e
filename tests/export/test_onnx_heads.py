"""Heads in a graph say what the learners say, for any number of classes and of support rows."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from lightning_metakd.export.onnx_heads import HEADS, INT64, Nodes, solution
from lightning_metakd.functional import bind_loss
from lightning_metakd.learners import Logistic, ProtoNet, Ridge
from lightning_metakd.losses import CrossEntropy
from lightning_metakd.losses.loss import batch_loss
from lightning_metakd.types import Batch, Output

pytest.importorskip("onnx", reason="the extra 'export' is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra 'export' is not installed")

LEARNERS = {
    "euclidean": lambda: ProtoNet(),
    "cosine": lambda: ProtoNet("cosine", scale=10.0),
    "ridge": lambda: Ridge(penalty=0.3, scale=4.0),
    "logistic": lambda: Logistic(),
    "logistic, weakly held": lambda: Logistic(penalty=0.05),
}


class Embedded:
    """A network whose inputs are embeddings already."""

    def __call__(self, params, x):
        return Output(x, x)

    def observe(self, params, x):
        return Output(x, x), {}

    def statistics(self, params, x):
        return {}

    def classify(self, params, embedding):
        return embedding


def run_graph(nodes, inputs, output):
    """What nodes compute from float inputs and labels."""
    import onnx  # optional

    helper = onnx.helper
    ends = [
        helper.make_tensor_value_info(
            name, INT64 if x.dtype == torch.int64 else 11 if x.dtype == torch.float64 else 1, None
        )
        for name, x in inputs.items()
    ]
    last = helper.make_empty_tensor_value_info(output)
    graph = helper.make_graph(nodes.nodes, "head", ends, [last])
    opset = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=10)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    feed = {name: x.numpy() for name, x in inputs.items()}
    return torch.from_numpy(session.run(None, feed)[0])


def by_graph(learner, support, y, query):
    nodes = Nodes("head_")
    logits = HEADS[type(learner)](nodes, learner, "support", "labels", "query")
    return run_graph(nodes, {"support": support, "labels": y, "query": query}, logits)


def by_learner(learner, support, y, query):
    """In double precision, in which solvers of learners end nearer to the solution."""
    support, query = support.double(), query.double()
    n_way, places = int(y.max()) + 1, torch.arange(len(y))
    batch = Batch(support, y, places, torch.full_like(places, -1))
    loss = batch_loss(bind_loss(CrossEntropy()), {}, batch, torch.arange(n_way))
    meta = {f"learner.{name}": p.detach() for name, p in learner.named_parameters()}
    return (
        learner.adapt(Embedded(), meta, loss, batch, n_way).predict(query).logits.detach().float()
    )


def rows(n_way, k_shot, width):
    """Embeddings as a network with ReLU has them: of one sign, and far from centred."""
    y = torch.arange(n_way).repeat(k_shot)
    centres = torch.randn(n_way, width)
    support = (centres[y] + 0.7 * torch.randn(len(y), width)).relu()
    return support, y, (centres.repeat(4, 1) + torch.randn(4 * n_way, width)).relu()


@pytest.mark.parametrize(("n_way", "k_shot", "width"), [(2, 1, 8), (5, 5, 64), (7, 12, 16)])
@pytest.mark.parametrize("make", LEARNERS.values(), ids=LEARNERS)
def test_a_head_in_a_graph_is_that_of_the_learner(make, n_way, k_shot, width):
    task = rows(n_way, k_shot, width)
    with torch.no_grad():
        expected = by_learner(make(), *task)
    torch.testing.assert_close(by_graph(make(), *task), expected, rtol=1e-4, atol=2e-5)


def test_logistic_regression_is_that_of_scikit_learn():
    support, y, query = rows(4, 6, 12)
    unit = [x / x.norm(dim=1, keepdim=True).clamp(min=1e-6) for x in (support, query)]
    reference = LogisticRegression(C=1 / 0.2, tol=1e-10, max_iter=10_000).fit(unit[0], y)
    probs = torch.from_numpy(reference.predict_proba(unit[1])).float()
    logits = by_graph(Logistic(penalty=0.2), support, y, query)
    torch.testing.assert_close(logits.softmax(-1), probs, rtol=1e-4, atol=1e-5)


def test_classes_of_different_numbers_of_pictures_count_as_they_are():
    support, y, query = rows(3, 4, 8)
    few = torch.tensor([0, 1, 2, 3, 4, 6])  # two, two and one of the classes, and one more
    task = (support[few], y[few], query)
    for make in LEARNERS.values():
        with torch.no_grad():
            expected = by_learner(make(), *task)
        torch.testing.assert_close(by_graph(make(), *task), expected, rtol=1e-4, atol=2e-5)


def test_elimination_solves_a_positive_definite_system():
    root = torch.randn(9, 9, dtype=torch.float64)
    matrix, right = root @ root.T + 0.1 * torch.eye(9), torch.randn(9, 4, dtype=torch.float64)
    nodes = Nodes("")
    solved = run_graph(nodes, {"a": matrix.double(), "b": right}, solution(nodes, "a", "b"))
    torch.testing.assert_close(solved, torch.linalg.solve(matrix.double(), right))

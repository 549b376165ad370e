"""One graph from whole pixels to logits, for any number of classes and of pictures."""

import json

import numpy as np
import pytest
import torch

from lightning_metakd.classify.onnx_student import KEY, OnnxStudent
from lightning_metakd.data.sources.augment import normalise
from lightning_metakd.export.onnx_file import network_graph, student_graph
from lightning_metakd.export.plan import Plan
from lightning_metakd.export.quantisation import quantised
from lightning_metakd.functional import bind, bind_loss, with_prefix
from lightning_metakd.learners import Logistic, ProtoNet, Ridge
from lightning_metakd.losses import CrossEntropy
from lightning_metakd.losses.loss import batch_loss
from lightning_metakd.types import Batch
from tests.export.graphs import READING
from tests.export.test_network import conv4, images

onnx = pytest.importorskip("onnx", reason="the extra 'export' is not installed")
pytest.importorskip("onnxruntime", reason="the extra 'export' is not installed")
pytest.importorskip("onnxscript", reason="the extra 'export' is not installed")


def plan(learner=None, form="running", kind="adaptable", n_classes=0):
    classes = tuple(f"class {c}" for c in range(n_classes))
    return Plan(kind, conv4(form, n_classes), learner, READING, 32, 3, classes)


def runner(of_plan, graph=None):
    content = student_graph(of_plan, graph or network_graph(of_plan), {"experiment": "it"})
    return OnnxStudent(content.SerializeToString(), threads=1)


def by_torch(of_plan, support, y, query):
    student, learner = of_plan.student, of_plan.learner
    rows = torch.arange(len(y))
    batch = Batch(normalise(support, *READING), y, rows, torch.full_like(rows, -1))
    loss = batch_loss(bind_loss(CrossEntropy()), {}, batch, torch.arange(int(y.max()) + 1))
    weights = {name: p.detach() for name, p in student.named_parameters()}
    rates = {name: p.detach() for name, p in learner.named_parameters()}
    meta = {**with_prefix("student", weights), **with_prefix("learner", rates)}
    adapted = learner.adapt(bind(student), meta, loss, batch, int(y.max()) + 1)
    return adapted.predict(normalise(query, *READING)).logits.detach()


@pytest.mark.thorough
@pytest.mark.parametrize("form", ["running", "support"])
@pytest.mark.parametrize(("make", "near"), [(ProtoNet, 1e-4), (Ridge, 1e-3), (Logistic, 5e-3)])
def test_a_graph_says_what_the_student_says(make, near, form):
    # a solver of torch in single precision ends that far from the solution
    it = plan(make(), form)
    student = runner(it)
    for n_way, k_shot, n_query in [(5, 5, 8), (2, 1, 1), (7, 3, 2)]:
        y = torch.arange(n_way).repeat(k_shot)
        support, query = images(len(y), seed=n_way), images(n_query, seed=99)
        logits = student.adapt_and_predict(support.numpy(), y.numpy(), query.numpy())
        expected = by_torch(it, support, y, query)
        torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-4, atol=near)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["classifier", "features"])
def test_a_student_that_does_not_adapt_takes_pictures_alone(kind):
    it = plan(kind=kind, n_classes=6 if kind == "classifier" else 0)
    student = runner(it)
    with torch.no_grad():
        output = it.student(normalise(images(9), *READING))
    expected = output.logits if kind == "classifier" else output.embedding
    ours = torch.from_numpy(student.embed(images(9).numpy()))
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    assert student.kind == kind
    assert student.classes == [f"class {c}" for c in range(6 if kind == "classifier" else 0)]


@pytest.mark.thorough
def test_a_graph_says_how_it_reads_pictures_and_nothing_of_the_machine():
    it = plan(Ridge())
    graph = student_graph(it, network_graph(it), {"experiment": "it"})
    about = json.loads({p.key: p.value for p in graph.metadata_props}[KEY])
    assert {name: about[name] for name in ("kind", "head", "size", "mode", "experiment")} == {
        **{"kind": "adaptable", "head": "Ridge", "size": 32, "mode": "RGB", "experiment": "it"}
    }
    assert about["mean"] == list(READING.mean)
    assert b".py" not in graph.SerializeToString()


@pytest.mark.thorough
def test_eight_bits_are_near_and_a_third_of_the_bytes():
    it = plan(ProtoNet("cosine", scale=10.0))
    network = network_graph(it)
    batches = [{"images": images(40, seed).numpy()} for seed in range(3)]
    small = quantised(network, batches)
    kinds = [node.op_type for node in small.graph.node]
    assert kinds.count("DequantizeLinear") > 8
    y = torch.arange(5).repeat(2)
    support, query = images(10, seed=5), images(30, seed=6)
    whole, in_bits = (
        runner(it, graph).adapt_and_predict(support.numpy(), y.numpy(), query.numpy())
        for graph in (network_graph(it), small)
    )
    assert np.abs(whole - in_bits).max() < 0.25 * np.abs(whole).max()
    assert not np.array_equal(whole, in_bits)
    weights = sum(t.data_type == onnx.TensorProto.INT8 for t in small.graph.initializer)
    assert weights >= 4

"""A student as one ONNX graph, from whole pixels to logits.

torch writes the network; the head that adapts is added to it node by node (`onnx_heads`), so that one graph
serves any number of classes, of support pictures and of query pictures.
"""

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from lightning_metakd.classify.onnx_student import KEY, TEXT
from lightning_metakd.export.network import EpisodeNetwork
from lightning_metakd.export.onnx_heads import HEADS, INT64, LAST, Nodes
from lightning_metakd.export.packages import package
from lightning_metakd.export.plan import MODES, Plan
from lightning_metakd.models.reading import as_record

OPSET = 18
"""Version of the operators: the first in which all of them are as they are written here."""
UINT8 = 2
"""The type of pixels, as ONNX numbers it."""
Graph = Any
"""An `onnx.ModelProto`."""


def network_graph(plan: Plan) -> Graph:
    """The network of a plan: `images` to `embeddings` or `logits`, or of both sets of an episode."""
    network = plan.network()
    inputs, outputs = [plan.inputs], ["logits" if plan.kind == "classifier" else "embeddings"]
    if isinstance(network, EpisodeNetwork):
        inputs, outputs = (
            [f"{part}_{what}" for part in ("support", "query")]
            for what in (plan.inputs, "embedding")
        )
    examples = tuple(plan.examples(3 + 2 * k) for k, _ in enumerate(inputs))
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            network,
            examples,
            dynamo=True,
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=tuple({0: torch.export.Dim(f"{name}_n")} for name in inputs),
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    return without_traces(program.model_proto)


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, what libraries say of their own deprecations is not printed."""
    names = ("torch.onnx", "onnxscript", "onnx_ir", "onnxruntime", "root")
    loggers = [logging.getLogger(None if name == "root" else name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def without_traces(graph: Graph) -> Graph:
    """The graph without lines of source code and paths of the machine on which it was written."""
    for node in graph.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for part in (*graph.graph.value_info, *graph.graph.input, *graph.graph.output):
        del part.metadata_props[:]
    for tensor in graph.graph.initializer:
        del tensor.metadata_props[:]
        tensor.doc_string = ""
    del graph.metadata_props[:]
    del graph.graph.metadata_props[:]
    return graph


def student_graph(plan: Plan, network: Graph, about: Mapping[str, Any]) -> Graph:
    """A whole student: the graph of its network, in any precision, and the head that adapts.

    Args:
        plan: what is exported.
        network: of `network_graph`, or what quantising made of it.
        about: what the metadata say beside how pictures are read.
    """
    graph = network if plan.learner is None else adaptable_graph(plan, network)
    package("onnx.helper").set_model_props(graph, {KEY: json.dumps(described(plan, about))})
    package("onnx.checker").check_model(graph)
    return graph


def described(plan: Plan, about: Mapping[str, Any]) -> dict[str, Any]:
    """What the metadata of a file say."""
    return {
        "kind": plan.kind,
        "head": None if plan.learner is None else type(plan.learner).__name__,
        "size": plan.size,
        "mode": MODES.get(plan.channels, TEXT),
        **reading_of(plan),
        "classes": list(plan.classes) if plan.kind == "classifier" else [],
        **about,
    }


def reading_of(plan: Plan) -> dict[str, Any]:
    """How inputs are made of pictures or texts."""
    record = as_record(plan.reading) or {}
    if plan.inputs == "images":
        return {**record, "resize": "scaled to cover the square and cropped to its middle, bicubic"}
    return {name: record[name] for name in ("tokeniser", "pad")}


def adaptable_graph(plan: Plan, network: Graph) -> Graph:
    """The network between a support set and the logits of query pictures."""
    helper, before, after = package("onnx.helper"), Nodes("both_"), Nodes("head_")
    learner = plan.learner
    assert learner is not None
    support, query = "support_embedding", "query_embedding"
    if plan.row_by_row:
        both = (f"support_{plan.inputs}", f"query_{plan.inputs}")
        before.into(network.graph.input[0].name, "Concat", *both, axis=0)
        rows, embedding = after("Shape", "support_labels"), network.graph.output[0].name
        first, last, axis = after.whole(0), after.whole(LAST), after.whole(0)
        support = after("Slice", embedding, first, rows, axis)
        query = after("Slice", embedding, rows, last, axis)
    logits = HEADS[type(learner)](after, learner, support, "support_labels", query)
    after.into("logits", "Identity", logits)
    row, kind = list(plan.examples(1).shape[1:]), UINT8 if plan.channels else INT64
    inputs = [
        helper.make_tensor_value_info(f"support_{plan.inputs}", kind, ["s", *row]),
        helper.make_tensor_value_info("support_labels", INT64, ["s"]),
        helper.make_tensor_value_info(f"query_{plan.inputs}", kind, ["q", *row]),
    ]
    outputs = [helper.make_tensor_value_info("logits", 1, ["q", "c"])]
    graph = helper.make_graph(
        [*before.nodes, *network.graph.node, *after.nodes],
        "student",
        inputs,
        outputs,
        initializer=list(network.graph.initializer),
    )
    return helper.make_model(
        graph,
        opset_imports=list(network.opset_import),
        functions=list(network.functions),
        ir_version=network.ir_version,
    )

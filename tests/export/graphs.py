"""Students that are quickly written: their embedding is the mean colour, and nothing has to be trained."""

from pathlib import Path

import torch
from torch import Tensor, nn

from lightning_metakd.export.onnx_file import UINT8, student_graph
from lightning_metakd.export.plan import Plan
from lightning_metakd.learners import ProtoNet
from lightning_metakd.models.model import Maps, Model
from lightning_metakd.types import Normalisation

SIZE = 16
READING = Normalisation((0.5, 0.4, 0.3), (0.25, 0.5, 0.2))


class MeanColour(Model):
    """Embeds a picture as its mean colour, normalised."""

    embedding_width = 3

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Identity()
        self.one = nn.Parameter(torch.ones(()))

    def body(self, x: Tensor) -> tuple[Tensor, Maps]:
        return self.one * x.mean((2, 3)), {}


def colour_plan(learner=None, kind="adaptable", classes=()):
    """The plan of such a student; a class mean by default."""
    learner = (learner or ProtoNet()) if kind == "adaptable" else None
    return Plan(kind, MeanColour(), learner, READING, SIZE, 3, tuple(classes))


def colour_network():
    """Its graph, as torch would write it."""
    import onnx  # optional
    from onnx import helper, numpy_helper

    std = torch.tensor(READING.std)
    scale = (1 / (255 * std))[:, None, None].numpy()
    shift = (torch.tensor(READING.mean) / std)[:, None, None].numpy()
    axes = torch.tensor([2, 3]).numpy()
    values = {"scale": scale, "shift": shift, "axes": axes}
    nodes = [
        helper.make_node("Cast", ["images"], ["whole"], to=1),
        helper.make_node("Mul", ["whole", "scale"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "shift"], ["x"]),
        helper.make_node("ReduceMean", ["x", "axes"], ["embedding"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("images", UINT8, ["n", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("embedding", 1, ["n", 3])],
        initializer=[numpy_helper.from_array(v, name) for name, v in values.items()],
    )
    opset = [onnx.helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10)


def write_colour_student(path: Path, **settings) -> Path:
    """A file of such a student."""
    plan = colour_plan(**settings)
    path.write_bytes(student_graph(plan, colour_network(), {}).SerializeToString())
    return path

"""A student in the formats of torch: a program, weights alone, and a program for small devices."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_metakd.export.cases import Case
from lightning_metakd.export.network import PrototypeNetwork, RidgeNetwork, RowNetwork
from lightning_metakd.export.onnx_file import quiet
from lightning_metakd.export.onnx_heads import positive
from lightning_metakd.export.packages import package
from lightning_metakd.export.parity import Answer
from lightning_metakd.export.plan import Plan
from lightning_metakd.learners.protonet import ProtoNet
from lightning_metakd.learners.ridge import Ridge
from lightning_metakd.models.weights import origin
from lightning_metakd.storage.atomic_files import atomic_write
from lightning_metakd.storage.read_checkpoint import RECORD, read_checkpoint
from lightning_metakd.storage.tensor_file import create_tensor_file


def module_of(plan: Plan, format: str) -> nn.Module:
    """The student as one module, its head that adapts included.

    Raises:
        ValueError: if its head cannot be written in operations of torch alone.
    """
    network, learner = plan.network(), plan.learner
    if learner is None:
        return network
    if isinstance(learner, ProtoNet):
        scale = positive(learner, "log_scale")
        return PrototypeNetwork(network, learner.metric, scale).eval()
    if isinstance(learner, Ridge):
        penalty, scale = (positive(learner, name) for name in ("log_penalty", "log_scale"))
        return RidgeNetwork(network, penalty, scale).eval()
    raise ValueError(
        f"format={format}: {type(learner).__name__} adapts by a solver that torch.export does not take; use "
        "--format onnx, whose graph has one, or --head none."
    )


def write_program(path: Path, plan: Plan) -> None:
    """`student.pt2`: read it by `torch.export.load(path).module()`.

    An adaptable student takes support pictures, their labels as rows of zeros and a one, and query pictures.
    """
    module = module_of(plan, "torch-export")
    dims = [{0: torch.export.Dim(name)} for name in ("support", "query")]
    examples: tuple[Tensor, ...] = (plan.examples(6),)
    shapes: tuple[dict[int, Any], ...] = (dims[1],)
    if plan.learner is not None:
        targets = torch.eye(3).repeat(2, 1)
        examples = (plan.examples(6), targets, plan.examples(7))
        shapes = (dims[0], dims[0] | {1: torch.export.Dim("classes")}, dims[1])
    with quiet(), torch.no_grad():
        program = torch.export.export(module, examples, dynamic_shapes=shapes, strict=False)
        with atomic_write(path) as part, part.open("wb") as file:
            torch.export.save(program, file)


def program_answer(path: Path) -> Answer:
    """What the program in a file says of a case."""
    with quiet():
        module = torch.export.load(path).module()

    def answer(case: Case) -> np.ndarray:
        inputs = [torch.from_numpy(case.query_x)]
        if case.support_x is not None and case.support_y is not None:
            y = torch.from_numpy(case.support_y)
            targets = torch.nn.functional.one_hot(y).float()
            inputs = [torch.from_numpy(case.support_x), targets, *inputs]
        with torch.inference_mode():
            logits: Tensor = module(*inputs)
        return logits.numpy()

    return answer


def write_weights(path: Path, plan: Plan) -> None:
    """`student.safetensors`: the student's weights, as `initialisation.checkpoint` takes them."""
    state = {name: t.contiguous() for name, t in plan.student.state_dict().items()}
    ordered = dict(sorted(state.items(), key=lambda item: -item[1].element_size()))
    shapes = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in ordered.items()}
    record = {"classes": list(plan.classes), **origin(plan.student)}
    with create_tensor_file(path, shapes, {RECORD: json.dumps(record)}) as places:
        for name, tensor in ordered.items():
            places[name].copy_(tensor)


def check_weights_file(path: Path, plan: Plan) -> None:
    """Raise where the weights in a file are not those of the student, bit for bit.

    Raises:
        ValueError: if they differ.
    """
    loaded = read_checkpoint(path)["state_dict"]
    state = plan.student.state_dict()
    if loaded.keys() != state.keys() or not all(
        torch.equal(loaded[n], t) for n, t in state.items()
    ):
        raise ValueError(
            f"output={path}: what was written is not what was read again; the disk is at fault."
        )


def write_executorch(path: Path, plan: Plan) -> None:
    """`student.pte`: one picture at a time, without the head that adapts.

    Raises:
        ValueError: if the student does not read pictures one by one.
    """
    network = plan.network()
    if not isinstance(network, RowNetwork):
        raise ValueError(
            "format=executorch writes a student that reads pictures one by one, and this one takes the "
            "statistics of a support set (norm=support); use --format onnx."
        )
    with quiet(), torch.no_grad():
        program = torch.export.export(network, (plan.examples(1),), strict=False)
        lowered = package("executorch.exir").to_edge_transform_and_lower(program)
        content = lowered.to_executorch().buffer
    with atomic_write(path) as part:
        part.write_bytes(content)

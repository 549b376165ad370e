"""From a tested recipe to files, their parity with the student, and a card."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from lightning import Trainer

from lightning_metakd.classify.onnx_student import TEXT, OnnxStudent
from lightning_metakd.data.episodic_data import EpisodicData
from lightning_metakd.data.source_data import SourceData
from lightning_metakd.export.cases import Case, calibration_batches, cases, episodes_of
from lightning_metakd.export.latency import latencies
from lightning_metakd.export.onnx_file import Graph, network_graph, student_graph
from lightning_metakd.export.parity import Answer, compare
from lightning_metakd.export.plan import MODES, Head, Plan, plan_for
from lightning_metakd.export.quantisation import quantised
from lightning_metakd.export.student_card import as_markdown, licence_notes
from lightning_metakd.export.torch_files import (
    check_weights_file,
    program_answer,
    write_executorch,
    write_program,
    write_weights,
)
from lightning_metakd.recipes.recipe import Recipe
from lightning_metakd.storage.atomic_files import atomic_write, file_sha256
from lightning_metakd.storage.read_checkpoint import read_checkpoint

Format = Literal["onnx", "onnx-int8", "torch-export", "safetensors", "executorch"]
TOLERANCES = {"onnx": 0.001, "torch-export": 0.001, "onnx-int8": 0.01}
"""By how much the accuracy of a file may differ from that of the student."""


class Written(NamedTuple):
    """What was written.

    Attributes:
        files: in the order of writing.
        answers: what each file says of a case, by the name of its form.
        networks: graphs that embed picture by picture, by the name of their form; for timing.
    """

    files: list[Path]
    answers: dict[str, Answer]
    networks: dict[str, bytes]


class Provenance(NamedTuple):
    """What is known of a student beside its recipe.

    Attributes:
        name: of the experiment.
        checkpoint: file of its weights.
        machine: device and threads.
        versions: of packages and code.
    """

    name: str
    checkpoint: Path
    machine: dict[str, Any]
    versions: dict[str, Any]


def export_student(
    recipe: Recipe,
    data: SourceData,
    trainer: Trainer,
    provenance: Provenance,
    folder: Path,
    format: Format = "onnx",
    head: Head = "auto",
    n_episodes: int = 600,
) -> dict[str, Any]:
    """Write a student and its card, and return the card.

    Args:
        recipe: that was tested, with the weights which are exported.
        data: on which it was tested.
        trainer: that tested it.
        provenance: what is known beside it.
        folder: for the files.
        format: of the file.
        head: how the exported student classifies.
        n_episodes: on which the file is compared with the student.

    Raises:
        ValueError: if a file cannot do what the student does, or does something else.
    """
    plan = plan_for(recipe, data, head)
    about = {"experiment": provenance.name, "checkpoint_sha256": file_sha256(provenance.checkpoint)}
    written = WRITERS[format](plan, data, folder, about)
    results = compare(cases(recipe, data, plan, trainer, n_episodes), written.answers)
    card = card_of(recipe, data, plan, provenance, n_episodes) | {
        "format": format,
        "results": results,
        "latency": latencies(plan, data, written.networks) if written.networks else [],
        "files": {path.name: size_of(path) for path in written.files},
    }
    with atomic_write(folder / "student-card.json") as part:
        part.write_text(json.dumps(card, indent=1) + "\n")
    with atomic_write(folder / "student-card.md") as part:
        part.write_text(as_markdown(card))
    check_parity(results, folder)
    return card


def write_onnx(plan: Plan, data: SourceData, folder: Path, about: Mapping[str, Any]) -> Written:
    """A graph in single precision."""
    network = network_graph(plan)
    embeds = {"onnx": network.SerializeToString()} if plan.row_by_row else {}
    path = write_graph(folder / "student.onnx", student_graph(plan, network, about))
    return Written([path], {"onnx": graph_answer(path)}, embeds)


def write_int8(plan: Plan, data: SourceData, folder: Path, about: Mapping[str, Any]) -> Written:
    """A graph in single precision, and one in eight bits."""
    files, answers, networks = write_onnx(plan, data, folder, about)
    network = quantised(network_graph(plan), calibration_batches(data, plan))
    if plan.row_by_row:
        networks["onnx-int8"] = network.SerializeToString()
    path = write_graph(folder / "student.int8.onnx", student_graph(plan, network, about))
    return Written([*files, path], answers | {"onnx-int8": graph_answer(path)}, networks)


def write_torch_export(
    plan: Plan, data: SourceData, folder: Path, about: Mapping[str, Any]
) -> Written:
    """A program of torch.export."""
    path = folder / "student.pt2"
    write_program(path, plan)
    return Written([path], {"torch-export": program_answer(path)}, {})


def write_safetensors(
    plan: Plan, data: SourceData, folder: Path, about: Mapping[str, Any]
) -> Written:
    """Weights alone, compared bit for bit."""
    path = folder / "student.safetensors"
    write_weights(path, plan)
    check_weights_file(path, plan)
    return Written([path], {}, {})


def write_for_devices(
    plan: Plan, data: SourceData, folder: Path, about: Mapping[str, Any]
) -> Written:
    """A program of ExecuTorch."""
    path = folder / "student.pte"
    write_executorch(path, plan)
    return Written([path], {}, {})


WRITERS: Mapping[str, Callable[[Plan, SourceData, Path, Mapping[str, Any]], Written]] = {
    "onnx": write_onnx,
    "onnx-int8": write_int8,
    "torch-export": write_torch_export,
    "safetensors": write_safetensors,
    "executorch": write_for_devices,
}


def write_graph(path: Path, graph: Graph) -> Path:
    """The file of a graph."""
    with atomic_write(path) as part:
        part.write_bytes(graph.SerializeToString())
    return path


def graph_answer(path: Path) -> Answer:
    """What the graph in a file says of a case."""
    student = OnnxStudent(path, torch.get_num_threads())

    def answer(case: Case) -> np.ndarray:
        if case.support_x is None or case.support_y is None:
            return student.embed(case.query_x)
        return student.adapt_and_predict(case.support_x, case.support_y, case.query_x)

    return answer


def size_of(path: Path) -> dict[str, Any]:
    """Bytes and hash of a file."""
    return {"bytes": path.stat().st_size, "sha256": file_sha256(path)}


def check_parity(results: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    """Raise where the accuracy of a file is not that of the student."""
    for name, tolerance in TOLERANCES.items():
        if name not in results or "accuracy" not in results[name]:
            continue
        ours, others = results["torch"]["accuracy"], results[name]["accuracy"]
        if not abs(ours - others) <= tolerance:
            raise ValueError(
                f"format={name}: the file has an accuracy of {100 * others:.2f} %, and the student one of "
                f"{100 * ours:.2f} %; do not use it. {folder / 'student-card.md'} says more."
            )


# --- the card -------------------------------------------------------------------------------------


def card_of(
    recipe: Recipe, data: SourceData, plan: Plan, provenance: Provenance, n_episodes: int
) -> dict[str, Any]:
    """What the card says of the student, whatever its form."""
    measured = recipe.record.result
    external = recipe.teaching.external_data(data.source)
    return {
        "name": provenance.name,
        "kind": plan.kind,
        "network": type(plan.student).__name__,
        "head": None if plan.learner is None else type(plan.learner).__name__,
        "size": plan.size,
        "mode": MODES.get(plan.channels, TEXT),
        "judged_on": judged_on(data, plan, n_episodes),
        "cost": numbers_of(measured, "student", ("params", "macs", "flops", "bytes")),
        "teacher": numbers_of(measured, "teacher", ("params", "macs", "flops", "bytes"))
        | numbers_of(measured, "teacher", ("accuracy", "ci95")),
        "training": training_of(recipe, data, provenance.checkpoint) | {"external_data": external},
        "machine": provenance.machine,
        "versions": provenance.versions,
        "licences": licence_notes(data.source.name, external),
    }


def numbers_of(fields: Mapping[str, Any], who: str, names: tuple[str, ...]) -> dict[str, Any]:
    """Fields of a result by their names without whose they are; those that are missing are None."""
    return {name: fields.get(f"{who}_{name}") for name in names}


def judged_on(data: SourceData, plan: Plan, n_episodes: int) -> str:
    """On what file and student are compared."""
    if plan.kind == "classifier":
        return f"the test rows of {data.source.name}"
    if plan.kind == "features":
        return f"test rows of {data.source.name}"
    episodic: EpisodicData = episodes_of(data, n_episodes)
    shots = (
        episodic.k_shot
        if isinstance(episodic.k_shot, int)
        else "- to ".join(map(str, episodic.k_shot))
    )
    return (
        f"{n_episodes:,} {episodic.n_way}-way {shots}-shot episodes of novel classes of "
        f"{data.source.name}, {episodic.n_query} queries a class"
    )


def training_of(recipe: Recipe, data: SourceData, path: Path) -> dict[str, Any]:
    """How the student was trained, as far as its checkpoint says."""
    checkpoint = read_checkpoint(path)
    kept = checkpoint.get("callbacks", {}).get("Results", {})
    classes = checkpoint.get("classes") or []
    start = recipe.initialisation.checkpoint
    teachers = [
        type(t.model).__name__ + (f" ({', '.join(map(run_of, t.files))})" if t.files else "")
        for t in recipe.teachers
    ]
    return {
        "recipe": type(recipe).__name__,
        "loss": type(recipe.loss).__name__,
        "trained_on": classes_of(classes, data) if classes else None,
        "seed": kept.get("train_seed"),
        "steps": checkpoint.get("global_step"),
        "begins_from": None if start is None else run_of(start),
        "teachers": ", ".join(teachers) or None,
        "checkpoint_sha256": file_sha256(path),
    }


def classes_of(classes: Sequence[str], data: SourceData) -> str:
    """How many classes a student was trained on, and of which source, where that is the one at hand."""
    is_here = set(classes) <= set(data.source.all_rows().class_names)
    return f"{len(classes)} classes of {data.source.name if is_here else 'another source'}"


def run_of(path: str | Path) -> str:
    """The experiment that wrote a checkpoint; the name of a file that lies in no run."""
    parts = Path(path).parts
    return parts[-4] if len(parts) > 3 and parts[-2] == "checkpoints" else parts[-1]

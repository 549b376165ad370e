"""What stands on a card."""

import pytest

from lightning_metakd.data import EpisodicData
from lightning_metakd.data.sources import Synthetic
from lightning_metakd.export.export import classes_of, run_of
from lightning_metakd.export.latency import in_turns, percentiles
from lightning_metakd.export.student_card import as_markdown, file_table, licence_notes

CARD = {
    **{"name": "it", "kind": "adaptable", "network": "Conv4", "head": "Ridge", "size": 32},
    **{"mode": "RGB", "format": "onnx-int8", "judged_on": "600 episodes"},
    "results": {
        "torch": {"accuracy": 0.7, "ci95": 0.01, "ece": 0.02},
        "onnx": {
            **{"accuracy": 0.7, "ci95": 0.01, "ece": 0.02},
            **{"agreement": 1.0, "largest_difference": 1e-6},
        },
    },
    "cost": {"params": 113088, "macs": 14_200_000, "flops": 28_400_000, "bytes": 453_400},
    "teacher": {
        **{"params": 2_000_000, "macs": 92_000_000, "flops": 184_000_000, "bytes": 8_000_000},
        **{"accuracy": 0.8, "ci95": 0.01},
    },
    "latency": [
        {
            "batch": 1,
            "torch": {"p50_ms": 0.8, "p95_ms": 0.9},
            "onnx": {"p50_ms": 0.2, "p95_ms": 0.3},
        }
    ],
    "machine": {"device": "cpu (it)", "threads": 2},
    "training": {
        **{"recipe": "MetaKD", "loss": "MatchGate", "trained_on": "64 classes of CIFARFS"},
        **{"external_data": ["ImageNet"], "seed": 0, "steps": 826, "begins_from": None},
        **{"teachers": "ResNet12 (teacher)", "checkpoint_sha256": "59eb"},
    },
    "versions": {"torch": "2.15", "executorch": None},
    "files": {
        "student.onnx": {"bytes": 1000, "sha256": "0" * 64},
        "student.int8.onnx": {"bytes": 280, "sha256": "1" * 64},
    },
    "licences": ["one"],
}


def test_a_card_says_what_a_student_is_worth_and_costs():
    page = as_markdown(CARD)
    for cell in ("70.00 ± 1.00", "its teacher", "80.00 ± 1.00", "113 k", "0.80 / 0.90", "4.00"):
        assert cell in page
    for line in ("- seed: 0", "- external data: ImageNet", "- made with: torch 2.15\n", "- one"):
        assert line in page
    assert "begins from" not in page  # what is not known is left out
    assert "None" not in page


def test_a_card_without_teacher_and_times_leaves_them_out():
    page = as_markdown({**CARD, "teacher": {}, "latency": []})
    assert "its teacher" not in page
    assert "Milliseconds" not in page


def test_a_card_of_a_student_of_texts_speaks_of_texts():
    page = as_markdown({**CARD, "mode": "text", "network": "BagOfEmbeddings"})
    assert "A BagOfEmbeddings for texts" in page
    assert "texts at once" in page
    assert "ictures" not in page
    assert "Pixels" not in page


@pytest.mark.parametrize(
    ("format", "purpose"),
    [
        ("executorch", "takes one row and returns its embedding; the head that adapts is not in"),
        ("safetensors", "The file has weights alone. The student adapts by Ridge."),
    ],
)
def test_a_file_without_its_head_says_so(format, purpose):
    page = as_markdown({**CARD, "format": format})
    assert purpose in page
    assert "support rows" not in page
    assert ("Pixels go in" in page) == (format == "executorch")
    fixed = as_markdown({**CARD, "format": "executorch", "kind": "classifier", "head": None})
    assert "returns logits of fixed classes" in fixed


def test_the_part_of_the_bytes_is_said_where_there_are_two_graphs():
    assert "0.28 of the bytes" in file_table(CARD)
    assert "of the bytes" not in file_table(
        {"files": {"student.pt2": CARD["files"]["student.onnx"]}}
    )


def test_terms_are_those_of_source_and_external_data():
    notes = licence_notes("CIFARFS", ["ImageNet"])
    assert any("without a licence text" in note for note in notes)
    assert any("ImageNet" in note for note in notes)
    assert any("CC BY 4.0" in note for note in licence_notes("BANKING77 fold 1", []))
    assert any("none are on record" in note for note in licence_notes("Folder(mine)", []))


def test_a_student_of_another_source_is_not_called_one_of_the_source_at_hand():
    data = EpisodicData(Synthetic(), n_episodes=2)
    names = data.source.all_rows().class_names[:3]
    assert classes_of(names, data) == "3 classes of Synthetic"
    assert classes_of([*names, "poppy"], data) == "4 classes of another source"


@pytest.mark.parametrize(
    ("path", "name"),
    [("runs/it/latest/checkpoints/final.ckpt", "it"), ("zoo:it", "zoo:it"), ("/a/b.pt", "b.pt")],
)
def test_a_run_is_named_and_no_folder_of_the_machine(path, name):
    assert run_of(path) == name


def test_times_are_taken_in_turns():
    order = []
    times = in_turns({name: lambda name=name: order.append(name) for name in "ab"}, repeats=20)
    assert order == ["a", "b"] * 22
    assert times.keys() == {"a", "b"}
    assert percentiles([float(k) for k in range(1, 101)]) == {"p50_ms": 50.5, "p95_ms": 95.0}

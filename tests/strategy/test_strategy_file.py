import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from lightning_metakd.losses.coefficient import Learned, LearnedPerClass
from lightning_metakd.losses.hinton import Hinton
from lightning_metakd.losses.learned_per_sample import LearnedPerSample
from lightning_metakd.losses.loss import WeightedSum
from lightning_metakd.losses.match_gate import LiteralMatchGate, MatchGate
from lightning_metakd.losses.multi_teacher import MultiTeacher
from lightning_metakd.storage.tensor_file import UNSEALED, seal
from lightning_metakd.strategy.strategy_file import (
    coefficient_values,
    load_strategy,
    save_strategy,
    values_of_rows,
)
from lightning_metakd.types import Output
from tests.tiny import N_WAY, answered, batch, context, perturbed, student_answer


def loss(gate=LearnedPerSample):
    return MatchGate(gate(), Hinton(Learned()))


@pytest.fixture
def written(tmp_path):
    """(the loss, the file of its strategy)."""
    strategies = perturbed(loss())
    path = tmp_path / "strategy.safetensors"
    save_strategy(strategies, path, ["PrototypeHead"], [12.5], {"gate_mean": 0.6}, "0123")
    return strategies, path


def test_a_strategy_comes_back_as_it_was(written):
    strategies, path = written
    other = loss()
    load_strategy(other, path)
    assert strategies.state_dict().keys() == other.state_dict().keys()
    assert all(map(torch.equal, strategies.state_dict().values(), other.state_dict().values()))


def test_its_head_says_what_it_was_learned_for(written):
    with safe_open(written[1], framework="pt") as file:
        head = json.loads(file.metadata()["strategy"])
    assert head == {
        "loss": "MatchGate",
        "coefficients": {"gate": "LearnedPerSample", "match.temperature": "Learned"},
        "teacher_heads": ["PrototypeHead"],
        "teacher_scales": [12.5],
        "coefficient_values": {"gate_mean": 0.6},
        "settings_sha256": "0123",
    }
    assert written[1].stat().st_size < 4000


@pytest.mark.parametrize(
    "other",
    [
        lambda: loss(Learned),
        lambda: MatchGate(LearnedPerSample(), Hinton(4.0)),
        lambda: MatchGate(LearnedPerSample(hidden=4), Hinton(Learned())),
        lambda: MatchGate(LearnedPerSample(student_signals=False), Hinton(Learned())),
        lambda: WeightedSum({"gate": loss()}),
    ],
)
def test_a_strategy_of_another_loss_is_refused(written, other):
    with pytest.raises(
        ValueError, match=r"was learned for .*'MatchGate'.* but this loss is .*; conf"
    ):
        load_strategy(other(), written[1])


def test_a_loss_of_equal_shapes_but_another_meaning_is_refused(tmp_path):
    save_strategy(MatchGate(Learned()), tmp_path / "gate", [], [])
    with pytest.raises(
        ValueError, match=r"was learned for .*'MatchGate'.* this loss is .*'Literal"
    ):
        load_strategy(LiteralMatchGate(Learned()), tmp_path / "gate")


def test_a_refused_strategy_changes_nothing(written):
    other = loss(Learned)
    before = [p.clone() for p in other.parameters()]
    with pytest.raises(ValueError, match="was learned for"):
        load_strategy(other, written[1])
    assert all(map(torch.equal, before, other.parameters()))


@pytest.mark.parametrize("size", [0, 50, -30])
def test_a_truncated_file_is_told(written, size):
    strategies, path = written
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"is damaged or no strategy .*; take another copy"):
        load_strategy(strategies, path)


@pytest.mark.parametrize("head", [None, {"format": "pt"}, {"strategy": "no json"}])
def test_tensors_that_are_no_strategy_are_told(written, head):
    strategies, path = written
    save_file(strategies.state_dict(), path, metadata=head)
    with pytest.raises(ValueError, match="is damaged or no strategy"):
        load_strategy(strategies, path)


WHOLE = {"loss": "MatchGate", "coefficients": {}, "teacher_heads": [], "teacher_scales": []}


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        ("[1, 2]", "its head is a list"),
        ("[" * 100_000 + "]" * 100_000, "its head is nested too deeply"),
        (json.dumps({"loss": "MatchGate", "coefficients": {}}), "its head has no 'teacher_heads'"),
        (json.dumps(WHOLE | {"coefficient_values": 3}), "coefficient_values in its head is a int"),
        (
            json.dumps(WHOLE | {"coefficient_values": {}, "teacher_heads": "PrototypeHead"}),
            "teacher_heads in its",
        ),
        ("no json", "Expecting value"),
        (None, "its head has no 'strategy'"),
    ],
)
def test_a_head_that_makes_no_sense_is_told(written, head, reason):
    strategies, path = written
    metadata = UNSEALED if head is None else UNSEALED | {"strategy": head}
    save_file(strategies.state_dict(), path, metadata=metadata)
    seal(path)
    with pytest.raises(ValueError, match=rf"is damaged or no strategy \(.*{reason}") as caught:
        load_strategy(strategies, path, ["PrototypeHead"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"[" * 100_000, b"[]", b'{"a": 1}', b"{}"])
def test_a_file_whose_head_makes_no_sense_is_told(written, content):
    written[1].write_bytes(len(content).to_bytes(8, "little") + content)
    with pytest.raises(ValueError, match="is damaged or no strategy"):
        load_strategy(*written)


def test_a_strategy_with_changed_bytes_is_refused(written):
    whole = written[1].read_bytes()
    written[1].write_bytes(whole[:-40] + bytes(byte ^ 255 for byte in whole[-40:]))
    with pytest.raises(ValueError, match="its checksum is wrong"):
        load_strategy(*written)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_strategy_of_numbers_that_are_none_is_refused(tmp_path, value):
    strategies = loss()
    strategies.match.temperature.raw.data.fill_(value)
    save_strategy(strategies, tmp_path / "strategy", [], [])
    message = r"holds numbers that are none \(NaN or infinite\) in match\.temperature\.raw; the run"
    with pytest.raises(ValueError, match=message):
        load_strategy(loss(), tmp_path / "strategy")


def test_a_strategy_learned_with_other_heads_is_refused(written):
    load_strategy(loss(), written[1], ["PrototypeHead"])
    with pytest.raises(
        ValueError, match=r"answer by \['PrototypeHead'\], and these .*'SlicedHead'"
    ):
        load_strategy(loss(), written[1], ["SlicedHead"])


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"strategy_file=.*none' does not exist; name a strategy"
    ):
        load_strategy(loss(), tmp_path / "none")


def test_what_the_coefficients_say_of_rows_is_described():
    rows = answered(batch(9))
    student = Output(torch.randn(9, N_WAY).double(), torch.randn(9, 2).double())
    strategies = perturbed(loss()).double()
    row_context = context(rows, student)
    actual = coefficient_values(strategies, student, rows, row_context)
    gate = strategies.gate(rows, row_context)
    expected = {
        "gate_mean": gate.mean(),
        "gate_min": gate.min(),
        "gate_max": gate.max(),
        "match.temperature_mean": strategies.match.temperature(rows, row_context),
    }
    assert actual == {name: pytest.approx(value.item()) for name, value in expected.items()}


def test_the_values_of_rows_are_those_of_coefficients_that_differ():
    rows = answered(batch(6), teachers=2)
    output = student_answer(rows)
    of_rows = context(rows, output)
    strategies = perturbed(
        MatchGate(LearnedPerSample(), MultiTeacher(Hinton(Learned()), LearnedPerSample()))
    )
    values = values_of_rows(strategies.double(), output, rows, of_rows)
    assert values.keys() == {"gate", "match.weights.0", "match.weights.1"}
    assert torch.equal(values["gate"], strategies.gate(rows, of_rows))
    torch.testing.assert_close(
        values["match.weights.0"] + values["match.weights.1"], torch.ones(6).double()
    )
    alone = rows._replace(teacher_outputs=())
    assert values_of_rows(strategies, output, alone, of_rows) == {}


def test_numbers_of_classes_are_no_values_of_rows():
    rows = answered(batch(6))
    output = student_answer(rows)
    strategies = perturbed(
        MatchGate(LearnedPerClass(1))
    )  # there is no number for the other classes
    assert values_of_rows(strategies, output, rows, context(rows, output)) == {}

import logging
import re

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import resnet18

from lightning_metakd.models.conv4 import Conv4
from lightning_metakd.models.norm import make_episodic
from lightning_metakd.models.preprocessed import Preprocessed
from lightning_metakd.models.weights import load_weights
from lightning_metakd.models.wrapped import Wrapped
from lightning_metakd.storage.read_checkpoint import read_checkpoint, student_weights
from tests.commands import Net


def test_body_and_equal_head_are_loaded_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    student, checkpoint = Conv4(8, 5), Conv4(8, 5).state_dict()
    assert load_weights(student, checkpoint, "student") == []
    assert all(torch.equal(t, checkpoint[name]) for name, t in student.state_dict().items())
    assert not caplog.records


@pytest.mark.parametrize(
    ("present", "inputs", "message"),
    [
        (
            5,
            64,
            r"the checkpoint has head.weight \[64, 32\], head.bias \[64\], the network head.weight \[5",
        ),
        (5, 0, r"the checkpoint has none, the network head.weight \[5, 32\]"),
        (0, 64, r"head.bias \[64\], the network none"),
    ],
)
def test_a_head_that_differs_is_left_out_and_said(
    present: int, inputs: int, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    student, checkpoint = Conv4(8, present), Conv4(8, inputs).state_dict()
    head = {n: t.clone() for n, t in student.state_dict().items() if n.startswith("head.")}
    with caplog.at_level(logging.WARNING):
        (sentence,) = load_weights(student, checkpoint, "student from a.ckpt")
    assert sentence.startswith("student from a.ckpt: the head was not loaded")
    assert re.search(message, sentence)
    assert caplog.messages == [sentence]
    for name, tensor in student.state_dict().items():
        assert torch.equal(tensor, head.get(name, checkpoint.get(name)))


def test_a_converted_network_starts_from_an_unconverted_checkpoint() -> None:
    checkpoint = Conv4(8, 5)
    torch.nn.init.uniform_(checkpoint.norms[0].running_mean)
    student = make_episodic(Conv4(8, 5), "running")
    load_weights(student, checkpoint.state_dict(), "student")
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(student(x).logits, checkpoint.eval()(x).logits)


def test_another_body_is_an_error_that_changes_nothing() -> None:
    student = Conv4(8, 5)
    before = {name: t.clone() for name, t in student.state_dict().items()}
    wide = r"student: .*convs\.0\.weight is \[16, 3, 3, 3\] in the checkpoint, \[8, 3, 3, 3\] in the network"
    with pytest.raises(ValueError, match=wide + r".*and \d+ more\. Build the model with"):
        load_weights(student, Conv4(16, 5).state_dict(), "student")
    with pytest.raises(ValueError, match=r"norms\.0\.running_mean is unknown to the network"):
        load_weights(Conv4(8, norm="group"), Conv4(8).state_dict(), "student")
    with pytest.raises(ValueError, match=r"norms\.0\.running_mean is missing in the checkpoint"):
        load_weights(student, Conv4(8, norm="group").state_dict(), "student")
    assert all(torch.equal(t, before[name]) for name, t in student.state_dict().items())


# --- from elsewhere --------------------------------------------------------------------------------------

FROM_ELSEWHERE = {
    "plain": lambda net: net,
    "behind module.": nn.DataParallel,
    "behind _orig_mod.": lambda net: nn.ModuleDict({"_orig_mod": net}),
    "behind both": lambda net: nn.DataParallel(nn.ModuleDict({"_orig_mod": net})),
}


@pytest.mark.parametrize("way", FROM_ELSEWHERE)
@pytest.mark.parametrize("build", [Net, lambda: Conv4(8, 5)])
def test_weights_of_the_network_itself_are_loaded_and_said(way, build, caplog) -> None:
    inputs = build()
    state = FROM_ELSEWHERE[way](inputs).state_dict()
    present, wrapped = build(), not isinstance(inputs, Conv4)
    network = Wrapped(present) if wrapped else present
    caplog.clear()
    assert load_weights(network, state, "teacher a.pt") == []
    expected = Wrapped(inputs) if wrapped else inputs
    assert all(torch.equal(t, expected.state_dict()[n]) for n, t in network.state_dict().items())
    text = [m for m in caplog.messages if "its names were translated" in m]
    assert len(text) == (wrapped or way != "plain")
    if way == "plain" and wrapped:
        assert text == [
            "teacher a.pt: its names were translated, 'conv.weight' as 'module.conv.weight' and "
            "'fc.weight' as 'head.weight'."
        ]


@pytest.mark.parametrize("build", [Net, lambda: Conv4(8, 5)])
def test_they_are_loaded_where_the_network_brings_its_preprocessing(build) -> None:
    inputs, network = build(), Preprocessed(build(), size=48)
    assert load_weights(network, inputs.state_dict(), "teacher") == []
    expected = Preprocessed(inputs, size=48).state_dict()
    assert all(torch.equal(t, expected[name]) for name, t in network.state_dict().items())


def test_a_file_of_safetensors_is_read(tmp_path) -> None:
    inputs, network = Net(), Wrapped(Net())
    save_file(inputs.state_dict(), tmp_path / "net.safetensors")
    checkpoint = read_checkpoint(tmp_path / "net.safetensors")
    assert load_weights(network, student_weights(checkpoint), "teacher") == []
    assert torch.equal(network.head.weight, inputs.fc.weight)


def test_the_head_of_torchvisions_network_may_be_another() -> None:
    inputs, network = resnet18(num_classes=5), Wrapped(resnet18(), n_classes=7)
    (sentence,) = load_weights(network, inputs.state_dict(), "student")
    assert "the checkpoint has head.weight [5, 512]" in sentence
    assert torch.equal(network.module.conv1.weight, inputs.conv1.weight)


def test_a_classifier_may_have_another_name(caplog) -> None:
    inputs = Net()
    state = {n.replace("fc.", "classifier."): t for n, t in inputs.state_dict().items()}
    network = Wrapped(Net())
    assert load_weights(network, state, "student") == []
    assert torch.equal(network.head.weight, inputs.fc.weight)
    assert "'classifier.weight' as 'head.weight'" in caplog.text


def test_what_is_left_over_is_no_head_unless_it_is_one_linear_layer() -> None:
    state = Conv4(8, 0).state_dict() | {"more.weight": torch.zeros(3)}
    with pytest.raises(ValueError, match=r"more\.weight is unknown to the network"):
        load_weights(Conv4(8, 0), state, "student")
    state |= {"more.weight": torch.zeros(3, 32), "other.weight": torch.zeros(3, 32)}
    with pytest.raises(ValueError, match=r"more\.weight is unknown .* other\.weight is unknown"):
        load_weights(Conv4(8, 0), state, "student")

import logging
import re

import pytest
import torch

from lightning_metakd.models.conv4 import Conv4
from lightning_metakd.models.norm import make_episodic
from lightning_metakd.models.weights import load_weights


def test_body_and_equal_head_are_loaded_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    student, checkpoint = Conv4(8, 5), Conv4(8, 5).state_dict()
    assert load_weights(student, checkpoint, "student") == []
    assert all(torch.equal(t, checkpoint[name]) for name, t in student.state_dict().items())
    assert not caplog.records


@pytest.mark.parametrize(
    ("own", "given", "said"),
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
    own: int, given: int, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    student, checkpoint = Conv4(8, own), Conv4(8, given).state_dict()
    head = {n: t.clone() for n, t in student.state_dict().items() if n.startswith("head.")}
    with caplog.at_level(logging.WARNING):
        (sentence,) = load_weights(student, checkpoint, "student from a.ckpt")
    assert sentence.startswith("student from a.ckpt: the head was not loaded")
    assert re.search(said, sentence)
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

import pickle

import pytest
import torch

from lightning_metakd.checkpoint import class_names, read_checkpoint, student_weights


class Code:
    """What a checkpoint must not run."""

    def __reduce__(self):
        return print, ("executed",)


def test_a_plain_state_dict_is_a_checkpoint(tmp_path):
    torch.save({"weight": torch.ones(2)}, tmp_path / "plain.pt")
    found = read_checkpoint(tmp_path / "plain.pt")
    assert torch.equal(student_weights(found)["weight"], torch.ones(2))


def test_a_checkpoint_keeps_what_else_it_holds(tmp_path):
    torch.save({"state_dict": {}, "classes": ["cat", "ape"]}, tmp_path / "run.ckpt")
    assert class_names(read_checkpoint(tmp_path / "run.ckpt")) == ("cat", "ape")


@pytest.mark.parametrize("classes", [[3, 1], None, 7, "cat", {"cat": 0}])
def test_classes_without_names_are_no_record(classes):
    assert class_names({"state_dict": {}, "classes": classes}) == ()
    assert class_names({"state_dict": {}}) == ()


def test_a_missing_file_is_told_with_the_way_out(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.ckpt' does not exist; train it first"):
        read_checkpoint(tmp_path / "none.ckpt")


@pytest.mark.parametrize("size", [0, 100, -200])
def test_a_truncated_file_is_told_with_the_way_out(tmp_path, size):
    path = tmp_path / "cut.ckpt"
    torch.save({"state_dict": {"weight": torch.ones(100)}}, path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"cut\.ckpt' cannot be read: .* is truncated"):
        read_checkpoint(path)


def test_code_in_a_file_is_not_run(tmp_path, capsys):
    (tmp_path / "evil.ckpt").write_bytes(pickle.dumps(Code()))
    torch.save({"state_dict": Code()}, tmp_path / "torch.ckpt")
    for name in ("evil.ckpt", "torch.ckpt"):
        with pytest.raises(ValueError, match="cannot be read"):
            read_checkpoint(tmp_path / name)
    assert capsys.readouterr().out == ""


def test_something_else_than_a_dictionary_is_refused(tmp_path):
    torch.save(torch.ones(2), tmp_path / "tensor.pt")
    with pytest.raises(ValueError, match="holds a Tensor, not a state dict"):
        read_checkpoint(tmp_path / "tensor.pt")


def test_the_averaged_student_goes_before_the_student_before_the_plain_weights():
    names = ("ema.module.w", "ema.n_averaged", "student.w", "loss.gate.raw")
    state = {name: torch.tensor(i) for i, name in enumerate(names)}
    assert student_weights({"state_dict": state}) == {"w": torch.tensor(0)}
    del state["ema.module.w"]
    assert student_weights({"state_dict": state}) == {"w": torch.tensor(2)}
    assert student_weights({"state_dict": {"w": torch.tensor(5)}}) == {"w": torch.tensor(5)}

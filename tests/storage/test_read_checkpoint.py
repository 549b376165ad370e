import contextlib
import pickle
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lightning_metakd.storage.read_checkpoint import (
    class_names,
    local_file,
    read_checkpoint,
    student_weights,
)


class Code:
    """What a checkpoint must not run."""

    def __reduce__(self):
        return print, ("executed",)


def test_a_plain_state_dict_is_a_checkpoint(tmp_path):
    torch.save({"weight": torch.ones(2)}, tmp_path / "plain.pt")
    checkpoint = read_checkpoint(tmp_path / "plain.pt")
    assert torch.equal(student_weights(checkpoint)["weight"], torch.ones(2))


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


@pytest.fixture
def saved(tmp_path):
    torch.save({"state_dict": {"weight": torch.ones(1000)}}, tmp_path / "run.ckpt")
    return tmp_path / "run.ckpt"


def test_changed_bytes_in_a_tensor_are_noticed(saved):
    content = saved.read_bytes()
    at = content.index(torch.ones(40).numpy().tobytes())
    saved.write_bytes(content[:at] + bytes(40) + content[at + 40 :])
    with pytest.raises(ValueError, match=r"run\.ckpt' cannot be read: Bad CRC-32 .*data/0"):
        read_checkpoint(saved)


def test_a_changed_byte_anywhere_is_noticed_or_changes_nothing(saved):
    whole = saved.read_bytes()
    draw = random.Random(0)
    for at in draw.sample(range(len(whole)), 100):
        saved.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        with contextlib.suppress(ValueError):
            assert read_checkpoint(saved)["state_dict"]["weight"].equal(torch.ones(1000))


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:1/x.ckpt",
        "https://somebody:secret@host/x.ckpt",
        "s3://bucket/x.ckpt",
        "hf://owner/x.ckpt",
        "file:///tmp/x.ckpt",
        "simplecache::http://host/x.ckpt",
        Path("http://host/x.ckpt"),
    ],
)
def test_an_address_is_not_opened(address):
    message = "is an address, and none is opened; download the file, compare its checksum"
    with pytest.raises(ValueError, match=message) as caught:
        read_checkpoint(address)
    assert "secret" not in str(caught.value)


def test_a_file_whose_name_begins_like_an_address_is_read(saved, monkeypatch):
    monkeypatch.chdir(saved.parent)
    saved.rename("http.ckpt")
    assert "weight" in read_checkpoint("http.ckpt")["state_dict"]


def test_a_safetensors_file_is_a_state_dict(tmp_path):
    path = tmp_path / "it.safetensors"
    save_file({"weight": torch.ones(2)}, path)
    assert read_checkpoint(path)["state_dict"]["weight"].tolist() == [1, 1]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"it\.safetensors' cannot be read: "):
        read_checkpoint(path)


@pytest.mark.parametrize("content", [{"a": 1}, {"state_dict": [torch.ones(1)]}])
def test_what_holds_no_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "it.pt")
    with pytest.raises(ValueError, match=r"it\.pt' holds no tensors by name"):
        read_checkpoint(tmp_path / "it.pt")


@pytest.mark.parametrize(
    "section",
    [
        *(
            {"settings": [1]},
            {"settings": {1: 2}},
            {"training_cost": "x"},
            {"coefficient_values": None},
            {"loops": 3},
        ),
        *({"callbacks": {"Results": []}}, {"optimizer_states": {}}, {"optimizer_states": [1]}),
        *({"lr_schedulers": None}, {"global_step": "3"}, {"epoch": 1.0}),
    ],
    ids=str,
)
def test_what_no_run_writes_beside_its_tensors_is_named(tmp_path, section):
    torch.save({"state_dict": {}} | section, tmp_path / "it.pt")
    message = rf"it\.pt' has {next(iter(section))}=.*, which no run writes; take an earlier file"
    with pytest.raises(ValueError, match=message):
        read_checkpoint(tmp_path / "it.pt")


def test_a_tensor_may_be_called_as_a_section_is(tmp_path):
    torch.save({"epoch": torch.ones(1)}, tmp_path / "it.pt")
    assert list(read_checkpoint(tmp_path / "it.pt")["state_dict"]) == ["epoch"]


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


def test_a_checkpoint_of_an_experiment_of_the_package_is_missed_with_the_command_that_trains_it():
    file = "runs/single_task_synthetic_teacher/latest/checkpoints/final.ckpt"
    with pytest.raises(FileNotFoundError, match="first by metakd fit --config experiment/single_"):
        local_file(file)
    for other in ("final.ckpt", "runs/mine/latest/checkpoints/final.ckpt", "a/b/c"):
        with pytest.raises(FileNotFoundError, match="train it first, or name"):
            local_file(other)

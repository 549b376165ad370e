"""What comes with the package: found by name, checked, and used where a path may stand."""

import json

import pytest
import torch

from experiments.zoo import SUPPORT_WEIGHTS, write_network
from lightning_metakd.learners import ProtoNet
from lightning_metakd.losses import MetaWeightNet
from lightning_metakd.models import Conv4
from lightning_metakd.models.reading import from_record
from lightning_metakd.models.weights import load_weights
from lightning_metakd.recipes.initialisation import Initialisation
from lightning_metakd.storage import zoo
from lightning_metakd.storage.atomic_files import file_sha256
from lightning_metakd.storage.read_checkpoint import local_file, read_checkpoint, student_weights
from lightning_metakd.storage.read_strategy import read_strategy
from lightning_metakd.teachers import Teacher
from tests.recipes.runs import moved, state
from tests.tiny import SmoothConv4

MIB = 2**20
RECORD = {
    "classes": ["cat", "dog"],
    "reading": {"mean": [0.5] * 3, "std": [0.25] * 3},
    "external_data": ["ImageNet"],
}


@pytest.fixture
def own_zoo(tmp_path, monkeypatch):
    """A zoo of one network."""
    monkeypatch.setattr(zoo, "folder", lambda: tmp_path)
    network = SmoothConv4(2)
    state = {f"student.{name}": tensor for name, tensor in network.state_dict().items()}
    file = tmp_path / "small.safetensors"
    write_network(file, {"state_dict": state, **RECORD})
    (tmp_path / "small.json").write_text(json.dumps({"sha256": file_sha256(file)}))
    return network, file


def test_a_network_in_half_precision_says_what_its_checkpoint_said(own_zoo):
    network, file = own_zoo
    checkpoint = read_checkpoint("zoo:small")
    assert {name: checkpoint[name] for name in RECORD} == RECORD
    weights = student_weights(checkpoint)
    for name, tensor in network.state_dict().items():
        assert weights[name].dtype == tensor.dtype
        torch.testing.assert_close(weights[name], tensor, rtol=1e-3, atol=1e-6)
        if tensor.dim() < 2:
            assert torch.equal(weights[name], tensor)
    assert local_file("zoo:small") == file
    assert Initialisation(checkpoint="zoo:small").checkpoint_sha256() == file_sha256(file)


def test_it_teaches_by_its_name(own_zoo):
    teacher = Teacher(SmoothConv4(2), checkpoint="zoo:small")
    teacher.open()
    assert teacher.trained_on == ("cat", "dog")
    assert teacher.model.reading == from_record(RECORD["reading"])
    assert teacher.model.external_data == ("ImageNet",)


@pytest.mark.parametrize("read", [read_checkpoint, read_strategy])
def test_a_changed_byte_and_an_unknown_name_are_refused(own_zoo, read):
    _, file = own_zoo
    with pytest.raises(FileNotFoundError, match="zoo:large is not in the zoo; it has small"):
        read("zoo:large")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"zoo:small is damaged: .* its card says"):
        read("zoo:small")


def test_a_record_that_is_none_is_refused(own_zoo):
    _, file = own_zoo
    content = file.read_bytes()
    for planted in (b"{]", b'""'):
        at = content.index(b'{\\"classes')
        file.write_bytes(content[:at] + planted + content[at + len(planted) :])
        with pytest.raises(ValueError, match="cannot be read"):
            read_checkpoint(file)


def test_a_test_of_weights_alone_says_how(metakd):
    with pytest.raises(ValueError, match=r"weights as --model.initialisation.checkpoint=zoo:conv4"):
        metakd("test", "--ckpt_path", "zoo:conv4_64_cifar_fs_start")


@pytest.mark.parametrize("name", zoo.names())
def test_what_is_there_is_what_its_card_says(name):
    card, file = zoo.card(name), zoo.located(f"zoo:{name}")
    assert file.stat().st_size == card["bytes"] <= 8 * MIB
    assert card["reached"]
    if "model" in card:
        assert len(read_checkpoint(file).get("classes", [])) == card["n_classes"]
    elif name == SUPPORT_WEIGHTS:
        learner = ProtoNet(support_weight=MetaWeightNet())
        before = state(learner)
        Initialisation(support_weight=f"zoo:{name}").load_support_weight(learner)
        assert moved(before, state(learner)) > {"support_weight.net.2.weight"}
    else:
        head, tensors = read_strategy(f"zoo:{name}")
        assert head
        assert tensors


def test_all_of_it_is_small():
    assert sum(path.stat().st_size for path in zoo.folder().iterdir()) <= 20 * MIB


def test_the_start_of_students_is_there():
    weights = student_weights(read_checkpoint("zoo:conv4_64_cifar_fs_start"))
    assert load_weights(Conv4(pooling="average", n_classes=64), weights, "zoo") == []

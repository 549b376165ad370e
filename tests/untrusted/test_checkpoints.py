"""Checkpoints that somebody planted: nothing in them runs, nothing is written, and little memory is taken."""

import http.server
import threading
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.plugins import AsyncCheckpointIO

from lightning_metakd.data.sources.embedded import Embedded
from lightning_metakd.learners.protonet import ProtoNet
from lightning_metakd.recipes.meta_kd import MetaKD
from lightning_metakd.storage.atomic_checkpoint_io import AtomicCheckpointIO, read_safely
from lightning_metakd.storage.read_checkpoint import read_checkpoint
from lightning_metakd.teachers.teacher import Teacher
from tests.recipes.runs import grouped
from tests.tiny import Blobs, Fixed, SmoothConv4, episode, trainer
from tests.untrusted.plants import CHECKPOINTS, CREATED, with_code, written


@pytest.mark.parametrize(("plant", "message"), CHECKPOINTS)
@pytest.mark.parametrize("force", ["", "1"])
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_a_planted_checkpoint_is_refused(plant, message, force, monkeypatch, capfd, thrifty):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", force)
    path = Path("planted.ckpt")
    plant(path)
    before = written()
    for read in (read_checkpoint, AtomicCheckpointIO().load_checkpoint):
        with pytest.raises(ValueError, match=message) as caught:
            read(path)
        assert "\n" not in str(caught.value)
        assert "weights_only" not in str(caught.value)
    assert written() == before
    assert "".join(capfd.readouterr()) == ""


def test_the_limit_can_be_raised_and_lowered(monkeypatch):
    torch.save({"weight": torch.ones(2**19)}, "run.ckpt")
    monkeypatch.setenv("METAKD_READ_LIMIT_MIB", "2")
    with pytest.raises(ValueError, match=r"takes 3 MiB .* limit is 2; .*METAKD_READ_LIMIT_MIB=3\."):
        read_checkpoint("run.ckpt")
    monkeypatch.setenv("METAKD_READ_LIMIT_MIB", "3")
    read_checkpoint("run.ckpt")
    for wrong in ("0", "-1", "much", "1.5"):
        monkeypatch.setenv("METAKD_READ_LIMIT_MIB", wrong)
        with pytest.raises(ValueError, match=r"METAKD_READ_LIMIT_MIB='.*' must be a whole number"):
            read_checkpoint("run.ckpt")


# --- whoever loads ----------------------------------------------------------------------------------


def recipe(**settings):
    return MetaKD(SmoothConv4(0), ProtoNet(), **grouped(settings))


def fit(path, **settings):
    trainer(**settings).fit(recipe(), datamodule=Fixed([episode()]), ckpt_path=path)


WAYS = {
    "ckpt_path of a fit": fit,
    "ckpt_path of a test": lambda path: trainer().test(
        recipe(), datamodule=Fixed([episode()]), ckpt_path=path
    ),
    "init": lambda path: trainer().fit(recipe(init=str(path)), datamodule=Fixed([episode()])),
    "teacher": lambda path: Teacher(SmoothConv4(0), checkpoint=str(path)).open(),
    "embedded": lambda path: Embedded(Blobs(), SmoothConv4(0), str(path)).all_rows(),
}


@pytest.fixture
def server(place):
    """The address of a planted checkpoint on this machine, and who asked for it."""
    with_code(place / "x.ckpt")
    recorded = []

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            recorded.append(args)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_address[1]}/x.ckpt", recorded
        serving.shutdown()


@pytest.mark.thorough
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("force", ["", "1"])
def test_no_way_to_load_opens_an_address_or_runs_code(way, force, server, monkeypatch, thrifty):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", force)
    address, requested = server
    with pytest.raises(ValueError, match="is an address, and none is opened"):
        WAYS[way](address)
    with pytest.raises(ValueError, match=r"it names '\w+\.system', which is code"):
        WAYS[way]("x.ckpt")
    assert not requested
    assert not CREATED.exists()


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_the_command_opens_no_address(command, server, metakd, thrifty):
    with pytest.raises(ValueError, match="is an address, and none is opened"):
        metakd(command, f"--ckpt_path={server[0]}")
    assert not server[1]


def test_a_trainer_is_not_talked_into_running_code():
    with_code(Path("x.ckpt"))
    with pytest.raises(ValueError, match="weights_only=false would run the code"):
        trainer().fit(
            recipe(), datamodule=Fixed([episode()]), ckpt_path="x.ckpt", weights_only=False
        )
    assert not CREATED.exists()


def test_a_class_that_somebody_called_safe_is_refused_too():
    torch.save({"weight": Fraction(1, 2)}, "x.ckpt")
    with torch.serialization.safe_globals([Fraction]):
        assert torch.load("x.ckpt", weights_only=True) == {"weight": Fraction(1, 2)}
        with pytest.raises(ValueError, match=r"it names 'fractions\.Fraction', which is code"):
            read_checkpoint("x.ckpt")


def test_a_plugin_that_reads_in_its_own_way_is_refused():
    with pytest.raises(
        ValueError, match=r"plugins=\[AsyncCheckpointIO\] reads checkpoints without"
    ):
        fit(None, plugins=[AsyncCheckpointIO()])


def test_a_reader_of_somebody_is_left_in_its_place():
    class Own(AtomicCheckpointIO):
        pass

    strategy = Trainer(plugins=[Own()], logger=False, accelerator="cpu").strategy
    read_safely(strategy)
    assert type(strategy.checkpoint_io) is Own


@pytest.mark.parametrize("kind", [MetaKD, Fixed])
def test_nothing_is_built_from_what_a_file_says(kind):
    with_code(Path("x.ckpt"))
    with pytest.raises(TypeError, match="build"):
        kind.load_from_checkpoint("x.ckpt")
    assert not CREATED.exists()

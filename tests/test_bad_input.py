"""What a user gets wrong: one clear message each, and nothing half-done that looks whole."""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback, ProgressBar
from lightning.pytorch.strategies import FSDPStrategy
from PIL import Image

from lightning_metakd import cli
from lightning_metakd.data.synthetic import Synthetic
from lightning_metakd.recipes.outer_loop import refuse_sharding
from tests.commands import MAML, STUDENT, TEACHER, work_in, written

FINAL = "runs/teacher/latest/checkpoints/final.ckpt"
MAML_FIT = ("fit", "--config", "maml.yaml")
STUDENT_FIT = ("fit", "--config", "student.yaml")
TEACHER_FIT = ("fit", "--config", "teacher.yaml")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a trained teacher and MAML student."""
    folder = tmp_path_factory.mktemp("trained")
    written(folder, teacher=TEACHER, student=STUDENT, maml=MAML)
    with pytest.MonkeyPatch.context() as patch:
        work_in(folder, patch)
        cli.main([*TEACHER_FIT, "--trainer.limit_train_batches=1"])
        cli.main([*MAML_FIT, "--trainer.max_epochs=1"])
    return folder


@pytest.fixture
def folder(trained, tmp_path, as_users_run_it):
    """A copy of that folder, without run-time checks of types: they would speak before we can."""
    shutil.copytree(trained, tmp_path, symlinks=True, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def refused(metakd, folder):
    """Run a command that must fail with this message, and leave nothing that looks like a result."""

    def check(told, *words, kind=ValueError):
        before = whole(folder)
        with pytest.raises(kind, match=told) as caught:
            metakd(*words)
        assert "\n" not in str(caught.value)
        assert whole(folder) == before

    return check


def whole(folder):
    """What says that something is complete, and where `latest` points."""
    found = {p: p.stat().st_mtime_ns for p in folder.rglob("final.ckpt")}
    found |= {p: p.read_text() for p in folder.rglob("results.jsonl")}
    return found | {p: p.readlink() for p in folder.glob("runs/*/latest")}


# --- the task -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["--data.n_way=40", "--model.student.n_classes=40"],
            "n_way=40 exceeds the 16 classes of split 'val' in Synthetic; lower",
        ),
        (
            ["--data.n_way=6"],
            "the student has 5 logits for the 6 classes of the data; set the n_classes",
        ),
        (["--data.n_way=1"], "n_way=1 leaves nothing to tell apart; choose 2 or more"),
        (
            ["--data.k_shot=6"],
            r"k_shot \+ n_query = 10 exceeds the 8 images of class '\w+' .* lower data\.k_shot",
        ),
        (["--data.k_shot=0"], r"k_shot=0 must be 1 or more, or a range such as \[1, 5\]"),
        (["--data.n_query=0"], r"data\.n_query=0 must be 1 or more"),
        (["--data.train_split=trian"], "split='trian' is not a split of Synthetic; choose one of"),
        (["--data.source.per_class=1"], "per_class=1 leaves no image to query; choose 2 or more"),
        (["--model.student.n_classes=0"], r"MAML needs the student's logits head.*data\.n_way"),
        (["--model.learner=ProtoNet"], "ProtoNet does not use the student's logits head.*to 0"),
        (["--model.learner.inner_lr=-1"], r"inner_lr=-1\.0 must be positive"),
        (["--model.optimisation.lr=0"], r"optimisation\.lr=0\.0 must be positive and finite"),
        (["--experiment=a/b"], "experiment='a/b' names a directory; use letters, digits"),
        (
            ["--trainer.precision=16-mixed"],
            r"trainer\.precision=16-mixed loses hyper-gradients.*; use 32-true, or bf16-mixed where",
        ),
        (["--trainer.strategy=fsdp"], r"trainer\.strategy=fsdp divides parameters .* use ddp"),
        (["--trainer.strategy=deepspeed_stage_2"], r"strategy=deepspeed_stage_2 .* use ddp"),
        (["--trainer.gradient_clip_val=1"], r"gradient_clip_val=1.*model\.optimisation\.grad_clip"),
        (["--trainer.accumulate_grad_batches=2"], r"accumulate_grad_batches=2.*meta_batch_size"),
    ],
)
def test_a_task_or_setting_that_cannot_be_is_told(words, told, refused):
    refused(told, *MAML_FIT, *words)


def test_a_batch_larger_than_the_data_is_told(refused):
    refused(
        r"batch_size=999 on 1 rank\(s\) exceeds the \d+ rows", *TEACHER_FIT, "--data.batch_size=999"
    )


def test_a_head_of_another_size_than_the_classes_is_told(refused):
    told = "the student has 7 logits for the 48 classes of the data; set the n_classes"
    refused(told, *TEACHER_FIT, "--model.student.n_classes=7")


def test_a_sharding_strategy_is_refused_in_python_too():
    with pytest.raises(ValueError, match=r"strategy=FSDPStrategy divides parameters .* use ddp"):
        refuse_sharding(FSDPStrategy())


# --- files of images ---------------------------------------------------------------------------------------


def picture(path, colour=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (colour, 0, 0)).save(path)


def images(folder, classes=12, each=8):
    for c in range(classes):
        for i in range(each):
            picture(folder / f"class{c}" / f"{i}.png", 20 * c + i)


def one_image(folder):
    images(folder / "pictures", 3)
    picture(folder / "pictures" / "lonely" / "0.png")


def truncated_archive(folder):
    images(folder / "there")
    with zipfile.ZipFile(folder / "pictures", "w") as archive:
        for path in (folder / "there").rglob("*.png"):
            archive.write(path, path.relative_to(folder / "there"))
    whole = (folder / "pictures").read_bytes()
    (folder / "pictures").write_bytes(whole[: len(whole) // 2])


def damaged_image(folder):
    images(folder / "pictures")
    path = folder / "pictures" / "class3" / "1.png"
    path.write_bytes(path.read_bytes()[:40])


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda folder: None, "path=pictures does not exist; give a directory or a zip archive"),
        (
            lambda folder: (folder / "pictures").mkdir(),
            "no class folders with images in path=pictures; expected <class>/<image>",
        ),
        (one_image, "class folder 'lonely' in path=pictures holds 1 image.*add images or remove"),
        (truncated_archive, "path=pictures is neither a directory nor a whole zip archive"),
        (damaged_image, r"cannot read the image class3/1\.png in pictures.*copy the data again"),
        (
            lambda folder: images(folder / "pictures", 6),
            r"n_way=5 exceeds the \d classes of split '\w+' in Folder\(pictures\); lower data\.n_way",
        ),
    ],
)
def test_images_that_cannot_be_read_are_named(make, told, refused, folder):
    make(folder)
    source = ("--data.source.class_path=Folder", "--data.source.path=pictures")
    refused(told, *MAML_FIT, *source, kind=(ValueError, FileNotFoundError))


def test_absent_data_says_where_to_get_it(refused):
    source = ("--data.source.class_path=CIFARFS", "--data.source.root=nowhere")
    told = r"CIFAR-100 is not in root=nowhere; give download: true to fetch it"
    refused(told, *MAML_FIT, *source, kind=FileNotFoundError)


# --- checkpoints -------------------------------------------------------------------------------------------


def truncate(path):
    path = Path(path).resolve()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return str(path)


MAML_FINAL = "runs/maml/0/checkpoints/final.ckpt"


@pytest.mark.parametrize(
    ("path", "words", "told"),
    [
        (
            MAML_FINAL,
            ["test", "--ckpt_path", MAML_FINAL],
            "cannot be read: .* or train again",
        ),
        (
            MAML_FINAL,
            [*MAML_FIT, f"--model.init={MAML_FINAL}"],
            "cannot be read: .* It is truncated",
        ),
        (FINAL, STUDENT_FIT, f"checkpoint='{FINAL}' cannot be read: .* take an earlier file"),
    ],
)
def test_a_truncated_checkpoint_is_named(path, words, told, refused, folder):
    truncate(folder / path)
    refused(told, *words)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            [*MAML_FIT, "--model.init=no.ckpt"],
            r"checkpoint='no\.ckpt' does not exist; train it first",
        ),
        ([*MAML_FIT, "--model.init=code.ckpt"], "it names .pathlib.PosixPath., which is code"),
        (
            ["test", "--config", "maml.yaml"],
            r"model\.init=null: test would judge random weights; add",
        ),
        (["test", "--ckpt_path=runs/maml/0"], r"ckpt_path=runs/maml/0 is no file; name one"),
        (["test", "--ckpt_path=best"], "ckpt_path=best is no file; name one"),
        (["test", "--ckpt_path=code.ckpt"], r"no configuration lies beside ckpt_path=code\.ckpt"),
        ([*MAML_FIT, "--ckpt_path=no.ckpt"], r"checkpoint='no\.ckpt' does not exist"),
        (
            [*MAML_FIT, f"--model.init={FINAL}", "--model.student.width=6"],
            r"init runs/.*: the checkpoint is of another network: .* Build the model with",
        ),
        (
            ["test", "--ckpt_path", MAML_FINAL, "--model.student.width=6"],
            r"ckpt_path=runs/.*: the checkpoint is of another network: student\.convs\.0\.weight is",
        ),
        (
            [*STUDENT_FIT, "--model.strategy=no.safetensors"],
            r"strategy='no\.safetensors' does not exist",
        ),
    ],
)
def test_a_wrong_checkpoint_is_named(words, told, refused, folder):
    torch.save({"state_dict": {"x": Path("a path is code")}}, folder / "code.ckpt")
    refused(told, *words, kind=(ValueError, FileNotFoundError))


def test_a_missing_teacher_says_to_train_it_first(refused, folder):
    shutil.rmtree(folder / "runs" / "teacher")
    told = rf"checkpoint='{FINAL}' does not exist; train it first"
    refused(told, *STUDENT_FIT, kind=FileNotFoundError)


# --- teachers and strategies -------------------------------------------------------------------------------


SLICED = ("--model.teachers.head=SlicedHead", "--model.teachers.bank=false")


def test_a_teacher_that_does_not_know_the_classes_is_told(refused):
    width = "--model.teachers.model.n_classes=48"
    told = r"head=SlicedHead cannot answer for \w+.* trained on 48 other classes .*; use Prototype"
    refused(told, *STUDENT_FIT, *SLICED, width)


def single_task(folder, strategy_lr, loss, n_classes=48):
    """A student of the teacher's classes, taught by its own logits."""
    sliced = {
        "model": {"class_path": "Conv4", "init_args": {"width": 4, "n_classes": 48}},
        "checkpoint": FINAL,
        "head": {"class_path": "SlicedHead"},
    }
    teachers = [{"class_path": "lightning_metakd.teachers.Teacher", "init_args": sliced}]
    told = {"teachers": teachers, "loss": loss, "strategy_lr": strategy_lr}
    told = {**TEACHER["model"]["init_args"], **told}
    written(folder, single={**TEACHER, "model": {"class_path": "SingleTask", "init_args": told}})


def per_class(n):
    return {
        "class_path": "MatchGate",
        "init_args": {"gate": {"class_path": "LearnedPerClass", "init_args": {"n_classes": n}}},
    }


@pytest.mark.parametrize("strategy_lr", [0.0, 0.1])
def test_a_gate_per_class_is_refused_where_classes_are_new(strategy_lr, refused, folder):
    gate = {**STUDENT["model"]["init_args"], "loss": per_class(100), "strategy_lr": strategy_lr}
    written(folder, student={**STUDENT, "model": {"class_path": "MetaKD", "init_args": gate}})
    told = (
        r"gate=LearnedPerClass learns a number for each class .* 36 classes .* are new .* Learned"
    )
    refused(told, *STUDENT_FIT)


def test_a_gate_per_class_needs_a_number_for_each(refused, folder):
    single_task(folder, 0.1, per_class(9))
    told = r"n_classes=9 of gate=LearnedPerClass is too few for dataset class \d+; set it to \d+"
    refused(told, "fit", "--config", "single.yaml", "--data.quiz_fraction=0.125")


CONSTANT = {"class_path": "MatchGate", "init_args": {"gate": 0.5}}


def test_a_strategy_without_a_learned_coefficient_is_refused(refused, folder):
    told = r"strategy_lr=0\.1 trains a strategy, but no coefficient of the loss is learned; name"
    refused(told, *STUDENT_FIT, "--model.strategy_lr=0.1", "--model.loss.gate=0.5", *TEMPERATURE)
    single_task(folder, 0.1, CONSTANT)
    refused(told, "fit", "--config", "single.yaml", "--data.quiz_fraction=0.125")


TEMPERATURE = ("--model.loss.match.temperature=4.0",)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["--model.teachers=[]"],
            "follows a teacher, but teachers is empty; name one in model.teachers",
        ),
        (["--data.strategy_split=null"], "teachers.0. was trained on .* set data.strategy_split"),
        (["--data.n_query=1"], "n_query=1 leaves no rows to judge the strategy on: for ProtoNet"),
        (["--data.views=null"], "data.views=null draws a new view each time"),
        (
            ["--model.teacher_at_test=true"],
            "teacher_at_test=true changes nothing with learner=ProtoNet",
        ),
    ],
)
def test_a_strategy_that_could_not_be_learned_is_refused(words, told, refused):
    refused(told, *STUDENT_FIT, *words)


def test_a_single_task_strategy_needs_a_quiz(refused, folder):
    single_task(
        folder, 0.1, {"class_path": "MatchGate", "init_args": {"gate": {"class_path": "Learned"}}}
    )
    told = r"strategy_lr=0\.1 and teacher_lr=0\.0 need rows to judge .* set data\.quiz_fraction"
    refused(told, "fit", "--config", "single.yaml")


def test_a_learned_strategy_may_be_frozen(metakd, folder):
    run = metakd(*STUDENT_FIT, "--model.strategy_lr=0", "--trainer.max_epochs=1")
    assert all(not p.requires_grad for p in run.model.loss.parameters())
    assert Path("runs/student/0/strategy.safetensors").is_file()


# --- on the way --------------------------------------------------------------------------------------------


def test_a_training_that_diverges_stops_and_keeps_the_last_good_state(metakd, folder):
    told = (
        r"the gradient is nan at step \d.*nothing was changed\. Start anew with a lower "
        r"model\.optimisation\.lr=1e\+30"
    )
    words = ("--model.optimisation.optimiser=sgd", "--model.optimisation.lr=1e30")
    content = (folder / MAML_FINAL).read_bytes()
    with pytest.raises(FloatingPointError, match=told):
        metakd(*MAML_FIT, *words)
    assert (folder / MAML_FINAL).read_bytes() == content
    assert not list(folder.glob("runs/maml/1/checkpoints/*.ckpt"))


@pytest.fixture
def full_disk(folder):
    """A disk of 300 kB."""
    place = folder / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here; only root may")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_told_and_leaves_what_was_there(metakd, full_disk):
    words = (*MAML_FIT, f"--runs={full_disk}")
    metakd(*words, "--trainer.max_epochs=1")
    kept = (full_disk / "maml" / "0" / "checkpoints" / "final.ckpt").read_bytes()
    (full_disk / "filler").write_bytes(bytes(1000 * free_kb(full_disk) - 20_000))
    told = r"could not be written \(No space left on device.* free some space"
    with pytest.raises(OSError, match=told):
        metakd(*words)
    assert (full_disk / "maml" / "0" / "checkpoints" / "final.ckpt").read_bytes() == kept
    later = list(full_disk.glob("maml/1/checkpoints/*"))
    assert not [path for path in later if path.name == "final.ckpt" or "part" in path.name]


def free_kb(place):
    return shutil.disk_usage(place).free // 1024


# --- how it is said ----------------------------------------------------------------------------------------


def ended(command, monkeypatch, capsys, words=("fit",)):
    """Exit code, last line, and what stood before it, of a command that ends like this."""
    monkeypatch.setattr(cli, "main", command)
    monkeypatch.setattr(cli, "tidy_terminal", lambda: None)
    monkeypatch.setattr(sys, "argv", ["metakd", *words])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as done:
        cli.console()
    *before, line = capsys.readouterr().err.splitlines() or [""]
    return done.value.code, line, "\n".join(before)


class Faulty(Callback):
    """A mistake of the program, in the middle of a run."""

    def on_train_batch_end(self, *args):
        raise RuntimeError("ftp://me:secret@host is away")


def test_a_fault_of_the_program_is_one_line_and_is_written_down_in_the_runs_directory(
    metakd, folder, monkeypatch, capsys
):
    words = [*MAML_FIT, "--trainer.callbacks+=tests.test_bad_input.Faulty"]
    code, line, before = ended(cli.main, monkeypatch, capsys, words)
    assert code == 70
    assert line.startswith("metakd: a fault of the program, RuntimeError: ftp://***@host is away")
    assert "the full traceback is in runs/maml/1/error.log" in line
    assert "Traceback" not in before
    log = Path("runs/maml/1/error.log").read_text()
    assert "in on_train_batch_end" in log
    assert f"torch {torch.__version__.split('+')[0]}" in log
    assert "secret" not in log


class Away(Synthetic):
    """Images that cannot be told from others, by a mistake of the program."""

    content = property(lambda self: {}["content"])


def test_a_fault_before_anything_is_written_is_not_lost(metakd, folder, monkeypatch, capsys):
    words = [*MAML_FIT, "--data.source=tests.test_bad_input.Away", "--experiment=early"]
    code, line, _ = ended(cli.main, monkeypatch, capsys, words)
    assert code == 70
    assert line.startswith("metakd: a fault of the program, KeyError: 'content' (the full")
    assert "in <lambda>" in Path("runs/early/0/error.log").read_text()


def test_a_fault_before_there_is_a_run_is_written_down_too(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def fail():
        raise RuntimeError("shapes do not match")

    code, line, _ = ended(fail, monkeypatch, capsys)
    (log,) = tmp_path.iterdir()
    assert code == 70
    assert str(log) in line
    assert "RuntimeError: shapes do not match" in log.read_text()


def test_an_interruption_ends_with_130(monkeypatch, capsys):
    def interrupt():
        raise KeyboardInterrupt

    assert ended(interrupt, monkeypatch, capsys)[0] == 130


def test_no_memory_is_not_a_fault_of_the_program(monkeypatch, capsys):
    def fail():
        torch.empty(2**60)

    code, line, _ = ended(fail, monkeypatch, capsys)
    assert code == 1
    assert "lower data.meta_batch_size" in line


def test_the_command_alone_prints_its_help(metakd, capsys):
    with pytest.raises(SystemExit) as done:
        metakd()
    assert done.value.code == 0
    assert "subcommands:" in capsys.readouterr().out


def test_modules_of_the_working_directory_are_found(metakd, tmp_path, monkeypatch, capsys):
    (tmp_path / "own_nets.py").write_text(
        "from lightning_metakd.models.mlp import MLP\nclass Net(MLP): pass\n"
    )
    written(tmp_path, maml=MAML)
    words = [*MAML_FIT, "--model.student=own_nets.Net", "--print_config"]
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.setattr(sys, "argv", ["metakd", *words])
    monkeypatch.setattr(cli, "tidy_terminal", lambda: None)
    with pytest.raises(SystemExit) as done:
        cli.console()
    assert done.value.code == 0
    assert "class_path: own_nets.Net" in capsys.readouterr().out
    assert sys.path[-1] == str(tmp_path)  # behind all that is installed


@pytest.mark.parametrize(
    "bar", ["--trainer.enable_progress_bar=false", "--trainer.callbacks=TQDMProgressBar"]
)
def test_the_progress_bar_gives_way(bar, metakd, folder):
    run = metakd(*MAML_FIT, "--trainer.fast_dev_run=1", bar)
    bars = [type(c).__name__ for c in run.trainer.callbacks if isinstance(c, ProgressBar)]
    assert bars == ([] if "false" in bar else ["TQDMProgressBar"])


def test_the_console_says_it_in_one_line_and_ends_with_one(metakd, folder, monkeypatch, capsys):
    monkeypatch.setattr(cli, "tidy_terminal", lambda: None)  # what it switches off stays off
    monkeypatch.setattr(
        sys, "argv", ["metakd", *MAML_FIT, "--data.n_way=17", "--model.student.n_classes=17"]
    )
    with pytest.raises(SystemExit) as done:
        cli.console()
    assert done.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert line.startswith("metakd: n_way=17 exceeds the 16 classes of split 'val' in Synthetic;")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("n_way=17 is too much"), "metakd: n_way=17 is too much"),
        (OSError(28, "nothing could be written; free some space"), "metakd: nothing could be writ"),
        (FileNotFoundError(2, "No such file or directory", "a.yaml"), "file or directory: a.yaml"),
        (FloatingPointError("the gradient is nan"), "metakd: the gradient is nan"),
    ],
)
def test_an_error_is_said_without_a_trace_unless_asked_for(error, said, monkeypatch, capsys):
    def fail():
        raise error

    code, line, _ = ended(fail, monkeypatch, capsys)
    assert code == 1
    assert said in line
    monkeypatch.setenv("METAKD_TRACEBACK", "1")
    code, line, before = ended(fail, monkeypatch, capsys)
    assert said in line
    assert "Traceback (most recent call last)" in before

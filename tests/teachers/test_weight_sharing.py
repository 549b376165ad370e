"""What a student takes of its teachers' weights, and that it stays where it should."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from lightning_metakd.callbacks.replicas import FrozenParameterCheck
from lightning_metakd.functional.bind import bind_loss
from lightning_metakd.learners.maml import MAML
from lightning_metakd.learners.maml_plus_plus import MAMLPlusPlus
from lightning_metakd.learners.meta_sgd import MetaSGD
from lightning_metakd.learners.proto_maml import ProtoMAML
from lightning_metakd.learners.protonet import ProtoNet
from lightning_metakd.learners.reptile import Reptile
from lightning_metakd.losses.hinton import Hinton
from lightning_metakd.losses.loss import CrossEntropy, batch_loss
from lightning_metakd.losses.match_gate import MatchGate
from lightning_metakd.metrics.cost import count_parameters
from lightning_metakd.models.wrapped import Wrapped
from lightning_metakd.recipes.initialisation import Initialisation
from lightning_metakd.recipes.meta_kd import MetaKD
from lightning_metakd.recipes.strategy_training import StrategyTraining
from lightning_metakd.storage.read_checkpoint import read_checkpoint, student_weights
from lightning_metakd.teachers.teacher_pool import TeacherPool
from lightning_metakd.teachers.weight_sharing import Share, Sharing
from tests.commands import STUDENT, TEACHER, checkpoint, results, written
from tests.recipes.runs import batches, episodes, helper, meta_kd, moved, sgd, single_task, state
from tests.recipes.test_meta_gradient import together
from tests.tiny import N_WAY, Fixed, SmoothConv4, batch, episode, perturbed, teacher, trainer

LOWER = {"convs.0": "convs.0", "norms.0": "norms.0"}


def student(n_classes=0):
    return SmoothConv4(n_classes, width=4)


def lower(how, **settings):
    return [Share(LOWER, how=how, **settings)]


def of_lower(network):
    return {n: t for n, t in state(network).items() if n.startswith(("convs.0.", "norms.0."))}


def episodic(learner, **settings):
    return meta_kd(learner, student(N_WAY if learner.needs_head else 0), **settings)


RUNS = {
    "MAML": (lambda **settings: episodic(MAML(0.05, 2), **settings), episodes),
    "ProtoNet": (lambda **settings: episodic(ProtoNet(), **settings), episodes),
    "ProtoNet, tracked": (
        lambda **settings: episodic(ProtoNet(), norm="tracked", **settings),
        episodes,
    ),
    "SingleTask": (lambda **settings: single_task(student(12), **settings), batches),
}
each_run = pytest.mark.parametrize(("make", "data"), RUNS.values(), ids=RUNS)
LEARNERS = {
    "MAML": lambda: MAML(0.05, 2),
    "Meta-SGD": lambda: MetaSGD(0.05, 2),
    "MAML++": lambda: MAMLPlusPlus(0.05, 2),
    "ProtoMAML": lambda: ProtoMAML(0.05, 2),
    "Reptile": lambda: Reptile(0.05, 2),
}


def fit(recipe, data, **settings):
    run = trainer(**{"max_steps": 2, **settings})
    run.fit(recipe, datamodule=data)
    return run


def lived(module):
    """Away from its birth, statistics included."""
    perturbed(module)
    for name, buffer in module.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)
    return module


def lived_helper(n_classes=0):
    made = helper(n_classes)
    lived(made.model)
    return made


def begun(make, data, **settings):
    """The recipe, before its first step."""
    classes = 12 if data is batches else 0
    recipe = make(teachers=[lived_helper(classes)], quiz=CrossEntropy(), **settings)
    fit(recipe, data(), max_steps=0)
    return recipe


# --- weights of its own ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["MAML", "SingleTask"])
def test_a_frozen_body_stays_with_its_statistics_and_the_head_learns(name):
    recipe = begun(*RUNS[name], freeze=["body"])
    before = state(lived(recipe.student))
    fit(recipe, RUNS[name][1](), callbacks=[FrozenParameterCheck()])
    assert moved(before, state(recipe.student)) == {"head.weight", "head.bias"}


def test_a_frozen_body_is_all_of_any_network_but_its_head():
    model = Wrapped(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)))
    Sharing((), model, TeacherPool([]), ["body"])
    moving = [p for p in model.parameters() if p.requires_grad]
    assert {id(p) for p in moving} == {id(p) for p in model.head.parameters()}
    assert len(moving) == 2
    assert not any(m.training for m in model.modules() if isinstance(m, nn.BatchNorm1d))


def test_a_module_that_is_frozen_stays_and_the_rest_learns():
    recipe = begun(*RUNS["SingleTask"], freeze=["convs.0", "norms.0"])
    before = state(recipe.student)
    fit(recipe, batches())
    actual = moved(before, state(recipe.student))
    assert {"convs.1.weight", "head.weight"} <= actual
    assert not {n for n in actual if n.startswith(("convs.0.", "norms.0."))}


@pytest.mark.parametrize(
    ("freeze", "message"),
    [
        (["stem"], "freeze names 'stem', which is no module of the student; choose from convs"),
        (["body", "head"], "share and freeze keep all of the student"),
    ],
)
def test_a_freeze_that_cannot_be_is_refused(freeze, message):
    with pytest.raises(ValueError, match=message):
        single_task(student(12), freeze=freeze)


# --- values ----------------------------------------------------------------------------------------


@each_run
@pytest.mark.parametrize("how", ["copy", "freeze", "tie"])
def test_what_is_named_begins_with_the_teachers_weights_and_statistics(make, data, how):
    recipe = begun(make, data, share=lower(how))
    present, theirs = of_lower(recipe.student), of_lower(recipe.teachers[0].model)
    assert {"norms.0.running_mean", "convs.0.weight"} <= set(present)
    assert not moved(present, theirs)
    rest = [
        state(recipe.student)["convs.1.weight"],
        state(recipe.teachers[0])["model.convs.1.weight"],
    ]
    assert not torch.equal(*rest)


@each_run
def test_what_only_starts_from_the_teacher_goes_its_own_way(make, data):
    recipe = begun(make, data, share=lower("copy"))
    before, theirs = of_lower(recipe.student), state(recipe.teachers)
    fit(recipe, data())
    assert {"convs.0.weight", "norms.0.weight"} <= moved(before, of_lower(recipe.student))
    assert not moved(theirs, state(recipe.teachers))


@each_run
@pytest.mark.parametrize("how", ["freeze", "tie"])
def test_what_is_kept_stays_through_training_with_its_statistics(make, data, how):
    recipe = begun(make, data, share=lower(how), optimisation=sgd(ema_decay=0.5))
    before, theirs = state(recipe.student), state(recipe.teachers)
    fit(recipe, data(), callbacks=[FrozenParameterCheck()])
    after = state(recipe.student)
    actual = moved(before, after)
    assert "convs.1.weight" in actual
    assert not {n for n in actual if n.startswith(("convs.0.", "norms.0."))}
    assert not moved(theirs, state(recipe.teachers))
    averaged = of_lower(recipe.eval_student)
    for name, tensor in of_lower(recipe.student).items():  # of equal numbers, but for rounding
        torch.testing.assert_close(averaged[name], tensor)


def test_what_is_kept_normalises_by_the_teachers_statistics_on_a_single_task():
    recipe = begun(*RUNS["SingleTask"], share=lower("freeze"))
    recipe.train()
    x = batch(6, (1, 8, 8)).x.float()
    network, theirs = recipe.student, recipe.teachers[0].model
    below = network.norms[0](network.convs[0](x))
    torch.testing.assert_close(below, theirs.norms[0](theirs.convs[0](x)))
    # virtual steps see the same network
    forward = recipe.teaching.bind_student(recipe.virtual_students[0], state_of=network)
    actual = forward(recipe.teaching.trainable_parameters(network), x)
    torch.testing.assert_close(actual.logits, network(x).logits, rtol=1e-4, atol=1e-5)


# --- inner loops -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LEARNERS)
def test_what_is_kept_does_not_move_in_the_inner_loop_either(name):
    learner = LEARNERS[name]()
    recipe = begun(
        lambda **settings: episodic(learner, **settings), episodes, share=lower("freeze")
    )
    rates = [n for n, _ in learner.named_parameters()]
    assert not any("convs/0" in n or "norms/0" in n for n in rates)
    task = episode()
    support = task.support._replace(x=task.support.x.float())
    support_loss = batch_loss(bind_loss(CrossEntropy()), {}, support, task.classes)
    forward = recipe.teaching.bind_student(recipe.student)
    adapted = learner.adapt(
        forward, recipe.evaluator.theta(recipe.student), support_loss, support, N_WAY
    )
    start = recipe.teaching.trainable_parameters(recipe.student)
    assert set(start) <= set(adapted.params)
    assert not {n for n in adapted.params if n.startswith(("convs.0.", "norms.0."))}
    assert not torch.equal(adapted.params["convs.1.weight"], start["convs.1.weight"])
    before = of_lower(recipe.student)
    fit(recipe, episodes())
    trainer().test(recipe, datamodule=episodes(), verbose=False)
    assert not moved(before, of_lower(recipe.student))


def test_where_all_but_the_head_is_kept_an_inner_loop_over_all_is_one_over_the_head():
    body = {f"{part}.{k}": f"{part}.{k}" for part in ("convs", "norms") for k in range(4)}
    answers, helper = [], lived_helper()
    for learner, how in ((MAML(0.05, 3), "freeze"), (MAML(0.05, 3, adapts="head"), "copy")):
        torch.manual_seed(1)
        recipe = episodic(learner, teachers=[helper], share=[Share(body, how=how)])
        fit(recipe, episodes(), max_steps=0)
        task = episodes().evaluation_episodes("test")[0]
        task = episodes().on_after_batch_transfer(task, 0)
        answers.append(
            recipe.eval()
            .evaluator.adapt_and_predict(
                recipe.eval_student, recipe.evaluator.with_teacher_outputs(task)
            )
            .logits
        )
    torch.testing.assert_close(*answers, rtol=1e-4, atol=1e-5)


def test_layers_that_somebody_froze_in_the_student_do_not_move_either():
    network = student(N_WAY)
    network.convs[0].requires_grad_(False)
    recipe = meta_kd(MetaSGD(0.05, 2), network)
    before = state(recipe.student)
    fit(recipe, episodes())
    assert "convs.1.weight" in moved(before, state(recipe.student))
    assert not {n for n in moved(before, state(recipe.student)) if n.startswith("convs.0.")}


# --- in common -------------------------------------------------------------------------------------


@each_run
def test_what_is_held_in_common_is_one_parameter_that_one_optimiser_has(make, data):
    recipe = begun(make, data, share=lower("tie"), teacher_lr=0.05)
    present, theirs = recipe.student, recipe.teachers[0].model
    assert present.convs[0].weight is theirs.convs[0].weight
    run = fit(recipe, data(), max_steps=1)
    trained = [p for o in run.optimizers for group in o.param_groups for p in group["params"]]
    assert len(trained) == len(set(trained))
    strategy = run.optimizers[1].param_groups[-1]["params"]
    assert any(p is present.convs[0].weight for p in strategy)
    common = sum(p.numel() for name in LOWER for p in present.get_submodule(name).parameters())
    alone = (
        count_parameters(present)
        + count_parameters(recipe.teachers)
        + count_parameters(recipe.loss)
    )
    assert count_parameters(recipe) == alone - common
    assert count_parameters(present) == count_parameters(begun(make, data).student)


@each_run
def test_what_is_held_in_common_moves_with_a_teacher_that_learns(make, data):
    loss = MatchGate(0.5, Hinton(2.0))
    recipe = begun(make, data, share=lower("tie"), teacher_lr=0.5, loss=loss, strategy_lr=0.0)
    before, theirs = of_lower(recipe.student), state(recipe.teachers[0].model)
    fit(recipe, data())
    actual = moved(before, of_lower(recipe.student))
    assert {"convs.0.weight", "norms.0.weight"} <= actual
    assert actual <= moved(theirs, state(recipe.teachers[0].model))
    assert not moved(of_lower(recipe.student), of_lower(recipe.teachers[0].model))
    # what follows has weights of its own
    trainer().test(
        recipe, datamodule=data(val_fraction=0.25) if data is batches else data(), verbose=False
    )
    assert recipe.student.convs[0].weight is not recipe.teachers[0].model.convs[0].weight
    assert not moved(of_lower(recipe.student), of_lower(recipe.teachers[0].model))


def test_it_is_trained_as_the_teachers_whatever_way_the_pilot_goes():
    """Were the student's own use of it differentiated, `unrolled` would see more than `tangent`."""
    ends = []
    for way in ("tangent", "unrolled"):
        torch.manual_seed(3)
        recipe = MetaKD(
            student().double(),
            ProtoNet(),
            MatchGate(0.5, Hinton(2.0)),
            [teacher()],
            optimisation=sgd(momentum=0.0),
            strategy_training=StrategyTraining(teacher_lr=0.5, hypergradient=way),
            initialisation=Initialisation(share=lower("tie")),
        )
        before = state(recipe.teachers[0])
        data = Fixed([together([episode(0), episode(1)])])
        fit(recipe, data, max_steps=1, precision="64-true")
        assert "model.convs.0.weight" in moved(before, state(recipe.teachers[0]))
        ends.append(state(recipe))
    for name, tensor in ends[0].items():
        torch.testing.assert_close(ends[1][name], tensor, rtol=1e-9, atol=1e-12)


# --- files -----------------------------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* is not empty")
@each_run
@pytest.mark.parametrize(
    ("how", "rate"), [("copy", 0.0), ("freeze", 0.0), ("tie", 0.0), ("tie", 0.05)]
)
def test_a_run_that_shares_goes_on_to_the_last_bit(make, data, how, rate, tmp_path):
    start = lived_helper(12 if data is batches else 0)

    def recipe():
        settings = {"share": lower(how), "teacher_lr": rate, "quiz": CrossEntropy()}
        return make(teachers=[deepcopy(start)], **settings)

    keep = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    through, resumed = recipe(), recipe()
    whole = {"max_steps": -1, "max_epochs": 2, "enable_checkpointing": True}
    fit(through, data(), callbacks=[keep], **whole)
    second = trainer(**whole, callbacks=[ModelCheckpoint(tmp_path, save_top_k=0)])
    second.fit(resumed, datamodule=data(), ckpt_path=tmp_path / "epoch=0.ckpt")
    assert not moved(state(through), state(resumed))


def test_a_checkpoint_is_whole_without_the_teacher(tmp_path):
    recipe = begun(*RUNS["SingleTask"], share=lower("tie"))
    fit(recipe, batches()).save_checkpoint(tmp_path / "run.ckpt")
    assert not moved(state(recipe.student), student_weights(read_checkpoint(tmp_path / "run.ckpt")))
    alone = single_task(
        student(12), loss=None, teachers=None, strategy_lr=0.0, init=str(tmp_path / "run.ckpt")
    )
    fit(alone, batches(), max_steps=0)
    assert not moved(state(recipe.student), state(alone.student))


@each_run
def test_sharing_comes_after_init_and_that_is_said(make, data, tmp_path, caplog):
    first = make()
    fit(first, data()).save_checkpoint(tmp_path / "first.ckpt")
    recipe = begun(make, data, share=lower("copy"), init=str(tmp_path / "first.ckpt"))
    assert "share comes after init" in caplog.text
    assert "'convs.0' of the student and 'convs.0' of teachers[0]" in caplog.text
    assert not moved(of_lower(recipe.student), of_lower(recipe.teachers[0].model))
    present, theirs = (state(r.student)["convs.1.weight"] for r in (recipe, first))
    assert torch.equal(present, theirs)


@pytest.mark.thorough
def test_at_the_command_line_a_share_is_a_few_words_and_its_run_is_tested(metakd, tmp_path):
    config = deepcopy(STUDENT)
    config["model"]["init_args"]["initialisation"] = {
        "share": [{"modules": LOWER, "how": "freeze"}]
    }
    written(tmp_path, teacher=TEACHER, student=config)
    metakd("fit", "--config", "teacher.yaml")
    metakd("fit", "--config", "student.yaml", "--trainer.max_epochs=1")
    present, theirs = (checkpoint(name)["state_dict"] for name in ("student", "teacher"))
    for name in ("convs.0.weight", "norms.0.running_var"):
        assert torch.equal(present[f"student.{name}"], theirs[f"student.{name}"])
    assert not torch.equal(present["student.convs.1.weight"], theirs["student.convs.1.weight"])
    metakd("test", "--ckpt_path", "runs/student/latest/checkpoints/final.ckpt")
    (row,) = results("student.test")
    width = 4
    convs = width * 3 * 9 + 3 * width * width * 9 + 4 * width
    assert row["student_params"] == convs + 4 * 2 * width
    assert Path("runs/student/latest/checkpoints/final.ckpt").is_file()


# --- names -----------------------------------------------------------------------------------------


def test_modules_of_somebodys_network_have_the_paths_that_they_know():
    def net():
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 3))

    present, theirs = Wrapped(net()), helper()
    theirs.model = Wrapped(net())
    shares = [Share({"1": "1"}, how="freeze"), Share({"head": "head"})]
    sharing = Sharing(shares, present, TeacherPool([theirs]))
    assert sharing.kept == ["module.1"]
    sharing.apply()
    assert not moved(state(theirs.model), state(present))


REFUSED = {
    "how": (
        lambda: Share(LOWER, how="lend"),
        r"how='lend' is unknown; choose one of copy, freeze",
    ),
    "teacher": (
        lambda: Sharing([Share(LOWER, 1)], student(), TeacherPool([helper()])),
        r"teacher=1 of share is not among the 1 of model\.teachers; they are counted from 0",
    ),
    "own path": (
        lambda: Sharing([Share({"conv": "convs.0"})], student(), TeacherPool([helper()])),
        r"share names 'conv', which is no module of the student; choose from convs, convs\.0, ",
    ),
    "other path": (
        lambda: Sharing([Share({"convs.0": "conv"})], student(), TeacherPool([helper()])),
        r"share names 'conv', which is no module of teachers\[0\]; choose from convs, convs\.0, ",
    ),
    "shape": (
        lambda: Sharing([Share({"convs.0": "convs.1"})], student(), TeacherPool([helper()])),
        r"'convs\.0' of the student and 'convs\.1' of teachers\[0\], which differ: weight is "
        r"\[4, 1, 3, 3\] and \[4, 4, 3, 3\]; name modules of the same shapes",
    ),
    "names": (
        lambda: Sharing([Share({"convs.0": "norms.0"})], student(), TeacherPool([helper()])),
        r"which differ: weight is \[4, 1, 3, 3\] and \[4\]; running_mean is missing and \[4\]",
    ),
    "nothing": (
        lambda: Sharing([Share({"head": "head"})], student(), TeacherPool([helper()])),
        r"'head' of the student and 'head' of teachers\[0\], which have no weights; leave them out",
    ),
    "twice": (
        lambda: Sharing(
            [Share(LOWER), Share({"convs": "convs"})], student(), TeacherPool([helper()])
        ),
        r"'convs' of the student .* of which a part is named already; name it once",
    ),
    "in common with two": (
        lambda: Sharing(
            [Share({"convs.1": "convs.1", "convs.2": "convs.1"}, how="tie")],
            student(),
            TeacherPool([helper()]),
        ),
        r"'convs\.2' of the student .* of which a part is named already; name it once",
    ),
    "all": (
        lambda: Sharing(
            [Share({"convs": "convs", "norms": "norms"}, how="freeze")],
            student(),
            TeacherPool([helper()]),
        ),
        r"share and freeze keep all of the student \(convs, norms\) and leave nothing to train; leave",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_shared_is_told(name, as_users_run_it):
    make, result = REFUSED[name]
    with pytest.raises(ValueError, match=result):
        make()

import pytest
import torch
from torch.nn.functional import cross_entropy

from lightning_metakd.functional.bind import bind
from lightning_metakd.learners.maml import MAML
from lightning_metakd.learners.protonet import ProtoNet
from lightning_metakd.losses.coefficient import Learned
from lightning_metakd.losses.hinton import Hinton
from lightning_metakd.losses.loss import CrossEntropy
from lightning_metakd.losses.match_gate import MatchGate
from lightning_metakd.losses.multi_teacher import MostAccurate, MultiTeacher
from lightning_metakd.models.weights import weights_hash
from lightning_metakd.recipes.episode_objective import EpisodeObjective
from lightning_metakd.strategy.quiz import split_query
from tests.recipes.runs import episodes, helper, meta_kd, moved, sgd, state, watch
from tests.tiny import N_WAY, SmoothConv4, episode, trainer

LEARNERS = {"MAML": lambda: MAML(0.05, 2), "ProtoNet": ProtoNet}


def fit(recipe, data=None, **settings):
    trainer(**{"max_steps": 1, **settings}).fit(recipe, datamodule=data or episodes())
    return recipe


# --- what moves ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize("strategy_lr", [0.0, 0.05])
def test_an_outer_step_moves_what_is_trained_and_nothing_else(learner, strategy_lr):
    recipe = meta_kd(LEARNERS[learner](), strategy_lr=strategy_lr)
    before = state(recipe)
    names = {name for name, _ in recipe.named_parameters()}
    fit(recipe)
    actual = moved(before, state(recipe))
    students = {f"student.{name}" for name, _ in recipe.student.named_parameters()}
    strategy = {"loss.gate.raw", "loss.match.temperature.raw"}
    assert strategy | students <= names
    assert actual - strategy <= students  # no buffer, no teacher
    assert {n for n in students if "weight" in n} <= actual
    assert actual & strategy == (strategy if strategy_lr else set())


def test_a_teacher_has_the_same_hash_after_training():
    recipe = meta_kd()
    fit(recipe, max_steps=4, max_epochs=2)
    (teacher,) = recipe.teachers
    assert teacher.sha256 == weights_hash(teacher.model)
    assert not any(module.training for module in teacher.modules())


@pytest.mark.parametrize("learner", LEARNERS)
def test_the_quiz_leaves_the_student_alone(learner):
    ends = []
    for strategy_lr in (0.0, 0.05):
        torch.manual_seed(1)
        recipe = meta_kd(LEARNERS[learner](), strategy_lr=strategy_lr, quiz=CrossEntropy())
        ends.append(state(fit(recipe).student))
    for name, tensor in ends[0].items():
        torch.testing.assert_close(tensor, ends[1][name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_between_its_updates_a_strategy_stays_though_momentum_would_move_it(optimiser):
    recipe = meta_kd(strategy_every=3, optimisation=sgd(optimiser=optimiser))
    strategies, students = [state(recipe.loss)], [state(recipe.student)]
    update = recipe.outer_update

    def watched(*args, **kwargs):
        update(*args, **kwargs)
        strategies.append(state(recipe.loss))
        students.append(state(recipe.student))

    watch(recipe, watched)
    fit(recipe, episodes(steps_per_epoch=5), max_steps=5)
    steps = range(5)
    assert [bool(moved(strategies[k], strategies[k + 1])) for k in steps] == [1, 0, 0, 1, 0]
    assert all(moved(students[k], students[k + 1]) for k in steps)


def test_a_strategy_on_its_own_episodes_is_learned_there():
    recipe = meta_kd()
    before = state(recipe.loss)
    fit(recipe, episodes(train_split="teacher", strategy_split="strategy"))
    assert moved(before, state(recipe.loss))
    assert recipe.trainer.callback_metrics["train/quiz_loss"] > 0


def test_half_of_the_query_rows_are_taught_and_the_others_are_asked():
    task = episode()
    train, requested = (part.query.y for part in split_query(task))
    assert torch.equal(torch.cat([train, requested]), task.query.y)
    assert train.bincount().tolist() == requested.bincount().tolist() == [2] * N_WAY


@pytest.mark.parametrize("settings", [{"quiz_classes": "other"}, {}])
def test_a_quiz_of_other_classes_follows_an_episode_of_the_training(settings, monkeypatch, caplog):
    tasks, inputs = [], EpisodeObjective.strategy_loss
    monkeypatch.setattr(
        EpisodeObjective,
        "strategy_loss",
        lambda self, *at: tasks.append(at[-1]) or inputs(self, *at),
    )
    recipe = meta_kd(ProtoNet(), **settings)
    before = state(recipe.loss)
    data = episodes(train_split="teacher", strategy_split="strategy")
    fit(recipe, data)
    assert moved(before, state(recipe.loss))
    assert len(tasks) == 2
    assert "The student is trained on" not in caplog.text
    for task in tasks:
        assert torch.isin(task.train.classes, data.classes("teacher")).all()
        assert torch.isin(task.quiz.classes, data.classes("strategy")).all()
        assert len(task.train.query.y) == len(task.quiz.query.y) == 4 * N_WAY
        assert task.train.query.teacher_outputs
        assert not task.quiz.query.teacher_outputs  # nobody reads them


@pytest.mark.parametrize("quiz_classes", ["same", "other"])
def test_teachers_that_learn_are_judged_by_a_quiz_that_may_follow_them(quiz_classes):
    recipe = meta_kd(ProtoNet(), quiz_classes=quiz_classes, teacher_lr=0.1, quiz=Hinton(2.0))
    before = state(recipe.teachers)
    fit(recipe, episodes(train_split="teacher", strategy_split="strategy"))
    assert moved(before, state(recipe.teachers))


def test_a_student_that_knows_the_classes_of_the_quiz_is_told(caplog):
    recipe = meta_kd(ProtoNet(), quiz_classes="other")
    fit(recipe, episodes(strategy_split="strategy"))
    assert "The student is trained on 3 of the 3 classes of data.strategy_split='strategy'" in (
        caplog.text
    )


# --- what is refused -------------------------------------------------------------------------------------


def test_a_strategy_on_classes_that_a_teacher_has_seen_is_refused(monkeypatch):
    def recipe(**settings):
        recorded = [f"blob {c}" for c in range(9)]  # split `teacher`
        return meta_kd(teachers=[helper(classes=recorded)], **settings)

    message = (
        r"teachers\[0\] was trained on 9 of the 12 classes .*\(blob 0, blob 1, .*strategy_split"
    )
    with pytest.raises(ValueError, match=message):
        fit(recipe())
    fit(recipe(), episodes(strategy_split="strategy"))
    fit(recipe(strategy_lr=0.0))
    fit(recipe(allow_seen_classes=True))


def test_an_unknown_quiz_is_refused(as_users_run_it):
    with pytest.raises(ValueError, match="quiz_classes='others' is unknown; choose one of same, o"):
        fit(meta_kd(ProtoNet(), quiz_classes="others"))


def test_a_quiz_of_other_classes_is_refused_where_there_are_none():
    with pytest.raises(ValueError, match=r"quiz_classes=other asks .* MAML makes none.*to same"):
        fit(meta_kd(quiz_classes="other"))
    for split in (None, "train"):
        with pytest.raises(ValueError, match=rf"strategy_split={split!r} names none; name a split"):
            fit(meta_kd(ProtoNet(), quiz_classes="other"), episodes(strategy_split=split))
    fit(meta_kd(quiz_classes="other", strategy_lr=0.0))


@pytest.mark.parametrize(
    ("learner", "n_classes", "message"),
    [
        (
            MAML,
            0,
            "MAML needs the student's logits head, and the student has none; set its n_classes",
        ),
        (
            ProtoNet,
            5,
            "ProtoNet does not use the student's logits head, .* has one; set n_classes to 0",
        ),
    ],
)
def test_a_head_that_does_not_suit_the_learner_is_refused(learner, n_classes, message):
    with pytest.raises(ValueError, match=message):
        meta_kd(learner(), SmoothConv4(n_classes))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strategy_lr": -1.0}, r"strategy_training\.lr=-1\.0 must be at least 0 and finite"),
        ({"loss": Hinton(4.0)}, "trains a strategy, but no coefficient of the loss is learned"),
        ({"pilot_lr": 0.0}, r"pilot_lr=0\.0 must be positive"),
        ({"strategy_every": 0}, "strategy_training.every=0 must be 1 or more"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        meta_kd(**settings)


def test_a_cache_without_a_fixed_number_of_views_is_refused():
    recipe = meta_kd(teachers=[helper(cache=True)])
    with pytest.raises(ValueError, match=r"data\.views=null draws a new view each time"):
        fit(recipe)


# --- the cache ----------------------------------------------------------------------------------------------


def test_with_a_cache_the_student_learns_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("METAKD_CACHE", str(tmp_path))
    ends = []
    for cache in (False, True):
        torch.manual_seed(1)
        recipe = meta_kd(teachers=[helper(cache=cache)])
        fit(recipe, episodes(views=2), max_steps=2)
        ends.append(state(recipe.student) | state(recipe.loss))
    assert recipe.teachers[0].output_cache is not None
    for name, tensor in ends[0].items():  # answers of other batch sizes round differently
        torch.testing.assert_close(tensor, ends[1][name], rtol=1e-4, atol=1e-5)


# --- evaluation --------------------------------------------------------------------------------------------


def by_hand(recipe, task, test_steps):
    """The adapted student's logits for the query rows, by a plain loop."""
    net = recipe.eval_student
    params = {n: p.detach().requires_grad_() for n, p in net.named_parameters()}
    for _ in range(test_steps):
        loss = cross_entropy(bind(net)(params, task.support.x).logits, task.support.y)
        grads = torch.autograd.grad(loss, list(params.values()))
        params = {n: p - 0.05 * g for (n, p), g in zip(params.items(), grads, strict=True)}
    _, statistics = bind(net).observe(params, task.support.x)
    return bind(net)({**params, **statistics}, task.query.x).logits


@pytest.mark.parametrize("averaged", [None, 0.5])
def test_the_student_is_tested_alone_after_its_test_steps(averaged):
    learner = MAML(0.05, 2, test_steps=4, first_order=True)
    recipe = meta_kd(learner, optimisation=sgd(ema_decay=averaged))
    fit(recipe, max_steps=2)
    data = episodes()
    run = trainer()
    run.test(recipe, datamodule=data, verbose=False)
    correct = []
    for i in range(3):
        task = data.on_after_batch_transfer(data.evaluation_episodes("test")[i], 0)
        logits = by_hand(recipe, task, 4)
        correct.append((logits.argmax(1) == task.query.y).double().mean())
    assert recipe.record.episode_rows["accuracy"].tolist() == pytest.approx(
        [c.item() for c in correct]
    )
    assert recipe.record.result["accuracy"] == pytest.approx(torch.stack(correct).mean().item())
    assert recipe.record.result["teacher_at_test"] is False
    assert recipe.record.result["transductive"] is False


def test_with_its_teacher_at_test_the_student_adapts_otherwise():
    task, answers = episode(), []
    task = task._replace(
        support=task.support._replace(x=task.support.x.float()),
        query=task.query._replace(x=task.query.x.float()),
    )
    for present in (False, True):
        torch.manual_seed(1)
        recipe = meta_kd(teacher_at_test=present).eval()
        answers.append(
            recipe.evaluator.adapt_and_predict(
                recipe.eval_student, recipe.evaluator.with_teacher_outputs(task)
            ).logits
        )
    assert (answers[0] - answers[1]).abs().max() > 1e-4


@pytest.mark.parametrize("learner", LEARNERS)
def test_the_most_accurate_teacher_of_each_episode_teaches(learner):
    loss = MatchGate(0.5, MultiTeacher(Hinton(Learned()), choose=MostAccurate()))
    present = learner == "MAML"
    pool = [helper(), helper()]
    recipe = meta_kd(LEARNERS[learner](), loss=loss, teachers=pool, teacher_at_test=present)
    before = state(recipe.loss)
    fit(recipe, max_steps=2)
    assert set(moved(before, state(recipe.loss))) == {"match.loss.temperature.raw"}
    shares = [recipe.coefficient_log.values[f"match.weights.{k}_mean"] for k in range(2)]
    assert sorted(shares) == [0.0, 1.0]
    trainer().test(recipe, datamodule=episodes(), verbose=False)
    assert len(recipe.record.episode_rows["accuracy"]) == 3


def test_predictions_are_probabilities_of_the_adapted_student():
    recipe, data = meta_kd(), episodes()
    (first, *_) = trainer().predict(recipe, datamodule=data)
    task = data.on_after_batch_transfer(data.evaluation_episodes("test")[0], 0)
    expected = (
        recipe.eval()
        .evaluator.adapt_and_predict(
            recipe.eval_student, recipe.evaluator.with_teacher_outputs(task)
        )
        .logits.softmax(1)
    )
    torch.testing.assert_close(first["probs"], expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(first["classes"], task.classes)


def test_teachers_are_calibrated_once_on_val_episodes():
    teacher = helper()
    teacher.head.scale.fill_(float("nan"))
    recipe = fit(meta_kd(teachers=[teacher]))
    scale = recipe.teachers[0].head.scale.clone()
    assert scale > 0
    assert recipe.state_dict()["teachers.0.head.scale"] == scale
    trainer().test(recipe, datamodule=episodes(), verbose=False)
    assert torch.equal(recipe.teachers[0].head.scale, scale)


def test_training_makes_the_student_better_at_learning_new_classes():
    torch.manual_seed(1)
    adam = sgd(lr=0.01, optimiser="adam")
    alone = {"loss": None, "teachers": None, "strategy_lr": 0.0}
    recipe = meta_kd(MAML(0.3, 2, first_order=True), optimisation=adam, **alone)
    data = episodes(steps_per_epoch=40, n_episodes=12, augment=False)
    recorded = []
    for _ in range(2):
        trainer().test(recipe, datamodule=data, verbose=False)
        recorded.append(recipe.record.result["nll"])
        if len(recorded) == 1:
            fit(recipe, data, max_steps=40)
    assert recorded[1] < 0.95 * recorded[0], recorded


def test_inner_steps_leave_no_statistics_to_follow():
    with pytest.raises(ValueError, match="norm='tracked' does not go with learner=MAML"):
        meta_kd(MAML(), norm="tracked")


@pytest.mark.parametrize(
    ("norm", "remembers"), [("running", True), ("tracked", True), ("support", False)]
)
def test_a_student_that_does_not_change_is_embedded_once_in_a_test(norm, remembers):
    recipe = meta_kd(ProtoNet(), norm=norm)
    data, recorded = episodes(n_episodes=6), []
    recipe.student.register_forward_hook(lambda *passed: recorded.append(len(passed[1][0])))
    trainer().test(recipe, datamodule=data, verbose=False)
    assert (sum(recorded) == len(data.source.rows("test"))) == remembers
    assert recipe.evaluator.cached_forward is None
    recalled = recipe.record.episode_rows
    recipe.evaluator.cache_embeddings = lambda *args: None
    trainer().test(recipe, datamodule=data, verbose=False)
    for name, column in recipe.record.episode_rows.items():
        torch.testing.assert_close(recalled[name], column)


def test_views_of_the_support_are_rows_of_their_classes_in_a_test_alone():
    recipe, data = meta_kd(ProtoNet(), norm="running"), episodes(n_episodes=4, support_views=2)
    assert (next(iter(data.train_dataloader())).train.support.view >= 0).all()
    trainer().test(recipe, datamodule=data, verbose=False)
    recalled = recipe.record.episode_rows["accuracy"]
    assert recipe.record.result["support_views"] == 2
    recipe.evaluator.cache_embeddings = lambda *args: None
    trainer().test(recipe, datamodule=data, verbose=False)
    assert recipe.record.episode_rows["accuracy"].equal(recalled)
    inputs, images = data.source.inputs, data.source.all_rows().x
    plain = episodes(n_episodes=4).evaluation_episodes("test")
    for i, expected in enumerate(recalled.tolist()):
        support, query = plain[i].support, plain[i].query
        shown = [(support.index, torch.full_like(support.index, view)) for view in (-1, 0, 1)]
        with torch.no_grad():
            e = torch.stack(
                [recipe.student(inputs(images[at], at, view)).embedding for at, view in shown]
            )
            rows = recipe.student(inputs(query.x, query.index, query.view)).embedding
        means = torch.stack([e.mean(0)[support.y == c].mean(0) for c in range(N_WAY)])
        nearest = torch.cdist(rows, means).argmin(1)
        assert (nearest == query.y).float().mean().item() == pytest.approx(expected)

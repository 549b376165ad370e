"""Support rows that count in parts, beside formulas and differences."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_metakd.data.episodic_data import EpisodicData
from lightning_metakd.data.sources import Mixture
from lightning_metakd.functional.bind import bind, bind_loss
from lightning_metakd.functional.params import with_prefix
from lightning_metakd.learners import ProtoMAML, ProtoNet, Ridge
from lightning_metakd.learners.support_weights import by_class, support_weights
from lightning_metakd.losses import LearnedPerClass, LearnedPerSample, MetaWeightNet, Threshold
from lightning_metakd.losses.coefficient import Coefficient
from lightning_metakd.losses.loss import CrossEntropy, batch_loss
from lightning_metakd.models.prototypes import leave_one_out_means, metric_logits, one_hot
from lightning_metakd.recipes.initialisation import Initialisation
from lightning_metakd.recipes.optimisation import Optimisation
from tests.data.sources.test_mixture import Others
from tests.recipes.runs import episodes, helper, meta_kd, moved, single_task, state
from tests.recipes.test_meta_gradient import relative_error
from tests.tiny import (
    N_WAY,
    Blobs,
    Linear,
    SmoothConv4,
    answered,
    perturbed,
    separable,
    trainer,
)

LEARNERS = {
    "ProtoNet": lambda weight: ProtoNet("cosine", 10.0, support_weight=weight),
    "ProtoNet, euclidean": lambda weight: ProtoNet(support_weight=weight),
    "Ridge": lambda weight: Ridge(2.0, 3.0, support_weight=weight),
    "ProtoMAML": lambda weight: ProtoMAML(0.1, 1, first_order=False, support_weight=weight),
}
every = pytest.mark.parametrize("name", LEARNERS)


class Given(Coefficient):
    """A value for each row."""

    def __init__(self, values):
        super().__init__()
        self.values = values

    def forward(self, batch, context):
        return self.values


def adapted(learner, support, meta=None):
    torch.manual_seed(1)
    net = Linear(n_classes=0).double()
    of_learner = dict(learner.named_parameters()) if meta is None else meta
    both = {
        **with_prefix("student", dict(net.named_parameters())),
        **with_prefix("learner", of_learner),
    }
    support_loss = batch_loss(bind_loss(CrossEntropy()), {}, support, torch.arange(N_WAY))
    return net, learner.adapt(bind(net), both, support_loss, support, N_WAY)


@every
@pytest.mark.parametrize("value", [1.0, 0.3])
def test_rows_that_count_alike_count_as_without_weights(name, value):
    support, query = answered(separable(12)), separable(30)
    plain, weighted = (
        adapted(LEARNERS[name](w).double(), support)[1].predict(query.x).logits
        for w in (None, value)
    )
    assert torch.equal(plain, weighted)


def test_a_class_mean_is_the_weighted_mean():
    support, query = separable(12), separable(30)
    values = torch.rand(12, dtype=torch.float64) + 0.1
    net, answer = adapted(ProtoNet(support_weight=Given(values)).double(), support)
    e, q = (net.body(rows.x)[0].detach().numpy() for rows in (support, query))
    means = np.stack(
        [np.average(e[support.y == c], 0, values.numpy()[support.y == c]) for c in range(N_WAY)]
    )
    expected = -((q[:, None] - means[None]) ** 2).sum(-1)
    actual = answer.predict(query.x).logits.detach().numpy()
    np.testing.assert_allclose(actual, expected, rtol=1e-10, atol=1e-12)


def test_ridge_weighs_squares():
    support, query = separable(12), separable(30)
    values = torch.rand(12, dtype=torch.float64) + 0.1
    learner = Ridge(2.0, 3.0, support_weight=Given(values)).double()
    net, answer = adapted(learner, support)
    a, b = (net.body(rows.x)[0].detach().numpy() for rows in (support, query))
    w = by_class(values, support, N_WAY).numpy()
    labels = np.eye(N_WAY)[support.y.numpy()]
    left = a.T @ (w[:, None] * a) + 2 * np.eye(a.shape[1])
    expected = 3 * b @ np.linalg.solve(left, a.T @ (w[:, None] * labels))
    actual = answer.predict(query.x).logits.detach().numpy()
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-9)  # float32 logarithms


def test_a_class_whose_rows_all_count_nothing_is_its_plain_mean():
    support = separable(12)
    values = torch.ones(12, dtype=torch.float64).where(support.y != 1, 0.0)
    assert by_class(values, support, N_WAY).tolist() == [1.0] * 12


def test_a_coefficient_sees_the_student_leave_one_out():
    contexts = []

    class Watching(Given):
        def forward(self, batch, context):
            contexts.append((batch, context))
            return self.values

    support = answered(separable(12))
    e = torch.randn(12, 5, dtype=torch.float64)
    support_weights(Watching(torch.ones(12)), {}, support, e, N_WAY)
    ((batch, context),) = contexts
    expected = 10 * metric_logits(e, leave_one_out_means(e, support.y, N_WAY), "cosine")
    assert torch.equal(context.student_detached.logits, expected)
    assert batch is support


@every
@pytest.mark.parametrize("weight", [LearnedPerSample, MetaWeightNet])
def test_the_gradient_of_the_query_loss_is_that_of_differences(name, weight):
    torch.manual_seed(5)
    support, query = answered(separable(12)), separable(30)
    support = support._replace(y=support.y.roll(1) if name == "Ridge" else support.y)
    learner = perturbed(LEARNERS[name](weight())).double()
    weights = {n: p for n, p in learner.named_parameters() if n.startswith("support_weight")}
    rest = {n: p.detach() for n, p in learner.named_parameters() if n not in weights}

    def loss(at):
        answer = adapted(learner, support, {**rest, **at})[1].predict(query.x)
        return torch.nn.functional.cross_entropy(answer.logits, query.y)

    slope = dict(
        zip(weights, torch.autograd.grad(loss(weights), list(weights.values())), strict=True)
    )
    at = {n: p.detach() for n, p in weights.items()}
    assert relative_error(slope, lambda at: loss(at).item(), at, random=2) < 1e-6


@pytest.mark.parametrize(("k_shot", "rate", "n_wrong"), [(10, 0.4, 4), (5, 0.2, 1), (2, 0.9, 1)])
def test_a_share_of_the_support_labels_of_each_class_is_wrong(k_shot, rate, n_wrong):
    data = EpisodicData(Blobs(), 3, k_shot, 2, wrong_support=rate, n_episodes=3)
    for sets in (data.evaluation_episodes("test"), data.training_episodes("train", 3, 2)):
        for i in range(3):
            episode, again = sets[i], sets[i]
            y = Blobs().all_rows().y
            right = episode.classes[episode.support.y] == y[episode.support.index]
            drawn = one_hot(y[episode.support.index], 20)[:, episode.classes]
            assert (drawn & ~right[:, None]).sum(0).tolist() == [n_wrong] * 3
            assert torch.equal(episode.classes[episode.query.y], y[episode.query.index])
            assert torch.equal(episode.support.y, again.support.y)


def test_a_mixture_has_the_wrong_labels_of_each_source_alone():
    settings = {"wrong_support": 0.4, "n_episodes": 4}
    mixed = EpisodicData(Mixture({"a": Blobs(), "b": Others()}), 3, 5, 2, **settings)
    for k, source in enumerate((Blobs(), Others())):
        alone = EpisodicData(source, 3, 5, 2, **settings).evaluation_episodes("test")
        for i in range(4):
            episode = mixed.evaluation_episodes("test")[4 * k + i]
            assert torch.equal(episode.support.y, alone[i].support.y)


def test_classes_of_the_data_and_missing_teachers_are_refused():
    with pytest.raises(
        ValueError, match="support_weight=LearnedPerClass has a number for each class"
    ):
        ProtoNet(support_weight=LearnedPerClass(20))
    with pytest.raises(
        ValueError, match="support_weight of learner=ProtoNet reads what a teacher says"
    ):
        meta_kd(
            ProtoNet(support_weight=LearnedPerSample()), loss=None, teachers=None, strategy_lr=0.0
        )
    meta_kd(ProtoNet(support_weight=MetaWeightNet()), loss=None, teachers=None, strategy_lr=0.0)


def test_views_of_the_support_judge_no_row():
    recipe = meta_kd(
        ProtoNet(support_weight=MetaWeightNet()), loss=None, teachers=None, strategy_lr=0.0
    )
    with pytest.raises(
        ValueError, match=r"data.support_views=2 .* support_weight of learner=ProtoNet"
    ):
        trainer().test(recipe, datamodule=episodes(support_views=2), verbose=False)


def counting(weight: Coefficient | None, file: Path | None = None, **student):
    """A student by class means, whose support rows count as a file says."""
    start = Initialisation(support_weight=None if file is None else str(file))
    learner = ProtoNet("cosine", support_weight=weight)
    return meta_kd(
        learner,
        SmoothConv4(0, **student),
        loss=None,
        teachers=None,
        strategy_lr=0.0,
        initialisation=start,
    )


def learned_weight(folder: Path) -> tuple[dict[str, torch.Tensor], Path]:
    """A coefficient after some steps, and the checkpoint of its training."""
    recipe = counting(MetaWeightNet(4))
    runs = trainer(max_steps=3)
    runs.fit(recipe, datamodule=episodes())
    runs.save_checkpoint(folder / "learned.ckpt")
    return state(recipe.learner.support_weight), folder / "learned.ckpt"


def test_what_was_learned_is_carried_to_another_student_and_no_more_of_it(tmp_path):
    weight, file = learned_weight(tmp_path)
    other = counting(MetaWeightNet(4), file, width=8)
    before = state(other)
    assert moved(state(other.learner.support_weight), weight) > {"net.2.weight"}
    trainer().test(other, datamodule=episodes(), verbose=False)
    assert moved(state(other.learner.support_weight), weight) == set()
    assert moved(before, state(other)) == {f"learner.support_weight.{name}" for name in weight}


def test_a_training_that_goes_on_has_its_own(tmp_path):
    _, file = learned_weight(tmp_path)
    first = counting(MetaWeightNet(4), file)
    runs = trainer(max_steps=2)
    runs.fit(first, datamodule=episodes())
    runs.save_checkpoint(tmp_path / "stopped.ckpt")
    again = counting(MetaWeightNet(4), file)
    trainer(max_steps=2).fit(again, datamodule=episodes(), ckpt_path=tmp_path / "stopped.ckpt")
    weight = state(again.learner.support_weight)
    assert moved(state(first.learner.support_weight), weight) == set()
    start = counting(MetaWeightNet(4), file)
    trainer().test(start, datamodule=episodes(), verbose=False)
    assert "net.2.weight" in moved(state(start.learner.support_weight), weight)


@pytest.mark.parametrize(
    ("weight", "kind"),
    [
        (None, None),
        (MetaWeightNet(5), "MetaWeightNet"),
        (Threshold(0.2, judge="student"), "Threshold"),
    ],
)
def test_what_another_coefficient_has_learned_is_refused(tmp_path, weight, kind):
    _, file = learned_weight(tmp_path)
    message = (
        rf"initialisation.support_weight=.*learned.ckpt' .*learner.support_weight={kind}; take"
    )
    with pytest.raises(ValueError, match=message):
        trainer().test(counting(weight, file), datamodule=episodes(), verbose=False)


def test_a_file_without_it_is_refused(tmp_path):
    torch.save({"state_dict": {"student.head": torch.ones(2)}}, tmp_path / "plain.ckpt")
    recipe = counting(MetaWeightNet(4), tmp_path / "plain.ckpt")
    with pytest.raises(ValueError, match=r"plain\.ckpt' has no support_weight that was learned"):
        trainer().test(recipe, datamodule=episodes(), verbose=False)


def test_single_task_has_no_support_to_weigh():
    with pytest.raises(
        ValueError, match=r"support_weight='a\.ckpt' is of a learner, and model=Sing"
    ):
        single_task(initialisation=Initialisation(support_weight="a.ckpt"))


@pytest.mark.thorough
def test_it_learns_which_rows_are_right_and_says_so_of_new_classes():
    torch.manual_seed(0)
    learner = ProtoNet("cosine", 10.0, support_weight=LearnedPerSample())
    descent = Optimisation(lr=0.01, optimiser="adam")
    teachers = [helper(width=8)]
    recipe = meta_kd(learner, loss=None, teachers=teachers, strategy_lr=0.0, optimisation=descent)
    source = Blobs(per_class=30)
    data = EpisodicData(source, 4, 10, 10, 2, wrong_support=0.3, n_episodes=20, views=0)
    trainer(max_steps=200, max_epochs=-1).fit(recipe, datamodule=data)
    right, wrong, y = [], [], data.source.all_rows().y
    for episode in data.evaluation_episodes("test"):
        moved = data.on_after_batch_transfer(episode, 0)
        moved = recipe.evaluator.with_teacher_outputs(moved)
        with torch.no_grad():
            e = recipe.student(moved.support.x).embedding
            meta = dict(recipe.learner.named_parameters())
            values = support_weights(
                recipe.learner.support_weight, meta, moved.support, e, len(moved.classes)
            )
        is_right = moved.classes[moved.support.y] == y[moved.support.index]
        right.append(values[is_right])
        wrong.append(values[~is_right])
        if len(right) == 20:
            break
    assert torch.cat(right).mean() > torch.cat(wrong).mean() + 0.1

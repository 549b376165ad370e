import pytest
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_metakd.learners.maml import MAML
from lightning_metakd.learners.protonet import ProtoNet
from lightning_metakd.losses.coefficient import Learned
from lightning_metakd.losses.hinton import Hinton
from lightning_metakd.losses.learned_per_sample import LearnedPerSample
from lightning_metakd.losses.learning_to_reweight import LearningToReweight
from lightning_metakd.losses.loss import CrossEntropy, WeightedSum
from lightning_metakd.losses.match_gate import MatchGate
from lightning_metakd.recipes.optimisation import Optimisation, set_rates
from lightning_metakd.recipes.strategy_training import Rates, StrategyTraining
from tests.recipes.runs import batches, episodes, helper, meta_kd, moved, single_task, state
from tests.tiny import trainer


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pilot_steps": 2}, r"pilot_steps=2 with hypergradient='tangent', which looks one step"),
        ({"pilot_steps": 2, "hypergradient": "neumann"}, "pilot_steps=2 with .* neumann_terms"),
        ({"neumann_terms": 2}, r"neumann_terms=2 with hypergradient='tangent'"),
        ({"pilot_steps": 0, "hypergradient": "unrolled"}, "pilot_steps=0 must be 1 or more"),
        ({"pilot_lr": 0.0}, "pilot_lr=0.0 must be positive"),
        ({"hypergradient": "exact"}, "hypergradient='exact' is unknown; choose one of tangent"),
        ({"quiz_classes": "new"}, "quiz_classes='new' is unknown; choose one of same, other"),
        ({"lr": -1.0}, r"strategy_training\.lr=-1.0 must be at least 0"),
        ({"control": "frozen", "lr": 0.0}, r"strategy_training\.lr=0 learns none"),
    ],
)
def test_settings_that_cannot_work_are_refused_where_they_are_made(
    settings, message, as_users_run_it
):
    with pytest.raises(ValueError, match=message):
        StrategyTraining(**settings)


@pytest.mark.parametrize(
    ("gate", "file", "settings", "lr"),
    [
        (0.5, None, {}, 0.0),
        (Learned(), None, {}, 0.005),
        (Learned(), "strategy.safetensors", {}, 0.0),
        (Learned(), "strategy.safetensors", {"control": "final_constant"}, 0.005),
        (Learned(), None, {"lr": 0.0}, 0.0),
        (Learned(), "strategy.safetensors", {"lr": 0.02}, 0.02),
        (LearningToReweight(), None, {}, 1.0),
    ],
)
def test_what_a_loss_calls_learned_is_learned_by_default(gate, file, settings, lr):
    weighted = {"terms": {"labels": CrossEntropy()}, "weights": {"labels": gate}}
    assert StrategyTraining(**settings).for_loss(WeightedSum(**weighted), file).lr == lr


@pytest.mark.parametrize(
    ("learner", "splits", "settings", "classes"),
    [
        (ProtoNet(), {"strategy_split": "strategy"}, {}, "other"),
        (ProtoNet(), {"strategy_split": "strategy"}, {"quiz_classes": "same"}, "same"),
        (ProtoNet(), {}, {}, "same"),
        (ProtoNet(), {"strategy_split": "train"}, {}, "same"),
        (MAML(), {"strategy_split": "strategy"}, {}, "same"),
    ],
)
def test_the_quiz_has_other_classes_wherever_there_are_some(learner, splits, settings, classes):
    strategy = StrategyTraining(**settings)
    assert strategy.classes_of_quiz(learner, episodes(**splits)) == classes


def test_a_pilot_has_steps_and_a_series_terms():
    assert StrategyTraining(hypergradient="unrolled", pilot_steps=3).steps == 3
    assert StrategyTraining(hypergradient="neumann", neumann_terms=4).steps == 4


def test_an_update_is_due_after_the_warm_up_at_every_so_many_steps():
    config = StrategyTraining(lr=0.1, every=3, warmup=0.5)
    assert [config.is_due(step, 0.6) for step in range(4)] == [True, False, False, True]
    assert not config.is_due(3, 0.4)


@pytest.mark.parametrize(
    ("control", "rates"),
    [
        ("none", Rates(0.1, 0.2)),
        ("shuffled", Rates(0.1, 0.2)),
        ("frozen", Rates(0.0, 0.0)),
        ("final_constant", Rates(0.0, 0.0)),
        ("step_size", Rates(0.1, 0.0)),
    ],
)
def test_a_control_takes_rates_away(control, rates):
    config = StrategyTraining(lr=0.1, teacher_lr=0.2, control=control)
    assert config.rates(MatchGate(Learned())) == rates
    assert rates.learn is (control not in ("frozen", "final_constant"))


@pytest.mark.parametrize(
    ("loss", "settings", "every"),
    [
        (MatchGate(Learned()), {}, 4),
        (None, {}, 4),
        (MatchGate(Learned()), {"every": 2}, 2),
        (MatchGate(), {"teacher_lr": 0.1}, None),
        (WeightedSum({"labels": CrossEntropy()}, {"labels": LearningToReweight()}), {}, None),
    ],
)
def test_on_plain_batches_most_steps_are_without_a_pilot(loss, settings, every):
    config = StrategyTraining(lr=0.1, **settings)
    assert (config.every, config.for_rows(loss).every) == (settings.get("every"), every)


@pytest.mark.parametrize(("every", "steps"), [(None, 1), (4, 4)])
def test_an_update_moves_as_far_as_the_steps_that_it_stands_for(every, steps):
    recipe = meta_kd(strategy_lr=0.1, strategy_every=every)
    assert recipe.rates == Rates(0.1, 0.0)
    _, strategy = recipe.configure_optimizers()
    assert [group["lr"] for group in strategy.param_groups] == [steps * 0.1]


def test_where_nothing_can_learn_the_rate_is_zero():
    assert StrategyTraining(lr=0.1).rates(MatchGate(0.5, Hinton(2.0))).coefficients == 0.0


@pytest.mark.parametrize(
    ("settings", "reach"), [({}, 7.5), ({"lr": 0.005}, None), ({"reach": 2.0, "lr": 0.1}, 2.0)]
)
def test_a_short_training_reaches_as_far_by_default_on_plain_batches(settings, reach):
    config = StrategyTraining(**settings)
    assert config.for_rows(MatchGate(Learned())).reach == reach
    assert config.reach == settings.get("reach")


@pytest.mark.parametrize(
    ("reach", "step", "rate"),
    [
        (0.0, 1 / 400, 0.01),
        (8.0, 1 / 400, 0.02),
        (8.0, 1 / 4000, 0.01),
        (6.0, 1 / 2, 0.02),  # as in 300 steps
        (6.0, 0.0, 0.01),  # time ends it: nobody knows after how many
    ],
)
@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_numbers_move_so_far_and_networks_by_their_rate(reach, step, rate, factor):
    every, lr = 2, 0.01
    loss = MatchGate(LearnedPerSample(), Hinton(Learned(2.0)))
    config = StrategyTraining(lr=lr, every=every, reach=reach)
    groups = config.groups(loss, [helper()], config.rates(loss))
    optimiser = Optimisation().build(groups, "adam")
    set_rates(optimiser, factor, step)
    number, network = optimiser.param_groups
    assert number["params"] == [loss.match.temperature.raw]
    assert network["params"] == list(loss.gate.parameters())
    assert network["lr"] == pytest.approx(factor * every * lr)
    assert number["lr"] == pytest.approx(factor * every * rate)


def test_what_is_frozen_is_in_no_group():
    loss = MatchGate(LearnedPerSample(), Hinton(Learned(2.0)))
    loss.match.temperature.raw.requires_grad_(False)
    config = StrategyTraining(lr=0.1, reach=1.0)
    (group,) = config.groups(loss, [helper()], config.rates(loss))
    assert group["params"] == list(loss.gate.parameters())


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* is not empty")
def test_a_training_that_reaches_goes_on_to_the_last_bit(tmp_path):
    fixed, loss = helper(12), MatchGate(LearnedPerSample(), Hinton(Learned(2.0)))
    settings = {"loss": loss, "teachers": [fixed], "strategy_reach": 50.0}
    through, resumed = (single_task(**settings) for _ in range(2))
    resumed.load_state_dict(through.state_dict())
    keep = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    whole = {"max_steps": -1, "max_epochs": 2, "enable_checkpointing": True}
    before = state(through)
    trainer(**whole, callbacks=[keep]).fit(through, datamodule=batches())
    last = trainer(**whole, callbacks=[ModelCheckpoint(tmp_path, save_top_k=0)])
    last.fit(resumed, datamodule=batches(), ckpt_path=tmp_path / "epoch=0.ckpt")
    assert {"loss.match.temperature.raw", "loss.gate.net.2.bias"} <= moved(before, state(through))
    assert not moved(state(through), state(resumed))

"""Compiled, a task has the gradients that it has without, and a training compiles once.

What is checked at run time does not compile, so these tests run in a process of their own: see
test_compiled.py, which names the backend.
"""

import os
from functools import cache

import pytest
import torch
from torch._dynamo.utils import counters

from lightning_metakd.functional import regions
from lightning_metakd.functional.params import detach
from lightning_metakd.learners.maml import MAML
from lightning_metakd.learners.maml_plus_plus import MAMLPlusPlus
from lightning_metakd.recipes import task_batching
from lightning_metakd.recipes.task_batching import mean_over_tasks
from tests.learners.test_learners import LEARNERS
from tests.recipes.runs import episodes, meta_kd
from tests.recipes.test_task_batching import TOGETHER, Case, by_hand, check
from tests.tiny import trainer

BACKEND = os.environ["BACKEND"]
DESCENDING = [name for name in LEARNERS if (made := LEARNERS[name]()).descends and made.compilable]
N_GRAPHS = {
    "Reptile": 1,
    "Reptile, Adam": 0,
}  # the distance has no query rows; Adam has steps of its own
pytestmark = pytest.mark.filterwarnings(
    r"ignore:The \.grad attribute of a Tensor that is not a leaf"
)


@pytest.fixture
def compiling(monkeypatch):
    """Compilers as in a run, with the backend that is given."""
    torch.compiler.reset()
    counters.clear()

    @cache
    def compiled(function):
        return torch.compile(function, fullgraph=True, dynamic=False, backend=BACKEND)

    monkeypatch.setattr(task_batching, "compile_whole", compiled)
    monkeypatch.setattr(regions, "compiled", compiled)


def graphs() -> int:
    """How many graphs were compiled since the test began."""
    return counters["stats"]["unique_graphs"]


@pytest.mark.parametrize("name", TOGETHER)
def test_every_task_of_fixed_operations_compiles_to_the_same_gradients(name, compiling):
    case = Case(name, inner_steps=2)
    expected = by_hand(case.student, case.theta, case.strategy, case.tasks)
    at = case.theta, case.strategy, case.tasks
    actual = mean_over_tasks(case.student, *at, compiled=True)
    torch.testing.assert_close(actual[0], expected[0], rtol=1e-10, atol=0)
    leaves = {**case.theta, **case.strategy}
    check(case.slopes(actual, leaves), case.slopes(expected, leaves))
    assert graphs() == 1


@pytest.mark.parametrize("name", DESCENDING)
def test_a_step_and_the_query_rows_compile_to_the_same_gradients(name, compiling):
    case = Case(name)
    at = case.theta, case.strategy, case.tasks
    leaves = {**case.theta, **case.strategy}
    expected = by_hand(case.student, *at)
    with regions.compiled_regions(True):
        actual = mean_over_tasks(case.student, *at)
    check(case.slopes(actual, leaves), case.slopes(expected, leaves))
    again = "recomputed" in name  # without a graph, and with one
    assert graphs() == N_GRAPHS.get(name, 3 if again else 2)
    at = detach(case.theta), case.strategy, case.tasks
    expected = by_hand(case.objective.strategy_loss, *at)
    with regions.compiled_regions(True):
        actual = mean_over_tasks(case.objective.strategy_loss, *at)
    check(case.slopes(actual, case.strategy), case.slopes(expected, case.strategy))


def test_several_tasks_compile_together(compiling):
    if BACKEND == "aot_eager":
        pytest.skip(
            "torch's own convolutions refuse a stride that is traced under vmap; inductor's do not"
        )
    case = Case("MAML", inner_steps=2)
    quiet = detach(case.strategy)
    expected = by_hand(case.student, case.theta, quiet, case.tasks[:2])
    actual = mean_over_tasks(case.student, case.theta, quiet, case.tasks[:2], 2, compiled=True)
    check(case.slopes(actual, case.theta), case.slopes(expected, case.theta))


@pytest.mark.parametrize(
    ("learner", "n_graphs"),
    [(MAML(0.05, 2), 2), (MAML(0.05, 2, recompute=True), 3), (MAMLPlusPlus(0.05, 2), 2)],
    ids=["MAML", "recomputed", "MAML++"],
)
def test_a_training_is_the_same_and_compiles_once(learner, n_graphs, compiling):
    ends = []
    for steps, compile_step in ((0, False), (4, False), (4, True)):
        torch.manual_seed(1)
        recipe = meta_kd(learner, compile_step=compile_step)
        trainer(max_steps=steps, max_epochs=4).fit(recipe, datamodule=episodes())
        ends.append(torch.cat([p.detach().flatten() for p in recipe.parameters()]))
    assert graphs() == n_graphs
    start, plain, compiled = ends  # single precision: rounding grows with each further step
    assert (compiled - plain).norm() < 1e-3 * (plain - start).norm()

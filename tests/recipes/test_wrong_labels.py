"""Labels of which some are wrong: a learned gate finds out which."""

import pytest
import torch
from lightning import seed_everything

from lightning_metakd.data.sources import LabelNoise
from lightning_metakd.data.supervised_data import SupervisedData
from lightning_metakd.losses import CrossEntropy, Hinton, LearnedPerSample, MatchGate
from lightning_metakd.recipes.optimisation import Optimisation
from lightning_metakd.types import Context
from tests.recipes.runs import helper, single_task
from tests.tiny import Blobs, SmoothConv4, trainer


@pytest.mark.thorough
def test_a_gate_learned_by_trusted_rows_follows_right_labels_and_not_wrong_ones():
    seed_everything(0)
    noisy = LabelNoise(Blobs(per_class=60), 0.4, split="train")
    data = SupervisedData(noisy, batch_size=64, quiz_fraction=0.2, views=0)
    descent = Optimisation(lr=0.1, optimiser="sgd")

    def train(student, steps, **settings):
        recipe = single_task(student, optimisation=descent, **settings)
        trainer(max_steps=steps, max_epochs=-1).fit(recipe, datamodule=data)
        return recipe

    plain = train(SmoothConv4(12, width=8), 150, loss=CrossEntropy(), teachers=[], strategy_lr=0.0)
    teacher = helper(12, width=8)
    teacher.model.load_state_dict(plain.student.state_dict())
    gate = MatchGate(LearnedPerSample(), Hinton(4.0))
    recipe = train(SmoothConv4(12, width=8), 300, loss=gate, teachers=[teacher], strategy_lr=0.02)
    rows = data.parts["train"]
    x = data.source.inputs(noisy.all_rows().x[rows], rows, torch.full_like(rows, -1))
    batch = next(iter(data.train_dataloader()))[0]._replace(
        x=x, y=noisy.all_rows().y[rows], index=rows, view=torch.full_like(rows, -1)
    )
    with torch.no_grad():
        batch = batch._replace(teacher_outputs=(plain.student(x),))
        context = Context(batch.y, torch.tensor(0.5), recipe.student(x))
        values = recipe.loss.gate(batch, context)
    wrong = noisy.wrong[rows]
    assert values[~wrong].mean() > values[wrong].mean() + 0.2

from functools import partial

import pytest
import torch
from torch.nn.functional import cross_entropy

from lightning_metakd.recipes.rotation import Rotation, Turns, turned
from lightning_metakd.recipes.single_task import SingleTask
from lightning_metakd.types import Output
from tests.recipes.runs import batches, sgd, single_task
from tests.tiny import SmoothConv4, trainer

TURNED = "lightning_metakd.recipes.rotation.turned"


def test_each_image_is_turned_by_its_own_number_of_quarters():
    x = torch.rand(5, 3, 6, 6)
    quarters = torch.tensor([0, 1, 2, 3, 1])
    several = turned(x, quarters)
    for image, k, result in zip(x, quarters.tolist(), several, strict=True):
        assert result.equal(image.rot90(k, (1, 2)))
    assert turned(several, (4 - quarters) % 4).equal(x)


def test_a_draw_is_a_function_of_seed_and_step_and_each_turn_is_as_likely(monkeypatch):
    draws = []
    monkeypatch.setattr(TURNED, lambda x, quarters: draws.append(quarters) or x)
    turns, x = Turns(Rotation(), 3), torch.rand(1000, 3, 1, 1)
    student = lambda rows: Output(rows.flatten(1), rows.flatten(1), {})  # noqa: E731
    for seed, step in ((0, 4), (0, 4), (1, 4), (0, 5)):
        turns(student, x, seed, step)
    first, again, *others = draws
    assert first.equal(again)
    assert not any(first.equal(other) for other in others)
    assert (first.bincount(minlength=4) / 1000 - 0.25).abs().max() < 0.05


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_a_step_descends_both_cross_entropies_and_running_statistics_are_of_plain_rows(
    weight, monkeypatch
):
    shown = []

    def recorded(x, quarters):
        shown.append((x, quarters))
        return turned(x, quarters)

    monkeypatch.setattr(TURNED, recorded)
    recipe = SingleTask(
        SmoothConv4(12), optimisation=sgd(momentum=0.0), rotation=Rotation(weight=weight)
    )
    before = {name: p.detach().clone() for name, p in recipe.named_parameters()}
    plain, other = SmoothConv4(12).train(), SmoothConv4(12).train()
    for oracle in (plain, other):
        oracle.load_state_dict(recipe.student.state_dict())
    labels = []
    data = batches(quiz_fraction=0.0)
    step = recipe.training_step
    recipe.training_step = lambda batch, batch_idx: (
        labels.append(batch[0].y) or step(batch, batch_idx)
    )
    trainer(max_steps=1).fit(recipe, datamodule=data)
    ((x, quarters),) = shown
    every = torch.stack(
        [image.rot90(k, (1, 2)) for image, k in zip(x, quarters.tolist(), strict=True)]
    )
    head = [
        before["turns.head.weight"].requires_grad_(),
        before["turns.head.bias"].requires_grad_(),
    ]
    logits = torch.nn.functional.linear(other(every).embedding, *head)
    loss = cross_entropy(plain(x).logits, labels[0])
    (loss + weight * cross_entropy(logits, quarters)).backward()
    close = partial(torch.testing.assert_close, rtol=1e-4, atol=5e-7)
    of_other = dict(other.named_parameters())
    for name, p in plain.named_parameters():
        moved = before[f"student.{name}"] - recipe.student.get_parameter(name).detach()
        gradient = p.grad if of_other[name].grad is None else p.grad + of_other[name].grad
        close(moved, recipe.optimisation.lr * gradient, msg=name)
    for parameter, start in zip(recipe.turns.parameters(), head, strict=True):
        close(start.detach() - parameter.detach(), recipe.optimisation.lr * start.grad)
    for name, buffer in plain.named_buffers():
        close(recipe.student.get_buffer(name), buffer, msg=name)


def test_what_it_has_trained_is_a_student_without_it(tmp_path):
    recipe = SingleTask(SmoothConv4(12), optimisation=sgd(), rotation=Rotation())
    engine = trainer(max_steps=2)
    engine.fit(recipe, datamodule=batches(quiz_fraction=0.0))
    engine.save_checkpoint(tmp_path / "a.ckpt")
    started = single_task(init=str(tmp_path / "a.ckpt"))
    trainer().test(started, datamodule=batches(test_fraction=0.25), verbose=False)
    for name, tensor in recipe.student.state_dict().items():
        assert started.student.state_dict()[name].equal(tensor)


def test_what_cannot_be_turned_is_refused(as_users_run_it):
    with pytest.raises(ValueError, match=r"rotation.weight=0 must be positive"):
        Rotation(0)
    for shape in ((6, 5), (6, 3, 4, 5)):
        with pytest.raises(
            ValueError, match="rotation turns square images, and rows have the shape"
        ):
            Turns(Rotation(), 4)(SmoothConv4(12), torch.rand(shape), 0, 0)

from dataclasses import dataclass, field

import pytest
import torch
from torch.nn.functional import cross_entropy, one_hot

from lightning_metakd.losses.hinton import Hinton
from lightning_metakd.losses.match_gate import MatchGate
from lightning_metakd.recipes.mixing import Mixing
from lightning_metakd.recipes.single_task import SingleTask
from lightning_metakd.types import Batch
from tests.recipes.runs import batches, helper, sgd, single_task
from tests.tiny import SmoothConv4, trainer

KINDS = pytest.mark.parametrize("kind", ["mixup", "cutmix"])


def rows(n: int = 6, side: int = 10) -> Batch:
    x = torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(3))
    return Batch(x, torch.arange(n), torch.arange(n), torch.full((n,), -1))


@dataclass(frozen=True)
class Recorded(Mixing):
    """Mixtures, kept."""

    mixtures: list = field(default_factory=list)

    def mixed(self, batch, seed, step):
        self.mixtures.append(super().mixed(batch, seed, step))
        return self.mixtures[-1]


@KINDS
def test_a_mixture_is_a_function_of_seed_and_step(kind):
    batch, mixing = rows(), Mixing(kind)
    first, again = (mixing.mixed(batch, 0, 5) for _ in range(2))
    assert first.batch.x.equal(again.batch.x)
    assert first.share == again.share
    for other in (mixing.mixed(batch, 1, 5), mixing.mixed(batch, 0, 6)):
        assert first.share != other.share
    assert batch.x.equal(rows().x)  # it is left as it was


def test_mixup_is_the_mean_of_two_images_in_their_shares():
    batch = rows()
    mixture = Mixing("mixup", 0.4).mixed(batch, 0, 1)
    partner = mixture.other  # rows are their own labels here
    expected = mixture.share * batch.x + (1 - mixture.share) * batch.x[partner]
    torch.testing.assert_close(mixture.batch.x, expected)
    assert partner.sort().values.equal(batch.y)
    assert mixture.batch.y.equal(batch.y)


def test_cutmix_pastes_a_rectangle_and_knows_what_is_left():
    batch, shares = rows(8, 16), []
    for step in range(200):
        mixture = Mixing("cutmix").mixed(batch, 0, step)
        other = batch.x[mixture.other]
        first = (mixture.batch.x == batch.x).all(1)
        assert (first | (mixture.batch.x == other).all(1)).all()
        changed = ~first[mixture.other != batch.y]
        if len(changed) and mixture.share < 1:
            assert changed[0].float().mean().item() == pytest.approx(1 - mixture.share)
            inside = changed[0].nonzero()
            height, width = (inside.max(0).values - inside.min(0).values + 1).tolist()
            assert height * width == len(inside)
        shares.append(mixture.share)
    # without clipping the mean is a half; what lies outside the image is left to the first
    assert 0.5 < sum(shares) / len(shares) < 0.8


@KINDS
def test_a_step_descends_the_cross_entropy_with_soft_labels(kind):
    mixing = Recorded(kind)
    recipe = SingleTask(SmoothConv4(12), optimisation=sgd(momentum=0.0), mixing=mixing)
    before = {name: p.detach().clone() for name, p in recipe.student.named_parameters()}
    oracle = SmoothConv4(12)
    oracle.load_state_dict(recipe.student.state_dict())
    data = batches(quiz_fraction=0.0)
    trainer(max_steps=1).fit(recipe, datamodule=data)
    (mixture,) = mixing.mixtures
    assert 0 < mixture.share < 1
    first, second = (one_hot(y, 12).float() for y in (mixture.batch.y, mixture.other))
    soft = mixture.share * first + (1 - mixture.share) * second
    cross_entropy(oracle.train()(mixture.batch.x).logits, soft).backward()
    for name, p in oracle.named_parameters():
        moved = before[name] - dict(recipe.student.named_parameters())[name].detach()
        torch.testing.assert_close(
            moved, recipe.optimisation.lr * p.grad, rtol=1e-4, atol=1e-7, msg=name
        )


def test_a_teacher_answers_for_the_mixed_rows():
    mixing, shown = Recorded("mixup"), []
    teacher = helper(12)
    teacher.model.register_forward_pre_hook(lambda module, args: shown.append(args[0]))
    loss = MatchGate(0.5, Hinton(4.0))
    recipe = SingleTask(SmoothConv4(12), loss, [teacher], optimisation=sgd(), mixing=mixing)
    trainer(max_steps=1).fit(recipe, datamodule=batches(quiz_fraction=0.0))
    torch.testing.assert_close(shown[-1], mixing.mixtures[0].batch.x)


def test_what_cannot_be_mixed_is_refused(as_users_run_it):
    with pytest.raises(ValueError, match=r"mixing.kind='blend' is unknown"):
        Mixing("blend")
    with pytest.raises(ValueError, match=r"mixing.alpha=0 must be positive"):
        Mixing("mixup", 0)
    vectors = rows()._replace(x=torch.rand(6, 5))
    Mixing("mixup").mixed(vectors, 0, 0)
    with pytest.raises(ValueError, match=r"cutmix cuts images, and rows have the shape \(5,\)"):
        Mixing("cutmix").mixed(vectors, 0, 0)
    with pytest.raises(ValueError, match="rows are tokens"):
        Mixing("mixup").mixed(rows()._replace(x=torch.ones(6, 5, dtype=torch.long)), 0, 0)
    with pytest.raises(ValueError, match="mixing=mixup makes rows that no teacher has answered"):
        SingleTask(
            SmoothConv4(12),
            MatchGate(0.5, Hinton(4.0)),
            [helper(12, cache=True)],
            mixing=Mixing("mixup"),
        )
    with pytest.raises(ValueError, match="mixing=mixup gives a row two labels"):
        single_task(mixing=Mixing("mixup"))

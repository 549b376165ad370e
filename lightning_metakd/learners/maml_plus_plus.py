"""MAML++: a learned rate for each layer and step, and a loss after every step.

Antoniou, Edwards, Storkey (2019), "How to train your MAML", arXiv:1810.09502. Of its six changes to
MAML two are here: learned rates per layer and per step (section 4, LSLR), and the multi-step loss,
the query loss after each inner step, with weights that move to the last one while the training goes
on (MSL). The authors' code keeps 3 % of a step's share until the last step alone counts;
here the shares go to zero on a straight line.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_metakd.arguments.ranges import check_number
from lightning_metakd.functional.inner_loop import loss_of_answer
from lightning_metakd.functional.params import subtree
from lightning_metakd.learners.learner import Adapted, Learner, checked_steps
from lightning_metakd.learners.maml import adapt_by_descent
from lightning_metakd.models.model import Model, as_key
from lightning_metakd.types import Batch, BatchLoss, Forward, Params


def step_weights(steps: int, done: float) -> Float[Tensor, " steps"]:
    """Weights of the losses after each step: equal at done=0, the last alone at done=1; their sum is 1."""
    weights = torch.full((steps,), (1 - done) / steps)
    weights[-1] = 1 - weights[:-1].sum()
    return weights


class MAMLPlusPlus(Learner):
    """MAML with learned rates and a loss after every step.

    Learnable: for each tensor of the student a rate per inner step.

    Args:
        inner_lr: where every rate starts, > 0.
        inner_steps: inner steps in training, >= 1.
        test_steps: inner steps in evaluation, those beyond `inner_steps` at the last one's rates; None
            takes as many as in training.
        first_order: leave out second derivatives; a learned strategy's gradient then
            leaves out what an inner step did to later ones, and is right for one step alone.
        multi_step_until: part of the training, in [0, 1], in which the loss after earlier steps counts too.

    Example:
        >>> from lightning_metakd.learners import MAMLPlusPlus, example_task
        >>> task = example_task(learner := MAMLPlusPlus(inner_lr=0.5, inner_steps=3))
        >>> learner.adapt(*task).predict(task.support.x).logits.argmax(-1)
        tensor([0, 1, 0, 1])
    """

    uses_inner_loss = True
    adapts_body = True
    needs_head = True
    outer_loss_is_query_loss = False

    def __init__(
        self,
        inner_lr: float = 0.01,
        inner_steps: int = 5,
        test_steps: int | None = None,
        first_order: bool = False,
        multi_step_until: float = 0.15,
    ) -> None:
        super().__init__()
        hint = "where 0 counts the last step alone"
        check_number("multi_step_until", multi_step_until, 0.0, 1.0, "[]", hint)
        self.test_steps = checked_steps(inner_lr, inner_steps, test_steps)
        self.inner_lr, self.inner_steps, self.first_order = inner_lr, inner_steps, first_order
        self.multi_step_until, self.rates = multi_step_until, nn.ParameterDict()
        self.on_outer_step(0.0)

    def init_student_state(self, student: Model) -> None:
        for name, p in student.named_parameters():
            if p.requires_grad:
                rates = p.new_full((self.inner_steps,), self.inner_lr)
                self.rates[as_key(name)] = nn.Parameter(rates)

    def on_outer_step(self, progress: float) -> None:
        # a tensor: a number that changes with every step would be compiled anew with every step
        until = self.multi_step_until
        self.weights = (
            step_weights(self.inner_steps, progress / until) if progress < until else None
        )

    def adapt(
        self, forward: Forward, meta: Params, batch_loss: BatchLoss, support: Batch, n_way: int
    ) -> Adapted:
        student, learner_rates = subtree(meta, "student"), subtree(meta, "learner.rates")
        steps = self.inner_steps if self.training else self.test_steps
        last = self.inner_steps - 1
        rates = [{n: learner_rates[as_key(n)][min(k, last)] for n in student} for k in range(steps)]
        return adapt_by_descent(forward, student, batch_loss, support.x, rates, self.first_order)

    def outer_loss(
        self, meta: Params, adapted: Adapted, batch_loss: BatchLoss, query: Batch
    ) -> Tensor:
        if not self.training or self.weights is None:
            return loss_of_answer(batch_loss, adapted.answer, adapted.params, query.x)
        losses = torch.stack(
            [
                loss_of_answer(batch_loss, adapted.answer, at, query.x)
                for at in adapted.trajectory[1:]
            ]
        )
        return losses @ self.weights.to(losses)

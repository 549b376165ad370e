"""Meta-SGD: a learned rate for each parameter.

Li, Zhou, Chen, Li (2017), "Meta-SGD: Learning to Learn Quickly for Few-Shot Learning",
arXiv:1707.09835, eq. 2. The student descends as in MAML, and the outer loop learns beside its start a
rate for every single weight, thus also the direction of the step; a rate may become negative. The
paper draws the rates at random; here all start from `inner_lr`.
"""

import torch
from torch import nn

from lightning_metakd.functional.params import subtree
from lightning_metakd.learners.learner import Adapted, Learner, checked_steps
from lightning_metakd.learners.maml import adapt_by_descent
from lightning_metakd.models.model import Model, as_key
from lightning_metakd.types import Batch, BatchLoss, Forward, Params


class MetaSGD(Learner):
    """A few steps of gradient descent, with start and rates learned.

    Learnable: a rate for each weight of the student, in its shape.

    Args:
        inner_lr: where every rate starts, > 0.
        inner_steps: inner steps in training, >= 1; the paper takes one.
        test_steps: inner steps in evaluation; None takes as many as in training.
        first_order: leave out second derivatives; a learned strategy's gradient then
            leaves out what an inner step did to later ones, and is right for one step alone.

    Example:
        >>> from lightning_metakd.learners import MetaSGD, example_task
        >>> task = example_task(learner := MetaSGD(inner_lr=0.5, inner_steps=3))
        >>> learner.adapt(*task).predict(task.support.x).logits.argmax(-1)
        tensor([0, 1, 0, 1])
    """

    uses_inner_loss = True
    adapts_body = True
    needs_head = True

    def __init__(
        self,
        inner_lr: float = 0.01,
        inner_steps: int = 1,
        test_steps: int | None = None,
        first_order: bool = False,
    ) -> None:
        super().__init__()
        self.test_steps = checked_steps(inner_lr, inner_steps, test_steps)
        self.inner_lr, self.inner_steps, self.first_order = inner_lr, inner_steps, first_order
        self.rates = nn.ParameterDict()

    def init_student_state(self, student: Model) -> None:
        for name, p in student.named_parameters():
            if p.requires_grad:
                self.rates[as_key(name)] = nn.Parameter(torch.full_like(p, self.inner_lr))

    def adapt(
        self, forward: Forward, meta: Params, batch_loss: BatchLoss, support: Batch, n_way: int
    ) -> Adapted:
        student, learner_rates = subtree(meta, "student"), subtree(meta, "learner.rates")
        rates = {name: learner_rates[as_key(name)] for name in student}
        steps = self.inner_steps if self.training else self.test_steps
        return adapt_by_descent(
            forward, student, batch_loss, support.x, [rates] * steps, self.first_order
        )

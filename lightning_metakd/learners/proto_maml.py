"""Gradient steps from a nearest-class-mean classifier.

Triantafillou et al. (2020), "Meta-Dataset", arXiv:1903.03096, section 3.2. The head of an episode starts
at the class means of the support embeddings, so at step 0 the student is a prototypical network; then
head and body descend the batch loss together, as in MAML. In training the start is learned; with a student
that was trained in any other way it is fine-tuning on the support set.
"""

from collections.abc import Callable
from typing import get_args

from torch import Tensor

from lightning_metakd.arguments.ranges import check_choice, check_positive
from lightning_metakd.functional.bind import with_support_statistics
from lightning_metakd.functional.inner_loop import descend
from lightning_metakd.functional.params import subtree
from lightning_metakd.learners.learner import Adapted, Learner, checked_steps
from lightning_metakd.learners.support_weights import (
    reads_teacher,
    support_coefficient,
    support_weights,
)
from lightning_metakd.losses.coefficient import Value
from lightning_metakd.models.prototypes import Metric, class_means, metric_logits
from lightning_metakd.types import Batch, BatchLoss, Forward, Output, Params

PROTOTYPES = "prototypes"
Answer = Callable[[Params, Tensor], Output]


class ProtoMAML(Learner):
    """A few steps of gradient descent on body and class means.

    Args:
        inner_lr: step size of the inner loop, > 0.
        inner_steps: inner steps in training, >= 1.
        test_steps: inner steps in evaluation; None takes as many as in training.
        first_order: leave out second derivatives; a learned strategy's gradient then
            leaves out what an inner step did to later ones, and is right for one step alone.
        metric: `euclidean` (squared distance) or `cosine`.
        scale: factor on the logits, > 0; 10 suits the cosine.
        support_weight: how much a support row counts in the class means of the start, >= 0, a number for each
            by a coefficient; null is all alike.

    Example:
        >>> from lightning_metakd.learners import ProtoMAML, example_task
        >>> task = example_task(learner := ProtoMAML())
        >>> learner.adapt(*task).predict(task.support.x).logits.argmax(-1)
        tensor([0, 1, 0, 1])
    """

    uses_inner_loss = True
    adapts_body = True
    needs_head = False

    def __init__(
        self,
        inner_lr: float = 0.01,
        inner_steps: int = 5,
        test_steps: int | None = None,
        first_order: bool = True,
        metric: Metric = "cosine",
        scale: float = 10.0,
        support_weight: Value | None = None,
    ) -> None:
        super().__init__()
        self.support_weight = support_coefficient(support_weight)
        self.needs_teacher = reads_teacher(self.support_weight)
        check_choice("metric", metric, get_args(Metric))
        check_positive("scale", scale, "for instance 1 for euclidean, 10 for cosine")
        self.test_steps = checked_steps(inner_lr, inner_steps, test_steps)
        self.inner_lr, self.inner_steps = inner_lr, inner_steps
        self.first_order, self.metric, self.scale = first_order, metric, scale

    def adapt(
        self, forward: Forward, meta: Params, batch_loss: BatchLoss, support: Batch, n_way: int
    ) -> Adapted:
        student = subtree(meta, "student")
        e = forward(student, support.x).embedding
        weights = support_weights(self.support_weight, subtree(meta, "learner"), support, e, n_way)
        prototypes = class_means(e, support.y, n_way, weights)

        def by_means(body: Answer) -> Answer:
            def answer(params: Params, x: Tensor) -> Output:
                body_params = {name: p for name, p in params.items() if name != PROTOTYPES}
                output = body(body_params, x)
                logits = metric_logits(output.embedding, params[PROTOTYPES][None], self.metric)
                return output._replace(logits=self.scale * logits)

            return answer

        inner = by_means(forward)
        rates = [self.inner_lr] * (self.inner_steps if self.training else self.test_steps)
        start = {**student, PROTOTYPES: prototypes}
        trajectory = descend(
            lambda at: inner(at, support.x), start, batch_loss, rates, self.first_order
        )
        return Adapted(
            trajectory[-1], by_means(with_support_statistics(forward, support.x)), tuple(trajectory)
        )

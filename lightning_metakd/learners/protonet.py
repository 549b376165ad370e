"""Prototypical networks.

Snell, Swersky, Zemel (2017), "Prototypical Networks for Few-shot Learning", arXiv:1703.05175. A class
is the mean of its embedded support rows, and a query row belongs to the nearest one: minus the squared
Euclidean distance is the logit (eq. 1, 2). With `metric="cosine"` the logit is the cosine times a scale
that may be learned (Chen 2021, "Meta-Baseline", arXiv:2003.04390). Nothing adapts by a loss, so a
teacher acts on the query rows, and training may have more ways than testing.
"""

import math
from typing import get_args

import torch
from torch import Tensor, nn

from lightning_metakd.arguments.ranges import check_choice, check_positive
from lightning_metakd.functional.params import subtree
from lightning_metakd.learners.learner import Adapted, Learner
from lightning_metakd.learners.support_weights import (
    reads_teacher,
    support_coefficient,
    support_weights,
)
from lightning_metakd.losses.coefficient import Value
from lightning_metakd.models.prototypes import Metric, class_means, metric_logits
from lightning_metakd.types import Batch, BatchLoss, Forward, Output, Params


class ProtoNet(Learner):
    """Nearest class mean of the support embeddings.

    Args:
        metric: `euclidean` (squared distance) or `cosine`.
        scale: factor on the logits, > 0; 10 suits the cosine.
        learn_scale: whether the outer loop learns the scale.
        support_weight: how much a support row counts, >= 0, each its own by a coefficient; null is alike.

    Example:
        >>> from lightning_metakd.learners import ProtoNet, example_task
        >>> task = example_task(learner := ProtoNet())
        >>> learner.adapt(*task).predict(task.support.x).logits.argmax(-1)
        tensor([0, 1, 0, 1])
    """

    uses_inner_loss = False
    adapts_body = False
    needs_head = False

    def __init__(
        self,
        metric: Metric = "euclidean",
        scale: float = 1.0,
        learn_scale: bool = False,
        support_weight: Value | None = None,
    ) -> None:
        super().__init__()
        self.support_weight = support_coefficient(support_weight)
        self.needs_teacher = reads_teacher(self.support_weight)
        check_choice("metric", metric, get_args(Metric))
        check_positive("scale", scale, "for instance 1 for euclidean, 10 for cosine")
        self.metric = metric
        log_scale = torch.tensor(math.log(scale))
        if learn_scale:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale)

    def adapt(
        self, forward: Forward, meta: Params, batch_loss: BatchLoss, support: Batch, n_way: int
    ) -> Adapted:
        student = subtree(meta, "student")
        output, statistics = forward.observe(student, support.x)
        learner, e = subtree(meta, "learner"), output.embedding
        weights = support_weights(self.support_weight, learner, support, e, n_way)
        prototypes = class_means(e, support.y, n_way, weights)[None]
        scale = learner.get("log_scale", self.log_scale).exp()

        def answer(params: Params, x: Tensor) -> Output:
            output = forward({**params, **statistics}, x)
            return output._replace(
                logits=scale * metric_logits(output.embedding, prototypes, self.metric)
            )

        return Adapted(student, answer, (student,))

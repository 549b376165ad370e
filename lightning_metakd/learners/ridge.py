"""Ridge regression as the last layer, in closed form.

Bertinetto, Henriques, Torr, Vedaldi (2019), "Meta-learning with differentiable closed-form solvers",
arXiv:1805.08136 (R2-D2). The labels are regressed on the embeddings of the support set, and the outer
loop differentiates the solution. The linear system has the size of the support set or of the
embedding, whichever is smaller (Woodbury, eq. 5). Scale and penalty are learned. The paper adds a
learned constant to all logits, which no softmax sees. Nothing adapts by a loss, so a teacher acts on
the query rows.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_metakd.arguments.ranges import check_positive
from lightning_metakd.functional.params import subtree
from lightning_metakd.learners.learner import Adapted, Learner
from lightning_metakd.learners.support_weights import (
    reads_teacher,
    support_coefficient,
    support_weights,
)
from lightning_metakd.losses.coefficient import Value
from lightning_metakd.models.norm import at_least_single
from lightning_metakd.models.prototypes import one_hot
from lightning_metakd.types import Batch, BatchLoss, Forward, Output, Params


def ridge_weights(
    embedding: Float[Tensor, "s d"], targets: Float[Tensor, "s c"], penalty: Float[Tensor, ""]
) -> Float[Tensor, "d c"]:
    """argmin_W |X W - Y|^2 + penalty |W|^2, X the embeddings and Y the targets."""
    s, d = embedding.shape
    one = torch.eye(min(s, d), dtype=embedding.dtype, device=embedding.device)
    if s < d:
        gram = embedding @ embedding.T + penalty * one
        return embedding.T @ torch.linalg.solve(gram, targets)
    gram = embedding.T @ embedding + penalty * one
    return torch.linalg.solve(gram, embedding.T @ targets)


class Ridge(Learner):
    """Ridge regression of the labels on the embeddings of the support set.

    Learnable: log penalty and log scale.

    Args:
        penalty: where the weight of the squared weights starts, > 0.
        scale: where the factor on the logits starts, > 0; the regression's own outputs are about 0 to 1.
        learn: whether the outer loop learns both.
        support_weight: how much a support row counts, >= 0, each its own by a coefficient; null is alike.

    Example:
        >>> from lightning_metakd.learners import Ridge, example_task
        >>> task = example_task(learner := Ridge())
        >>> learner.adapt(*task).predict(task.support.x).logits.argmax(-1)
        tensor([0, 1, 0, 1])
    """

    uses_inner_loss = False
    adapts_body = False
    needs_head = False

    def __init__(
        self,
        penalty: float = 1.0,
        scale: float = 10.0,
        learn: bool = True,
        support_weight: Value | None = None,
    ) -> None:
        super().__init__()
        self.support_weight = support_coefficient(support_weight)
        self.needs_teacher = reads_teacher(self.support_weight)
        check_positive("penalty", penalty, "for instance 1")
        check_positive("scale", scale, "for instance 10")
        for name, value in (("log_penalty", penalty), ("log_scale", scale)):
            start = torch.tensor(math.log(value))
            if learn:
                self.register_parameter(name, nn.Parameter(start))
            else:
                self.register_buffer(name, start)

    def adapt(
        self, forward: Forward, meta: Params, batch_loss: BatchLoss, support: Batch, n_way: int
    ) -> Adapted:
        student = subtree(meta, "student")
        ridge_params = {**dict(self.named_buffers()), **subtree(meta, "learner")}
        student_support, statistics = forward.observe(student, support.x)
        embedding = at_least_single(student_support.embedding)
        targets = one_hot(support.y, n_way).to(embedding)
        counts = support_weights(self.support_weight, ridge_params, support, embedding, n_way)
        if counts is not None:  # weighted squares are those of rows of other lengths
            root = counts.sqrt()[:, None]
            embedding, targets = root * embedding, root * targets
        with torch.autocast(embedding.device.type, enabled=False):
            weights = ridge_weights(embedding, targets, ridge_params["log_penalty"].exp())
        scale = ridge_params["log_scale"].exp()

        def answer(params: Params, x: Tensor) -> Output:
            output = forward({**params, **statistics}, x)
            return output._replace(logits=scale * (at_least_single(output.embedding) @ weights))

        return Adapted(student, answer, (student,))

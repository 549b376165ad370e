"""A teacher that takes gradient steps on the support set before it teaches.

Wu, Hu, Ben Sayed, Wen, Wang (2022), "Task-Specific Meta Distillation for Few-Shot Learning",
arXiv:2210.09922: a teacher that adapts to the task guides a student's steps better than one that does not. As
in Proto-MAML (arXiv:1903.03096) its classifier starts at the class means, so that without a step it is
`PrototypeHead`. The paper trains teacher and student together; so does a recipe here that has a teacher_lr,
through the steps of both, by the quiz of the student.
"""

from collections.abc import Callable
from typing import get_args

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad, vmap

from lightning_metakd.arguments.ranges import check_choice, check_integer, check_positive
from lightning_metakd.models.prototypes import Metric, metric_logits, one_hot
from lightning_metakd.teachers.heads import Classifier, Head
from lightning_metakd.types import Output, Params

PROTOTYPES = "prototypes"
MOST_STEPS = 10_000


def weighted_means(
    embedding: Float[Tensor, "s d"], member: Float[Tensor, "s c"]
) -> Float[Tensor, "c d"]:
    """Class means of rows that count in parts."""
    return (member.T @ embedding) / member.sum(0)[:, None]


class AdaptedHead(Head):
    """Class means, and with them the network too, after gradient steps on the support set.

    Its answers for the support rows come from steps of the class means without the row (of one shot, on
    another view), under the network as it is before its own steps, which are on all rows.

    Args:
        steps: gradient steps on the cross-entropy of the support rows.
        lr: their size.
        network: adapt the whole network, or its top where it has one; otherwise the class means alone.
        metric: `cosine` of the angle, or minus the squared `euclidean` distance.
        sharpness: factor on the logits in the steps; 10 suits the cosine, 1 the distance.
        scale: factor on the logits that are taught, > 0; None leaves it to calibration.
    """

    def __init__(
        self,
        steps: int = 5,
        lr: float = 0.01,
        network: bool = False,
        metric: Metric = "cosine",
        sharpness: float = 10.0,
        scale: float | None = None,
    ) -> None:
        super().__init__(scale)
        check_integer("steps", steps, 1, MOST_STEPS)
        check_positive("lr", lr, "for instance 0.01")
        check_choice("metric", metric, get_args(Metric))
        check_positive("sharpness", sharpness, "for instance 10")
        self.steps, self.lr, self.adapts_network = steps, lr, network
        self.metric, self.sharpness = metric, sharpness

    def fit(self, support: Output, y: Tensor, classes: Tensor) -> Classifier:
        member = one_hot(y, len(classes)).to(support.embedding.dtype)
        return self.classifier(self.descend(support.embedding, member))

    def adapt(
        self,
        embed: Callable[[Params], Output],
        params: Params,
        support: Output,
        y: Tensor,
        classes: Tensor,
    ) -> tuple[Params, Classifier]:
        if not self.adapts_network:
            return params, self.fit(support, y, classes)
        member = one_hot(y, len(classes)).to(support.embedding.dtype)
        at = {**params, PROTOTYPES: weighted_means(support.embedding, member)}

        def loss(at: Params) -> Tensor:
            network = {name: p for name, p in at.items() if name != PROTOTYPES}
            return self.loss(embed(network).embedding, at[PROTOTYPES], member)

        for _ in range(self.steps):
            slope = grad(loss)(at)
            at = {name: p - self.lr * slope[name] for name, p in at.items()}
        prototypes = at.pop(PROTOTYPES)
        return at, self.classifier(prototypes)

    def held_out(
        self, support: Output, y: Tensor, classes: Tensor, other: Output
    ) -> Float[Tensor, "s c"]:
        if len(y) == len(classes):  # one shot: nothing is left of its class without the row
            return self.fit(other, y, classes)(support)
        member = one_hot(y, len(classes)).to(support.embedding.dtype)
        others = 1 - torch.eye(len(y), dtype=member.dtype, device=member.device)  # [s s]

        def answer(kept: Tensor, row: Tensor) -> Tensor:
            prototypes = self.descend(support.embedding, member * kept[:, None])
            return metric_logits(row[None], prototypes[None], self.metric)[0]

        return vmap(answer)(others, support.embedding)

    def descend(
        self, embedding: Float[Tensor, "s d"], member: Float[Tensor, "s c"]
    ) -> Float[Tensor, "c d"]:
        """The class means after the steps, for rows that belong to classes in parts."""
        prototypes = weighted_means(embedding, member)
        for _ in range(self.steps):
            slope = grad(self.loss, argnums=1)(embedding, prototypes, member)
            prototypes = prototypes - self.lr * slope
        return prototypes

    def loss(
        self,
        embedding: Float[Tensor, "s d"],
        prototypes: Float[Tensor, "c d"],
        member: Float[Tensor, "s c"],
    ) -> Float[Tensor, ""]:
        """Mean cross-entropy of the rows that belong to a class."""
        logits = metric_logits(embedding, prototypes[None], self.metric)
        log_probs = (self.sharpness * logits).log_softmax(-1)
        return -(member * log_probs).sum() / member.sum()

    def classifier(self, prototypes: Float[Tensor, "c d"]) -> Classifier:
        """Similarity to these class means."""
        return lambda output: metric_logits(output.embedding, prototypes[None], self.metric)

"""Symmetric cross-entropy: the labels' cross-entropy, and its reverse, which wrong labels mislead less.

Wang, Ma, Chen, Luo, Yi, Bailey (2019), "Symmetric Cross Entropy for Robust Learning with Noisy Labels",
arXiv:1908.06112, eq. 6 and 7: alpha CE + beta RCE, where RCE = -sum_k p(k) log(label k) with log 0 set to a
number A < 0, so that RCE = -A (1 - p(y)).
"""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from lightning_metakd.arguments.ranges import check_positive
from lightning_metakd.losses.coefficient import Value, weight
from lightning_metakd.losses.loss import Loss
from lightning_metakd.types import Batch, Context, Output


class SymmetricCrossEntropy(Loss):
    """Cross-entropy with the labels and the reverse one, each with its weight.

    Args:
        alpha: weight of cross-entropy, >= 0; a number or a coefficient. The paper takes 0.1 for CIFAR-10, 6
            for CIFAR-100.
        beta: weight of the reverse one, >= 0; a number or a coefficient. The paper takes 1 and 0.1.
        log_zero: what stands for -log 0, > 0; the paper's -A.

    Example:
        >>> from lightning_metakd.losses import SymmetricCrossEntropy, example_rows
        >>> SymmetricCrossEntropy()(*example_rows()).shape
        torch.Size([4])
    """

    needs_teacher = False

    def __init__(self, alpha: Value = 0.1, beta: Value = 1.0, log_zero: float = 4.0) -> None:
        super().__init__()
        check_positive("log_zero", log_zero, "for instance 4")
        self.alpha, self.beta = weight(alpha, "alpha"), weight(beta, "beta")
        self.log_zero = log_zero

    def forward(self, student: Output, batch: Batch, context: Context) -> Float[Tensor, " n"]:
        forward = cross_entropy(student.logits, batch.y, reduction="none")
        reverse = -self.log_zero * (-forward).expm1()
        return self.alpha(batch, context) * forward + self.beta(batch, context) * reverse

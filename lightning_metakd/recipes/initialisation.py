"""What a training begins from."""

from dataclasses import dataclass

from torch import nn

from lightning_metakd.functional.params import subtree
from lightning_metakd.models.weights import shapes
from lightning_metakd.storage.atomic_files import file_sha256
from lightning_metakd.storage.read_checkpoint import local_file, read_checkpoint
from lightning_metakd.storage.read_strategy import check_strategy_exists
from lightning_metakd.storage.zoo import located
from lightning_metakd.teachers.weight_sharing import Share


@dataclass(frozen=True)
class Initialisation:
    """What a training begins from; a resumed one is behind it.

    Args:
        checkpoint: file with the student's weights and what a learner of the same kind learned. MetaKD drops
            a head of another width; SingleTask drops one of other classes, and puts one of the same classes
            in another order into theirs.
        strategy_file: file of a learned strategy.
        support_weight: file of a training whose learner had learned how much each support row counts: the
            coefficient `support_weight` of this learner begins so, whatever the two students. MetaKD only.
        share: which modules copy, freeze or tie the weights of a teacher.
        freeze: modules of the student that stay as they begin, by path; `body` is all but the head.
    """

    checkpoint: str | None = None
    strategy_file: str | None = None
    support_weight: str | None = None
    share: list[Share] | None = None
    freeze: list[str] | None = None

    def check_files(self) -> None:
        """Raise where a file that is named does not exist.

        Raises:
            FileNotFoundError: names it.
        """
        if self.checkpoint is not None:
            local_file(self.checkpoint, "initialisation.checkpoint")
        if self.strategy_file is not None:
            check_strategy_exists(self.strategy_file)
        if self.support_weight is not None:
            local_file(self.support_weight, "initialisation.support_weight")

    def checkpoint_sha256(self) -> str | None:
        """Hash of the checkpoint's file, where it is there."""
        path = None if self.checkpoint is None else located(self.checkpoint)
        return file_sha256(path) if path is not None and path.is_file() else None

    def check_single_task(self) -> None:
        """Raise where something is of learners, which adapt to episodes."""
        if self.support_weight is not None:
            raise ValueError(
                f"initialisation.support_weight={self.support_weight!r} is of a learner, and "
                "model=SingleTask has none; leave it out, or take model=MetaKD."
            )

    def load_support_weight(self, learner: nn.Module) -> None:
        """Begin with how much each support row counts as another training has learned it.

        Raises:
            ValueError: if the learner counts rows in another way, or the file has none that were learned.
        """
        if self.support_weight is None:
            return
        state = read_checkpoint(self.support_weight)["state_dict"]
        tensors = subtree(state, "learner.support_weight")
        who = f"initialisation.support_weight={self.support_weight!r}"
        if not tensors:
            raise ValueError(f"{who} has no support_weight that was learned; name a file of one.")
        coefficient = getattr(learner, "support_weight", None)
        if coefficient is None or shapes(coefficient.state_dict()) != shapes(tensors):
            kind = None if coefficient is None else type(coefficient).__name__
            raise ValueError(
                f"{who} holds {', '.join(tensors)}, of other names or shapes than those of "
                f"learner.support_weight={kind}; take the coefficient that was learned there (MetaWeightNet "
                "for zoo:support_weights), or leave the file out."
            )
        coefficient.load_state_dict(tensors)

"""What a training begins from."""

from dataclasses import dataclass

from lightning_metakd.storage.atomic_files import file_sha256
from lightning_metakd.storage.read_checkpoint import local_file
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
        share: which modules copy, freeze or tie the weights of a teacher.
        freeze: modules of the student that stay as they begin, by path; `body` is all but the head.
    """

    checkpoint: str | None = None
    strategy_file: str | None = None
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

    def checkpoint_sha256(self) -> str | None:
        """Hash of the checkpoint's file, where it is there."""
        path = None if self.checkpoint is None else located(self.checkpoint)
        return file_sha256(path) if path is not None and path.is_file() else None

"""What teaches a student: a loss, teachers, adapters between their layers, and weights in common."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_metakd.data.source_data import SourceData
from lightning_metakd.data.sources.source import Source
from lightning_metakd.functional.bind import bind
from lightning_metakd.functional.params import subtree
from lightning_metakd.losses.adapters import Adapters, make_adapters, of_each_teacher, tap_layers
from lightning_metakd.losses.loss import Loss
from lightning_metakd.models.model import Model
from lightning_metakd.models.weights import load_alike, weights_hash
from lightning_metakd.recipes.episode_objective import TEACHERS
from lightning_metakd.recipes.initialisation import Initialisation
from lightning_metakd.recipes.strategy_training import Rates
from lightning_metakd.storage.read_checkpoint import local_file
from lightning_metakd.storage.read_strategy import read_strategy
from lightning_metakd.strategy.controls import Control, loss_without_control, set_values
from lightning_metakd.strategy.strategy_file import load_strategy, per_class, save_strategy
from lightning_metakd.teachers.preparation import check_views, tap_teachers, two_inputs
from lightning_metakd.teachers.teacher import Teacher
from lightning_metakd.teachers.teacher_pool import TeacherPool
from lightning_metakd.teachers.weight_sharing import Sharing
from lightning_metakd.types import Forward

log = logging.getLogger(__name__)


class TeachingSetup:
    """What teaches a student; the modules are the recipe's own.

    Args:
        student: the network that is trained.
        loss: the teaching loss, as the control has it.
        teachers: in the order of the configuration.
        adapters: filled once the layers that the loss compares have been recorded.
        initialisation: which weights are shared, and which file the strategy starts from.
        control: what is taken away from learning the strategy.
        rates: of coefficients and teachers.
    """

    def __init__(
        self,
        student: Model,
        loss: Loss,
        teachers: TeacherPool,
        adapters: Adapters,
        initialisation: Initialisation,
        control: Control,
        rates: Rates,
    ) -> None:
        self.student, self.loss, self.teachers, self.adapters = student, loss, teachers, adapters
        self.strategy_file, self.control, self.rates = initialisation.strategy_file, control, rates
        shares, freeze = initialisation.share or (), initialisation.freeze or ()
        self.sharing = Sharing(shares, student, teachers, freeze)
        self.frozen_names = self.sharing.fixed(student)

    # --- checks, before anything is read -------------------------------------------------------

    def check_teachers(self, stage: str) -> None:
        """Raise where something of a stage that teaches wants a teacher, and there is none.

        Raises:
            ValueError: names it.
        """
        if self.teachers:
            return
        if self.loss.needs_teacher:
            way_out = "use CrossEntropy" if stage == "fit" else "leave teacher_at_test out"
            raise ValueError(
                f"loss={type(self.loss).__name__} follows a teacher, but teachers is empty; name one in "
                f"model.teachers, or {way_out}."
            )
        if self.rates.teachers > 0:
            raise ValueError(
                f"strategy_training.teacher_lr={self.rates.teachers} trains teachers, and there are none."
            )
        if self.sharing.shares:
            raise ValueError(
                "share takes weights of a teacher, but teachers is empty; name one in model.teachers, or "
                "leave share out."
            )

    def check_files(self, way_out: str = "") -> None:
        """Raise where the file of a teacher does not exist.

        Args:
            way_out: what the message offers beside naming another.
        """
        for teacher in self.teachers:
            for file in teacher.files:
                local_file(file, instead=way_out)

    def check_views(self, data: SourceData) -> None:
        """Raise where the data have views without number, and a teacher's cache has to keep them."""
        if not any(self.loss.layer_pairs()):  # a loss of layers needs its teachers live
            check_views(self.teachers, data)

    # --- set-up --------------------------------------------------------------------------------

    def open(self) -> None:
        """Read the teachers' files, and let those learn that are to."""
        self.sharing.untie()
        for teacher in self.teachers:
            teacher.open()
            if self.rates.teachers > 0:
                teacher.unfreeze()

    def record_layers(self, students: Sequence[Model], source: Source, teaches: bool) -> None:
        """Tap the layers that the loss compares, and make the adapters that it needs, once.

        Args:
            students: the student and its copies.
            teaches: whether the loss is computed in this stage.
        """
        named = self.loss.layer_pairs() if teaches else ()
        pairs = of_each_teacher(named, len(self.teachers))
        for student in students:
            tap_layers(student, (pair.student_layer for pair in pairs))
        tap_teachers(self.teachers, pairs)
        adapted = tuple(pair for pair in pairs if pair.adapted)
        if adapted and adapted != self.adapters.layer_pairs:
            models = [teacher.model for teacher in self.teachers]
            reading = self.student.reading
            x, teacher_x = (two_inputs(s, reading) for s in (source, source.image_source))
            # not of the generator's state, which differs with the number of processes
            seed = torch.initial_seed()
            self.adapters.take_over(
                make_adapters(adapted, self.student, models, x, teacher_x, seed)
            )

    def load_adapters(self, state: Mapping[str, Tensor], checkpoint: str, needed: bool) -> None:
        """Take over the adapters of an initial checkpoint.

        Args:
            state: its tensors.
            checkpoint: its path, for the message.
            needed: whether there is no training that would make them.

        Raises:
            ValueError: if they are needed, and the checkpoint has others.
        """
        alike = load_alike(self.adapters, subtree(state, "adapters"))
        if not alike and needed and self.adapters.layer_pairs:
            raise ValueError(
                f"initialisation.checkpoint={checkpoint!r} has no adapters for the layers that "
                f"loss={type(self.loss).__name__} compares, and with teacher_at_test=true the student adapts "
                "by it; name a checkpoint trained with this loss and these teachers, or leave out "
                "teacher_at_test."
            )

    def apply_sharing(self, anew: bool, checkpoint: str | None) -> None:
        """Copy or tie weights of teachers, over those of an initial checkpoint.

        Args:
            anew: whether the training begins; one that has begun only ties.
            checkpoint: from which the student was initialised, if it was.
        """
        if not anew:
            self.sharing.join()
            return
        self.sharing.apply()
        if checkpoint is not None and self.sharing.pairs:
            names = "; ".join(pair.name for pair in self.sharing.pairs)
            log.warning(
                f"share comes after initialisation.checkpoint={checkpoint}: {names} begin alike, as the "
                "teacher has it."
            )

    def load_strategy(self, classes: Mapping[str, int] | None, teaches: bool) -> None:
        """Read the strategy's file, if there is one.

        Args:
            classes: number of each class that is trained on, where a coefficient tells classes apart.
            teaches: whether the loss is computed in this stage: heads and classes then have to fit.
        """
        if self.strategy_file is None:
            return
        path = Path(self.strategy_file)
        if self.control == "final_constant":
            set_values(self.loss, read_strategy(path)[0]["coefficient_values"])
            return
        loss = loss_without_control(self.loss, self.control)
        heads, numbers = (self.heads, classes) if teaches else (None, None)
        load_strategy(loss, path, heads, numbers)

    def save_strategy(
        self,
        path: Path,
        values: Mapping[str, float],
        settings_sha256: str,
        classes: Mapping[str, int] | None,
    ) -> None:
        """Write the strategy with a readable head; see `strategy_file.save_strategy`."""
        scales = [float(t.head.scale) for t in self.teachers]
        save_strategy(self.loss, path, self.heads, scales, values, settings_sha256, classes)

    # --- what learns ---------------------------------------------------------------------------

    @property
    def forwards(self) -> int:
        """Inputs on which teachers of this process have run in training."""
        return sum(teacher.forwards for teacher in self.teachers)

    @property
    def heads(self) -> list[str]:
        """Class names of the teachers' heads."""
        return [type(t.head).__name__ for t in self.teachers]

    def class_numbers(self, data: SourceData) -> dict[str, int] | None:
        """Number of each class that is trained on by name, where a coefficient tells classes apart."""
        if not per_class(self.loss):
            return None
        classes = data.train_classes()
        return dict(zip(data.names(classes), classes.tolist(), strict=True))

    def trainable_parameters(self, student: Model, prefix: str = "") -> dict[str, nn.Parameter]:
        """The parameters of the student, or of a copy, that training and adapting move.

        Args:
            prefix: of their names.
        """
        frozen = self.frozen_names
        return {f"{prefix}{n}": p for n, p in student.named_parameters() if n not in frozen}

    def bind_student(self, student: Model, state_of: Model | None = None) -> Forward:
        """A student as a pure function of the parameters that move.

        Args:
            state_of: has the others, if the student itself does not.
        """
        state = (state_of or student).state_dict() if self.frozen_names else {}
        return bind(student, {name: t for name, t in state.items() if name in self.frozen_names})

    @property
    def shares_head(self) -> bool:
        """Whether the student's head has the weights of a teacher's."""
        return any(pair.student_module is self.student.head for pair in self.sharing.pairs)

    def teachers_that_learn(self) -> list[Teacher]:
        """All teachers where they learn to teach, otherwise none."""
        return list(self.teachers) if self.rates.teachers > 0 else []

    def strategy_parameters(self) -> dict[str, nn.Parameter]:
        """What the quiz trains: coefficients, and teachers that learn, under `teachers.<place>`."""
        params = dict(self.loss.named_parameters())
        for k, teacher in enumerate(self.teachers_that_learn()):
            trained = teacher.trained_parameters()
            params |= {f"{TEACHERS}{k}.{name}": p for name, p in trained.items()}
        return params

    def strategy_names(self) -> str | None:
        """Names of the parameters of the strategy; a teacher that learns is one."""
        teachers = [f"{TEACHERS}{k}" for k, _ in enumerate(self.teachers_that_learn())]
        return ", ".join([*sorted(self.loss.state_dict()), *teachers]) or None

    # --- what files and result rows say --------------------------------------------------------

    def frozen_networks(self, names: Sequence[str]) -> list[str]:
        """Those names of the recipe's tensors that belong to networks of teachers which do not learn."""
        frozen = tuple(
            f"teachers.{k}.model."
            for k, teacher in enumerate(self.teachers)
            if self.rates.teachers == 0 or teacher.top is not None
        )
        return [name for name in names if name.startswith(frozen)]

    def training_fields(self) -> dict[str, str | None]:
        """What a result row says of what a training learned, and of what was taken away from that."""
        control = None if self.control == "none" else self.control
        return {"control": control, "strategy": self.strategy_names()}

    def result_fields(self) -> dict[str, Any]:
        """What a result row says of teachers and strategy."""
        return {
            "teacher_sha256": [t.whole_sha256 for t in self.teachers] or None,
            "teacher_head": self.heads or None,
            "strategy_sha256": weights_hash(self.loss) if len(self.loss.state_dict()) else None,
        }

    def external_data(self, source: Source) -> tuple[str, ...]:
        """Names of data beside the experiment's on which student, teachers or source were trained."""
        tops = [teacher.top for teacher in self.teachers if teacher.top is not None]
        networks = [self.student, *(teacher.model for teacher in self.teachers), *tops]
        names = {name for network in networks for name in network.external_data}
        return tuple(sorted(names.union(source.external_data)))

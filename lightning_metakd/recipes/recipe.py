"""What every training procedure shares: the loss that it is taught by, its teachers, its files.

A recipe fetches, calls and logs; the mathematics lies in the pure functions.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_metakd.arguments.configured import as_config
from lightning_metakd.arguments.ranges import check_integer, check_number, check_share
from lightning_metakd.functional.bind import bind
from lightning_metakd.functional.params import subtree
from lightning_metakd.losses.adapters import make_adapters, of_each_teacher, tap_layers
from lightning_metakd.losses.loss import CalibratedCrossEntropy, CrossEntropy, Loss
from lightning_metakd.models.model import Model, head_width, listed
from lightning_metakd.models.norm import NormForm, make_episodic
from lightning_metakd.models.weights import (
    check_weights,
    load_origin,
    load_weights,
    origin,
    shapes,
    weights_hash,
)
from lightning_metakd.models.wrapped import as_model
from lightning_metakd.recipes.episode_objective import TEACHERS
from lightning_metakd.recipes.host_allocator import keep_large_blocks
from lightning_metakd.recipes.optimisation import Optimisation
from lightning_metakd.recipes.outer_update import OuterLoop, check_precision, check_unsharded
from lightning_metakd.settings.resuming import check_resumable
from lightning_metakd.settings.run_settings import (
    Settings,
    digest,
    flat_settings,
    result_settings,
    resumed_from,
    trained_with,
    trainer_settings,
    training_settings,
    with_origins,
)
from lightning_metakd.storage.atomic_checkpoint_io import read_safely
from lightning_metakd.storage.atomic_files import file_sha256
from lightning_metakd.storage.read_checkpoint import (
    class_names,
    local_file,
    read_checkpoint,
    student_weights,
)
from lightning_metakd.storage.redaction import redact
from lightning_metakd.strategy.controls import (
    Control,
    check_control,
    controlled,
    learns,
    loss_without_control,
    set_values,
    teachers_learn,
)
from lightning_metakd.strategy.strategy_file import (
    check_strategy_exists,
    coefficient_values,
    load_strategy,
    per_class,
    read_strategy,
    save_strategy,
)
from lightning_metakd.teachers.preparation import check_views, tap_teachers, two_inputs
from lightning_metakd.teachers.teacher import Teacher, TeacherPool
from lightning_metakd.teachers.weight_sharing import Share, Sharing
from lightning_metakd.types import Batch, Context, Forward, Output

log = logging.getLogger(__name__)

LOG_COEFFICIENTS_EVERY = 50
"""Outer steps between two looks at the coefficients."""


class Recipe(OuterLoop):
    """One training procedure around a student, a loss and its teachers.

    It trains copies of its own: what is handed in stays as it is, and serves as often as it is wanted. What
    was trained is `recipe.student`, `recipe.loss` and `recipe.teachers`.

    Args:
        student: the network that is trained.
        loss: what it is taught; the parameters of its coefficients are the strategy.
        teachers: the networks that help it.
        optimisation: how the outer loop descends.
        init: checkpoint that is started from: the student's weights, where a head of another width is
            dropped, and what a learner of the same kind learned.
        strategy: file of a learned strategy to start from.
        strategy_lr: learning rate of the strategy; 0 keeps it as it is.
        strategy_every: outer steps from one update of the strategy to the next.
        strategy_warmup: part of the training, in [0, 1), before the first one.
        teacher_lr: learning rate by which the teachers learn to teach, as part of the strategy; 0 freezes
            them.
        control: what is taken away from learning the strategy, to be compared with; see controls.py.
        share: what the student takes of its teachers' weights; see sharing.py.
        norm: null leaves the student's batch norms as they are; see models/norm.py for the others.

    Attributes:
        classes_set_by: the setting of the data from which the student's logits are counted.
    """

    classes_set_by: str = "data.source"

    def __init__(
        self,
        student: nn.Module,
        loss: Loss | None,
        teachers: list[Teacher] | None,
        optimisation: Optimisation | None,
        init: str | None,
        strategy: str | None,
        strategy_lr: float,
        strategy_every: int,
        strategy_warmup: float,
        teacher_lr: float,
        control: Control,
        share: Sequence[Share] | None,
        norm: NormForm | None,
    ) -> None:
        network = as_model(student, "student")
        if norm is not None:
            make_episodic(network, norm)
        super().__init__(network, optimisation)
        self.loss = CrossEntropy() if loss is None else deepcopy(loss)
        self.teachers = TeacherPool(deepcopy(teachers or []))
        self.sharing = Sharing(share or (), self.student, self.teachers)
        self.frozen_names = self.sharing.fixed(self.student)
        self.init, self.strategy, self.control = init, strategy, control
        self.check_strategy(strategy_lr, strategy_every, strategy_warmup, teacher_lr)
        self.loss = controlled(self.loss, control, len(self.teachers))
        anything = any(p.requires_grad for p in self.loss.parameters())
        self.strategy_lr = strategy_lr if anything and learns(control) else 0.0
        self.teacher_lr = teacher_lr if teachers_learn(control) else 0.0
        self.strategy_every, self.strategy_warmup = strategy_every, strategy_warmup
        if self.strategy_lr == 0:
            self.loss.requires_grad_(False)
        self.result_record: dict[str, Any] = {}
        self.episode_rows: dict[str, Tensor] = {}
        self.coefficient_values: dict[str, float] = {}
        self.warned = False
        self.has_begun = False
        """Whether it has trained or taken over a checkpoint: then `init` and `strategy` are behind it."""
        self.began_with: tuple[str, ...] = ()
        """Names of the classes on which the student of `init` was trained."""
        self.is_resuming = False
        """Told by the command: a checkpoint follows `setup`, and files of other runs need not be there."""
        self.configured: Settings = {}
        """Told by the command: the parsed configuration; without it there is what all was built with."""
        self.settings: Settings = {}
        """Those of the present run, from `setup` on."""
        self.trained: Settings | None = None
        """What trained the weights; None where that is not known."""
        self.gradient_evaluations = 0
        self.previous_cost: dict[str, Any] = {"teacher_forwards": 0, "gradient_evaluations": 0}

    def check_strategy(self, lr: float, every: int, warmup: float, teacher_lr: float) -> None:
        """Refuse a strategy that could not be learned as it is told."""
        check_number("strategy_lr", lr, 0.0, ends="[)", hint="where 0 freezes the strategy")
        check_number("teacher_lr", teacher_lr, 0.0, ends="[)", hint="where 0 freezes the teachers")
        check_integer("strategy_every", every, 1)
        check_share("strategy_warmup", warmup)
        check_control(self.control, lr, teacher_lr)
        if lr > 0 and not any(True for _ in self.loss.parameters()):
            raise ValueError(
                f"strategy_lr={lr} trains a strategy, but no coefficient of the loss is learned; "
                "name a Learned class in model.loss, or set strategy_lr to 0."
            )
        if self.control == "final_constant" and self.strategy is None:
            raise ValueError(
                "control=final_constant says from the start what another run said at its end; name its "
                "strategy.safetensors in model.strategy."
            )

    def check_teachers(self, stage: str) -> None:
        """Refuse a lesson without its teachers; a student that has learned is judged without them.

        Raises:
            ValueError: names what wants a teacher.
        """
        if self.teachers or not self.teaches_in(stage):
            return
        if self.loss.needs_teacher:
            raise ValueError(
                f"loss={type(self.loss).__name__} follows a teacher, but teachers is empty; name one in "
                f"model.teachers, or {'use CrossEntropy' if stage == 'fit' else 'leave teacher_at_test out'}."
            )
        if self.teacher_lr > 0:
            raise ValueError(f"teacher_lr={self.teacher_lr} trains teachers, and there are none.")
        if self.sharing.shares:
            raise ValueError(
                "share takes weights of a teacher, but teachers is empty; name one in model.teachers, or "
                "leave share out."
            )

    @property
    def data(self) -> Any:
        """The data module of this run."""
        return self.trainer.datamodule  # type: ignore[attr-defined]

    @property
    def external_data(self) -> tuple[str, ...]:
        """Names of data beside the experiment's on which student, teachers or source were trained."""
        networks = [self.student, *(teacher.model for teacher in self.teachers)]
        names = {name for network in networks for name in network.external_data}
        return tuple(sorted(names.union(self.data.source.external_data)))

    @property
    def teacher_heads(self) -> list[str]:
        """Class names of the heads by which the teachers answer."""
        return [type(t.head).__name__ for t in self.teachers]

    # --- files are opened late -----------------------------------------------------------------

    def check_data(self, data: Any, stage: str) -> None:
        """Refuse, before anything is read, what the settings of the data or absent files make impossible.

        Raises:
            FileNotFoundError: if a file that is named does not exist.
            ValueError: if data of these settings are not what the recipe needs.
        """
        self.check_teachers(stage)
        alone = (
            ""
            if self.teaches_in(stage)
            else ", or judge the student alone by --model.teachers=null"
        )
        if self.init is not None and not self.is_resuming:
            local_file(self.init, "init")
        for teacher in self.teachers:
            if teacher.checkpoint is not None:
                local_file(teacher.checkpoint, instead=alone)
        if self.strategy is not None and not self.is_resuming:
            check_strategy_exists(Path(self.strategy))
        data.source.check_files()
        if stage == "fit":
            data.source.check_views(data.views)
        if stage == "fit" and not any(
            self.loss.layer_pairs()
        ):  # a loss of layers asks its teachers live
            check_views(self.teachers, data)

    def setup(self, stage: str) -> None:
        """Open the files that the configuration names."""
        self.check_data(self.data, stage)
        check_unsharded(self.trainer.strategy)
        read_safely(self.trainer.strategy)
        check_precision(self.trainer.precision)
        if stage == "fit":
            self.train()
        if self.device.type == "cpu":
            keep_large_blocks()
        self.size_head()
        self.sharing.untie()
        for teacher in self.teachers:
            teacher.open()
            if self.teacher_lr > 0:
                teacher.unfreeze()
        self.record_layers(stage)
        begins = not self.is_resuming and not self.has_begun
        if self.init is not None and begins:
            self.load_init(self.init, stage)
        if stage == "fit":
            self.apply_weight_sharing()
        starts_elsewhere = self.init is not None or (stage == "fit" and self.sharing.pairs)
        if self.ema is not None and starts_elsewhere and begins:
            self.ema.module.load_state_dict(self.student.state_dict())
        if self.strategy is not None and begins:
            if self.control == "final_constant":
                set_values(self.loss, read_strategy(Path(self.strategy))[0]["coefficient_values"])
            else:
                loss, teaches = (
                    loss_without_control(self.loss, self.control),
                    self.teaches_in(stage),
                )
                heads, numbers = (
                    (self.teacher_heads, self.class_numbers()) if teaches else (None, None)
                )
                load_strategy(loss, Path(self.strategy), heads, numbers)
        self.settings = self.settings_of_run()

    def load_init(self, init: str, stage: str) -> None:
        """Take over what the run of `init` trained."""
        checkpoint = read_checkpoint(init)
        self.trained = trained_with(checkpoint, Path(init))
        self.began_with = class_names(checkpoint)
        self.start_student(student_weights(checkpoint), stage)
        load_origin(self.student, checkpoint, f"init {init}")
        self.load_learner_state(checkpoint["state_dict"])
        self.load_adapters(checkpoint["state_dict"], stage)
        if stage == "test":  # what is judged is what that run trained
            recorded = checkpoint.get("callbacks", {}).get("Results", {})
            self.result_record.update(recorded, train_steps=checkpoint.get("global_step"))
            self.result_record.update(checkpoint.get("training_cost", {}))
            self.result_record["train_classes"] = len(self.began_with) or None

    def settings_of_run(self) -> Settings:
        """The settings under dotted names; files and images by what they are."""
        trainer: Any = self.trainer
        built = {"model": as_config(self), "data": as_config(self.data)}
        settings = self.configured or flat_settings(redact(built))
        content = {"data.source.content": self.data.source.content}
        return with_origins(settings | trainer_settings(trainer) | content)

    def n_logits(self) -> int | None:
        """Logits that the data want of the student's head; None where it is not used, or they do not say."""
        return None

    def copies_of_student(self) -> list[Model]:
        """The student, and what has its weights or takes them."""
        return [self.student] if self.ema is None else [self.student, self.eval_student]

    def size_head(self) -> None:
        """Give a wrapped network a head of one logit for each class, and ask it of any other."""
        wanted, width = self.n_logits(), head_width(self.student)
        if wanted is None or wanted == width:
            return
        shared = any(pair.student_module is self.student.head for pair in self.sharing.pairs)
        for network in self.copies_of_student():
            if shared or not network.head_fits_task:
                way_out = f"set the n_classes of model.student to {wanted}, or change {self.classes_set_by}"
                raise ValueError(
                    f"the student has {width} logits for the {wanted} classes of the data; "
                    f"{'leave the head out of share' if shared else way_out}."
                )
            network.resize_head(wanted)
        for twin in self.copies_of_student()[1:]:
            twin.head.load_state_dict(self.student.head.state_dict())
        log.warning(
            f"the student's head of {width} logits is replaced by one of {wanted}, one for each class."
        )

    def check_finite(self, logits: Tensor) -> None:
        """Raise where the student that is judged answers by what is no number.

        Raises:
            FloatingPointError: names the rate of its training.
        """
        if not logits.isfinite().all():
            raise FloatingPointError(
                "the student's answers are not finite: its training has diverged, or its weights or images "
                f"are none; start anew with a lower model.optimisation.lr={self.optimisation.lr}."
            )

    def start_student(self, weights: Mapping[str, Tensor], stage: str) -> None:
        """Load the student of `init`."""
        load_weights(self.student, weights, f"init {self.init}")

    def apply_weight_sharing(self) -> None:
        """Take what is named of the teachers' weights, over those of `init`."""
        if self.has_begun:
            self.sharing.join()
            return
        self.sharing.apply()
        if self.init is not None and self.sharing.pairs and not self.is_resuming:
            names = "; ".join(pair.name for pair in self.sharing.pairs)
            log.warning(
                f"share comes after init {self.init}: {names} begin alike, as the teacher has it."
            )

    def load_learner_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over what else was trained in the run of `init`."""

    def teaches_in(self, stage: str) -> bool:
        """Whether the loss is asked in a stage."""
        return stage == "fit"

    def student_networks(self) -> list[Model]:
        """The student, and what answers in its place."""
        return [self.student]

    def record_layers(self, stage: str) -> None:
        """Tap the layers that the loss compares, and make the adapters that it wants, once."""
        pairs = self.loss.layer_pairs() if self.teaches_in(stage) else ()
        layer_pairs = of_each_teacher(pairs, len(self.teachers))
        for student in self.student_networks():
            tap_layers(student, (pair.student_layer for pair in layer_pairs))
        tap_teachers(self.teachers, layer_pairs)
        adapted = tuple(pair for pair in layer_pairs if pair.adapted)
        if adapted and adapted != self.adapters.layer_pairs:
            models, source = [teacher.model for teacher in self.teachers], self.data.source
            weight = next(self.student.parameters())
            student_x, teacher_x = (two_inputs(s).to(weight) for s in (source, source.image_source))
            # not of the generator's state, which differs with the number of processes
            seed = torch.initial_seed()
            self.adapters = make_adapters(adapted, self.student, models, student_x, teacher_x, seed)

    def load_adapters(self, state: Mapping[str, Tensor], stage: str) -> None:
        """Take over the adapters of the run of `init`, which an evaluation with teachers needs."""
        loaded, present = subtree(state, "adapters"), self.adapters.state_dict()
        if shapes(loaded) == shapes(present):
            self.adapters.load_state_dict(loaded)
        elif present and stage != "fit" and self.teaches_in(stage):
            raise ValueError(
                f"init={self.init!r} has no adapters for the layers that loss={type(self.loss).__name__} "
                "compares, and with teacher_at_test=true the student adapts by it; name a checkpoint trained "
                "with this loss and these teachers, or leave teacher_at_test out."
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave the networks of frozen teachers out; write down the classes that were trained on."""
        state = checkpoint["state_dict"]
        for name in self.frozen_networks():
            del state[name]
        checkpoint |= {"classes": self.trained_classes(), **origin(self.student)}
        checkpoint["training_cost"] = self.training_cost()
        checkpoint["coefficient_values"] = self.coefficient_values
        checkpoint["settings"] = self.settings

    def on_train_start(self) -> None:
        """Write down what the student is trained on; a short run has a curve of ten points too."""
        trainer: Any = self.trainer
        if math.isfinite(total := self.total_steps()):
            trainer.log_every_n_steps = min(trainer.log_every_n_steps, max(1, int(total) // 10))
        self.student.normalisation = self.data.source.reading(self.student.normalisation)
        self.student.external_data = self.external_data
        self.result_record["train_classes"] = len(self.trained_classes()) or None
        if self.has_begun and trainer.ckpt_path is None:  # from what it trained before
            self.settings["resumed"] = digest(self.trained_by())
        self.trained, self.has_begun = None, True
        self.student.constructor_arguments["trained_by"] = digest(training_settings(self.settings))

    def strategy_names(self) -> str | None:
        """Names of the parameters of the strategy; a teacher that learns is one."""
        teachers = [f"{TEACHERS}{k}" for k, _ in enumerate(self.teachers_that_learn())]
        return ", ".join([*sorted(self.loss.state_dict()), *teachers]) or None

    def training_cost(self) -> dict[str, Any]:
        """What training has taken so far, over all processes, and what was taken away from it."""
        world = self.trainer.world_size
        forwards = sum(teacher.forwards for teacher in self.teachers)
        return {
            "control": None if self.control == "none" else self.control,
            "strategy": self.strategy_names(),
            "teacher_forwards": self.previous_cost["teacher_forwards"] + world * forwards,
            "gradient_evaluations": self.previous_cost["gradient_evaluations"]
            + world * self.gradient_evaluations,
        }

    def on_train_end(self) -> None:
        """A test that follows says what the training took, and by what it trained."""
        self.result_record.update(self.training_cost())
        self.trained = training_settings(self.settings)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The networks of frozen teachers come from their own files."""
        stage = self.trainer.state.fn
        if stage == "fit":
            path = Path(str(self.trainer.ckpt_path))
            changed = check_resumable(checkpoint, path, self.settings)
            if changed and self.trainer.is_global_zero:
                log.warning(f"goes on with {changed}")
            self.settings = resumed_from(self.settings, checkpoint.get("settings", {}))
        self.trained = trained_with(checkpoint, Path(str(self.trainer.ckpt_path)))
        load_origin(self.student, checkpoint, "the checkpoint")
        self.result_record["train_classes"] = len(class_names(checkpoint)) or None
        self.previous_cost |= checkpoint.get("training_cost", {})
        self.coefficient_values = checkpoint.get("coefficient_values", {})
        self.result_record.update(checkpoint.get("training_cost", {}))
        self.has_begun = True
        frozen = {name: self.state_dict()[name] for name in self.frozen_networks()}
        checkpoint["state_dict"] = state = frozen | checkpoint["state_dict"]
        if stage is not None and not self.teaches_in(stage):
            checkpoint["state_dict"] = state = self.without_teaching(state)
        if not self.adapters.layer_pairs:  # the student alone is judged
            for name in [name for name in state if name.startswith("adapters.")]:
                del state[name]
        check_weights(self.state_dict(), state, f"ckpt_path={self.trainer.ckpt_path}")

    def without_teaching(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What a checkpoint has, but of strategy and teachers only what there is here: nobody asks them."""
        of_lesson = ("loss.", TEACHERS)
        present = {name: t for name, t in self.state_dict().items() if name.startswith(of_lesson)}
        present_shapes = shapes(present)
        unused = [
            name
            for name, shape in shapes(state).items()
            if name.startswith(of_lesson) and present_shapes.get(name) != shape
        ]
        if unused:
            log.warning(
                f"The student is judged alone; of its checkpoint, {listed(unused, 3)} is not used."
            )
        return present | {name: t for name, t in state.items() if name not in unused}

    def frozen_networks(self) -> list[str]:
        """Names of all that belongs to networks of teachers which do not learn."""
        frozen = tuple(
            f"teachers.{k}.model."
            for k, teacher in enumerate(self.teachers)
            if self.teacher_lr == 0 or teacher.top is not None
        )
        return [name for name in self.state_dict() if name.startswith(frozen)]

    def data_fields(self) -> dict[str, Any]:
        """What the result row says of files and data."""
        data, init = self.data, None if self.init is None else Path(self.init)
        names = ("n_way", "k_shot", "n_query", "eval_seed")
        return {
            "source": data.source.name,
            "init_sha256": file_sha256(init) if init and init.is_file() else None,
            "teacher_sha256": [t.sha256 for t in self.teachers] or None,
            "teacher_head": self.teacher_heads or None,
            "external_data": ", ".join(self.external_data) or None,
            "strategy_sha256": weights_hash(self.loss) if len(self.loss.state_dict()) else None,
            "strategy": self.strategy_names() or self.result_record.get("strategy"),
            **{name: getattr(data, name) for name in names if name in vars(data)},
            **self.settings_fields(),
        }

    def settings_fields(self) -> dict[str, Any]:
        """What the result row says of the settings; nothing is written inside a training."""
        if self.trainer.state.fn == "fit":
            return {}
        settings = result_settings(self.trained_by(), self.settings)
        return {"settings_sha256": digest(settings), "settings": settings}

    def trained_by(self) -> Settings:
        """What trained the weights, or a hash of them."""
        return self.trained or {"weights": weights_hash(self.eval_student)[:16]}

    def classes(self) -> Tensor:
        """Dataset classes on which the student is trained."""
        return torch.empty(0, dtype=torch.long)

    def trained_classes(self) -> list[str]:
        """Their names, by which others know them."""
        classes = self.classes()
        return self.data.names(classes) if len(classes) else []

    def class_numbers(self) -> dict[str, int] | None:
        """Their numbers by name, where a coefficient tells classes apart."""
        if not per_class(self.loss):
            return None
        return dict(zip(self.trained_classes(), self.classes().tolist(), strict=True))

    # --- what is trained -----------------------------------------------------------------------

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """What the outer loop trains beside adapters and strategy, by name."""
        return {f"student.{name}": p for name, p in self.trainable_parameters(self.student).items()}

    def trainable_parameters(self, student: Model) -> dict[str, nn.Parameter]:
        """The parameters of the student, or of its average, that training and adapting move."""
        return {n: p for n, p in student.named_parameters() if n not in self.frozen_names}

    def strategy_groups(self) -> list[dict[str, Any]]:
        """The coefficients that are learned, and the teachers that learn, at their rates."""
        loss = [p for p in self.loss.parameters() if p.requires_grad]
        teachers = [p for t in self.teachers for p in t.trained_parameters().values()]
        rates = ((loss, self.strategy_lr), (teachers, self.teacher_lr))
        return [{"params": params, "lr": rate} for params, rate in rates if params]

    def bind_student(self, student: Model, state_of: Model | None = None) -> Forward:
        """A student as a pure function of the parameters that move.

        Args:
            like: has the others, if the student itself does not.
        """
        state = (state_of or student).state_dict() if self.frozen_names else {}
        return bind(student, {name: t for name, t in state.items() if name in self.frozen_names})

    def strategy_parameters(self) -> dict[str, nn.Parameter]:
        """What the quiz trains: coefficients, and teachers that learn, under `teachers.<place>`."""
        params = dict(self.loss.named_parameters())
        for k, teacher in enumerate(self.teachers_that_learn()):
            trained = teacher.trained_parameters()
            params |= {f"{TEACHERS}{k}.{name}": p for name, p in trained.items()}
        return params

    def teachers_that_learn(self) -> list[Teacher]:
        """All of them, or none."""
        return list(self.teachers) if self.teacher_lr > 0 else []

    def learns_strategy_now(self) -> bool:
        """Whether this outer step updates the strategy."""
        return (
            self.strategy_lr + self.teacher_lr > 0
            and self.trainer.global_step % self.strategy_every == 0
            and self.progress() >= self.strategy_warmup
        )

    def train(self, mode: bool = True) -> "Recipe":
        """Teachers, what is kept of them, and the averaged student stay in evaluation mode."""
        super().train(mode)
        self.teachers.eval()
        self.sharing.freeze_modes(self.student)
        if self.ema is not None:
            self.ema.eval()
        return self

    # --- strategy ------------------------------------------------------------------------------

    def should_log_coefficients(self) -> bool:
        """Whether the coefficients are looked at after this step: the first, some, an epoch's last."""
        step, trainer = self.trainer.global_step, self.trainer
        last = trainer.is_last_batch or step == trainer.max_steps
        return step == 1 or step % LOG_COEFFICIENTS_EVERY == 0 or last

    def log_coefficients(
        self,
        student: Output,
        batch: Batch,
        classes: Tensor,
        support_accuracy: Tensor | tuple[()] = (),
    ) -> None:
        """Now and then, ask the coefficients what they say of a batch.

        Args:
            trust: as in `Context`.
        """
        if self.should_log_coefficients():
            progress = student.logits.new_ones(())
            context = Context(classes[batch.y], progress, student, support_accuracy)
            self.coefficient_values = coefficient_values(self.loss, student, batch, context)

    def warn_of_flat_quiz(self, quiz: Loss, loss: Tensor, n_classes: int) -> None:
        """Say once that a quiz is at chance at any scale of the logits, and so has no slope."""
        if (
            self.warned
            or not isinstance(quiz, CalibratedCrossEntropy)
            or not self.should_log_coefficients()
        ):
            return
        self.warned = loss.item() > math.log(n_classes) - 1e-6
        if self.warned:
            log.warning(
                "The quiz is answered no better than by chance: the best scale of the logits is 0, and the "
                "strategy's gradient with it. It learns nothing until the student answers better; start from "
                "a trained one (model.init), wait (model.strategy_warmup), or set model.quiz to CrossEntropy."
            )

    def describe_strategy(self) -> dict[str, float]:
        """What the coefficients last said, for logging."""
        return self.coefficient_values

    def adaptation(self) -> Callable[[], object] | None:
        """One adaptation, for counting its cost; None where the recipe does not adapt."""
        return None

    def save_strategy(self, path: Path) -> None:
        """Write the strategy with a readable head."""
        scales = [float(t.head.scale) for t in self.teachers]
        by = digest(training_settings(self.settings))
        save_strategy(
            self.loss,
            path,
            self.teacher_heads,
            scales,
            self.coefficient_values,
            by,
            self.class_numbers(),
        )

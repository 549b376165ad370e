"""A teacher: a network, usually frozen, and a head that makes it answer for this episode's classes.

A teacher trained on base classes cannot name five new ones. Its head, fitted on its own embeddings of
the support set, can. On the support rows themselves it answers leave-one-out, and for one shot on an
augmented view, because a row that sits inside its own prototype is answered with near-certainty.

A teacher answers too well for classes that it was trained on, and whoever learned there how far to
trust it would trust it too much. So it remembers which they were (`trained_on`, and `all_classes` where
a top was trained on others than what is under it), by name: a class has another number in each source,
and classes of the same name are the same class wherever they come from.
"""

from copy import deepcopy
from functools import partial
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.func import functional_call

from lightning_metakd.arguments.configured import Configured
from lightning_metakd.data.sources import image_cache
from lightning_metakd.data.sources.augment import augment
from lightning_metakd.data.sources.output_cache import OutputCache
from lightning_metakd.data.sources.source import Source
from lightning_metakd.models.model import EMBEDDING, Model
from lightning_metakd.models.weights import weights_hash
from lightning_metakd.models.wrapped import as_model
from lightning_metakd.teachers.heads import Head, PrototypeHead
from lightning_metakd.teachers.name_head import NameTable
from lightning_metakd.teachers.teacher_file import load_teacher
from lightning_metakd.types import NOTHING, Batch, Output, Params

CENTRED = 1024
"""Images over which a mean embedding is taken, at most; its error is a thirtieth of their spread."""


class Teacher(nn.Module, Configured):
    """A network with a head; frozen, unless the recipe lets it learn to teach.

    Args:
        model: the network, built as it was trained.
        checkpoint: file of its weights, opened when training or testing begins; null takes the network
            as it is.
        head: how it answers for an episode's classes, by default from class means of its embeddings.
        cache: compute its answers for all images (and each of data.views augmented views) once and keep
            them; then teaching costs next to nothing. Losses that read its layers ask it live all the same.
        top: a network over its embedding that answers in its place and, with a teacher_lr, learns to
            teach; what is under it stays frozen and may keep a cache.
        top_checkpoint: file of the top's weights, trained on the rows of an Embedded source of this network.
        classes: names of the classes that it was trained on, in the order of its logits, for weights whose
            file does not say; checkpoints of this project do.
        second_view: look at another augmented view of a row than the student does, where that is augmented.
    """

    def __init__(
        self,
        model: nn.Module,
        checkpoint: str | None = None,
        head: Head | None = None,
        cache: bool = False,
        top: nn.Module | None = None,
        top_checkpoint: str | None = None,
        classes: list[str] | None = None,
        second_view: bool = False,
    ) -> None:
        super().__init__()
        head = PrototypeHead() if head is None else deepcopy(head)
        head.check_use(cache, has_top=top is not None)
        if top is None and top_checkpoint is not None:
            raise ValueError(
                f"top_checkpoint={top_checkpoint!r} is the file of a top, and there is none; give the "
                "teacher a top, built as it was trained, or name the file as checkpoint."
            )
        self.top = None if top is None else as_model(top, "top")
        self.model, self.head, self.cache = as_model(model), head, cache
        self.checkpoint, self.top_checkpoint = checkpoint, top_checkpoint
        self.second_view = second_view
        self.output_cache: OutputCache | None = None
        self.name_table: NameTable | None = None
        self.centred_on: tuple[str, Source] | None = None
        self.source: Source | None = None
        self.conversion: tuple[Any, Any] | None = None
        self.sha256, self.whole_sha256, self.forwards = "", "", 0
        self.model.register_forward_hook(self.count)
        self.trained_on = tuple(classes or ())
        self.all_classes = frozenset(self.trained_on)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "Teacher":
        """A teacher stays in evaluation mode whatever is asked."""
        return super().train(False)

    def open(self) -> None:
        """Load the checkpoints, once, and freeze; its classes are those of what answers.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is no checkpoint, does not fit the network, or was trained on other classes.
        """
        if not self.sha256:  # later it may have learned, and is still the one of its files
            top = [] if self.top is None else [(self.top, self.top_checkpoint)]
            networks = [(self.model, self.checkpoint), *top]
            self.trained_on, self.all_classes = load_teacher(networks, self.head, self.trained_on)
            self.sha256 = self.whole_sha256 = weights_hash(self.model)  # that of its cache
            if self.top is not None and self.top_checkpoint is not None:
                self.whole_sha256 = weights_hash(nn.ModuleList([self.model, self.top]))
        self.requires_grad_(False)

    @property
    def files(self) -> list[str]:
        """The files of its weights."""
        return [file for file in (self.checkpoint, self.top_checkpoint) if file is not None]

    @property
    def uses_cache(self) -> bool:
        """Whether it answers from its cache, which keeps no layers but the embedding."""
        return self.cache and all(layer == EMBEDDING for layer in self.model.taps)

    @property
    def table(self) -> OutputCache | NameTable | None:
        """Where its answers are looked up; None where it is asked live."""
        return self.name_table or (self.output_cache if self.uses_cache else None)

    def rows_to_read(self, source: Source) -> Source:
        """The source whose rows its network reads: that of the pictures, unless it reads vectors."""
        return source if self.model.reads_vectors else source.image_source

    def attach_source(self, source: Source, reader: Model | None = None) -> None:
        """Learn whose rows it will be asked about: their pictures, whatever a student reads.

        Args:
            reader: the network for which batches are normalised, where it is not this one.

        Raises:
            ValueError: if it would be asked live about something else than pictures.
        """
        pictures = self.rows_to_read(source)
        if self.head.reads_names:
            if self.name_table is None or self.name_table.source is not source:
                self.name_table = NameTable(self.model, self.head, source)
            return
        if not self.uses_cache and source is not pictures:
            raise ValueError(
                f"the teacher {type(self.model).__name__} is asked live, without a cache or about its "
                f"layers, and {source.name} has vectors for it; set the teacher's cache to true (it is then "
                "asked about the pictures), and take a loss that reads no layers."
            )
        student_reading = source.reading(None if reader is None else reader.reading)
        teacher_reading = pictures.reading(self.model.reading)
        if not self.uses_cache:
            pictures.check_live(student_reading, teacher_reading)
        self.source = pictures
        self.conversion = (
            (student_reading, teacher_reading)
            if student_reading and teacher_reading and student_reading != teacher_reading
            else None
        )
        cached_of = (
            None if self.output_cache is None else (self.output_cache.key, self.output_cache.source)
        )
        if self.uses_cache and cached_of != (self.sha256, pictures):
            self.output_cache = OutputCache(
                self.model, self.sha256, pictures, image_cache.folder() / "outputs"
            )
        self.head.set_classes(self.trained_on, source.all_rows().class_names)

    def typical_inputs(self) -> Tensor | None:
        """Inputs of the network where it need not run beside a student: stored rows, or names of classes."""
        return None if self.table is None else self.table.typical_inputs()

    def fill_cache(self, rows: Int[Tensor, " n"], views: range) -> None:
        """Compute the answers for these images and views now, where the teacher keeps a cache."""
        if self.output_cache is not None:
            for view in views:
                self.output_cache.fill(rows, view)

    @torch.no_grad()
    def centre(self, source: Source) -> None:
        """Have a head that centres embeddings know their mean, over images spread evenly over split `train`.

        Raises:
            ValueError: if there are none.
        """
        pictures = self.rows_to_read(source)
        if not self.head.centre or self.centred_on == (self.sha256, pictures):
            return
        rows = pictures.rows("train")
        if not len(rows):
            raise ValueError(
                f"head.centre=true takes the mean over split 'train' of {pictures.name}, which is empty; "
                "set head.centre to false."
            )
        rows = rows[:: -(-len(rows) // CENTRED)]
        cache = self.output_cache or OutputCache(self.model, self.sha256, pictures)
        cache.fill(rows, view=-1)
        stored = cache.look_up(rows, torch.full_like(rows, -1))
        self.head.centre_on(stored.embedding.mean(0))
        self.centred_on = (self.sha256, pictures)

    def unfreeze(self) -> None:
        """Let the network be trained: all of it that its answers depend on."""
        if self.head.centre:
            raise ValueError(
                "head.centre=true takes a mean of embeddings, and strategy_training.teacher_lr > 0 changes "
                "them; set head.centre to false, or teacher_lr to 0."
            )
        if self.cache and self.top is None:
            raise ValueError(
                "cache=true keeps a teacher's answers, and strategy_training.teacher_lr > 0 changes them; "
                "set the teacher's cache to false, give it a top that learns in its place, or set "
                "teacher_lr to 0."
            )
        for name, p in self.learning.named_parameters():
            p.requires_grad_(not (self.head.needs_support and name.startswith("head.")))

    @property
    def learning(self) -> Model:
        """The network that learns, if anything of the teacher does."""
        return self.model if self.top is None else self.top

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """What of the network is trained; nothing, if it is frozen."""
        return {n: p for n, p in self.learning.named_parameters() if p.requires_grad}

    def count(self, model: nn.Module, args: tuple[Tensor, ...], output: Output) -> None:
        """Count the inputs on which the network ran, whether or not a loss reads the answer."""
        self.forwards += len(args[0])

    def embed(self, batch: Batch, params: Params = NOTHING, *, other: bool = False) -> Output:
        """What the network says of the view at hand, or of another of the same rows, live or looked up.

        Args:
            params: in place of its own, of what it learns.
        """
        if other is (self.second_view and bool((batch.view >= 0).all())):
            if self.table is not None:
                return self.apply_top(self.table(batch), params)
            return self.live(batch.x, params)
        if self.table is not None:
            return self.apply_top(self.table.other_view(batch), params)
        another = augment if self.source is None else self.source.augmented_inputs
        return self.live(another(batch.x, batch.index, batch.view + 1), params)

    def live(self, x: Tensor, params: Params) -> Output:
        """What the network says of rows that are read as the student reads them."""
        if self.source is not None and self.conversion is not None:
            x = self.source.read_again(x, *self.conversion)
        under = dict(params) if self.top is None else {}
        return self.apply_top(functional_call(self.model, under, (x,)), params)

    def apply_top(self, output: Output, params: Params) -> Output:
        """What the top makes of it, if there is one."""
        if self.top is None:
            return output
        return functional_call(self.top, dict(params), (output.embedding,))

    def predict_episode(
        self,
        support: Batch,
        query: Batch,
        classes: Int[Tensor, " c"],
        params: Params | None = None,
    ) -> tuple[Output, Output]:
        """Outputs for the support rows (held out of what the head was fitted on) and the query rows.

        Args:
            params: of what the teacher learns, in which the outputs are differentiable; None takes its own,
                without a graph.
        """
        with torch.set_grad_enabled(params is not None and torch.is_grad_enabled()):
            params, head = params or NOTHING, self.head
            support_output = self.embed(support, params)
            one_shot = len(support.y) == len(classes)
            other = self.embed(support, params, other=True) if one_shot else support_output
            held_out = head.held_out(support_output, support.y, classes, other)
            if head.adapts_network:
                params = {**dict(self.learning.named_parameters()), **params}
            embed = partial(self.embed, support)
            adapted, classifier = head.adapt(embed, params, support_output, support.y, classes)
            query_output, scale = self.embed(query, adapted), head.scale
            return (
                support_output._replace(logits=scale * held_out),
                query_output._replace(logits=scale * classifier(query_output)),
            )

    def predict_batch(
        self, batch: Batch, classes: Int[Tensor, " c"], params: Params | None = None
    ) -> Output:
        """Outputs for rows without a support set, by a head that needs none.

        Args:
            params: as in `predict_episode`.
        """
        with torch.set_grad_enabled(params is not None and torch.is_grad_enabled()):
            output = self.embed(batch, params or NOTHING)
            classifier = self.head.fit(output, batch.y, classes)
            return output._replace(logits=self.head.scale * classifier(output))

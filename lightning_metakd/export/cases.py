"""What an exported student is asked, and what the student itself answers, by torch."""

from collections.abc import Iterator, Mapping
from copy import copy
from typing import NamedTuple

import numpy as np
import torch
from lightning import Trainer
from torch import Tensor
from torch.nn.functional import pad

from lightning_metakd.data.episodic_data import EpisodicData
from lightning_metakd.data.source_data import SourceData
from lightning_metakd.export.plan import Plan
from lightning_metakd.recipes.episode_evaluator import EpisodeEvaluator
from lightning_metakd.recipes.recipe import Recipe
from lightning_metakd.types import Batch, Episode, Vocabulary

CALIBRATION_EPISODES = 40
MOST_FEATURES = 2_000
"""Pictures on which embeddings are compared, where there are no labels to judge by."""


class Case(NamedTuple):
    """One question, in whole pixels.

    Attributes:
        support_x: pictures to adapt to; None where the student does not adapt.
        support_y: their labels.
        query_x: pictures that are asked.
        query_y: their labels; None where the answer is an embedding.
        answer: logits or embeddings of the student itself.
    """

    support_x: np.ndarray | None
    support_y: np.ndarray | None
    query_x: np.ndarray
    query_y: np.ndarray | None
    answer: np.ndarray


def episodes_of(data: SourceData, n_episodes: int) -> EpisodicData:
    """Data of episodes over the same source; a single task has 5-way 5-shot ones of its new classes.

    Their rows are as they are, for a file makes no views of them.
    """
    if isinstance(data, EpisodicData):
        as_they_are = copy(data)
        as_they_are.support_views = None
        return as_they_are
    return EpisodicData(data.source, n_episodes=n_episodes)


def cases(
    recipe: Recipe, data: SourceData, plan: Plan, trainer: Trainer, n_episodes: int
) -> Iterator[Case]:
    """The questions by which a file is judged: test episodes, or the test rows of a single task."""
    if plan.learner is not None:
        yield from episode_cases(recipe, episodes_of(data, n_episodes), plan, trainer)
    elif plan.kind == "classifier":
        yield from batch_cases(data, plan)
    else:
        yield from feature_cases(data, plan)


def episode_cases(
    recipe: Recipe, data: EpisodicData, plan: Plan, trainer: Trainer
) -> Iterator[Case]:
    """The test episodes of `metakd test`, and the logits that its code computes."""
    assert plan.learner is not None
    lr = recipe.optimisation.lr
    evaluator = EpisodeEvaluator(plan.learner, recipe.teaching, teacher_at_test=False, lr=lr)
    with torch.no_grad():
        evaluator.cache_embeddings(plan.student, data)
    episodes = data.evaluation_episodes("test")
    for i in range(data.n_episodes * len(data.source.domains("test"))):
        episode = episodes[i]
        output = evaluator.predict(plan.student, as_read(episode, data, plan), trainer)
        rows = [as_array(batch.x, data, plan) for batch in (episode.support, episode.query)]
        labels = [batch.y.numpy() for batch in (episode.support, episode.query)]
        logits = output.logits.detach().float().numpy()
        yield Case(rows[0], labels[0], rows[1], labels[1], logits)


def as_read(episode: Episode, data: SourceData, plan: Plan) -> Episode:
    """An episode as the student reads it."""
    support, query = (read(batch, data, plan) for batch in (episode.support, episode.query))
    return episode._replace(support=support, query=query)


def read(batch: Batch, data: SourceData, plan: Plan) -> Batch:
    """A batch as the student reads it."""
    dtype = next(plan.student.parameters()).dtype
    inputs = data.source.inputs(batch.x, batch.index, batch.view, plan.reading)
    return batch._replace(x=inputs.to(dtype) if inputs.is_floating_point() else inputs)


def as_array(x: Tensor, data: SourceData, plan: Plan) -> np.ndarray:
    """Rows of a source as a file takes them: whole pixels, or tokens filled up to the longest text."""
    if isinstance(plan.reading, Vocabulary):
        tokens = data.source.read(x, plan.reading)
        x = pad(tokens, (0, plan.size - tokens.shape[1]), value=plan.reading.pad)
    return x.numpy()


def batch_cases(data: SourceData, plan: Plan) -> Iterator[Case]:
    """The test rows of a single task."""
    for batch in data.test_dataloader():
        with torch.inference_mode():
            logits = plan.student(read(batch, data, plan).x).logits
        x = as_array(batch.x, data, plan)
        yield Case(None, None, x, batch.y.numpy(), logits.float().numpy())


def feature_cases(data: SourceData, plan: Plan) -> Iterator[Case]:
    """Some test rows, spread over all."""
    rows = data.source.rows("test")
    rows = rows[:: -(-len(rows) // MOST_FEATURES)]
    for part in rows.split(200):
        batch = batch_of(data, part)
        with torch.inference_mode():
            embedding = plan.student(read(batch, data, plan).x).embedding
        x = as_array(batch.x, data, plan)
        yield Case(None, None, x, None, embedding.float().numpy())


def batch_of(data: SourceData, rows: Tensor) -> Batch:
    """Rows of a source as they are."""
    labelled = data.source.all_rows()
    return Batch(labelled.x[rows], labelled.y[rows], rows, torch.full_like(rows, -1))


def calibration_batches(data: SourceData, plan: Plan) -> Iterator[Mapping[str, np.ndarray]]:
    """Inputs of a graph: pictures of calibration episodes, of classes on which the student is not judged."""
    if plan.learner is None or "val" not in data.source.splits:
        rows = data.source.rows("train")
        for part in rows[:: -(-len(rows) // MOST_FEATURES)].split(100):
            yield as_inputs(data, plan, *batch_of(data, part).x.chunk(2))
        return
    episodic = episodes_of(data, CALIBRATION_EPISODES)
    episodes, domains = episodic.evaluation_episodes("val"), len(data.source.domains("val"))
    for i in range(min(CALIBRATION_EPISODES, domains * episodic.n_episodes)):
        episode = episodes[i % domains * episodic.n_episodes + i // domains]
        yield as_inputs(data, plan, episode.support.x, episode.query.x)


def as_inputs(
    data: SourceData, plan: Plan, support: Tensor, query: Tensor
) -> Mapping[str, np.ndarray]:
    """Rows of support and query as the graph of the network takes them."""
    if plan.row_by_row:
        return {plan.inputs: as_array(torch.cat([support, query]), data, plan)}
    rows = {"support": support, "query": query}
    return {f"{part}_{plan.inputs}": as_array(x, data, plan) for part, x in rows.items()}

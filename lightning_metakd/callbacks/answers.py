"""What student and teacher answer in a test, kept for the page of `metakd report --html`."""

import io
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torch import Tensor

from lightning_metakd.loggers.run_logger import is_dry_run, run_directory
from lightning_metakd.storage.answer_table import (
    EPISODES,
    EXTREMES,
    QUERY_ROWS,
    SUPPORT_ROWS,
    AnswerTable,
    answers_file,
    hardest_episodes,
    write_answers,
)

ROWS = 20_000
"""So many rows are kept at most, those of the first episodes."""
SIDE, LETTERS = 64, 300
"""Most pixels of a side of a picture, and letters of a text."""

ANSWERED = {"classes", "index", "y", "probs"}
"""What a recipe says of each batch."""

Table = dict[str, Tensor]


class Answers(Callback):
    """Writes `answers.<split>.npz` after a test: what student and teacher answered, for `metakd report`.

    One line for each query row of the first episodes, 20,000 rows at most, and small pictures or the texts of
    ten episodes and of the five hardest. Of several processes each answers its share; the first one writes
    all, sorted.

    Args:
        pictures: whether pictures and texts of the data are kept in it.
    """

    def __init__(self, pictures: bool = True) -> None:
        self.pictures = pictures
        self.query: list[Table] = []
        self.support: list[Table] = []

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.query, self.support = [], []

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        if (
            is_dry_run(trainer)
            or not isinstance(outputs, Mapping)
            or not outputs.keys() >= ANSWERED
        ):
            return
        episode = int(outputs["id"]) if "id" in outputs else -1
        place = place_in_domain(episode, trainer)
        if place * len(outputs["y"]) >= ROWS:
            return
        self.query.append(query_rows(episode, outputs))
        if episode >= 0:
            self.support.append(support_rows(episode, outputs))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather on the first process, and write a table for each domain."""
        folder = run_directory(trainer)  # every process
        parts = [(self.query, self.support)]
        if trainer.world_size > 1:
            parts = parts * trainer.world_size
            torch.distributed.all_gather_object(parts, (self.query, self.support))
        query = joined(table for part in parts for table in part[0])
        if folder is None or not trainer.is_global_zero or not query:
            return
        support = joined(table for part in parts for table in part[1])
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        of_domain = of_domains(support, data)
        for domain, rows in of_domains(query, data).items():
            table = answer_table(rows, of_domain.get(domain, {}), data.source, self.pictures)
            write_answers(folder / answers_file({"split": "test", "domain": domain}), table)


def place_in_domain(episode: int, trainer: Trainer) -> int:
    """The number of an episode among those of its domain; -1 where rows are of no episode."""
    per_domain = vars(trainer.datamodule).get("n_episodes")  # type: ignore[attr-defined]
    return episode % per_domain if episode >= 0 and per_domain else episode


def query_rows(episode: int, outputs: Mapping[str, Any]) -> Table:
    """What was answered for the query rows of an episode, or for a batch."""
    y, classes = outputs["y"], outputs["classes"]
    table = {"id": torch.full_like(y, episode), "row": outputs["index"], "label": classes[y]}
    for prefix in ("", "teacher_"):
        if f"{prefix}probs" in outputs:
            probability, place = outputs[f"{prefix}probs"].max(-1)
            table |= {f"{prefix}predicted": classes[place], f"{prefix}probability": probability}
    table |= {f"coefficient.{k}": v for k, v in outputs.get("coefficients", {}).items()}
    return {name: column.detach().cpu() for name, column in table.items()}


def support_rows(episode: int, outputs: Mapping[str, Any]) -> Table:
    """Number and class of some support rows of an episode."""
    index, y = (outputs[name][:SUPPORT_ROWS] for name in ("support_index", "support_y"))
    table = {"id": torch.full_like(y, episode), "row": index, "label": outputs["classes"][y]}
    return {name: column.cpu() for name, column in table.items()}


def joined(tables: Iterable[Table]) -> Table:
    """One table in the order of episodes, or of rows; nan where a table has no such column."""
    parts = list(tables)
    table = {
        name: torch.cat(
            [part.get(name, torch.full((len(part["id"]),), torch.nan)) for part in parts]
        )
        for name in dict.fromkeys(name for part in parts for name in part)
    }
    if not table:
        return {}
    key = table["row"] if (table["id"] < 0).all() else table["id"]
    order = key.argsort(stable=True)
    return {name: column[order] for name, column in table.items()}


def of_domains(table: Table, data: Any) -> dict[str, Table]:
    """The table of each domain by its name, as results are written; of rows of no episode a part."""
    if not table:
        return {}
    if (table["id"] < 0).any():
        every = -(-len(table["id"]) // ROWS)
        return {"": {name: column[::every] for name, column in table.items()}}
    tables = {domain.name: dict(part) for domain, part in data.by_domain("test", table)}
    return tables or {"": table}


def answer_table(query: Table, support: Table, source: Any, pictures: bool) -> AnswerTable:
    """The tables as they are written.

    Args:
        pictures: whether to keep pictures or texts.
    """
    none = torch.full_like(query["row"], -1)
    teacher = {"teacher_predicted": none, "teacher_probability": none * torch.nan}
    coefficients = {k: v for k, v in query.items() if k.startswith("coefficient.")}
    query = {k: v for k, v in (teacher | query).items() if k not in coefficients}
    support = {name: support.get(name, none[:0]) for name in ("id", "row", "label")}
    for table in (query, support):
        table["episode"] = table.pop("id")
    hardest = hardest_episodes({name: column.numpy() for name, column in query.items()})
    shown = torch.isin(support["episode"], torch.tensor([*range(EPISODES), *hardest]))
    support = {name: column[shown] for name, column in support.items()}
    rows = rows_to_show(query, support, coefficients.values(), hardest) if pictures else []
    labels = ("label", "predicted", "teacher_predicted")
    used = torch.cat([*(query[name] for name in labels), support["label"]]).unique()
    used = used[used >= 0]
    for table in (query, support):
        for name in table.keys() & {*labels}:
            y = table[name]
            table[name] = torch.where(y < 0, y, torch.searchsorted(used, y))
    names = source.all_rows().class_names
    return AnswerTable(
        compact(query),
        compact(support),
        compact(
            {k.removeprefix("coefficient."): v for k, v in coefficients.items()}, torch.float32
        ),
        tuple(str(names[c]) for c in used.tolist()),
        pictures_of(rows, source.image_source),
        texts_of(rows, source),
    )


def compact(table: Table, numbers: torch.dtype = torch.float16) -> dict[str, np.ndarray]:
    """The columns in as few bytes as a page needs.

    Args:
        numbers: of those that are not whole.
    """
    return {
        name: column.to(numbers if column.is_floating_point() else torch.int32).numpy()
        for name, column in table.items()
    }


def rows_to_show(
    query: Table,
    support: Table,
    coefficients: Iterable[Tensor],
    hardest: Mapping[int, np.ndarray],
) -> list[int]:
    """Numbers of the rows whose pictures are kept: of the first episodes, and extremes of coefficients.

    Args:
        hardest: places of those of the hardest episodes.
    """
    episode, row = query["episode"], query["row"]
    if (episode < 0).all():
        return row[:: -(-len(row) // (EPISODES * QUERY_ROWS))].tolist()
    shown = support["row"].tolist()
    for k in range(EPISODES):
        shown += row[episode == k][:QUERY_ROWS].tolist()
    for places in hardest.values():
        shown += row[places].tolist()
    for values in coefficients:
        there = ~values.isnan()
        order = list(dict.fromkeys(row[there][values[there].argsort(stable=True)].tolist()))
        shown += order[:EXTREMES] + order[-EXTREMES:]
    return sorted(set(shown))


def pictures_of(rows: Iterable[int], source: Any) -> dict[int, bytes]:
    """Small pictures of rows; none where rows are no images."""
    x = source.all_rows().x
    if x.dtype != torch.uint8 or x.dim() != 4 or x.shape[1] not in (1, 3):
        return {}
    return {row: small_picture(x[row].permute(1, 2, 0).numpy()) for row in rows}


def small_picture(pixels: np.ndarray) -> bytes:
    """Pixels [h, w, ch] as a file that browsers show."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).convert("RGB")
    image.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    image.save(file, "WEBP", quality=80)
    return file.getvalue()


def texts_of(rows: Iterable[int], source: Any) -> dict[int, str]:
    """The first letters of rows that are texts."""
    names = source.row_names if source.row_title == "text" else ()
    return {row: str(names[row])[:LETTERS] for row in rows} if len(names) else {}

"""A bounded memory of rows of earlier tasks: which are kept."""

import json
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from lightning_metakd.data.sources.seeding import hash64


def reservoir(past: Int[Tensor, " n"], size: int | None, seed: int) -> Int[Tensor, " m"]:
    """A sample of all rows so far, ascending.

    Vitter (1985), "Random Sampling with a Reservoir". Every row has a random number of its own, and those
    with the lowest are kept: as rows arrive some make room for others, and none that went comes back.

    Args:
        size: most rows; None keeps all.
    """
    priority = hash64(past + hash64(torch.full_like(past, seed)))
    return past[priority.argsort()[:size]].sort().values


def herd(embedding: Float[Tensor, "n d"], most: int) -> Int[Tensor, " m"]:
    """Rows of one class, chosen one by one so that their mean stays close to that of the class.

    Rebuffi et al. (2017), "iCaRL: Incremental Classifier and Representation Learning", arXiv:1611.07725,
    algorithm 4, on embeddings of length one.

    Returns:
        Places of the rows, the most important first.
    """
    e = normalize(embedding.double(), dim=1)
    mean, total = e.mean(0), torch.zeros_like(e[0])
    free, chosen = torch.ones(len(e), dtype=torch.bool), []
    for k in range(min(most, len(e))):
        distance = (mean - (total + e) / (k + 1)).norm(dim=1)
        chosen.append(int(distance.masked_fill(~free, torch.inf).argmin()))
        free[chosen[-1]] = False
        total = total + e[chosen[-1]]
    return torch.tensor(chosen, dtype=torch.long)


def read_memory(path: Path, past: Int[Tensor, " n"], most: int | None) -> Int[Tensor, " m"]:
    """The rows that a file keeps, of a source whose earlier tasks have these rows.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no list of rows of earlier tasks, or of too many.
    """
    try:
        rows = torch.tensor(json.loads(path.read_text())["rows"], dtype=torch.long)
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"data.memory_file={path} is no memory ({error!r}); name that of a run."
        ) from error
    if not torch.isin(rows, past).all():
        raise ValueError(
            f"data.memory_file={path} keeps rows that are not of earlier tasks; name that of the task "
            "before, with the same source, tasks and seeds."
        )
    if most is not None and len(rows) > most:
        raise ValueError(
            f"data.memory_file={path} keeps {len(rows)} rows, more than memory_size={most}; raise that."
        )
    return rows.sort().values

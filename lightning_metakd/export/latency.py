"""How long an exported student and the student itself take, on the same number of threads.

They take turns, pass by pass, so that whatever else the machine does befalls all alike. What torch is timed
on is normalised already; a graph normalises whole pixels itself.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from lightning_metakd.classify.onnx_student import session_of
from lightning_metakd.data.source_data import SourceData
from lightning_metakd.export.cases import as_array, batch_of, read
from lightning_metakd.export.plan import Plan

REPEATS = {1: 300, 64: 60}
"""Timed passes, by pictures in a batch."""


def latencies(plan: Plan, data: SourceData, networks: Mapping[str, bytes]) -> list[dict[str, Any]]:
    """A row for each size of a batch: p50 and p95 in milliseconds of torch and of each graph.

    Args:
        plan: what is exported.
        data: whose pictures are embedded.
        networks: graphs that read picture by picture, by name.
    """
    threads = torch.get_num_threads()
    sessions = {name: session_of(graph, name, threads) for name, graph in networks.items()}
    rows = []
    for size, repeats in REPEATS.items():
        index = data.source.rows("train")
        batch = batch_of(data, index[torch.arange(size) % len(index)])
        x, inputs = read(batch, data, plan).x, {plan.inputs: as_array(batch.x, data, plan)}
        passes: dict[str, Callable[[], object]] = {"torch": partial(plan.student, x)}
        for name, session in sessions.items():
            passes[name] = partial(session.run, None, inputs)
        with torch.inference_mode():
            rows.append({"batch": size, **in_turns(passes, repeats)})
    return rows


def in_turns(
    passes: Mapping[str, Callable[[], object]], repeats: int
) -> dict[str, dict[str, float]]:
    """Median and 95th percentile of the time of each, in milliseconds; the first tenth warms up."""
    times: dict[str, list[float]] = {name: [] for name in passes}
    for k in range(-(repeats // 10), repeats):
        for name, run in passes.items():
            began = time.perf_counter()
            run()
            if k >= 0:
                times[name].append(1e3 * (time.perf_counter() - began))
    return {name: percentiles(of_pass) for name, of_pass in times.items()}


def percentiles(times: list[float]) -> dict[str, float]:
    """Median and 95th percentile."""
    p95 = sorted(times)[-(-95 * len(times) // 100) - 1]
    return {"p50_ms": statistics.median(times), "p95_ms": p95}

"""The meta-step on a CUDA device: task by task, by vmap, compiled, captured in a CUDA graph, in bfloat16.

    python -m benchmarks.gpu                        within ten minutes, compilation included

The contestants and tensors are those of `benchmarks.steps`, in one process, in turns, each step waited for.
What comes first matters most: where the minutes run out the rest is left out, and the table says so.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.contestants import Contestant, Setting, episodes, ours
from benchmarks.peers import PEERS
from benchmarks.steps import installed, provenance, provenance_text, write
from lightning_metakd.callbacks.results import device_name
from lightning_metakd.reporting.markdown import markdown
from lightning_metakd.types import Episode

Step = Callable[[], None]
ALGORITHMS = ("second order", "first order", "protonet", "anil", "reptile", "ridge")


def in_half_precision(step: Step, device: str) -> Step:
    """The step under autocast to bfloat16."""

    def run() -> None:
        with torch.autocast(device, torch.bfloat16):
            step()

    return run


def captured(step: Step) -> Step:
    """The step as one CUDA graph: its thousands of kernels are started by one call."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # what is allocated or chosen at a first call is so before
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def called(contestant: Contestant, tasks: list[Episode]) -> Step:
    return lambda: contestant.step(tasks)


def ways(setting: Setting, tasks: list[Episode]) -> Iterator[tuple[str, Callable[[], Step]]]:
    """(name, how to build it), the most telling first."""
    device, name = setting.device, "lightning_metakd"

    def together(**how: Any) -> Step:
        return called(ours(setting, at_once=None, **how), tasks)

    for peer, build in PEERS[setting.algorithm].items():
        if installed(peer):
            yield peer, lambda build=build: called(build(setting), tasks)
    yield f"{name}, one by one", lambda: called(ours(setting), tasks)
    yield f"{name}, vmap", together
    yield f"{name}, vmap, bf16", lambda: in_half_precision(together(), device)
    if device == "cuda":
        yield f"{name}, vmap, captured", lambda: captured(together())
        yield (
            f"{name}, vmap, bf16, captured",
            lambda: captured(in_half_precision(together(), device)),
        )
    yield f"{name}, vmap, compiled", lambda: together(compiled=True)
    if device == "cuda":
        yield f"{name}, vmap, compiled, captured", lambda: captured(together(compiled=True))
        bf16 = lambda: captured(in_half_precision(together(compiled=True), device))  # noqa: E731
        yield f"{name}, vmap, compiled, bf16, captured", bf16


def waited(step: Step, device: str) -> float:
    """Seconds of a step, to its end on the device."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    began = time.perf_counter()
    step()
    wait()
    return time.perf_counter() - began


def compete(setting: Setting, n_tasks: int, rounds: int, until: float) -> list[dict[str, Any]]:
    """A row for each way, or the error that a library ended with."""
    tasks, steps, rows = episodes(setting, n_tasks), {}, {}
    for name, build in ways(setting, tasks):
        rows[name] = {"algorithm": setting.algorithm, "width": setting.width, "tasks": n_tasks}
        rows[name] |= {"name": name, "median_s": None, "left_out": None}
        if time.perf_counter() > until:
            rows[name]["left_out"] = "out of time"
            continue
        began = time.perf_counter()
        try:
            step = build()
            for _ in range(2):
                waited(step, setting.device)
        except RuntimeError as error:  # of one library or way: the others are still worth a row
            rows[name]["left_out"] = str(error).splitlines()[0][:80]
            continue
        rows[name]["first_s"] = time.perf_counter() - began
        steps[name] = step
        print(f"{setting.algorithm}, {setting.width}, {n_tasks}: {name} is ready", flush=True)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            times[name].append(waited(step, setting.device))
    for name, values in times.items():
        rows[name] |= {"median_s": statistics.median(values), "min_s": min(values)}
        rows[name] |= {"max_s": max(values), "rounds": rounds}
    return list(rows.values())


def table(rows: list[dict[str, Any]]) -> str:
    """All rows, beside the fastest peer of the same contest."""
    lines = []
    for row in rows:
        contest = [r for r in rows if all(r[k] == row[k] for k in ("algorithm", "width", "tasks"))]
        peers = [r["median_s"] for r in contest if r["name"] in PEERS[row["algorithm"]]]
        best, took = min((t for t in peers if t is not None), default=None), row["median_s"]
        lines.append(
            {
                "contestant": row["name"],
                "algorithm": row["algorithm"],
                "width": str(row["width"]),
                "tasks": str(row["tasks"]),
                "time of a step": row["left_out"] if took is None else f"{1e3 * took:.2f} ms",
                "times as fast": "-" if None in (took, best) else f"{best / took:.1f}",
                "to be ready": "-" if took is None else f"{row['first_s']:.1f} s",
            }
        )
    return markdown(lines)


def arguments(args: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", help="cpu tries the script out")
    parser.add_argument("--algorithm", nargs="+", choices=ALGORITHMS, default=ALGORITHMS)
    parser.add_argument("--widths", nargs="+", type=int, default=[32, 64])
    parser.add_argument("--meta_batches", nargs="+", type=int, default=[4, 16])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--minutes", type=float, default=9.0, help="after which nothing is begun")
    result = Path(__file__).parent / "results" / "gpu.json"
    parser.add_argument("--result", type=Path, default=result)
    parser.add_argument("--output", type=Path, help="Markdown file with a section gpu to fill")
    options = parser.parse_args(args)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device is found; --device cpu tries the script out")
    return options


def main(args: list[str] | None = None) -> None:
    options = arguments(args)
    warnings.simplefilter("ignore")  # of libraries that are no longer maintained
    until = time.perf_counter() + 60 * options.minutes
    rows: list[dict[str, Any]] = []
    for algorithm in options.algorithm:
        for tasks in options.meta_batches:
            for width in options.widths:
                setting = Setting(algorithm, width, device=options.device)
                rows += compete(setting, tasks, options.rounds, until)
                result = {"rows": rows, "provenance": provenance(torch.get_num_threads())}
                result["device"] = device_name(torch.device(options.device))
                said_of = provenance_text(result["provenance"], "python -m benchmarks.gpu")
                text = f"{table(rows)}\n\n{result['device']}; {said_of}"
                write(result, options.result, options.output, "gpu", text)
    print(text)


if __name__ == "__main__":
    main()

"""The time and the memory of a meta-step, beside the libraries that people would take instead.

    python -m benchmarks.steps                      everything; about 25 minutes on two cores
    python -m benchmarks.steps --algorithm anil     one algorithm; the others keep what they had
    python -m benchmarks.steps --algorithm --output benchmarks/README.md    tables of what was measured

5 ways, 5 shots, 15 query rows a class, images of 32 x 32, meta-gradient alone: the data path and the whole
test are measured by benchmarks/data.py. Contestants take turns (benchmarks/turns.py).
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch

from benchmarks.contestants import Setting
from benchmarks.peers import PEERS
from benchmarks.turns import KEEPING, OURS, compete
from lightning_metakd.callbacks.results import package_version, processor, versions
from lightning_metakd.reporting.markdown import fill_section, markdown
from lightning_metakd.storage.atomic_files import atomic_write

LIBRARIES = ("learn2learn", "higher", "torchopt", "easyfsl")
EAGER, COMPILED, AGAIN, AGAIN_COMPILED = OURS
MEMORY = "second order, memory"
"""Second order with ten inner steps, where recomputing is worth its time."""


def contests(algorithm: str) -> tuple[str, list[str], int]:
    """(algorithm proper, contestants, inner steps)."""
    if algorithm == MEMORY:
        return "second order", [*PEERS["second order"], EAGER, AGAIN, AGAIN_COMPILED], 10
    peers = list(PEERS[algorithm])
    return algorithm, [*peers, peers[0] + KEEPING, EAGER, COMPILED], 5


def measure(algorithm: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    proper, names, inner_steps = contests(algorithm)
    names = [n for n in names if installed(n)]
    rows = []
    for width in options.widths:
        setting = Setting(proper, width, inner_steps)
        batches = options.meta_batches[:1] if algorithm == MEMORY else options.meta_batches
        rows += compete(names, setting, batches, options.rounds, options.threads)
    return [row | {"algorithm": algorithm} for row in rows]


def installed(name: str) -> bool:
    library = name.removesuffix(KEEPING)
    return library not in LIBRARIES or package_version(library) is not None


def best_peer(rows: list[dict[str, Any]], row: dict[str, Any], key: str) -> dict[str, Any] | None:
    """The best of the peers, as their users have them, in the same contest."""
    same = ("algorithm", "width", "tasks", "inner_steps")
    rivals = [r for r in rows if all(r[k] == row[k] for k in same)]
    rivals = [r for r in rivals if r["name"] not in OURS and not r["name"].endswith(KEEPING)]
    return min((r for r in rivals if r[key] is not None), key=lambda r: r[key], default=None)


def table(rows: list[dict[str, Any]]) -> str:
    """One table for each algorithm."""
    parts = []
    for algorithm in dict.fromkeys(row["algorithm"] for row in rows):
        lines = [cells(rows, row) for row in rows if row["algorithm"] == algorithm]
        parts.append(f"**{algorithm}**, {lines[0].pop('steps')} inner steps\n\n")
        for line in lines[1:]:
            line.pop("steps")
        parts[-1] += markdown(lines)
    return "\n\n".join(parts)


def cells(rows: list[dict[str, Any]], row: dict[str, Any]) -> dict[str, str]:
    memory, tensors = row["peak_mib"], row.get("tensors_mib")
    return {
        "contestant": row["name"],
        "steps": str(row["inner_steps"]),
        "width": str(row["width"]),
        "tasks": str(row["tasks"]),
        "time of a step": took(row),
        "least, most": f"{1e3 * row['min_s']:.0f}, {1e3 * row['max_s']:.0f}",
        "times as fast": ratio(rows, row),
        "first step": f"{row['first_s']:.1f} s",
        "memory": "-" if memory is None else f"{memory:.0f} MiB",
        "of the peers' least": "-" if memory is None else of_least_memory(rows, row),
        "tensors": "-" if tensors is None else f"{tensors:.0f} MiB",
    }


def summary(rows: list[dict[str, Any]]) -> str:
    """A line for each contest of the smaller meta-batch: the fastest peer and this package's ways."""
    lines = []
    for row in rows:
        if row["peak_mib"] is None or row["name"] != EAGER:
            continue
        same = ("algorithm", "width", "tasks")
        contest = {r["name"]: r for r in rows if all(r[k] == row[k] for k in same)}
        peer = best_peer(rows, row, "median_s")
        mine = contest.get(AGAIN_COMPILED) or contest.get(COMPILED)
        lines.append(
            {
                "meta-step": f"{row['algorithm']}, {row['inner_steps']} steps, width {row['width']}",
                "fastest peer": "-" if peer is None else f"{peer['name']} {took(peer)}",
                "uncompiled": took(row),
                "times as fast": ratio(rows, row),
                "memory of the peers' least": of_least_memory(rows, row),
                "compiled": "-" if mine is None else took(mine),
                "times as fast so": "-" if mine is None else ratio(rows, mine),
                "memory so": "-" if mine is None else of_least_memory(rows, mine),
                "compiling": "-" if mine is None else f"{mine['first_s']:.0f} s",
            }
        )
    return markdown(lines)


def took(row: dict[str, Any]) -> str:
    return f"{1e3 * row['median_s']:.0f} ms"


def ratio(rows: list[dict[str, Any]], row: dict[str, Any]) -> str:
    best = best_peer(rows, row, "median_s")
    return "-" if best is None else f"{best['median_s'] / row['median_s']:.2f}"


def of_least_memory(rows: list[dict[str, Any]], row: dict[str, Any]) -> str:
    best = best_peer(rows, row, "peak_mib")
    return "-" if best is None else f"{row['peak_mib'] / best['peak_mib']:.2f}"


def provenance(threads: int) -> dict[str, Any]:
    """The machine and the libraries."""
    peers = {name: package_version(name) for name in LIBRARIES}
    machine = {"cpu": processor(), "cores": os.cpu_count(), "threads": threads}
    return machine | {"versions": versions() | peers}


def provenance_text(made: dict[str, Any], command: str) -> str:
    """The line under a table."""
    named = {"torch": made["versions"]["torch"]}
    named |= {n: v for n, v in made["versions"].items() if n in LIBRARIES and v is not None}
    libraries = ", ".join(f"{name} {version}" for name, version in named.items())
    return f"{made['cpu']}, {made['threads']} threads; {libraries}: `{command}`"


def write(result: dict[str, Any], path: Path, page: Path | None, section: str, text: str) -> None:
    """The numbers, and the table in its section of a page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as part:
        part.write_text(json.dumps(result, indent=1) + "\n")
    if page is not None:
        fill_section(page, section, text)


def arguments(args: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    algorithms = [*PEERS, MEMORY]
    parser.add_argument("--algorithm", nargs="*", choices=algorithms, default=algorithms)
    parser.add_argument("--widths", nargs="+", type=int, default=[32, 64])
    parser.add_argument("--meta_batches", nargs="+", type=int, default=[4])
    parser.add_argument("--rounds", type=int, default=5, help="counted steps of each contestant")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    result = Path(__file__).parent / "results" / "steps.json"
    parser.add_argument("--result", type=Path, default=result)
    parser.add_argument("--output", type=Path, help="Markdown file with a section steps to fill")
    parser.add_argument("--summary", type=Path, help="Markdown file with a section speed to fill")
    return parser.parse_args(args)


def publish(result: dict[str, Any], options: argparse.Namespace) -> None:
    """The numbers, and both tables."""
    made = provenance_text(result["provenance"], "python -m benchmarks.steps")
    commits = list(dict.fromkeys(str(row.get("git"))[:10] for row in result["rows"]))
    made += f"; code {', '.join(commits)}"
    write(result, options.result, options.output, "steps", f"{table(result['rows'])}\n\n{made}")
    write(result, options.result, options.summary, "speed", f"{summary(result['rows'])}\n\n{made}")


def main(args: list[str] | None = None) -> None:
    options = arguments(args)
    result = json.loads(options.result.read_text()) if options.result.exists() else {"rows": []}
    for algorithm in options.algorithm:
        rows = measure(algorithm, options)
        kept = [row for row in result["rows"] if row["algorithm"] != algorithm]
        result = {"rows": kept + rows, "provenance": provenance(options.threads)}
        publish(result, options)
        print(table(rows), flush=True)
    publish(result, options)


if __name__ == "__main__":
    main()

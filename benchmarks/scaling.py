"""How a second-order MAML step grows, and how much of a step is convolution arithmetic.

    python -m benchmarks.scaling

Curves: one size of the problem changes, the others stay (Conv4-32, 5 ways, 5 shots, 15 query rows a class, 5
inner steps, one task). The slope is that of a line through logarithms: 1 is proportional. Floor: the FLOPs of
the convolutions of a step of four tasks, at the rate that a bare convolution of the same shapes reaches here,
forward and backward, beside what `benchmarks.steps` measured; what remains is norms, pools, and memory.
"""

import argparse
import json
import math
import statistics
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import conv2d

from benchmarks.contestants import LEARNERS, Setting, episodes, ours
from benchmarks.steps import provenance, provenance_text, write
from benchmarks.turns import peak, seconds
from lightning_metakd.metrics.cost import count_flops
from lightning_metakd.recipes.host_allocator import keep_large_blocks
from lightning_metakd.reporting.markdown import markdown

CURVES: dict[str, tuple[int, ...]] = {
    "inner_steps": (1, 2, 5, 10, 20),
    "n_way": (2, 5, 10, 20),
    "k_shot": (1, 2, 5, 10, 20),
    "tasks": (1, 2, 4, 8),
    "width": (16, 32, 64, 128),
}
TASKS = 4


def point(name: str, size: int, rounds: int, **how: Any) -> dict[str, Any]:
    """Median seconds and MiB of a step where one size is another."""
    setting = Setting("second order", **({} if name == "tasks" else {name: size}))
    tasks = episodes(setting, size if name == "tasks" else 1)
    contestant = ours(setting, **how)

    def step() -> None:
        contestant.step(tasks)

    step()
    times = [seconds(step) for _ in range(rounds)]
    return {"size": size, "median_s": statistics.median(times), "peak_mib": peak(step)}


def slope(points: list[dict[str, Any]], key: str) -> float:
    """Of the line through the logarithms, by least squares."""
    x, y = (
        torch.tensor([math.log(p[k]) for p in points], dtype=torch.float64) for k in ("size", key)
    )
    x, y = x - x.mean(), y - y.mean()
    return float((x @ y) / (x @ x))


def curves(rounds: int) -> list[dict[str, Any]]:
    requested: list[tuple[str, str, dict[str, Any]]] = [("", name, {}) for name in CURVES]
    requested.append((", recomputed", "inner_steps", {"recompute": True}))
    recorded = []
    for how, name, options in requested:
        points = [point(name, size, rounds, **options) for size in CURVES[name]]
        recorded.append({"curve": name + how, "points": points})
        recorded[-1] |= {"time_slope": slope(points, "median_s")}
        recorded[-1] |= {"memory_slope": slope(points, "peak_mib")}
        print(f"{name}{how}: {[round(p['median_s'], 3) for p in points]} s", flush=True)
    return recorded


# --- the floor ---------------------------------------------------------------------------------


def bare_rate(width: int, rows: int, rounds: int) -> float:
    """FLOPs a second of the four convolutions alone, forward and backward."""
    layers = []
    for block in range(4):
        channels, size = width if block else 3, 32 >> block
        x = torch.randn(rows, channels, size, size).to(memory_format=torch.channels_last)
        weight = torch.randn(width, channels, 3, 3).to(memory_format=torch.channels_last)
        layers.append((x.requires_grad_(block > 0), weight.requires_grad_()))

    def run() -> None:
        for x, weight in layers:
            answer = conv2d(x, weight, padding=1)
            wanted = [t for t in (x, weight) if t.requires_grad]
            torch.autograd.grad(answer, wanted, torch.ones_like(answer))

    run()
    return count_flops(run) / statistics.median(seconds(run) for _ in range(rounds))


def floors(steps: Path, rounds: int) -> list[dict[str, Any]]:
    """For each measured step of four tasks of this package, what its convolutions alone would take."""
    rows = json.loads(steps.read_text())["rows"] if steps.exists() else []
    mine = [r for r in rows if r["name"] == "lightning_metakd" and r["tasks"] == TASKS]
    mine = [r for r in mine if r["algorithm"] in LEARNERS]
    recorded = []
    for row in mine:
        setting = Setting(row["algorithm"], row["width"], row["inner_steps"])
        contestant, tasks = ours(setting), episodes(setting, 1)
        count = TASKS * count_flops(
            lambda contestant=contestant, tasks=tasks: contestant.step(tasks)
        )
        n_rows = setting.n_way * (setting.n_query if row["algorithm"] == "protonet" else 5)
        rate = bare_rate(setting.width, n_rows, 5 * rounds)
        same = [r for r in rows if all(r[k] == row[k] for k in ("algorithm", "width", "tasks"))]
        times = {r["name"]: r["median_s"] for r in same}
        recorded.append({"algorithm": row["algorithm"], "width": row["width"], "flops": count})
        recorded[-1] |= {"bare_flops_per_s": rate, "floor_s": count / rate, "times": times}
    return recorded


# --- both --------------------------------------------------------------------------------------


def table(result: dict[str, Any]) -> str:
    drawn = [
        {
            "what grows": curve["curve"],
            "sizes": ", ".join(str(p["size"]) for p in curve["points"]),
            "ms": ", ".join(f"{1e3 * p['median_s']:.0f}" for p in curve["points"]),
            "slope": f"{curve['time_slope']:.2f}",
            "MiB": ", ".join(f"{p['peak_mib']:.0f}" for p in curve["points"]),
            "slope of memory": f"{curve['memory_slope']:.2f}",
        }
        for curve in result["curves"]
    ]
    compared = [
        {
            "convolutions of": f"{row['algorithm']}, width {row['width']}",
            "GFLOP": f"{row['flops'] / 1e9:.1f}",
            "bare rate": f"{row['bare_flops_per_s'] / 1e9:.0f} GFLOP/s",
            "floor": f"{1e3 * row['floor_s']:.0f} ms",
            "part of the eager step": part(row, "lightning_metakd"),
            "of the compiled one": part(row, "lightning_metakd, compiled"),
            "of learn2learn's": part(row, "learn2learn"),
        }
        for row in result["floors"]
    ]
    return markdown(drawn) + (f"\n\n{markdown(compared)}" if compared else "")


def part(row: dict[str, Any], name: str) -> str:
    return f"{100 * row['floor_s'] / row['times'][name]:.0f} %" if name in row["times"] else "-"


def arguments(args: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    results = Path(__file__).parent / "results"
    parser.add_argument("--result", type=Path, default=results / "scaling.json")
    parser.add_argument("--steps", type=Path, default=results / "steps.json")
    parser.add_argument("--output", type=Path, help="Markdown file with a section scaling to fill")
    return parser.parse_args(args)


def main(args: list[str] | None = None) -> None:
    options = arguments(args)
    keep_large_blocks()
    result: dict[str, Any] = {"curves": curves(options.rounds)}
    result["floors"] = floors(options.steps, options.rounds)
    result["provenance"] = provenance(torch.get_num_threads())
    text = f"{table(result)}\n\n{provenance_text(result['provenance'], 'python -m benchmarks.scaling')}"
    write(result, options.result, options.output, "scaling", text)
    print(text)


if __name__ == "__main__":
    main()

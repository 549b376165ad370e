"""Draws architecture.svg from the imports of the package: python docs/draw_architecture.py."""

import sys
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.contracts.test_house import imports  # noqa: E402

ROOMS = {
    "cli": ("command and parser", "#d6e4f0", (1,)),
    "export": ("files that run elsewhere", "#d6e4f0", ()),
    "callbacks": ("what is kept of a run", "#d6e4f0", ()),
    "reporting": ("tables of results", "#d6e4f0", ()),
    "classify": ("photographs, no torch", "#d6e4f0", ()),
    "loggers": ("a run's directory", "#d6e4f0", ()),
    "metrics": ("accuracy, cost", "#d6e4f0", ()),
    "settings": ("what tells runs apart", "#d6e4f0", ()),
    "recipes": ("MetaKD, SingleTask", "#f6cf9f", (5, 7)),
    "strategy": ("hyper-gradient, quiz", "#cfe8cf", (6,)),
    "teachers": ("a network and its head", "#cfe8cf", ()),
    "learners": ("MAML .. Ridge", "#cfe8cf", ()),
    "losses": ("and their coefficients", "#cfe8cf", (2, 3)),
    "functional": ("pure functions", "#cfe8cf", (4,)),
    "data": ("episodes and batches", "#f3e8b8", ()),
    "data.sources": ("labelled rows", "#f3e8b8", ()),
    "models": ("networks, norms", "#e3d5ee", ()),
    "types": ("nouns that travel", "#e4e7eb", ()),
    "arguments": ("checks of numbers", "#e4e7eb", ()),
    "storage": ("whole files", "#e4e7eb", ()),
}
"""What a room says, its colour, and the numbers of the walk of a gate that pass through it."""
WIDTH, FLOOR, BOX = 960, 90, (156, 48)
CAPTION = (
    "An arrow is an import; those that follow from others are left out. "
    "Numbers are the walk of a gate."
)


def floors(graph: dict[str, set[str]]) -> dict[str, int]:
    """The floor of each room, one above the highest that it imports."""
    floor: dict[str, int] = {}
    for room in TopologicalSorter(graph).static_order():
        floor[room] = 1 + max((floor[below] for below in graph[room]), default=-1)
    return floor


def without_detours(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """The imports that do not follow from others."""

    def reach(room: str) -> set[str]:
        return graph[room].union(*(reach(below) for below in graph[room]))

    return {
        room: {to for to in below if not any(to in reach(other) for other in below - {to})}
        for room, below in graph.items()
    }


def places(graph: dict[str, set[str]]) -> dict[str, tuple[float, float]]:
    """Centre of each room: spread over its floor, in the order of what it is connected with."""
    floor, top = floors(graph), max(floors(graph).values())
    rows = [[r for r in ROOMS if floor[r] == k] for k in range(top, -1, -1)]
    x = {r: WIDTH * (i + 0.5) / len(row) for row in rows for i, r in enumerate(row)}
    linked = {r: graph[r] | {o for o in graph if r in graph[o]} for r in graph}
    for _ in range(20):
        for row in rows:
            row.sort(key=lambda r: sum(x[o] for o in linked[r]) / len(linked[r]))
            x |= {r: WIDTH * (i + 0.5) / len(row) for i, r in enumerate(row)}
    return {r: (x[r], 70 + FLOOR * (top - floor[r])) for r in graph}


def drawing() -> str:
    """The picture, as SVG."""
    graph = imports()
    at, (width, height) = places(graph), BOX
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} '
        f'{max(y for _, y in at.values()) + 44:.0f}" font-family="Helvetica, Arial, sans-serif" '
        'text-anchor="middle">',
        "  <title>The folders of lightning_metakd, each above those that it imports</title>",
        '  <defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0.5 L8 4 L0 7.5 z" fill="#7b8794"/></marker></defs>',
        f'  <text x="{WIDTH // 2}" y="22" font-size="13" fill="#7b8794">{CAPTION}</text>',
        '  <g stroke="#7b8794" stroke-width="1.4" fill="none" marker-end="url(#tip)">',
    ]
    for room, below in sorted(without_detours(graph).items()):
        for to in sorted(below):
            (x0, y0), (x1, y1) = at[room], at[to]
            start, end = y0 + height / 2, y1 - height / 2
            bend = (end - start) / 2
            lines.append(
                f'    <path class="import" id="{room}-{to}" d="M{x0:.0f} {start:.0f} C{x0:.0f} '
                f'{start + bend:.0f} {x1:.0f} {end - bend:.0f} {x1:.0f} {end:.0f}"/>'
            )
    lines.append("  </g>")
    for room, (text, colour, numbers) in ROOMS.items():
        x, y = at[room]
        left, upper = x - width / 2, y - height / 2
        lines += [
            f'  <g class="room" id="{room}">',
            f'    <rect x="{left:.0f}" y="{upper:.0f}" width="{width}" height="{height}" rx="7" '
            f'fill="{colour}" stroke="#7b8794"/>',
            f'    <text x="{x:.0f}" y="{upper + 20:.0f}" font-size="15" font-weight="bold" '
            f'fill="#1f2933">{room}</text>',
            f'    <text x="{x:.0f}" y="{upper + 37:.0f}" font-size="11.5" fill="#3e4c59">{text}</text>',
        ]
        for k, number in enumerate(numbers):
            lines.append(
                f'    <circle cx="{left + 20 * k:.0f}" cy="{upper:.0f}" r="9" fill="#b4521e"/>'
                f'<text x="{left + 20 * k:.0f}" y="{upper + 4:.0f}" font-size="11.5" '
                f'font-weight="bold" fill="#ffffff">{number}</text>'
            )
        lines.append("  </g>")
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    Path(__file__).with_name("architecture.svg").write_text(drawing())

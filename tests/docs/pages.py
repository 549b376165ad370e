"""The pages that people read, and what stands in them."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG", "SECURITY")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "benchmarks").rglob("*.md")),
    *sorted((ROOT / "notebooks").rglob("*.py")),
)


def prose(page: Path) -> str:
    """The Markdown of a page; of a notebook that of its cells."""
    if page.suffix != ".py":
        return page.read_text()
    cells = re.findall(r"^# %% \[markdown\]\n((?:#.*\n)*)", page.read_text(), re.MULTILINE)
    return "\n\n".join(re.sub(r"^# ?", "", cell, flags=re.MULTILINE) for cell in cells)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def without_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """(file, anchor) of every relative link."""
    text = re.sub(r"`[^`\n]*`", "", without_blocks(prose(page)))  # code is no link
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"\w+:", target):
            path, _, anchor = target.partition("#")
            yield (page.parent / path).resolve() if path else page, anchor


def anchors(page: Path) -> list[str]:
    """The anchors of a page's headings, as they are shown on the web: a second one of a name is name-1."""
    slugs: list[str] = []
    for heading in re.findall(r"^#+ (.*?)\s*$", without_blocks(prose(page)), flags=re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        times = sum(
            re.fullmatch(rf"{re.escape(slug)}(-\d+)?", other) is not None for other in slugs
        )
        slugs.append(f"{slug}-{times}" if times else slug)
    return slugs


def commands(page: Path) -> Iterator[str]:
    """Every line of shell in a block of its own, continued lines joined, comments left out."""
    for block in re.findall(r"^```\n(.*?)^```", prose(page), flags=re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            if command := re.sub(r"\s+#.*", "", line).strip():
                yield command

"""docs/architecture.md tells of the package as it is."""

import re
import runpy
from pathlib import Path
from xml.etree import ElementTree

import lightning_metakd
from tests.contracts.test_house import imports

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "architecture.md").read_text()
PACKAGE = Path(lightning_metakd.__file__).parent
SVG = ElementTree.fromstring((DOCS / "architecture.svg").read_text())  # our own file
NAMESPACE = "{http://www.w3.org/2000/svg}"


def rooms():
    """Height of each room of the picture, from above."""
    groups = [g for g in SVG.iter(f"{NAMESPACE}g") if g.get("class") == "room"]
    return {g.get("id"): float(g.find(f"{NAMESPACE}rect").get("y")) for g in groups}


def test_the_picture_is_what_the_script_draws():
    picture = runpy.run_path(str(DOCS / "draw_architecture.py"))["drawing"]()
    assert picture == (DOCS / "architecture.svg").read_text(), (
        "run python docs/draw_architecture.py"
    )


def test_every_file_it_names_exists():
    files = set(re.findall(r"`([\w/]+\.py)`", PAGE))
    assert len(files) > 15
    assert [file for file in files if not (PACKAGE / file).is_file()] == []
    assert all((DOCS / link).is_file() for link in re.findall(r"\]\((\w+\.\w+)\)", PAGE))


def test_its_tree_is_that_of_the_package():
    listed = re.findall(r"^  ([\w/]+)/ +\S", PAGE, flags=re.MULTILINE)
    folders = {p.parent.relative_to(PACKAGE).as_posix() for p in PACKAGE.rglob("*.*") if is_ours(p)}
    assert listed == sorted(folders - {"."})


def is_ours(path):
    return path.suffix in (".py", ".json") and "__pycache__" not in path.parts


def test_each_room_of_the_picture_lies_above_what_it_imports():
    graph, height = imports(), rooms()
    assert height.keys() == graph.keys()
    for folder, below in graph.items():
        assert all(height[folder] < height[other] for other in below), folder


def test_the_arrows_of_the_picture_are_imports_and_lead_to_all_of_them():
    graph = imports()
    arrows = [path.get("id").split("-") for path in SVG.iter(f"{NAMESPACE}path") if path.get("id")]
    drawn = {folder: {to for start, to in arrows if start == folder} for folder in graph}
    assert all(drawn[folder] <= graph[folder] for folder in graph)

    def reached(folder):
        return drawn[folder].union(*(reached(other) for other in drawn[folder]))

    assert all(graph[folder] <= reached(folder) for folder in graph)

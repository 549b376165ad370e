"""A table of published learners is filled method by method, on one machine after another."""

import json

import pytest

from experiments import published

MARKERS = "# Page\n\n<!-- results:begin published -->\n\n<!-- results:end -->\n"
OF_A_TEST = {"ci95": 0.004, "wall_s": 9.0, "device": "cpu", "threads": 1}


def leave(name: str, accuracy: float, commit: str) -> None:
    """The tests of a method, as if they had been run here."""
    for shots in published.SHOTS:
        mark = published.evaluation(name, shots).mark
        mark.parent.mkdir(parents=True)
        line = {"accuracy": accuracy + shots / 100, "git": commit, **OF_A_TEST}
        mark.write_text(json.dumps(line))


@pytest.fixture
def page(tmp_path, monkeypatch):
    path = tmp_path / "page.md"
    path.write_text(MARKERS)
    monkeypatch.setattr(published, "PAGE", path)
    return path


def test_rows_of_another_machine_stay_with_what_made_them(page, tmp_path, monkeypatch):
    second, first = list(published.METHODS)[1:3]
    for name, accuracy, commit in ((first, 0.5, "a" * 40), (second, 0.6, "b" * 40)):
        machine = tmp_path / commit[0]
        machine.mkdir()
        monkeypatch.chdir(machine)
        published.write_page()  # nothing has been run here: the page stays as it is
        leave(name, accuracy, commit)
        published.write_page()
    rows = published.rows_of(page.read_text())
    assert list(rows) == [second, first]
    assert [rows[name]["here, 5 shot"] for name in rows] == ["65.00 ± 0.40", "55.00 ± 0.40"]
    assert [rows[name]["commit"] for name in rows] == ["b" * 10, "a" * 10]
    text = page.read_text()
    published.write_page()
    assert page.read_text() == text
    leave(first, 0.7, "b" * 40)  # made again: nothing is left of the first machine
    published.write_page()
    row = published.rows_of(page.read_text())[first]
    assert (row["here, 5 shot"], row["commit"]) == ("75.00 ± 0.40", "b" * 10)


def test_an_empty_page_has_no_rows(page):
    assert published.rows_of(page.read_text()) == {}

import json
import re
import sys

import pytest

from lightning_metakd.reporting import html_page
from lightning_metakd.reporting.report import report
from tests.left_results import leave, leave_answers, leave_seeds, leave_training

EVIL = "</script><script>alert(1)</script>"


def leave_everything(folder):
    """Results of two tasks with their controls, answers, and the trainings behind them."""
    leave_seeds(folder, (0.25, 0.26, 0.24), "maml", student_params=1000)
    settings = {"train.model.strategy_training.lr": 0.01}
    for control in (None, "frozen"):
        means = (0.5, 0.52, 0.51) if control is None else (0.4, 0.41, 0.42)
        leave_seeds(folder, means, "kd", control=control, settings=settings, wall_s=90.0)
    leave_answers(folder / "answers" / "0", experiment="shown", strategy="gate", latency_ms=9.0)
    leave(folder / "other" / "0", (0.25, 0.5), experiment="other", k_shot=5)
    columns = {"val__student_accuracy": [0.25, 0.5], "train__outer_loss": [2, 1]}
    ends = {"mean": 0.4, "min": 0.3, "max": 0.6}
    gate = {f"strategy__gate_{part}": [0.5, end] for part, end in ends.items()}
    leave_training(folder / "kd" / "fit" / "0", **columns, **gate)


SECTIONS = [
    "comparison",
    "trade-offs",
    "curves",
    "strategy",
    "answers",
    "rows",
    "examples",
    "costs",
]


@pytest.fixture
def page(tmp_path, monkeypatch):
    """Make the page of what was left, with a short text for the plotting library."""
    monkeypatch.setattr("lightning_metakd.reporting.report.plotting_script", lambda html: "/*lib*/")

    def make(**options):
        report(tmp_path, html=tmp_path / "report.html", **options)
        return (tmp_path / "report.html").read_text()

    return make


def figures(text):
    """The figures in the page."""
    contents = re.findall(r'<script type="application/json">(.*?)</script>', text)
    return [json.loads(content) for content in contents]


def test_everything_that_was_left_is_in_the_page(page, tmp_path, capsys):
    leave_everything(tmp_path)
    text = page(baseline="maml")
    assert re.findall(r'<section id="([\w-]+)"', text) == SECTIONS
    titles = re.findall(r"<h4 id=[^>]*>(.*?)</h4>", text)
    for title in (
        *("Accuracy against parameters", "Accuracy against latency", "Accuracy against training"),
        *("Accuracy on validation", "Loss of training", "gate over training", "Calibration"),
        *("Accuracy of each class", "Which class is taken for which"),
    ):
        assert title in titles
    assert "26.00 ± 2.48 points above the baseline maml" in text
    assert "a gain over maml that none of its controls shows" in text
    assert "Trusted most to the teacher" in text
    assert "Episode 0: 2 of 4 right, teacher 4" in text
    assert "minus maml</button>" in text
    sentence = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(
        r"page written to .*report\.html \(0\.\d MB\); open it in a browser", sentence
    )


def test_nothing_is_fetched(page, tmp_path):
    leave_everything(tmp_path)
    text = page()
    assert not re.findall(r'(?:src|href)="(?!#|data:)', text)
    assert "url(" not in text
    assert "@import" not in text


def test_the_plotting_library_takes_every_figure(page, tmp_path):
    graphs = pytest.importorskip("plotly.graph_objects", reason="plotly is not installed")
    leave_everything(tmp_path)
    content = figures(page())
    assert len(content) == 9
    for figure in content:
        graphs.Figure(figure)  # it refuses what it does not know
        for name in ("xaxis", "yaxis"):
            if figure["data"][0].get("text") is None:
                assert figure["layout"][name]["title"]["text"]


def test_names_from_elsewhere_are_texts(page, tmp_path):
    leave(tmp_path / "a" / "0", experiment=EVIL, learner=EVIL, source=EVIL, device=EVIL)
    leave(tmp_path / "b" / "0", experiment=EVIL + "b", source=EVIL, latency_ms=9.0)
    leave_training(tmp_path / "<img src=x onerror=alert(1)>" / "0", train__outer_loss=[2, 1])
    text = page()
    assert EVIL not in text
    assert "<img src=x" not in text


def test_what_is_not_there_is_said_in_a_line(page, tmp_path):
    leave(tmp_path / "a" / "0")
    text = page()
    assert re.findall(r'<section id="([\w-]+)"', text) == ["comparison", "costs", "missing"]
    missing = text[text.index("Not shown") :]
    for reason in (
        "Accuracy and cost: no two networks of a task say what they cost.",
        "Learning curves: no training, which leaves metrics.csv",
        "What was answered: no test has left its answers",
        "Example episodes: no test has left its answers",
    ):
        assert reason in missing


def test_examples_are_left_out_where_there_is_no_room(page, tmp_path, monkeypatch):
    leave_answers(tmp_path / "a" / "0")
    whole = page()
    assert 'id="examples"' in whole
    monkeypatch.setattr(html_page, "MOST_BYTES", len(whole.encode()) - 1)
    text = page()
    assert len(text) < len(whole)
    assert 'id="examples"' not in text
    assert "there was no room" in text


def test_a_large_folder_makes_a_page_that_can_be_read(page, tmp_path):
    for i in range(60):
        leave(tmp_path / f"run{i}" / "0", (i / 100, i / 100), experiment=f"run{i}")
        leave_training(tmp_path / f"fit{i}" / "0", val__student_accuracy=[0.1, i / 100])
    text = page()
    assert "Show all 60 rows" in text
    assert "48 more trainings are left out." in text


@pytest.mark.thorough
def test_768_results_of_long_names_are_less_than_6_mb(page, tmp_path, monkeypatch):
    library = "/" * 4_850_000  # that of plotly 7.1 has 4,815,814
    monkeypatch.setattr("lightning_metakd.reporting.report.plotting_script", lambda html: library)
    for i in range(768):
        name, accuracy = f"run{i}_" + "of_a_long_name_" * 12, 0.2 + i / 2000
        cost = {"student_params": 1000 + i % 100, "latency_ms": 1 + i / 100, "wall_s": 60.0 + i}
        leave(tmp_path / str(i) / "0", (accuracy, accuracy), experiment=name, **cost)
        columns = {"val__student_accuracy": [accuracy] * 200, "train__outer_loss": [accuracy] * 200}
        leave_training(tmp_path / name / "0", **columns)
    leave_answers(tmp_path / "answers" / "0", experiment="shown")
    text = page()
    assert len(text.encode()) <= 6_000_000
    assert "469 less accurate rows are left out" in text
    assert "less accurate students are left out." in text
    assert 'id="examples"' in text


def test_a_library_that_is_missing_is_named_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(ImportError, match=r"plotly; pip install 'lightning_metakd\[report\]'\."):
        report(tmp_path, html=tmp_path / "report.html")


def test_a_folder_is_no_page(tmp_path):
    leave(tmp_path / "a" / "0")
    with pytest.raises(ValueError, match=r"is a folder; name a file, such as .*/report\.html"):
        report(tmp_path, html=tmp_path)

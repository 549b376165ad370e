from lightning_metakd.reporting.comparison import comparisons
from lightning_metakd.reporting.result_rows import read_results
from lightning_metakd.reporting.trade_offs import pareto, points_of, trade_offs
from tests.left_results import leave

CHEAP = {"student_params": 1000, "latency_ms": 0.5}


def task(folder):
    leave(folder / "a" / "0", (0.5, 0.5))
    leave(folder / "b" / "0", (0.4, 0.4), experiment="small", **CHEAP)
    leave(folder / "c" / "0", (0.3, 0.3), experiment="worse", latency_ms=0.75)
    teacher = {"teacher_accuracy": 0.75, "teacher_params": 10**7, "teacher_flops": 10**9}
    leave(folder / "d" / "0", (0.2, 0.2), experiment="taught", **teacher, teacher_latency_ms=9.0)
    (compared,) = comparisons(read_results(folder))
    return compared


def test_the_line_holds_what_nothing_cheaper_surpasses(tmp_path):
    points = points_of(task(tmp_path).rows, "student_params")
    assert [(p.name, p.cost, round(p.accuracy)) for p in pareto(points)] == [
        ("small", 1000, 40),
        ("maml", 113000, 50),
        ("teacher of taught", 10**7, 75),
    ]
    assert len(points) == 5


def test_figures_name_their_axes_with_units_and_all_networks(tmp_path):
    figures, same = trade_offs(task(tmp_path))
    assert [figure.title for figure in figures] == [
        f"Accuracy against {cost}" for cost in ("parameters", "FLOPs", "latency")
    ]
    assert same == ["All have the same training, 1 h 02 min."]
    latency = figures[-1]
    assert latency.layout["xaxis"]["title"]["text"] == "latency of one input (ms)"
    assert latency.layout["xaxis"]["type"] == "log"
    assert latency.layout["yaxis"]["title"]["text"] == "accuracy (%)"
    names = [trace["name"] for trace in latency.traces]
    assert names == ["other students", "Pareto line", "small", "maml", "teacher of taught"]
    assert "small, 40.00 % with 0.5 ms; maml, 50.00 % with 1.23 ms" in latency.caption


def test_one_row_that_knows_its_teacher_is_enough_and_one_alone_is_not(tmp_path):
    leave(tmp_path / "a" / "0", teacher_accuracy=0.75, teacher_params=10**6)
    (one,) = comparisons(read_results(tmp_path))
    assert [figure.title for figure in trade_offs(one)[0]] == ["Accuracy against parameters"]
    leave(tmp_path / "b" / "0", experiment="b", n_way=20)
    assert trade_offs(comparisons(read_results(tmp_path))[0]) == ([], [])

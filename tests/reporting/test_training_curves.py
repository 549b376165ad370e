from lightning_metakd.reporting.training_curves import coefficient_curves, learning_curves
from lightning_metakd.reporting.training_logs import Training


def test_curves_are_in_percent_thinned_and_end_where_the_training_does():
    series = {step: step / 1000 for step in range(1000)}
    (figure,) = learning_curves([Training("kd", {"val/student_accuracy": series}, 3)])
    (curve,) = figure.traces
    assert curve["name"] == "kd (3 seeds)"
    assert len(curve["x"]) <= 150
    assert (curve["x"][-1], round(curve["y"][-1], 6)) == (999, 99.9)
    assert figure.layout["yaxis"]["title"]["text"] == "accuracy (%)"
    assert figure.caption.endswith("At the end: kd (3 seeds) 99.9.")


def test_of_many_trainings_the_best_are_shown_and_the_rest_is_counted():
    group = [
        Training(f"run{i:02d}", {"val/student_accuracy": {0: 0.1, 1: i / 100}}, 1)
        for i in range(40)
    ]
    (figure,) = learning_curves(group)
    assert [t["name"] for t in figure.traces] == [f"run{i}" for i in range(39, 27, -1)]
    assert figure.caption.endswith("28 more trainings are left out.")


def test_a_gate_has_a_band_where_rows_differ_and_what_does_not_change_is_left_out():
    gate = {"mean": {0: 0.5, 1: 0.25}, "min": {0: 0.5, 1: 0.125}, "max": {0: 0.5, 1: 0.75}}
    columns = {f"strategy/gate_{part}": series for part, series in gate.items()}
    columns["strategy/match.temperature_mean"] = {0: 4.0, 1: 4.0}
    (figure,) = coefficient_curves([Training("kd", columns, 1)])
    low, high, mean = figure.traces
    assert (low["y"], high["y"], mean["y"]) == ([0.5, 0.125], [0.5, 0.75], [0.5, 0.25])
    assert high["fill"] == "tonexty"
    assert high["fillcolor"] == "rgba(10,122,191,0.18)"
    assert not low["showlegend"]
    assert figure.title == "gate over training"
    assert figure.layout["yaxis"]["title"]["text"] == "gate (0: teacher, 1: alone)"


def test_weights_of_teachers_are_in_one_figure():
    columns = {f"strategy/match.weights.{k}_mean": {0: 0.5, 1: 0.25 + k / 2} for k in range(2)}
    (figure,) = coefficient_curves([Training("kd", columns, 1)])
    assert [trace["name"] for trace in figure.traces] == ["kd, teacher 0", "kd, teacher 1"]
    assert [trace["line"]["dash"] for trace in figure.traces] == ["solid", "dash"]
    assert figure.title == "match.weights over training"

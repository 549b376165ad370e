import pytest

from lightning_metakd.settings.row_names import differing_settings


@pytest.mark.parametrize(
    ("several", "names"),
    [
        ([{"a.lr": 0.1}, {"a.lr": 0.1}], [[], []]),
        (
            [{"a.lr": 1e-3, "b": 1}, {"a.lr": 1e-4, "b": 1}, {"b": 1}],
            [["lr 0.001"], ["lr 0.0001"], ["lr null"]],
        ),
        ([{"a.lr": 1, "a.wd": 0}, {"a.lr": 2, "a.wd": 1}], [["lr 1", "wd 0"], ["lr 2", "wd 1"]]),
        (
            [{"a.lr": 1, "b.lr": 0}, {"a.lr": 2, "b.lr": 1}],
            [["a.lr 1", "b.lr 0"], ["a.lr 2", "b.lr 1"]],
        ),
        ([{"loss": "A", "loss.t": 1}, {"loss": "B"}], [["loss A"], ["loss B"]]),
        (
            [{"loss": "A", "loss.t": 1}, {"loss": "A", "loss.t": 2}, {"loss": "B"}],
            [["loss A", "t 1"], ["loss A", "t 2"], ["loss B"]],
        ),
        (
            [{"train.k_shot": 1, "test.k_shot": 1}, {"train.k_shot": 5, "test.k_shot": 5}],
            [["k_shot 1"], ["k_shot 5"]],
        ),
        (
            [
                {"train.model.initialisation.checkpoint.origin": "01"},
                {"train.model.initialisation.checkpoint.origin": "23"},
            ],
            [["checkpoint 01"], ["checkpoint 23"]],
        ),
        ([{"on": True}, {"on": False}], [["on true"], ["on false"]]),
    ],
)
def test_only_what_differs_is_named_and_in_short(several, names):
    assert differing_settings(several) == names

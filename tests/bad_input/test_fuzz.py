"""Valid configurations of which a few settings are changed at random: a refusal names one of them."""

import copy
import re

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightning_metakd.cli import command
from lightning_metakd.cli.class_names import named_classes
from lightning_metakd.data.sources.source import Source
from lightning_metakd.learners.learner import Learner
from lightning_metakd.losses.coefficient import Coefficient
from lightning_metakd.losses.loss import Loss
from lightning_metakd.models.model import Model
from lightning_metakd.teachers.heads import Head
from tests.commands import MAML, STUDENT, TEACHER, work_in, written

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("parsers")]

command.import_everything()
BASES = (Model, Learner, Loss, Coefficient, Head, Source)
CLASSES = sorted({kind.__name__ for base in BASES for kind in named_classes(base)})
CLASSES.remove("EfficientNetLite0")  # of an extra, with a file of weights
NUMBERS = (-(10**12), -1, -0.5, 0, 1, 2, 2.5, 3, 10**12, 2**63, 1e39, float("nan"), float("inf"))
TEXTS = ("", "x", "3", "a/b", "http://host/x")
EXTREME = {
    bool: (True, False, None),
    int: tuple(n for n in NUMBERS if isinstance(n, int)),
    float: NUMBERS,
    dict: (*CLASSES, "Conv5", "torch.nn.Linear", "torch.optim.SGD", "no.Class", "os.system", {}),
    object: (*NUMBERS, *TEXTS, None, True, [], [1], [2, 1], {"a": 1}),
}
"""New values for settings of a type, few of which can be meant."""
MILD = {
    bool: (True, False),
    int: (1, 2, 3, 5),
    float: (1e-3, 0.1, 0.5, 1, 2),
    dict: CLASSES,
    object: (None, "val", "test", 1, 2, 0.5, [1, 2]),
}
"""New values that mean something in many a setting, and cost little."""
GONE, MISSPELT = "(left out)", "(misspelt)"
SLOW = (pytest.mark.slow, pytest.mark.timeout(3600))


@pytest.fixture(scope="module")
def valid(tmp_path_factory, parsers):
    """A folder, and valid configurations with all settings of what they name."""
    folder = tmp_path_factory.mktemp("fuzz")
    student = copy.deepcopy(STUDENT)
    (teacher,) = student["model"]["init_args"]["teachers"]
    teacher["init_args"] |= {"checkpoint": None, "head": {"class_path": "PrototypeHead"}}
    written(folder, maml=MAML, teacher=TEACHER, student=student)
    with pytest.MonkeyPatch.context() as patch:
        work_in(folder, patch)
        patch.setattr(command, "fill_caches", lambda *args: None)
        yield folder, [whole(f"{name}.yaml") for name in ("maml", "teacher", "student")]
    torch.use_deterministic_algorithms(False)


def whole(path):
    """A configuration with the defaults of all that it names."""
    built = command.build(["--config", path], run=False)
    return yaml.safe_load(built.parser.dump(built.config, skip_none=False))


def settings_in(part, around=()):
    """(the mapping that holds it, its key, names of what it is part of) of each setting."""
    if isinstance(part, list):
        for item in part:
            yield from settings_in(item, around)
    elif isinstance(part, dict):
        for key, value in part.items():
            if key in ("class_path", "init_args", "dict_kwargs"):
                yield from settings_in(value, around)
            else:
                yield part, key, around
                yield from settings_in(value, (*around, key))


@st.composite
def changed(draw, configs, values, fixed):
    """A configuration, what is changed in it, and names: of that, and of what it is part of.

    Args:
        values: by type, those that a setting of it may take.
        fixed: settings that stay as they are.
    """
    config = copy.deepcopy(draw(st.sampled_from(configs)))
    changes, names = {}, set()
    for _ in range(draw(st.integers(1, 3))):
        section = draw(st.sampled_from(["model", "model", "data", "trainer", "all"]))
        places = list(settings_in(config.get(section))) or [(config, key, ()) for key in config]
        part, key, around = draw(st.sampled_from([p for p in places if p[1] not in fixed]))
        old = part.pop(key)
        alike = st.sampled_from(values.get(type(old), values[object]))
        new = draw(
            alike | alike | st.sampled_from(values[object]) | st.sampled_from([GONE, MISSPELT])
        )
        names |= {key, *around}
        key = f"{key}x" if new == MISSPELT else key
        names.add(key)
        changes[key] = new
        if new in CLASSES:
            names.add(new)
        if new != GONE:
            part[key] = old if new == MISSPELT else copy.deepcopy(new)
    return config, changes, names


def try_changed(valid, console, command, values, fixed=(), **how):
    """Run a command on changed configurations: each is accepted, or refused by a line that names a change."""
    folder, configs = valid

    @settings(deadline=None, database=None, suppress_health_check=list(HealthCheck), **how)
    @given(changed(configs, values, fixed))
    def check(example):
        config, changes, names = example
        (folder / "changed.yaml").write_text(yaml.safe_dump(config))
        code, output = console(*command, "--config", "changed.yaml", folder=folder)
        if code == 0:
            return
        *_, line = output.splitlines() or [""]
        assert code in (1, 2), f"{changes}: exit code {code}: {line}"
        assert line.startswith("metakd: ")
        assert "Traceback" not in output
        assert re.search(rf"\b({'|'.join(names)})\b", line), f"{changes}: {line}"

    check()


@pytest.mark.thorough
@pytest.mark.parametrize("examples", [100, pytest.param(2000, marks=SLOW)])
def test_a_changed_configuration_is_refused_by_name(examples, valid, console):
    how = {"max_examples": examples, "derandomize": examples == 100}
    try_changed(valid, console, ["precompute"], EXTREME, **how)


@pytest.mark.parametrize("examples", [5, pytest.param(200, marks=SLOW)])
def test_a_changed_run_is_refused_by_name(examples, valid, console):
    fit = ["fit", "--trainer.fast_dev_run=1"]
    how = {"max_examples": examples, "derandomize": examples == 5}
    several = {"devices", "num_nodes"}  # processes and machines for which this one would wait
    try_changed(valid, console, fit, MILD, {"compile_step", *several}, **how)

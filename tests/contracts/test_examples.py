"""Every example in a docstring runs, and every loss, learner, coefficient and source has one."""

import doctest
import importlib
import inspect
import pkgutil

import pytest
from jsonargparse import ArgumentParser
from PIL import Image

import lightning_metakd
from lightning_metakd.data.sources import Source
from lightning_metakd.learners import Learner
from lightning_metakd.losses import Choice, Coefficient, Loss

MODULES = [
    importlib.import_module(module.name)
    for module in pkgutil.walk_packages(lightning_metakd.__path__, "lightning_metakd.")
    if not module.name.endswith("__main__")
]
CLASSES = sorted(
    {
        kind
        for module in MODULES
        for kind in vars(module).values()
        if inspect.isclass(kind)
        and issubclass(kind, Loss | Learner | Coefficient | Choice | Source)
        and not inspect.isabstract(kind)
        and kind.__module__.startswith("lightning_metakd.")
    },
    key=lambda kind: kind.__name__,
)
TESTS = {
    test.name: test
    for module in MODULES
    for test in doctest.DocTestFinder(exclude_empty=True).find(module)
    if test.examples
}


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Four classes of two pictures each, in the folder in which an example runs."""
    for name in ("ant", "bee", "cat", "dog"):
        for i in range(2):
            path = tmp_path / "pictures" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (100 * i, 50, 0)).save(path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("METAKD_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", TESTS)
def test_an_example_runs(name, pictures):
    lines = []
    doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(
        TESTS[name], out=lines.append
    )
    assert not lines, "".join(lines)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_a_class_shows_its_use(kind):
    examples = doctest.DocTestParser().get_examples(inspect.getdoc(kind) or "")
    assert any(kind.__name__ in example.source for example in examples)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_an_example_is_no_help_text(kind):
    parser = ArgumentParser()
    parser.add_class_arguments(kind)
    assert ">>>" not in parser.format_help()

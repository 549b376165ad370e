"""Every configuration of a network keeps the promises of a Model."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from torch.func import functional_call

from lightning_metakd.models.model import Model
from lightning_metakd.models.norm import make_episodic
from lightning_metakd.models.token_model import TokenModel
from lightning_metakd.types import Output

ROOT = Path(__file__).parents[2] / "configs" / "model"
CONFIGS = sorted(ROOT.rglob("*.yaml"))
ELSEWHERE = {
    "mlp",
    "minilm",
}  # of vectors, and of a package: tests/models/test_{mlp,sentence_encoder}.py
CONFIGS = [path for path in CONFIGS if path.stem not in ELSEWHERE]
N_CLASSES = 5


def build(path: Path, **options: Any) -> Model:
    spec = yaml.safe_load(path.read_text())
    spec["init_args"] = {**spec.get("init_args", {}), **options}
    parser = ArgumentParser()
    parser.add_argument("--model", type=Model)
    torch.manual_seed(0)
    return parser.instantiate(parser.parse_object({"model": spec})).model


@cache
def built(path: Path) -> Model:
    """One network per configuration, for the tests that do not change it."""
    return build(path, n_classes=N_CLASSES).eval()


# where a test is dear, narrower networks speak for these of the same class
DEAR = {"wrn_28_10", "wrn_40_2", "resnet12", "resnet12_512", "resnet32x4", "resnet110"}
affordable_config = pytest.mark.parametrize(
    "path", [path for path in CONFIGS if path.stem not in DEAR], ids=lambda path: path.stem
)
every_config = pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)


def rows(model: Model, n: int) -> torch.Tensor:
    """Images, or tokens for a network that reads them."""
    draw = torch.Generator().manual_seed(0)
    if isinstance(model, TokenModel):
        return torch.randint(1, 500, (n, 8), generator=draw)
    return torch.randn(n, 3, 32, 32, generator=draw)


def test_every_configuration_is_seen() -> None:
    assert len(CONFIGS) == 25


@every_config
def test_a_config_opens_with_what_it_costs_and_holds_one_class(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("# ")
    assert "parameters" in text.splitlines()[0]
    assert set(yaml.safe_load(text)) == {"class_path", "init_args"}


@every_config
def test_it_answers_with_logits_embedding_and_features(path: Path) -> None:
    model = built(path)
    with torch.no_grad():
        output = model(rows(model, 2))
        embedding, _ = model.body(rows(model, 2))
    assert isinstance(output, Output)
    assert output.logits.shape == (2, N_CLASSES)
    assert output.embedding.shape == (2, model.embedding_width)
    assert not output.features  # until they are tapped
    assert torch.equal(output.embedding, embedding)
    assert torch.equal(output.logits, model.head(embedding))


@every_config
def test_what_its_body_saw_can_be_tapped_by_name(path: Path) -> None:
    """Where a module has the name, a map is what that module returned, tokens laid out as maps aside."""
    model = built(path)
    with torch.no_grad():
        _, maps = model.body(rows(model, 2))
    modules = dict(model.named_modules())
    assert all(name in modules or name in model.maps for name in maps)
    names = [*reversed(maps), "embedding"]
    model.tap(names)
    with torch.no_grad():
        output = model(rows(model, 2))
    model.tap(())  # other tests, in whatever order, share it
    assert list(output.features) == names
    assert all(torch.equal(output.features[name], maps[name]) for name in maps)
    assert torch.equal(output.features["embedding"], output.embedding)


@every_config
def test_the_head_is_named_head_and_absent_without_classes(path: Path) -> None:
    names = {name for name, _ in built(path).named_parameters()}
    heads = {"head.weight", "head.bias"}
    assert heads < names
    bare = build(path, n_classes=0)
    assert {name for name, _ in bare.named_parameters()} == names - heads


@affordable_config
def test_functional_call_takes_every_parameter_by_name(path: Path) -> None:
    """Scaled parameters given from outside equal scaled parameters inside, which stay as they were."""
    model = built(path)
    scaled = {name: 1.1 * p.detach() for name, p in model.named_parameters()}
    before = model(rows(model, 1)).logits.detach()
    outside = functional_call(model, scaled, (rows(model, 1),)).logits
    inside = build(path, n_classes=N_CLASSES).eval()
    inside.load_state_dict({**model.state_dict(), **scaled})
    torch.testing.assert_close(outside, inside(rows(model, 1)).logits)
    assert torch.equal(model(rows(model, 1)).logits, before)
    assert not torch.allclose(outside, before)


@affordable_config
def test_it_is_twice_differentiable(path: Path) -> None:
    model = make_episodic(build(path, n_classes=N_CLASSES).eval(), "running")
    params = list(model.parameters())
    loss = model(rows(model, 1)).logits.square().mean()
    slope = torch.autograd.grad(loss, params, create_graph=True)
    curvature = torch.autograd.grad(sum(g.square().sum() for g in slope), params)
    assert all(g.isfinite().all() for g in curvature)
    assert any(g.abs().max() > 0 for g in curvature)

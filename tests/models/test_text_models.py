"""Networks over tokens: the padding behind a text changes nothing."""

import pytest
import torch
from torch.func import functional_call, grad, vmap

from lightning_metakd.metrics.cost import count_macs, count_parameters
from lightning_metakd.models import BagOfEmbeddings, TextTransformer
from lightning_metakd.types import Normalisation, Vocabulary

MODELS = [
    BagOfEmbeddings(width=8, hidden=12, n_classes=3, n_tokens=50),
    BagOfEmbeddings(width=8, hidden=0, n_classes=3, n_tokens=50),
    TextTransformer(width=8, depth=2, n_heads=2, n_classes=3, n_tokens=50, max_tokens=16),
]
each_model = pytest.mark.parametrize("model", MODELS, ids=["bag", "mean", "transformer"])
X = torch.tensor([[5, 6, 7, 0, 0, 0, 0, 0], [9, 8, 7, 6, 5, 4, 3, 2], [4, 0, 0, 0, 0, 0, 0, 0]])


@each_model
def test_a_text_is_answered_alike_alone_and_in_company(model):
    model = model.double()
    together = model(X)
    for row, length in enumerate((3, 8, 1)):
        alone = model(X[row : row + 1, :length])
        torch.testing.assert_close(alone.logits[0], together.logits[row], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(
            alone.embedding[0], together.embedding[row], rtol=1e-9, atol=1e-9
        )
    wider = torch.cat([X, X.new_zeros(3, 8)], 1)
    torch.testing.assert_close(model(wider).logits, together.logits, rtol=1e-9, atol=1e-9)


@each_model
def test_what_stands_in_a_text_changes_its_answer(model):
    assert (model(X).logits[0] - model(X.flip(0)).logits[0]).abs().max() > 1e-3


def test_the_order_of_words_is_read_by_a_transformer_alone():
    bag, _, transformer = (model.double() for model in MODELS)
    other = X[:, [1, 0, 2, 3, 4, 5, 6, 7]]
    torch.testing.assert_close(bag(other).logits[:2], bag(X).logits[:2])
    assert (transformer(other).logits[0] - transformer(X).logits[0]).abs().max() > 1e-6


@each_model
def test_a_text_without_any_token_has_an_answer(model):
    answer = model(torch.zeros(2, 8, dtype=torch.long))
    assert answer.logits.isfinite().all()


@each_model
def test_gradients_of_gradients_agree_with_differences_and_tasks_run_together(model):
    model = model.double()
    params = {name: p.detach().clone() for name, p in model.named_parameters()}
    y = torch.tensor([0, 1, 2])

    def loss(params, x):
        logits = functional_call(model, params, (x,)).logits
        return torch.nn.functional.cross_entropy(logits, y)

    def after_a_step(params, x):
        gradient = grad(loss)(params, x)
        return loss({name: p - 0.5 * gradient[name] for name, p in params.items()}, x)

    meta_gradient = grad(after_a_step)(params, X)
    draw = torch.Generator().manual_seed(0)
    direction = {n: torch.randn(p.shape, generator=draw, dtype=p.dtype) for n, p in params.items()}
    plus, minus = (
        after_a_step({n: p + s * 1e-6 * direction[n] for n, p in params.items()}, X)
        for s in (1, -1)
    )
    along = sum((meta_gradient[n] * direction[n]).sum() for n in params)
    torch.testing.assert_close((plus - minus) / 2e-6, along, rtol=1e-6, atol=1e-8)
    tasks = torch.stack([X, X.flip(1)])
    together = vmap(grad(after_a_step), (None, 0))(params, tasks)
    torch.testing.assert_close({n: g[0] for n, g in together.items()}, meta_gradient)


def test_a_vocabulary_that_is_too_large_is_refused():
    with pytest.raises(
        ValueError, match=r"a vocabulary of 60 tokens does not fit n_tokens=50 of Bag"
    ):
        MODELS[0].read_as(Vocabulary("{}", 60, 8), "student")


def test_images_and_vectors_are_refused_by_name():
    with pytest.raises(ValueError, match="BagOfEmbeddings reads texts, and the rows have mean="):
        MODELS[0].read_as(Normalisation((0.5,), (0.2,)), "student")
    with pytest.raises(
        ValueError, match=r"type torch.float32 are no tokens, which TextTransformer reads"
    ):
        MODELS[2](torch.rand(2, 8))


def test_a_text_that_is_too_long_is_refused():
    with pytest.raises(
        ValueError, match=r"texts of up to 24 tokens do not fit max_tokens=16 of Text"
    ):
        MODELS[2].read_as(Vocabulary("{}", 50, 24), "student")
    with pytest.raises(ValueError, match="texts of 24 tokens do not fit max_tokens=16"):
        MODELS[2](torch.ones(1, 24, dtype=torch.long))


@pytest.mark.parametrize("length", [8, 24])
def test_multiply_adds_and_parameters_of_a_transformer_are_those_of_a_count_by_hand(length):
    d, depth, ratio, classes, vocabulary, longest = 16, 2, 2, 5, 50, 32
    net = TextTransformer(d, depth, 4, classes, vocabulary, max_tokens=longest, mlp_ratio=ratio)
    products = (
        depth * length * (4 * d * d + 2 * ratio * d * d)
    )  # query, key, value, out; perceptron
    attention = depth * 2 * length * length * d  # scores, and the sum that they weigh
    x = torch.ones(1, length, dtype=torch.long)
    assert count_macs(net, x) == products + attention + d * classes  # looking up vectors is free
    block = 4 * d * d + 4 * d + 2 * ratio * d * d + (ratio + 1) * d + 4 * d  # with biases and norms
    embeddings = (vocabulary + longest) * d
    assert count_parameters(net) == embeddings + depth * block + 2 * d + (d + 1) * classes

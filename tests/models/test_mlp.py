import pytest
import torch

from lightning_metakd.models.mlp import MLP


def test_the_embedding_is_the_last_hidden_vector() -> None:
    model, x = MLP(6, [5, 4], n_classes=3), torch.randn(7, 6)
    one, two = model.hidden
    first = torch.clamp(x @ one.weight.T + one.bias, min=0)
    second = torch.clamp(first @ two.weight.T + two.bias, min=0)
    model.tap(["hidden.0"])
    answer = model(x)
    torch.testing.assert_close(answer.embedding, second)
    torch.testing.assert_close(answer.features["hidden.0"], x @ one.weight.T + one.bias)
    torch.testing.assert_close(answer.logits, second @ model.head.weight.T + model.head.bias)
    assert model.embedding_width == 4


def test_a_residual_one_starts_exactly_at_its_input_and_leaves_it_in_one_step() -> None:
    model, x = MLP(6, [8], residual=True), torch.randn(7, 6)
    assert model(x).embedding.equal(x)
    assert model.embedding_width == 6
    model(x).embedding.square().sum().backward()
    with torch.no_grad():
        for p in model.parameters():
            p -= 0.01 * p.grad
    expected = x + model.added(model.hidden[0](x).relu())
    torch.testing.assert_close(model(x).embedding, expected)
    assert not model(x).embedding.equal(x)


def test_vectors_of_another_width_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"rows of shape \[6\] do not fit width_in=4 of MLP; change"
    ):
        MLP(4, [8])(torch.rand(2, 6))


@pytest.mark.parametrize(
    ("width_in", "widths", "message"),
    [
        (0, [4], "width_in=0 must be 1 or more"),
        (4, [], r"widths=\[\] must be a list of whole numbers from 1"),
        (4, [3, 0], r"widths=\[3, 0\] must be a list of whole"),
    ],
)
def test_widths_that_cannot_be_are_refused(width_in: int, widths: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MLP(width_in, widths)

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

from lightning_metakd.models.transformer import Attention
from lightning_metakd.models.vit import ViT


def tiny() -> ViT:
    torch.manual_seed(0)
    model = ViT(8, 3, depth=1, n_heads=2, image_size=8).double()
    for p in model.parameters():
        nn.init.normal_(p, std=0.5)
    return model


def test_attention_is_that_of_torch() -> None:
    torch.manual_seed(0)
    ours, theirs = Attention(8, 2), nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.qkv.weight)
        theirs.in_proj_bias.copy_(ours.qkv.bias)
        theirs.out_proj.weight.copy_(ours.out.weight)
        theirs.out_proj.bias.copy_(ours.out.bias)
    x = torch.randn(3, 5, 8)
    torch.testing.assert_close(ours(x), theirs(x, x, x)[0])


def test_a_block_is_the_pre_norm_encoder_layer_of_torch() -> None:
    torch.manual_seed(0)
    block = ViT(8, n_heads=2, depth=1).blocks[0]
    layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, "gelu", batch_first=True, norm_first=True)
    named = dict(block.named_parameters())
    renamed = {
        "self_attn.in_proj_": "attention.qkv.",
        "self_attn.out_proj.": "attention.out.",
        "linear1.": "mlp.0.",
        "linear2.": "mlp.2.",
    }
    state = {}
    for name in layer.state_dict():
        ours = name
        for theirs, present in renamed.items():
            ours = ours.replace(theirs, present)
        state[name] = named[ours].detach()
    layer.load_state_dict(state)
    x = torch.randn(3, 5, 8)
    torch.testing.assert_close(block(x), layer(x))


def test_meta_gradient_equals_central_differences_and_that_of_vmap() -> None:
    model = tiny()
    params = {name: p.detach().requires_grad_() for name, p in model.named_parameters()}
    x, y = torch.randn(2, 4, 3, 8, 8, dtype=torch.float64), torch.tensor([0, 1, 2, 0])

    def loss(p: dict[str, Tensor], x: Tensor) -> Tensor:
        return cross_entropy(functional_call(model, p, (x,)).logits, y)

    def objective(p: dict[str, Tensor], x: Tensor) -> Tensor:
        slope = grad(loss)(p, x)
        return loss({name: t - 0.1 * slope[name] for name, t in p.items()}, x.flip(0))

    direction = {name: torch.randn_like(p) for name, p in params.items()}
    total = objective(params, x[0]) + objective(params, x[1])
    gradient = torch.autograd.grad(total, list(params.values()))
    slope = sum((g * d).sum() for g, d in zip(gradient, direction.values(), strict=True)).item()

    def at(h: float) -> float:
        moved = {name: (p + h * direction[name]).detach() for name, p in params.items()}
        return (objective(moved, x[0]) + objective(moved, x[1])).item()

    assert slope == pytest.approx((at(1e-5) - at(-1e-5)) / 2e-5, rel=1e-6)
    batched = torch.autograd.grad(
        vmap(objective, (None, 0))(params, x).sum(), list(params.values())
    )
    for one, other in zip(batched, gradient, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_tokens_are_laid_out_as_maps() -> None:
    """One block that adds nothing leaves the patches where they were."""
    model = tiny()
    for p in (*model.blocks.parameters(), model.position):
        nn.init.zeros_(p)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    model.tap(["blocks.0"])
    torch.testing.assert_close(model(x).features["blocks.0"], model.patches(x))


def test_positions_matter() -> None:
    model = tiny()
    x = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    swapped = torch.cat([x[..., 4:], x[..., :4]], -1)
    assert (model(x).embedding - model(swapped).embedding).abs().max() > 1e-3
    nn.init.zeros_(model.position)
    torch.testing.assert_close(model(x).embedding, model(swapped).embedding)


def test_wrong_sizes_name_the_way_out() -> None:
    with pytest.raises(ValueError, match="n_heads=3 does not divide width=128"):
        ViT(n_heads=3)
    with pytest.raises(ValueError, match="patch=5 does not divide image_size=32"):
        ViT(patch=5)
    with pytest.raises(ValueError, match="images of 16x16 do not fit image_size=8; resize"):
        tiny()(torch.zeros(1, 3, 16, 16, dtype=torch.float64))

"""Attention that weights a feature map, and the attention of a transformer's tokens."""

import pytest
import torch
from torch import Tensor, nn

from lightning_priors.errors import PriorError
from lightning_priors.nn import AttentionBranch, Backbone
from lightning_priors.nn.attention import attention_factor, log_received_attention, logits_against_uniform

NOWHERE = -1e4
"""A logit whose sigmoid is exactly 0."""


def attend(features: Tensor, logits: Tensor, residual: bool = True) -> Tensor:
    """What becomes of a feature map."""
    return features * attention_factor(logits, residual).unsqueeze(1)


def features_and_log_attention(backbone: Backbone, image: Tensor) -> tuple[Tensor, Tensor]:
    with backbone.token_attention() as attention:
        features = backbone(image)
    return features, attention.log_attention(features)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def test_no_attention_at_all_leaves_the_features_to_the_bit() -> None:
    features = torch.randn(2, 5, 3, 4)
    assert torch.equal(attend(features, torch.full((2, 3, 4), NOWHERE)), features)


def test_full_attention_doubles_the_features() -> None:
    features = torch.randn(2, 5, 3, 4)
    assert torch.equal(attend(features, torch.full((2, 3, 4), -NOWHERE)), 2 * features)


@pytest.mark.parametrize("logit", [NOWHERE, -1.0, 0.0, 3.0])
def test_without_residual_an_even_attention_is_the_plain_network(logit: float) -> None:
    features = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    attended = attend(features, torch.full((2, 3, 4), logit).double(), residual=False)
    torch.testing.assert_close(attended, features)


def test_without_residual_the_mean_is_over_what_is_attended_to() -> None:
    features, logits = torch.randn(2, 5, 3, 4, dtype=torch.float64), torch.randn(2, 3, 4, dtype=torch.float64)
    attention = logits.sigmoid().unsqueeze(1)
    expected = (attention * features).sum((2, 3)) / attention.sum((2, 3))
    torch.testing.assert_close(attend(features, logits, residual=False).mean((2, 3)), expected)


@pytest.mark.parametrize("residual", [True, False])
def test_only_without_residual_is_the_background_shut_out(residual: bool) -> None:
    logits = torch.tensor([[[2.0, NOWHERE], [NOWHERE, 1.0]]])
    outside = (logits == NOWHERE).unsqueeze(1)
    features = torch.randn(1, 5, 2, 2)
    changed = features + outside * torch.randn(1, 5, 2, 2)
    same = torch.equal(attend(features, logits, residual).mean((2, 3)), attend(changed, logits, residual).mean((2, 3)))
    assert same is not residual


@pytest.mark.parametrize("residual", [True, False])
def test_each_image_has_its_own_attention(residual: bool) -> None:
    features, logits = torch.randn(3, 5, 2, 4), torch.randn(3, 2, 4)
    alone = torch.cat([attend(features[i : i + 1], logits[i : i + 1], residual) for i in range(3)])
    torch.testing.assert_close(attend(features, logits, residual), alone)


@pytest.mark.parametrize("residual", [True, False])
def test_the_gradient_of_attend_is_right(residual: bool) -> None:
    features = torch.randn(2, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    logits = torch.randn(2, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda g, a: attend(g, a, residual), (features, logits))


def test_received_attention_is_the_mean_of_the_softmax() -> None:
    queries, keys = torch.randn(2, 3, 4, 5, dtype=torch.float64), torch.randn(2, 3, 7, 5, dtype=torch.float64)
    expected = (queries @ keys.transpose(2, 3)).softmax(3).mean((1, 2))
    torch.testing.assert_close(log_received_attention(queries, keys).exp(), expected)
    inputs = (queries[:1, :2, :2].clone().requires_grad_(), keys[:1, :2, :3].clone().requires_grad_())
    assert torch.autograd.gradcheck(log_received_attention, inputs)


def test_a_token_with_hardly_any_attention_keeps_its_gradient() -> None:
    """A softmax in float32 is 0 from a difference of 104 on, and its logarithm has no gradient then."""
    queries = torch.ones(1, 1, 1, 1)
    keys = torch.tensor([0.0, 300.0]).view(1, 1, 2, 1).requires_grad_()
    received = log_received_attention(queries, keys)
    torch.testing.assert_close(received, torch.tensor([[-300.0, 0.0]]))
    (gradient,) = torch.autograd.grad(received[0, 0], keys)
    torch.testing.assert_close(gradient.flatten(), torch.tensor([1.0, -1.0]))


def test_logits_against_uniform_serve_both_kinds_of_loss() -> None:
    attention = torch.rand(2, 3, 4, dtype=torch.float64)
    attention = attention / attention.sum((1, 2), keepdim=True)
    # class and register tokens took nine tenths; what matters is how the patches share the rest
    logits = logits_against_uniform((attention / 10).log())
    torch.testing.assert_close(logits.flatten(1).softmax(1).view_as(attention), attention)
    torch.testing.assert_close(logits.sigmoid(), 12 * attention / (1 + 12 * attention))
    even = logits_against_uniform(torch.full((1, 3, 4), 0.01).log())
    torch.testing.assert_close(even, torch.zeros(1, 3, 4), atol=1e-6, rtol=0)
    assert torch.autograd.gradcheck(logits_against_uniform, torch.randn(1, 2, 2).double().requires_grad_())


@pytest.fixture
def branch() -> AttentionBranch:
    """In evaluation mode, with statistics, scales and shifts that are not those of the beginning."""
    branch = AttentionBranch(num_features=6, num_classes=3).double()
    for module in branch.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.2)
            nn.init.normal_(module.bias)
    branch(torch.randn(8, 6, 5, 5, dtype=torch.float64))
    return branch.eval()


def test_classes_and_attention_see_the_same_positive_parts(branch: AttentionBranch) -> None:
    with torch.no_grad():
        branch.hidden[1].bias.sub_(100)
    answers, others = (branch(torch.randn(1, 6, 3, 3, dtype=torch.float64)) for _ in range(2))
    assert all(torch.equal(answer, other) for answer, other in zip(answers, others, strict=True))


def test_the_gradient_of_the_branch_is_right(branch: AttentionBranch) -> None:
    features = torch.randn(2, 6, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(branch, (features,))


def test_the_logits_of_the_branch_are_means_over_the_cells(branch: AttentionBranch) -> None:
    """Where no cell sees its neighbours, the logits stay when cells change places, and the attention goes with them."""
    features, order = torch.randn(2, 6, 3, 4, dtype=torch.float64), torch.randperm(12)
    shuffled = features.flatten(2)[:, :, order].view_as(features)
    assert not torch.allclose(branch(features)[0], branch(shuffled)[0])
    with torch.no_grad():
        centre = torch.zeros(3, 3)
        centre[1, 1] = 1
        branch.hidden[0].weight.mul_(centre)
    (logits, attention), (other_logits, other_attention) = branch(features), branch(shuffled)
    torch.testing.assert_close(logits, other_logits)
    torch.testing.assert_close(attention.flatten(1)[:, order], other_attention.flatten(1))


def test_a_cell_reaches_the_attention_of_its_neighbours_alone(branch: AttentionBranch) -> None:
    with torch.no_grad():
        branch.hidden[1].bias.add_(20)  # so that no positive part hides a change
    features = torch.randn(1, 6, 5, 5, dtype=torch.float64)
    changed = features.clone()
    changed[:, :, 2, 2] += torch.randn(6, dtype=torch.float64)
    moved = (branch(features)[1] - branch(changed)[1]).abs()[0] > 0
    expected = torch.zeros(5, 5, dtype=torch.bool)
    expected[1:4, 1:4] = True
    assert torch.equal(moved, expected)


@pytest.mark.parametrize("side", [2, 3])
def test_with_a_symmetric_kernel_the_attention_is_flip_equivariant(branch: AttentionBranch, side: int) -> None:
    features = torch.randn(2, 6, 4, 5, dtype=torch.float64)
    flipped = branch(features.flip(side))
    assert not torch.allclose(flipped[1], branch(features)[1].flip(side - 1)), "with the kernel as it was drawn"
    with torch.no_grad():
        kernel = branch.hidden[0].weight
        kernel.copy_((kernel + kernel.flip(side)) / 2)
    (logits, attention), (flipped_logits, flipped_attention) = branch(features), branch(features.flip(side))
    torch.testing.assert_close(flipped_logits, logits)
    torch.testing.assert_close(flipped_attention, attention.flip(side - 1))


def peaked(name: str) -> Backbone:
    """A transformer whose last block looks at some patches more than at others, which random weights hardly do."""
    backbone = Backbone(name).double().eval()
    attention = backbone.last_attention()
    with torch.no_grad():
        for layer in (getattr(attention, part, None) for part in ("qkv", "q_proj", "k_proj")):
            if layer is not None:
                layer.weight.mul_(12)
    return backbone


def timm_attention(backbone: Backbone, image: Tensor) -> Tensor:
    """(B, heads, N, N) as timm itself computes it when it may not use a fused kernel."""
    attention, seen = backbone.last_attention(), []
    attention.fused_attn = False
    hook = attention.attn_drop.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    backbone(image)
    hook.remove()
    attention.fused_attn = True
    assert len(seen) == 1
    return seen[0]


@pytest.mark.parametrize(
    ("name", "class_token", "registers"),
    [
        ("test_vit", True, 0),
        ("test_vit2", False, 1),
        ("vit_small_patch16_dinov3", True, 4),  # rotary position embedding
        ("vit_medium_patch16_rope_reg1_gap_256", False, 1),
    ],
)
def test_the_attention_is_that_of_timm(name: str, class_token: bool, registers: int) -> None:
    backbone, image = peaked(name), torch.randn(2, 3, 64, 96, dtype=torch.float64)
    features, log_attention = features_and_log_attention(backbone, image)
    assert features.shape[2:] == log_attention.shape[1:] == (4, 6)
    assert torch.equal(features, backbone(image))
    weights = timm_attention(backbone, image).mean(1)
    received = weights[:, 0] if class_token else weights.mean(1)
    expected = received[:, class_token + registers :].unflatten(1, (4, 6))
    torch.testing.assert_close(log_attention.exp(), expected)
    assert expected.amax() > 1.5 * expected.amin()
    assert expected.sum((1, 2)).amax() < 1


def test_normalised_queries_and_keys_are_respected() -> None:
    backbone, image = peaked("test_vit"), torch.randn(1, 3, 64, 64, dtype=torch.float64)
    attention = backbone.last_attention()
    before = features_and_log_attention(backbone, image)[1]
    attention.q_norm, attention.k_norm = (nn.LayerNorm(32).double() for _ in range(2))
    nn.init.normal_(attention.q_norm.weight, 2)
    nn.init.normal_(attention.k_norm.weight, 1)
    after = features_and_log_attention(backbone, image)[1]
    expected = timm_attention(backbone, image).mean(1)[:, 0, 1:].unflatten(1, (4, 4))
    torch.testing.assert_close(after.exp(), expected)
    assert not torch.allclose(before, after)


def test_the_attention_has_a_gradient_down_to_the_patches() -> None:
    backbone = peaked("test_vit")
    _, log_attention = features_and_log_attention(backbone, torch.randn(1, 3, 64, 64, dtype=torch.float64))
    log_attention[0, 1, 2].backward()
    reached = {name for name, value in backbone.model.named_parameters() if value.grad is not None}
    assert {"cls_token", "patch_embed.proj.weight", "blocks.5.attn.qkv.weight"} <= reached
    assert "blocks.5.attn.proj.weight" not in reached, "what the last block makes of its attention plays no part"


def test_no_hook_stays_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = Backbone("test_vit")
    features_and_log_attention(backbone, torch.zeros(1, 3, 64, 64))
    monkeypatch.setattr(backbone.model, "forward_features", lambda image: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        features_and_log_attention(backbone, torch.zeros(1, 3, 64, 64))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in backbone.modules())


def test_under_autocast_the_attention_stays_in_float32() -> None:
    backbone = peaked("test_vit").float()
    image = torch.randn(1, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        _, log_attention = features_and_log_attention(backbone, image)
    assert log_attention.dtype == torch.float32
    torch.testing.assert_close(log_attention, features_and_log_attention(backbone, image)[1], atol=0.1, rtol=0.05)


@pytest.mark.parametrize("name", ["tiny", "resnet18", "swin_tiny_patch4_window7_224"])
def test_a_backbone_without_attention_between_tokens_is_named(name: str) -> None:
    backbone = Backbone(name)
    for ask in (backbone.last_attention, lambda: features_and_log_attention(backbone, torch.zeros(1, 3, 64, 64))):
        with pytest.raises(PriorError, match=f"backbone '{name}' has no attention between tokens; vit_tiny"):
            ask()

"""The meta-gradient of `InnerStep` against double backward through the step, and what it means."""

import copy

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_priors.functional.focal import per_class_losses
from lightning_priors.hypergradient import InnerStep, named_gradients, stepped_parameters, unrolled_label_gradient
from lightning_priors.techniques.maxl.soft_labels import soft_label_loss

PRIMARY, SUB_CLASSES = 3, 6

OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.05),
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=5e-3),
    "dampened": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9, dampening=0.3),
    "nesterov": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=1e-3, weight_decay=5e-3),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.05),
}


class TwoHeads(nn.Module):
    """A backbone with a primary and an auxiliary head."""

    def __init__(self, backbone: nn.Module, num_features: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.primary, self.auxiliary = nn.Linear(num_features, PRIMARY), nn.Linear(num_features, SUB_CLASSES)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features = self.backbone(image)
        features = features.mean((2, 3)) if features.ndim == 4 else features
        return self.primary(features), self.auxiliary(features)


def vgg16_bn() -> nn.Module:
    """All layers of VGG-16, with an eighth of their channels."""
    widths = [8, 8, "M", 16, 16, "M", 32, 32, 32, "M", 64, 64, 64, "M", 64, 64, 64, "M"]
    with torch.device("meta"):  # its classifier, not used here, would have 20 million parameters
        features = timm.models.vgg.VGG(widths, norm_layer=nn.BatchNorm2d).features
    features = features.to_empty(device="cpu")
    for module in features.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    return TwoHeads(features, 64)


def resnet18() -> nn.Module:
    return TwoHeads(timm.create_model("resnet18", num_classes=0), 512)


def vit() -> nn.Module:
    return TwoHeads(
        timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32, patch_size=8, depth=3), num_features=192
    )


def group_norm() -> nn.Module:
    layers = [nn.Conv2d(3, 8, 3, 2, 1), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.GroupNorm(4, 16)]
    return TwoHeads(nn.Sequential(*layers, nn.GELU()), 16)


NETWORKS = [
    vgg16_bn,
    pytest.param(resnet18, marks=pytest.mark.slow),
    vit,
    group_norm,
]


def batch_of(seed: int, dtype: torch.dtype, images: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Images (B, 3, 32, 32), labels (B,) and soft labels (B, A)."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(images, 3, 32, 32, generator=generator, dtype=torch.float64).to(dtype)
    label = torch.randint(0, PRIMARY, (images,), generator=generator)
    soft = torch.randn(images, SUB_CLASSES, generator=generator, dtype=torch.float64).softmax(1).to(dtype)
    return image, label, soft


def inner_loss(outputs: tuple[Tensor, Tensor], soft: Tensor, label: Tensor) -> Tensor:
    return F.cross_entropy(outputs[0], label) + soft_label_loss(per_class_losses(outputs[1]), soft)


def trained(network: nn.Module, optimizer_name: str, dtype: torch.dtype, steps: int = 3):
    """A network and optimiser after a few ordinary steps, so that momenta and moments are not zero."""
    network = network.to(dtype).train()
    optimizer = OPTIMIZERS[optimizer_name](network.parameters())
    for seed in range(steps):
        image, label, soft = batch_of(100 + seed, dtype)
        optimizer.zero_grad()
        inner_loss(network(image), soft, label).backward()
        optimizer.step()
    return network, optimizer


def look_through(network, optimizer, inner, meta, clip_norm=None, **options):
    """As a training loop does it: the true step, then v at the place it led to. Works on copies."""
    holder = copy.deepcopy({"network": network, "optimizer": optimizer})
    network, optimizer = holder["network"], holder["optimizer"]
    method = options.pop("method", "forward_mode")
    image, label, soft = inner
    optimizer.zero_grad()
    inner_loss(network(image), soft, label).backward()
    if clip_norm is not None:
        norm = nn.utils.clip_grad_norm_(network.parameters(), clip_norm)
        options["clip_factor"] = (clip_norm / (norm + 1e-6)).clamp(max=1)
    step = InnerStep(network, optimizer, **options)
    optimizer.step()
    v = named_gradients(F.cross_entropy(network(meta[0])[0], meta[1]), dict(network.named_parameters()))
    return step.label_gradient((image,), lambda outputs: per_class_losses(outputs[1]), v, method)


def oracle(network, optimizer, inner, meta, clip_norm=None):
    image, label, soft = inner
    return unrolled_label_gradient(
        network,
        optimizer,
        (image,),
        soft,
        lambda outputs, labels: inner_loss(outputs, labels, label),
        (meta[0],),
        lambda outputs: F.cross_entropy(outputs[0], meta[1]),
        clip_norm,
    )


def relative_error(value: Tensor, reference: Tensor) -> float:
    return ((value - reference).norm() / reference.norm()).item()


def weighted_loss(outputs: tuple[Tensor, Tensor], weights: Tensor, label: Tensor, soft: Tensor) -> Tensor:
    """Each image has two weights (B, 2): of its primary and of its auxiliary loss."""
    primary = F.cross_entropy(outputs[0], label, reduction="none")
    auxiliary = (soft * per_class_losses(outputs[1])).sum(1)
    return (weights * torch.stack([primary, auxiliary], 1)).sum(1).mean()


@pytest.mark.parametrize("optimizer_name", ["momentum", "adamw"])
def test_weights_of_images_have_the_same_derivative(optimizer_name):
    """The loss is linear in a weight of each image too, so one forward-mode pass is exact; against double backward."""
    torch.manual_seed(0)
    network, optimizer = trained(group_norm(), optimizer_name, torch.float64, steps=2)
    (image, label, soft), meta = batch_of(0, torch.float64), batch_of(1, torch.float64)
    weights = torch.rand(len(image), 2, dtype=torch.float64)
    reference = unrolled_label_gradient(
        network,
        optimizer,
        (image,),
        weights,
        lambda outputs, given: weighted_loss(outputs, given, label, soft),
        (meta[0],),
        lambda outputs: F.cross_entropy(outputs[0], meta[1]),
    )
    optimizer.zero_grad()
    weighted_loss(network(image), weights, label, soft).backward()
    step = InnerStep(network, optimizer)
    optimizer.step()
    v = named_gradients(F.cross_entropy(network(meta[0])[0], meta[1]), dict(network.named_parameters()))

    def losses(outputs: tuple[Tensor, Tensor]) -> Tensor:
        primary = F.cross_entropy(outputs[0], label, reduction="none")
        return torch.stack([primary, (soft * per_class_losses(outputs[1])).sum(1)], 1)

    assert relative_error(step.label_gradient((image,), losses, v), reference) < 1e-11


@pytest.mark.parametrize("optimizer_name", ["momentum", "adamw"])
@pytest.mark.parametrize("build", NETWORKS)
def test_forward_mode_is_exact_for_the_same_and_for_the_next_meta_batch(build, optimizer_name):
    torch.manual_seed(0)
    network, optimizer = trained(build(), optimizer_name, torch.float64, steps=2)
    inner = batch_of(0, torch.float64)
    for meta in (inner, batch_of(1, torch.float64)):
        value, reference = look_through(network, optimizer, inner, meta), oracle(network, optimizer, inner, meta)
        assert reference.norm() > 0
        assert relative_error(value, reference) < 1e-10


@pytest.mark.parametrize("build", NETWORKS)
@pytest.mark.parametrize("optimizer_name", ["momentum", "adamw"])
def test_forward_mode_in_float32(build, optimizer_name):
    torch.manual_seed(0)
    network, optimizer = trained(build(), optimizer_name, torch.float32)
    inner, meta = batch_of(0, torch.float32), batch_of(1, torch.float32)
    value, reference = look_through(network, optimizer, inner, meta), oracle(network, optimizer, inner, meta)
    assert relative_error(value, reference) < 1e-4


@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("optimizer_name", list(OPTIMIZERS))
def test_every_optimiser_from_its_first_step_on(optimizer_name, steps):
    torch.manual_seed(0)
    network, optimizer = trained(group_norm(), optimizer_name, torch.float64, steps)
    inner, meta = batch_of(0, torch.float64), batch_of(1, torch.float64)
    value, reference = look_through(network, optimizer, inner, meta), oracle(network, optimizer, inner, meta)
    assert relative_error(value, reference) < 1e-10


@pytest.mark.parametrize("clip_norm", [0.1, 1e3], ids=["clipped", "not-clipped"])
@pytest.mark.parametrize("optimizer_name", ["nesterov", "adamw"])
def test_clipping_by_the_norm_is_seen_through(optimizer_name, clip_norm):
    torch.manual_seed(0)
    network, optimizer = trained(group_norm(), optimizer_name, torch.float64)
    inner, meta = batch_of(0, torch.float64), batch_of(1, torch.float64)
    value = look_through(network, optimizer, inner, meta, clip_norm)
    assert relative_error(value, oracle(network, optimizer, inner, meta, clip_norm)) < 1e-10


def test_finite_difference_of_a_smooth_network():
    torch.manual_seed(0)
    network = TwoHeads(nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.GroupNorm(2, 8), nn.Tanh()), 8)
    network, optimizer = trained(network, "momentum", torch.float64)
    inner, meta = batch_of(0, torch.float64), batch_of(1, torch.float64)
    value = look_through(network, optimizer, inner, meta, method="finite_difference")
    assert relative_error(value, oracle(network, optimizer, inner, meta)) < 1e-8


@pytest.mark.parametrize("seed", range(3))
def test_closed_form_on_a_quadratic_problem(seed):
    """Primary loss |theta - c|^2 / 2 and class losses a_ik . theta: every derivative can be written down."""
    generator = torch.Generator().manual_seed(seed)
    lr, images, classes, size = 0.3, 5, 4, 7
    slopes = torch.randn(images, classes, size, generator=generator, dtype=torch.float64)
    theta, centre = torch.randn(2, size, generator=generator, dtype=torch.float64)
    labels = torch.rand(images, classes, generator=generator, dtype=torch.float64).softmax(1)

    network = nn.Linear(size, 1, bias=False, dtype=torch.float64)
    network.weight.data = theta[None].clone()
    gradient = (theta - centre) + torch.einsum("ik,ikd->d", labels, slopes) / images
    optimizer = torch.optim.SGD(network.parameters(), lr=lr)
    step = InnerStep(network, optimizer, gradients={"weight": gradient[None]})
    after = theta - lr * gradient
    value = step.label_gradient((slopes,), lambda outputs: outputs[..., 0], {"weight": (after - centre)[None]})
    closed_form = -lr / images * torch.einsum("ikd,d->ik", slopes, after - centre)
    torch.testing.assert_close(value, closed_form, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("optimizer_name", ["momentum", "adamw"])
def test_moving_the_labels_against_the_gradient_lowers_the_loss_ahead_as_predicted(optimizer_name):
    torch.manual_seed(0)
    network, optimizer = trained(group_norm(), optimizer_name, torch.float64)
    inner, (meta_image, meta_label, _) = batch_of(0, torch.float64), batch_of(1, torch.float64)
    image, label, soft = inner
    gradient = look_through(network, optimizer, inner, (meta_image, meta_label))

    def loss_ahead(labels: Tensor) -> Tensor:
        step = named_gradients(inner_loss(network(image), labels, label), dict(network.named_parameters()))
        with torch.no_grad():
            outputs = torch.func.functional_call(network, stepped_parameters(network, optimizer, step), (meta_image,))
            return F.cross_entropy(outputs[0], meta_label)

    distance = 1e-4 / gradient.norm()
    fall = loss_ahead(soft) - loss_ahead(soft - distance * gradient)
    assert fall > 0
    torch.testing.assert_close(fall, distance * gradient.norm() ** 2, rtol=1e-3, atol=0)


def test_the_chain_through_a_generator_is_that_of_the_unrolled_step():
    """The gradient on the generator's parameters, through labels.backward, against double backward end to end."""
    torch.manual_seed(0)
    network, optimizer = trained(group_norm(), "momentum", torch.float64)
    generator = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, SUB_CLASSES), nn.Softmax(1)).double()
    (image, label, _), meta = batch_of(0, torch.float64), batch_of(1, torch.float64)
    labels = generator(image)
    gradient = look_through(network, optimizer, (image, label, labels.detach()), meta)
    ours = torch.autograd.grad(labels, list(generator.parameters()), gradient, retain_graph=True)

    parameters = dict(network.named_parameters())
    loss = inner_loss(network(image), labels, label)
    found = torch.autograd.grad(loss, list(parameters.values()), create_graph=True)
    after = stepped_parameters(network, optimizer, dict(zip(parameters, found, strict=True)))
    ahead = F.cross_entropy(torch.func.functional_call(network, after, (meta[0],))[0], meta[1])
    for value, reference in zip(ours, torch.autograd.grad(ahead, list(generator.parameters())), strict=True):
        assert relative_error(value, reference) < 1e-10

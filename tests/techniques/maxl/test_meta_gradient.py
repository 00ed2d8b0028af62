"""The generator's gradient: scales, entropy, and what does not depend on the batch."""

import pytest
import torch
from torch import nn

from lightning_priors.techniques.maxl.meta_gradient import (
    entropy_cotangent,
    generator_gradients,
    joint_norm,
    mean_label,
    scaled_cotangents,
    shared_cosine,
)
from lightning_priors.techniques.maxl.soft_labels import hierarchy_mask, label_entropy


def gradients_and_masks(images: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(images)
    gradient = torch.randn(images, 5, generator=generator, dtype=torch.float64) / images
    return gradient, hierarchy_mask([3, 2])[torch.arange(images) % 2]


def test_normalised_is_one_for_an_image_whatever_the_batch() -> None:
    for images in (4, 64):
        gradient, mask = gradients_and_masks(images)
        (scaled,) = scaled_cotangents([1e-7 * gradient], [mask], "normalised")
        torch.testing.assert_close((images * scaled)[mask].square().mean(), torch.tensor(1.0, dtype=torch.float64))
        assert (scaled[~mask] == 0).all()
        torch.testing.assert_close(scaled.sum(1), torch.zeros(images, dtype=torch.float64))


def test_several_batches_are_scaled_together() -> None:
    gradient, mask = gradients_and_masks()
    (whole,) = scaled_cotangents([gradient], [mask], "normalised")
    parts = scaled_cotangents([gradient[:5], gradient[5:]], [mask[:5], mask[5:]], "normalised")
    torch.testing.assert_close(torch.cat(parts), whole)


@pytest.mark.parametrize("mode", ["normalised", "raw"])
def test_zero_stays_zero_and_one_sub_class_has_no_choice(mode: str) -> None:
    gradient, mask = gradients_and_masks()
    assert (scaled_cotangents([0 * gradient], [mask], mode)[0] == 0).all()
    if mode != "raw":
        assert (scaled_cotangents([gradient], [torch.eye(5, dtype=torch.bool)[[0] * 8]], mode)[0] == 0).all()


def test_taking_the_common_part_off_changes_nothing_for_the_generator() -> None:
    gradient, mask = gradients_and_masks()
    logits = torch.randn(8, 5, dtype=torch.float64, requires_grad=True)
    labels = logits.masked_fill(~mask, -torch.inf).softmax(1)
    shift = torch.randn(8, 1, dtype=torch.float64) * mask
    first, second = (torch.autograd.grad(labels, logits, g, retain_graph=True)[0] for g in (gradient, gradient + shift))
    torch.testing.assert_close(first, second)


def test_the_slope_of_the_entropy() -> None:
    labels = [torch.rand(4, 5, dtype=torch.float64).softmax(1).requires_grad_() for _ in range(2)]
    label_entropy(torch.cat(labels).mean(0)).backward()
    slope = entropy_cotangent([batch.detach() for batch in labels])
    for batch in labels:
        torch.testing.assert_close(batch.grad, slope.expand_as(batch))
    torch.testing.assert_close(mean_label(labels), torch.cat(labels).mean(0).detach())


def test_the_gradient_on_the_generator_is_that_of_backward() -> None:
    generator, image = nn.Linear(3, 5), torch.rand(6, 3)
    logits = [generator(image[:2]), generator(image[2:])]
    asked = [torch.rand(2, 5), torch.rand(4, 5)]
    found = generator_gradients(generator, logits, asked, scale=2.0**12)
    generator(image).backward(torch.cat(asked))
    for name, parameter in generator.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad)


def test_norms_and_cosines() -> None:
    assert joint_norm([torch.full((3,), 2.0), torch.ones(4)]) == 4
    a = {"x": torch.tensor([1.0, 2.0]), "y": torch.tensor([[3.0]]), "z": torch.ones(9)}
    b = {"x": torch.tensor([2.0, 0.0]), "y": torch.tensor([[-1.0]])}
    flat = [torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 0.0, -1.0])]
    torch.testing.assert_close(shared_cosine(a, b), torch.cosine_similarity(*flat, dim=0))
    assert shared_cosine(a, {"x": torch.zeros(2)}) == 0
    assert shared_cosine(a, {}) == 0

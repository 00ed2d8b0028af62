"""Gradients for steps that are known in advance."""

import torch
from torch import nn


def random_gradients(network: nn.Module, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype)
        for name, p in network.named_parameters()
    }


def assign(network: nn.Module, gradients: dict[str, torch.Tensor]) -> None:
    for name, parameter in network.named_parameters():
        parameter.grad = gradients[name].clone()

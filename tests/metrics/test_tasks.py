"""Accuracies of several tasks."""

import pytest
import torch

from lightning_priors.metrics import TaskAccuracy


def test_each_task_counts_its_labelled_images() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 3, 4, generator=generator)
    logits[:, 1, 2:] = -torch.inf
    labels = torch.randint(-1, 2, (40, 3), generator=generator)
    labels[:, 2] = -1
    accuracy = TaskAccuracy(tasks=3)
    for part in torch.arange(40).split(7):
        accuracy.update(logits[part], labels[part])
    expected = [
        (logits[labelled, task].argmax(1) == labels[labelled, task]).float().mean().item()
        for task in range(2)
        for labelled in [labels[:, task] >= 0]
    ]
    assert accuracy.compute()[:2].tolist() == pytest.approx(expected)
    assert len(accuracy.compute()) == 3
    assert accuracy.compute()[2].isnan()

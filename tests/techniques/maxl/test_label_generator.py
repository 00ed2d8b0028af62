"""The label generator: where labels may lie, what its gradient reaches, and the network of two tasks."""

import pytest
import torch

from lightning_priors.nn import Classifier
from lightning_priors.techniques.maxl.label_generator import LabelGenerator, TwoTasks
from lightning_priors.techniques.maxl.soft_labels import hierarchy_mask

LABEL = torch.tensor([0, 1, 1, 0, 1, 0])


def test_labels_of_a_head_on_features_do_not_train_the_features() -> None:
    generator, features = LabelGenerator([3, 2], num_features=4), torch.rand(6, 4, 2, 2, requires_grad=True)
    labels = generator(features, LABEL)
    labels[:, 0].sum().backward()
    assert features.grad is None
    assert all(p.grad is not None for p in generator.parameters())
    assert (labels > 0).equal(hierarchy_mask([3, 2])[LABEL])


def test_a_generator_with_a_network_of_its_own_sees_the_image() -> None:
    generator, image = LabelGenerator([3, 2], backbone="tiny"), torch.rand(6, 3, 32, 32)
    assert generator(image, LABEL).shape == (6, 5)
    assert not generator(image, LABEL).allclose(generator(image.flip(0), LABEL))


def test_temperature() -> None:
    generator = LabelGenerator([3, 2], num_features=4, temperature=0.5)
    logits = torch.randn(6, 5)
    expected = (logits / 0.5).masked_fill(~hierarchy_mask([3, 2])[LABEL], -torch.inf).softmax(1)
    torch.testing.assert_close(generator.labels(logits, LABEL), expected)


def test_balanced_labels_use_all_sub_classes_however_collapsed_the_scores() -> None:
    logits = torch.randn(6, 5) + torch.tensor([5.0, 0, 0, 5, 0])
    shares = {}
    for balance in ("entropy", "sinkhorn"):
        labels = LabelGenerator([3, 2], num_features=4, balance=balance).labels(logits, LABEL)
        torch.testing.assert_close(labels.sum(1), torch.ones(6))
        shares[balance] = labels.mean(0)
    assert shares["entropy"].min() < 0.02
    torch.testing.assert_close(shares["sinkhorn"], torch.tensor([1 / 6] * 3 + [1 / 4] * 2), atol=0.06, rtol=0)


@pytest.mark.parametrize("options", [{}, {"backbone": "tiny", "num_features": 3}])
def test_either_a_backbone_or_features(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="either a backbone or the features"):
        LabelGenerator([2, 2], **options)


def test_two_tasks_on_one_backbone() -> None:
    classifier = Classifier(num_classes=2).eval()
    network, image = TwoTasks(classifier, num_labels=5), torch.rand(3, 3, 32, 32)
    outputs = network({"image": image})
    torch.testing.assert_close(outputs.seen.logits, classifier(image)[0])
    torch.testing.assert_close(outputs.auxiliary, network.auxiliary(outputs.seen.features.mean((2, 3))))

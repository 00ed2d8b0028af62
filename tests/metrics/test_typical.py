"""The images that a generator is surest of."""

import torch

from lightning_priors.metrics import TypicalImages


def test_the_surest_of_each_class_come_first():
    generator = torch.Generator().manual_seed(0)
    labels = (3 * torch.randn(50, 4, generator=generator)).softmax(1)
    index = torch.randperm(50, generator=generator)
    image = index.float()[:, None, None, None].expand(50, 3, 8, 8)
    typical = TypicalImages(classes=4, images=3, size=4)
    for rows in torch.arange(50).split(9):
        typical.update(labels[rows], index[rows], image[rows])
    for number, of_class in enumerate(typical.compute()):
        mine = [(float(-labels[row, number]), int(index[row])) for row in range(50) if labels[row].argmax() == number]
        expected = sorted(mine)[:3]
        assert of_class.indices == [chosen for _, chosen in expected]
        torch.testing.assert_close(of_class.probabilities, [-value for value, _ in expected])
        assert of_class.image.shape == (3, 3, 4, 4)
        assert of_class.image[:, 0, 0, 0].tolist() == of_class.indices, "the pictures are those of the images"


def test_of_equally_sure_images_the_lower_index_comes_first_and_none_twice():
    typical = TypicalImages(classes=2, images=3, size=2)
    for index in (8, 5, 9, 5, 2):
        typical.update(torch.tensor([[1.0, 0.0]]), torch.tensor([index]), torch.zeros(1, 3, 4, 4))
    first, second = typical.compute()
    assert first.indices == [2, 5, 8]
    assert second.indices == []


def test_what_it_collected_is_forgotten_on_reset():
    typical = TypicalImages(classes=1, images=1, size=2)
    typical.update(torch.ones(1, 1), torch.tensor([3]), torch.ones(1, 3, 4, 4))
    typical.reset()
    typical.update(torch.ones(0, 1), torch.zeros(0, dtype=torch.int64), torch.ones(0, 3, 4, 4))
    assert typical.compute()[0].indices == []

"""A network small enough for tests, examples and a laptop without a GPU."""

from torch import Tensor, nn


class TinyConvNet(nn.Module):
    """Four convolutions with batch normalisation, to an eighth of the image's side.

    Args:
        widths: Channels after each convolution. The first three halve the resolution.

    >>> import torch
    >>> TinyConvNet()(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 128, 8, 8])
    """

    def __init__(self, widths: tuple[int, int, int, int] = (24, 48, 96, 128)) -> None:
        super().__init__()
        inputs = (3, *widths[:-1])
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, 3, stride=2 if position < 3 else 1, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            )
            for position, (before, after) in enumerate(zip(inputs, widths, strict=True))
        )
        self.num_features = widths[-1]

    def forward(self, image: Tensor) -> Tensor:
        """Computes the feature map.

        Args:
            image: (B, 3, H, W), normalised.

        Returns:
            (B, C, H/8, W/8), rounded up.
        """
        for block in self.blocks:
            image = block(image)
        return image

"""A network small enough for tests, examples and a laptop without a GPU."""

from torch import Tensor, nn


class TinyConvNet(nn.Module):
    """Four convolutions with batch normalisation, to an eighth of the image's side.

    The first three halve the resolution, the last looks at one cell. So a cell sees 15 x 15 pixels and hardly more than
    the area that it stands for: evidence in a cell comes from what is there, and not from the background beside it.

    Args:
        widths: Channels after each convolution.

    >>> import torch
    >>> TinyConvNet()(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 128, 8, 8])
    """

    def __init__(self, widths: tuple[int, int, int, int] = (24, 48, 96, 128)) -> None:
        super().__init__()
        inputs = (3, *widths[:-1])
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, kernel, stride, padding=kernel // 2, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            )
            for before, after, (kernel, stride) in zip(inputs, widths, [(3, 2)] * 3 + [(1, 1)], strict=True)
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

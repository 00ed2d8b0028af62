"""The classifier that every technique shares: its logits are, exactly, the mean of its class activation maps."""

import math

import torch
from torch import Tensor, nn

from lightning_priors.errors import PriorError
from lightning_priors.functional.cam import class_activation_map, logits_from_cam
from lightning_priors.nn.backbone import Backbone
from lightning_priors.nn.weights import StartsFromWeights, common_prefix, read_state


class CAMHead(nn.Module):
    """A linear map on each cell of the feature map, then the mean over the cells.

    The linear map and the mean commute, so this is the usual global average pooling with a linear layer, written so
    that the class activation map (Zhou et al. 2016, "Learning Deep Features for Discriminative Localization",
    equation 2) is a by-product: ``cam.mean((2, 3)) + bias == logits`` for every feature map, of a CNN or of ViT tokens.

    Args:
        num_features: Channels C of the feature map.
        num_classes: Number of classes K.

    >>> head = CAMHead(num_features=8, num_classes=3)
    >>> logits, cam = head(torch.rand(2, 8, 4, 4))
    >>> torch.allclose(cam.mean((2, 3)) + head.bias, logits)
    True
    """

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_classes, num_features))
        self.bias = nn.Parameter(torch.zeros(num_classes))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # what nn.Linear does

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Classifies a feature map.

        Args:
            features: (B, C, h, w).

        Returns:
            Logits (B, K) and class activation maps (B, K, h, w), without the bias.
        """
        cam = class_activation_map(features, self.weight)
        return logits_from_cam(cam, self.bias), cam


class Classifier(StartsFromWeights):
    """Backbone and CAM head: an image to logits and class activation maps.

    ``Classifier(...).start_from(checkpoint)`` takes the whole classifier, head included, from a run of this library
    when it is first needed; ``backbone.start_from`` chooses the weights of the backbone alone.

    Args:
        num_classes: Number of classes K.
        backbone: A timm model name, or ``tiny``.
        weights: ``none``, ``imagenet``, or the path of a checkpoint; see `Backbone`.
        prefer: Which classifier `load` takes from a run that has several, such as ``global_branch``.

    Raises:
        PriorError: As `Backbone` does.

    >>> logits, cam = Classifier(num_classes=2, backbone="tiny")(torch.zeros(1, 3, 64, 64))
    >>> logits.shape, cam.shape
    (torch.Size([1, 2]), torch.Size([1, 2, 8, 8]))
    """

    def __init__(self, num_classes: int, backbone: str = "tiny", weights: str = "none", prefer: str = "") -> None:
        super().__init__()
        self.backbone = Backbone(backbone, weights)
        self.head = CAMHead(self.backbone.num_features, num_classes)
        self.prefer = prefer
        self.weights_report: str | None = None

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Classifies images.

        Args:
            image: (B, 3, H, W), normalised as `lightning_priors.batch` says.

        Returns:
            Logits (B, K) and class activation maps (B, K, h, w) with ``cam.mean((2, 3)) + head.bias == logits``.
        """
        self.read_initial_weights()
        logits, cam = self.head(self.backbone(image))
        return logits, cam

    def load(self, weights: str) -> str:
        """Takes the whole classifier, head included, from a run of this library.

        Args:
            weights: The path of its checkpoint.

        Returns:
            A line that says what was loaded.

        Raises:
            PriorError: If the file cannot be read, or does not have every entry in the right shape.
        """
        self._waits = self.backbone._waits = False  # all of it is replaced
        state, own = read_state(weights), self.state_dict()
        named = {name: value for name, value in state.items() if name.startswith(f"{self.prefer}.")} or dict(state)
        prefix = common_prefix(own, named)
        found = {name: named[prefix + name] for name in own if prefix + name in named}
        wrong = [name for name, value in own.items() if name not in found or found[name].shape != value.shape]
        if wrong:
            raise PriorError(
                f"checkpoint {weights} does not fit: {len(wrong)} of {len(own)} entries, such as {wrong[0]}"
            )
        self.load_state_dict(found)
        self.weights_report = f"{self.prefer or 'classifier'} from {weights}: all {len(own)} entries loaded"
        return self.weights_report

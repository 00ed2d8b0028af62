"""Attention maps that weight a feature map: a branch that computes one, and the tokens of a transformer as one."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_priors.functional.precision import at_least_float32
from lightning_priors.nn.map_layers import HIDDEN_CHANNELS, hidden_layers


def attention_factor(attention_logits: Tensor, residual: bool = True) -> Tensor:
    """Computes what the cells of a feature map g are multiplied by, from the attention M, the sigmoid of its logits.

    With `residual` it is ``1 + M``, the attention mechanism of Fukui et al. 2019, "Attention Branch Network": M = 0
    leaves the features as they are, so nothing is lost, but a cell without attention still counts half as much as one
    with full attention. Without it, it is ``M / mean(M)``: the mean over the cells turns into the mean over what is
    attended to, so that a cell with M = 0 is shut out whatever it holds. The division keeps the scale of the logits
    the same for a small target as for a large one, and makes every constant M the plain network; plain ``M`` would
    make the network as sure as the target is large.

    Args:
        attention_logits: (B, h, w).
        residual: Which of the two.

    Returns:
        (B, h, w).

    >>> logits = torch.tensor([[[0.0, -1e4]]])
    >>> attention_factor(logits), attention_factor(logits, residual=False)
    (tensor([[[1.5000, 1.0000]]]), tensor([[[2., 0.]]]))
    """
    logits = at_least_float32(attention_logits)
    if residual:
        return 1 + logits.sigmoid()
    # softmax of the logarithms: M / sum(M) that stays finite when every M vanishes
    shares = F.logsigmoid(logits).flatten(1).softmax(1).view_as(logits)
    return shares * shares[0].numel()


def log_received_attention(queries: Tensor, keys: Tensor) -> Tensor:
    """Computes the logarithm of the attention that each token receives, averaged over heads and queries.

    From the logarithms of the softmax, so that a token with hardly any attention keeps its digits and its gradient.

    Args:
        queries: (B, heads, Q, D), already divided by the square root of D, or whatever the network scales by.
        keys: (B, heads, N, D).

    Returns:
        (B, N); the exponentials of a row add up to 1.

    >>> queries, keys = torch.zeros(1, 1, 1, 2), torch.randn(1, 1, 4, 2)
    >>> log_received_attention(queries, keys).exp()
    tensor([[0.2500, 0.2500, 0.2500, 0.2500]])
    """
    with torch.autocast(queries.device.type, enabled=False):  # a matrix product, which autocast would round to 8 bits
        scores = at_least_float32(queries) @ at_least_float32(keys).transpose(2, 3)
    shares = scores.log_softmax(3)
    return shares.logsumexp((1, 2)) - math.log(shares.shape[1] * shares.shape[2])


def logits_against_uniform(log_attention: Tensor) -> Tensor:
    """Turns an attention that is a distribution over cells into logits: how much more a cell gets than its even share.

    For a distribution A over n cells the logits are log(n A). Their softmax is A. Their sigmoid nA / (1 + nA) is a map
    with a value of its own in each cell: 1/2 where a cell gets its even share, 0 and 1 at the extremes. So the one map
    serves every loss, whether it compares distributions or single cells.

    Args:
        log_attention: (B, h, w), logarithms; need not be normalised.

    Returns:
        (B, h, w).

    >>> logits_against_uniform(torch.tensor([[[0.75, 0.25]]]).log()).sigmoid()
    tensor([[[0.6000, 0.3333]]])
    """
    flat = at_least_float32(log_attention).flatten(1)
    return (flat.log_softmax(1) + math.log(flat.shape[1])).view_as(log_attention)


class AttentionBranch(nn.Module):
    """The attention branch of an Attention Branch Network (Fukui et al. 2019).

    A 3x3 convolution with batch normalisation and ReLU, in place of the residual blocks that the paper's branch has,
    serves two linear maps of each cell: one gives class maps, whose means are logits with a class loss of their own;
    the other gives the attention. (In the paper the attention is made from the class maps. With a thousand classes
    they can say where something is; with two they only say which.)

    Args:
        num_features: Channels C of the feature map.
        num_classes: Number of classes K.

    >>> branch = AttentionBranch(num_features=8, num_classes=3)
    >>> logits, attention_logits = branch(torch.rand(2, 8, 4, 4))
    >>> logits.shape, attention_logits.shape
    (torch.Size([2, 3]), torch.Size([2, 4, 4]))
    """

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(*hidden_layers(num_features))
        self.class_maps = nn.Conv2d(HIDDEN_CHANNELS, num_classes, 1)
        self.attention = nn.Conv2d(HIDDEN_CHANNELS, 1, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Says where to look, and what it sees there.

        Args:
            features: (B, C, h, w).

        Returns:
            The branch's class logits (B, K), and the logits of the attention (B, h, w), whose sigmoid is M.
        """
        hidden = self.hidden(features)
        return self.class_maps(hidden).mean((2, 3)), self.attention(hidden).squeeze(1)

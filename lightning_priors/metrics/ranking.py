"""How well the scores of a class put its images before the others; no threshold decides."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import binary_auroc, binary_average_precision
from torchmetrics.utilities import dim_zero_cat


def log_odds(logits: Tensor) -> Tensor:
    """Computes the log-odds of each class against all others, also where probabilities would round to 0 or 1.

    Args:
        logits: (N, K).

    Returns:
        (N, K), ``logit_k - logsumexp(logits of the others)``.

    >>> log_odds(torch.tensor([[0.0, 100.0]]))
    tensor([[-100.,  100.]])
    """
    logits = logits - logits.amax(1, keepdim=True)  # so that equal differences stay equal
    everything = logits.logsumexp(1, keepdim=True)
    others = everything + torch.log1p(-(logits - everything).exp())
    top = logits.argmax(1, keepdim=True)  # where the line above may round to the logarithm of 0
    without_top = logits.scatter(1, top, -torch.inf).logsumexp(1, keepdim=True)
    return logits - others.scatter(1, top, without_top)


class OneVersusRest(Metric, ABC):
    """Base of the means over the classes of a measure of ranking, each class against all others.

    Classes of which no image occurs, or of which all images are, are left out of the mean.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = True
    preds: list[Tensor]
    target: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("preds", [], dist_reduce_fx="cat")
        self.add_state("target", [], dist_reduce_fx="cat")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Keeps a batch.

        Args:
            preds: (B, K) logits.
            target: (B,) int64 classes.
        """
        self.preds.append(preds.detach().float())
        self.target.append(target)

    def compute(self) -> Tensor:
        """() the mean over the classes; nan if there is none to rank."""
        scores, target = log_odds(dim_zero_cat(self.preds)), dim_zero_cat(self.target)
        values = []
        for number, column in enumerate(scores.unbind(1)):
            positive = target == number
            if positive.any() and not positive.all():
                # the library reads scores beyond [0, 1] as logits, whose sigmoids would be equal far out
                places = torch.unique(column, return_inverse=True)[1]
                values.append(self.of_class(places / len(places), positive.long()))
        return torch.stack(values).mean() if values else scores.new_tensor(torch.nan)

    @abstractmethod
    def of_class(self, scores: Tensor, positive: Tensor) -> Tensor:
        """Measures one class.

        Args:
            scores: (N,) in [0, 1].
            positive: (N,) int64, 1 for an image of the class.

        Returns:
            ().
        """


class AUROC(OneVersusRest):
    """The area under the curve of true against false positives: how often an image of a class is before another one.

    With two classes both have the same area. The mean over classes is that of Hand and Till 2001 against the rest.

    >>> area = AUROC()
    >>> area.update(preds=torch.tensor([[0.0, 3.0], [0.0, 1.0], [0.0, 2.0]]), target=torch.tensor([1, 1, 0]))
    >>> area.compute()
    tensor(0.5000)
    """

    def of_class(self, scores: Tensor, positive: Tensor) -> Tensor:
        """() the area of a class."""
        area: Tensor = binary_auroc(scores, positive)
        return area


class AveragePrecision(OneVersusRest):
    """The mean precision over the places of a class's images in its ranking; it depends on how rare the class is.

    >>> precision = AveragePrecision()
    >>> precision.update(preds=torch.tensor([[0.0, 3.0], [0.0, 1.0], [0.0, 2.0]]), target=torch.tensor([1, 1, 0]))
    >>> precision.compute()  # class 1: (1 + 2/3) / 2, class 0: 1/2
    tensor(0.6667)
    """

    def of_class(self, scores: Tensor, positive: Tensor) -> Tensor:
        """() the average precision of a class."""
        precision: Tensor = binary_average_precision(scores, positive)
        return precision

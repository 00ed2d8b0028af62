"""MixFlow-MG (Kemaev et al., ICML 2025, arXiv 2505.00793) for the labels of a training step: forward over reverse.

To differentiate through a training step, MixFlow-MG takes the gradient of the inner loss by reverse mode, by parameters
and meta-parameters, and the derivative of this gradient by forward mode along a direction in the space of the
parameters. So no graph of a gradient is kept, as double backward does. The part that belongs to the meta-parameters is
the mixed derivative that the hypergradient is made of; the part that belongs to the parameters is what training through
several steps needs.

`lightning_priors.hypergradient` needs less, because the inner loss is linear in the labels: its gradient by the labels
is the losses themselves, so that one forward-mode pass without a backward pass is enough.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad

from lightning_priors.hypergradient import InnerStep, call_at
from lightning_priors.hypergradient.forward_mode import differentiable_kernels, load_forward_rules
from lightning_priors.techniques import MAXL, PublishedMAXL
from lightning_priors.techniques.maxl.label_generator import TaskOutputs
from lightning_priors.techniques.maxl.label_learner import GeneratorGradient, LabelLearner, LabelledPart


def mixed_derivative(
    network: nn.Module,
    parameters: Mapping[str, Tensor],
    inputs: tuple[Any, ...],
    labels: Tensor,
    inner_loss: Callable[[Any, Tensor], Tensor],
    direction: Mapping[str, Tensor],
) -> Tensor:
    """Differentiates the gradient of a loss by labels along a direction in the space of the parameters.

    Args:
        network: Any module; not changed.
        parameters: The point, by parameter name.
        inputs: The arguments of the network.
        labels: (B, A).
        inner_loss: From what the network returns and the labels to the loss ().
        direction: By parameter name; parameters without one stay where they are.

    Returns:
        (B, A).
    """
    load_forward_rules()
    labels = labels.detach().requires_grad_()
    leaves = {name: parameter.detach().requires_grad_() for name, parameter in parameters.items()}
    with torch.enable_grad(), differentiable_kernels(parameters), forward_ad.dual_level():
        point = {n: forward_ad.make_dual(p, direction[n]) if n in direction else p for n, p in leaves.items()}
        loss = inner_loss(call_at(network, inputs, point), labels)
        by_labels, *_ = torch.autograd.grad(loss, [labels, *leaves.values()], allow_unused=True)
        derivative = forward_ad.unpack_dual(by_labels).tangent
        return torch.zeros_like(labels) if derivative is None else derivative.detach()


@dataclass
class MixFlowLearner(LabelLearner):
    """Computes the gradient on a label generator by the derivative of the inner gradient, without priors.

    Args:
        network: That the steps are of.
    """

    network: nn.Module = field(kw_only=True)

    def look_back(
        self, labelled: Sequence[LabelledPart], step: InnerStep, v: Mapping[str, Tensor], loss_scale: float = 1.0
    ) -> GeneratorGradient:
        """Computes the gradient from a step that was made, as `LabelLearner.look_back` does."""
        direction = step.direction(v)
        derivatives = []
        for each in labelled:

            def inner_loss(outputs: TaskOutputs, labels: Tensor, part=each.part) -> Tensor:
                primary = part.weight * F.cross_entropy(outputs.seen.logits, part.batch["label"])
                return primary + self.auxiliary_loss(outputs, labels, part)

            inputs = (each.part.batch,)
            found = mixed_derivative(self.network, step.parameters, inputs, each.labels, inner_loss, direction)
            derivatives.append(found / len(labelled))
        return self.from_derivatives(labelled, derivatives, loss_scale)


class MixFlowMAXL(MAXL):
    """Trains as `MAXL` does and computes the meta-gradient by MixFlow-MG."""

    def on_fit_start(self) -> None:
        """Replaces what computes it."""
        super().on_fit_start()
        self.learner = mixflow_learner(self.learner, self.network)


class MixFlowPublishedMAXL(PublishedMAXL):
    """Trains as `PublishedMAXL` with the method ``first_order`` does and computes the meta-gradient by MixFlow-MG."""

    def on_fit_start(self) -> None:
        """Replaces what computes it."""
        super().on_fit_start()
        self.learner = mixflow_learner(self.learner, self.network)


def mixflow_learner(learner: LabelLearner, network: nn.Module) -> MixFlowLearner:
    """Makes a learner with the options of another one."""
    return MixFlowLearner(**{each.name: getattr(learner, each.name) for each in fields(learner)}, network=network)

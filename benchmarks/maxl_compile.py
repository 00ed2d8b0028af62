"""What torch.compile does for MAXL: a plain training step and the forward-mode pass, compiled and as they are.

The four take turns in one process; printed are the medians of the processor's time, as ratios to the plain step, how
long compiling took, and how far the compiled derivative is from the other one. It needs a C++ compiler.

    python benchmarks/maxl_compile.py [--backbone vgg16_bn] [--batch-size 32] [--rounds 9] [--threads 1]
        [--backend inductor]
"""

import argparse
import time
from collections.abc import Callable, Mapping
from statistics import median

import torch
import torch.nn.functional as F
from lightning_priors.functional.directional import forward_mode
from lightning_priors.functional.soft_labels import per_class_losses
from lightning_priors.nn.label_generator import TaskOutputs
from torch import Tensor, nn
from torch.func import functional_call, jvp

from lightning_priors.nn import Classifier, TwoTasks

CLASSES, SUB_CLASSES = 20, 100


def losses(outputs: TaskOutputs) -> Tensor:
    """What each auxiliary class would cost each image, (B, A)."""
    return per_class_losses(outputs.auxiliary)


def measure(options: argparse.Namespace) -> tuple[dict[str, float], float, float]:
    """The median seconds of each way, the seconds that compiling took, and the relative error of the derivative."""
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    classifier = Classifier(CLASSES, options.backbone)
    network = TwoTasks(classifier, nn.Linear(classifier.backbone.num_features, SUB_CLASSES)).train()
    image, label = torch.randn(options.batch_size, 3, 32, 32), torch.randint(CLASSES, (options.batch_size,))
    point = {name: parameter.detach() for name, parameter in network.named_parameters()}
    buffers = dict(network.named_buffers())
    along = {name: torch.randn_like(parameter) / 100 for name, parameter in point.items()}

    def derivative(point: Mapping[str, Tensor], along: Mapping[str, Tensor]) -> Tensor:
        def at(parameters: Mapping[str, Tensor]) -> Tensor:
            state = {**parameters, **{name: buffer.clone() for name, buffer in buffers.items()}}
            return losses(functional_call(network, state, (image,)))

        tangent: Tensor = jvp(at, (point,), (along,))[1]
        return tangent

    def step(module: Callable[[Tensor], TaskOutputs]) -> None:
        F.cross_entropy(module(image).logits, label).backward()
        network.zero_grad()

    compiled = torch.compile(network, backend=options.backend)
    compiled_derivative = torch.compile(derivative, backend=options.backend)
    start = time.perf_counter()
    step(compiled)
    with torch.no_grad():
        other = compiled_derivative(point, along)
    seconds = time.perf_counter() - start
    plain = forward_mode(network, point, buffers, (image,), losses, along)
    ways: dict[str, Callable[[], object]] = {
        "training step": lambda: step(network),
        "training step, compiled": lambda: step(compiled),
        "forward-mode pass": lambda: forward_mode(network, point, buffers, (image,), losses, along),
        "forward-mode pass, compiled": lambda: torch.no_grad()(compiled_derivative)(point, along),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, way in ways.items():
            start = time.process_time()
            way()
            times[name].append(time.process_time() - start)
    error = float((other - plain).norm() / plain.norm())
    return {name: median(values) for name, values in times.items()}, seconds, error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="vgg16_bn")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--backend", default="inductor")
    options = parser.parse_args()
    times, seconds, error = measure(options)
    print(f"{options.backbone}, 32 px, batch {options.batch_size}, {options.threads} threads")
    for name, value in times.items():
        print(f"{name:32}{1000 * value:10.1f} ms{value / times['training step']:8.2f}")
    print(f"compiling took {seconds:.0f} s; the compiled derivative is off by {error:.1e}")


if __name__ == "__main__":
    main()

"""Drawing the same random numbers once more."""

import contextlib
from collections.abc import Iterator

import torch


class RandomState:
    """Keeps the state of torch's random generators, so that a later pass draws the same dropout masks.

    Args:
        device: The device that the network runs on.

    >>> state = RandomState(torch.device("cpu"))
    >>> first = torch.rand(3)
    >>> with state.replayed():
    ...     again = torch.rand(3)
    >>> torch.equal(first, again)
    True
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._host = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    @contextlib.contextmanager
    def replayed(self) -> Iterator[None]:
        """Enters a context that starts from this state; afterwards the generators go on as if it had not been."""
        with torch.random.fork_rng([self._device] if self._cuda is not None else []):
            torch.set_rng_state(self._host)
            if self._cuda is not None:
                torch.cuda.set_rng_state(self._cuda, self._device)
            yield

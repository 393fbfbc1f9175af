"""The global random states that transforms draw from: kept, set and put back."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

_LOCK = threading.RLock()
"""The states are the process's: threads that read images take turns while they hold them."""


@dataclass(frozen=True, eq=False)
class RandomState:
    """A copy of the states of ``random``, numpy and torch (CPU)."""

    python: Any
    numpy: Any
    torch: torch.Tensor

    @classmethod
    def now(cls) -> RandomState:
        """The states as they are."""
        return cls(random.getstate(), np.random.get_state(), torch.get_rng_state())

    def restore(self) -> None:
        """Put the states back."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.torch)


@contextmanager
def kept() -> Iterator[RandomState]:
    """Whatever is drawn inside, the states afterwards are those from before, also after an exception."""
    state = RandomState.now()
    try:
        yield state
    finally:
        state.restore()


@contextmanager
def seeded(seed: int, index: int = 0) -> Iterator[int]:
    """Draw from states that depend on ``(seed, index)`` alone; puts the former states back.

    Yields:
        A 32-bit seed of the same origin, for generators that a transform keeps for itself.
    """
    words = np.random.SeedSequence([abs(int(seed)), abs(int(index)), int(seed < 0)]).generate_state(4)
    with _LOCK, kept():
        random.seed(int(words[0]))
        np.random.seed(int(words[1]))
        torch.default_generator.manual_seed(int(words[2]))
        yield int(words[3])

"""What a run reports of itself: where its time goes, and how it ended."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from vistool.errors import InputError, param

log = logging.getLogger('vistool')


@dataclass(frozen=True)
class Failure:
    """An item that could not be read or explained.

    Attributes:
        item: Its path or name.
        error: Why.
    """

    item: str
    error: InputError

    @property
    def reason(self) -> str:
        """Why, in one line."""
        return str(self.error)

    def __repr__(self) -> str:
        return f'{self.item}: {self.reason}'


@dataclass(frozen=True, repr=False)
class RunSummary:
    """How a run ended.

    Attributes:
        out: The folder or file that it wrote to.
        done: Items that it wrote.
        skipped: Items that were done before (``resume``).
        failures: Items that could not be read or explained.
        files: The files that this process wrote, in order.
        seconds: How long it took.
        cancelled: Whether it was cancelled; ``resume`` continues it.
    """

    out: Path
    done: int = 0
    skipped: int = 0
    failures: tuple[Failure, ...] = ()
    files: tuple[Path, ...] = ()
    seconds: float = 0.0
    cancelled: bool = False

    @property
    def images_per_second(self) -> float:
        """Throughput over the whole run, loading the model included."""
        return self.done / self.seconds if self.seconds else 0.0

    def __repr__(self) -> str:
        parts = [f'{self.done} done']
        parts += [f'{self.skipped} skipped'] * bool(self.skipped)
        parts += [f'{len(self.failures)} failed'] * bool(self.failures)
        parts += ['cancelled'] * self.cancelled
        return f'RunSummary({", ".join(parts)} in {self.seconds:.1f} s: {len(self.files)} files in {str(self.out)!r})'


@dataclass
class Clock:
    """Where the time of the thread that drives a run goes; reading and writing count while it waits for them.

    Attributes:
        images: How many were explained.
        seconds: Seconds by part: ``decode``, ``forward``, ``write``.
        started: When the run began, in seconds of :func:`time.perf_counter`.
    """

    images: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: {'decode': 0.0, 'forward': 0.0, 'write': 0.0})
    started: float = field(default_factory=time.perf_counter)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Adds the time spent inside to a part."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start


def throughput(clocks: Sequence[Clock]) -> str:
    """One line on a run: images per second over all processes, and where their time went.

    Args:
        clocks: One per process.
    """
    images = sum(clock.images for clock in clocks)
    elapsed = max(time.perf_counter() - clocks[0].started, 1e-9)
    parts = {name: sum(clock.seconds[name] for clock in clocks) for name in clocks[0].seconds}
    total = max(sum(parts.values()), 1e-9)
    shares = ', '.join(f'{name} {share / total:.0%}' for name, share in parts.items())
    return f'{images:,} images in {elapsed:.1f} s: {images / elapsed:.1f} images/s ({shares} of the time)'


def log_failures(failures: Sequence[Failure], total: int) -> None:
    """Logs which items failed and why."""
    for failure in failures:
        log.error('%s: %s', failure.item, failure.error.line(param))
    if failures:
        log.error('%d of %d images failed; the others are written', len(failures), total)

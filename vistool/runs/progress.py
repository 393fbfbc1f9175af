"""What a run tells its user on the way and at its end."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

log = logging.getLogger('vistool')


@dataclass(frozen=True)
class Failure:
    """An item that could not be read or explained, and why."""

    item: str
    reason: str


def described(item: object) -> str:
    """What an item is called in messages: its path, else its name."""
    return str(getattr(item, 'path', None) or getattr(item, 'name', item))


@dataclass
class Clock:
    """Where the time of the thread that drives a run goes; reading and writing count when it waits for them.

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
        clocks: One per process that ran side by side.
    """
    images = sum(clock.images for clock in clocks)
    elapsed = max(time.perf_counter() - clocks[0].started, 1e-9)
    parts = {name: sum(clock.seconds[name] for clock in clocks) for name in clocks[0].seconds}
    total = max(sum(parts.values()), 1e-9)
    shares = ', '.join(f'{name} {share / total:.0%}' for name, share in parts.items())
    return f'{images:,} images in {elapsed:.1f} s: {images / elapsed:.1f} images/s ({shares} of the time)'


def report(failures: Sequence[Failure], total: int) -> int:
    """Tells on stderr what failed; returns the exit code (0: nothing, 1: some)."""
    for failure in failures:
        log.error('%s: %s', failure.item, failure.reason)
    if failures:
        log.error('%d of %d images failed; the others are written', len(failures), total)
    return 1 if failures else 0


@contextmanager
def progress(total: int, shown: bool = True) -> Iterator[Callable[[], None]]:
    """One progress bar on stderr, for several items on a terminal; yields what moves it one step on."""
    if total < 2 or not shown or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn('images'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task('', total=total)
        yield lambda: bar.advance(task)

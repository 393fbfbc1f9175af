"""Times whole processes side by side, with the same settings for all of them."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

SETTINGS = {
    'MPLBACKEND': 'agg',
    'OMP_WAIT_POLICY': 'PASSIVE',
    'PYTHONDONTWRITEBYTECODE': '',
    'MALLOC_MMAP_THRESHOLD_': str(1 << 30),
    'MALLOC_TRIM_THRESHOLD_': str(1 << 30),
}
"""What a command sets for itself (:func:`vistool.commands.boundary.tune_process`), given to every process alike.

Compiled modules are kept, as those of installed packages are: only a round that is not counted compiles vistool's."""


_PEAK = re.compile(r'VmHWM:\s*(\d+) kB')


@dataclass(frozen=True)
class Cost:
    """What one process took.

    Attributes:
        cpu: Seconds of all its threads, user and system.
        wall: Seconds from its start to its end.
        memory: Peak MiB.
        said: What it wrote to stdout and stderr.
    """

    cpu: float
    wall: float
    memory: float
    said: str = ''


def run(words: Sequence[str], settings: Mapping[str, str] = SETTINGS) -> Cost:
    """Runs Python with these words.

    Raises:
        SystemExit: It fails.
    """
    with tempfile.TemporaryFile('w+') as said:
        start = time.perf_counter()
        process = subprocess.Popen([sys.executable, *words], stdout=said, stderr=said, env={**os.environ, **settings})
        with peak_of(process.pid) as peak:
            _, status, usage = os.wait4(process.pid, 0)
            wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        text = said.read()
    if process.returncode:
        raise SystemExit(f'failed with {process.returncode}: {" ".join(words)}\n{text}')
    return Cost(usage.ru_utime + usage.ru_stime, wall, peak[-1], text)


@contextmanager
def peak_of(process: int) -> Iterator[list[float]]:
    """The peak memory of a process while the context lasts, MiB, in a list whose last entry is the latest (Linux).

    It is read every 20 milliseconds: ``ru_maxrss`` counts what the process had that started this one.
    """
    found, ended = [0.0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            with suppress(OSError):
                found.extend(float(kib) / 1024 for kib in _PEAK.findall(Path(f'/proc/{process}/status').read_text()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        ended.set()
        watcher.join()


def alternate(contenders: Mapping[str, Callable[[], Cost]], rounds: int) -> dict[str, list[Cost]]:
    """Costs of each contender in each round, in turn, after one round that is not counted."""
    found: dict[str, list[Cost]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, contender in contenders.items():
            cost = contender()
            if number:
                found[name].append(cost)
    return found


def middle(costs: Sequence[Cost]) -> Cost:
    """The median of each figure."""
    return Cost(*(statistics.median(getattr(cost, name) for cost in costs) for name in ('cpu', 'wall', 'memory')))


def cpu_ratio(found: Mapping[str, Sequence[Cost]], name: str, base: str) -> float:
    """Median over the rounds of the CPU seconds of ``name`` / ``base``, taken within each round."""
    return statistics.median(a.cpu / b.cpu for a, b in zip(found[name], found[base], strict=True))

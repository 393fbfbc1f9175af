"""Times contenders side by side: in turn, round after round, so that a machine that drifts drifts for all."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Mapping

import torch


def measure(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int,
    warm_up: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each contender in each round by ``clock``, after one round that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(0 if warm_up else 1, rounds + 1):
        for name, run in contenders.items():
            _wait()
            start = clock()
            run()
            _wait()
            if number:
                seconds[name].append(clock() - start)
    return seconds


def ratio(seconds: Mapping[str, list[float]], name: str, base: str) -> float:
    """Median over the rounds of ``name`` / ``base``, taken within each round."""
    return statistics.median(a / b for a, b in zip(seconds[name], seconds[base], strict=True))


def table(title: str, seconds: Mapping[str, list[float]], base: str) -> None:
    """Prints a Markdown table: milliseconds (median) and the ratio to ``base``."""
    print(f'\n| {title} | ms | × {base} |\n| --- | ---: | ---: |')
    for name, values in seconds.items():
        print(f'| {name} | {statistics.median(values) * 1000:.1f} | {ratio(seconds, name, base):.2f} |')


def machine(device: str = 'cuda') -> str:
    """The machine in a line; its GPU, unless ``device`` is the CPU or there is none."""
    gpu = device != 'cpu' and torch.cuda.is_available()
    device = torch.cuda.get_device_name() if gpu else f'{torch.get_num_threads()} CPU threads'
    return f'{platform.machine()}, {device}, Python {platform.python_version()}, torch {torch.__version__}'


def in_float32() -> None:
    """Turns TF32 off in this process, as vistool's analyses do: both sides then compute the same."""
    torch.backends.cudnn.allow_tf32 = False


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()

"""All metrics of all maps of one image, with the changed copies of all of them in shared batches."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vistool.errors import InputError, counted, param
from vistool.metrics.registry import METRICS, Case, Copy, Measured, Metric, Needs, Scoring, Together
from vistool.network.inputs import run_network
from vistool.network.tensors import NetworkInput, Size, find_image, repeated, replace_tensor

log = logging.getLogger('vistool')

Scorer: TypeAlias = Callable[[Any, int], Tensor]
"""``(output, count) → (count,)``: the score of each image in a network's output."""

Truths: TypeAlias = NDArray[Any] | Tensor | Sequence[NDArray[Any] | Tensor | None] | None
"""A mask ``(H, W)`` at the network's input size, nonzero inside, or one for each image; None where there is none."""


_MOST_ON_CPU = 8
"""Copies that run at once on a processor: the activations of larger batches leave its cache, and every copy takes
longer (a fifth for MobileNetV2 at 240×240, 32 at once)."""


@dataclass(eq=False)
class Network:
    """Scores changed copies of one image.

    Attributes:
        module: The network, in eval mode.
        inputs: The network's input, a batch of the one image.
        scorers: What is scored, by target.
        at_once: How many copies run at once at most; halved where the memory does not suffice, and fewer on a CPU,
            where large batches gain nothing.
        arranged: ``(input, count) → input`` for networks whose input holds more than tensors: what it has to be for
            so many copies.
    """

    module: nn.Module
    inputs: NetworkInput
    scorers: Sequence[Scorer]
    at_once: int = 32
    arranged: Callable[[NetworkInput, int], NetworkInput] = lambda inputs, count: inputs
    _known: dict[Hashable, dict[int, float]] = field(default_factory=dict, init=False)

    @property
    def image(self) -> Tensor:
        """The image ``(C, H, W)``, network values."""
        image = find_image(self.inputs)
        assert image is not None
        return image[0]

    def score(self, wanted: Sequence[tuple[int, Sequence[Copy]]]) -> list[Tensor]:
        """The scores ``(n,)`` of each list of copies, by the target beside it; equal copies run once.

        Args:
            wanted: Pairs of a target and the copies to score by it.
        """
        asked: dict[Hashable, tuple[Copy, set[int]]] = {}
        for target, copies in wanted:
            for copy in copies:
                if target not in self._known.get(copy.key, {}):
                    asked.setdefault(copy.key, (copy, set()))[1].add(target)
        waiting = list(asked.values())
        on_cpu = self.image.device.type == 'cpu'
        while waiting:
            count = min(self.at_once, _MOST_ON_CPU) if on_cpu else self.at_once
            part, waiting = waiting[:count], waiting[count:]
            try:
                self._run(part)
            except torch.OutOfMemoryError:
                if count == 1:
                    raise
                self.at_once = count // 2
                log.warning('out of memory: %d copies of the image at once from here on', self.at_once)
                waiting = part + waiting
        return [
            torch.tensor([self._known[copy.key][target] for copy in copies], dtype=torch.float64)
            for target, copies in wanted
        ]

    def _run(self, part: Sequence[tuple[Copy, set[int]]]) -> None:
        batch = _made([copy for copy, _ in part])
        inputs = repeated(self.inputs, len(part))
        image = find_image(inputs)
        assert image is not None
        with torch.no_grad():
            output = run_network(self.module, self.arranged(replace_tensor(inputs, image, batch), len(part)))
            for target in sorted(set().union(*(targets for _, targets in part))):
                found = self.scorers[target](output, len(part)).double().tolist()
                for (copy, _), score in zip(part, found, strict=True):
                    self._known.setdefault(copy.key, {})[target] = score


def _made(copies: Sequence[Copy]) -> Tensor:
    """The images of copies ``(N, C, H, W)``; those that can be made together are."""
    images: dict[int, Tensor] = {}
    groups: dict[Together, list[int]] = {}
    for number, copy in enumerate(copies):
        if copy.together is None or copy.mask is None:
            images[number] = copy.make()
        else:
            groups.setdefault(copy.together, []).append(number)
    for together, numbers in groups.items():
        masks = torch.stack([mask for number in numbers if (mask := copies[number].mask) is not None])
        images |= zip(numbers, together.make(masks), strict=True)
    return torch.stack([images[number] for number in range(len(copies))])


def evaluate(
    cases: Sequence[tuple[Case, int]], metrics: Mapping[str, Metric], network: Network
) -> list[dict[str, Measured]]:
    """Every metric of every map of one image.

    Args:
        cases: The maps, each with the number of the target that it explains.
        metrics: What to measure.
        network: Scores copies of the image.

    Returns:
        Name → what was measured, for each map.
    """
    found: list[dict[str, Measured]] = [{} for _ in cases]
    running: list[tuple[int, str, Scoring, Sequence[Copy]]] = []
    for number, (case, _) in enumerate(cases):
        for name, metric in metrics.items():
            result = metric.measure(case)
            if isinstance(result, Generator):
                running.append((number, name, result, next(result)))
            else:
                found[number][name] = _measured(result)
    while running:
        scores = network.score([(cases[number][1], copies) for number, _, _, copies in running])
        going = []
        for (number, name, work, _), scored in zip(running, scores, strict=True):
            try:
                going.append((number, name, work, work.send(scored)))
            except StopIteration as finished:
                found[number][name] = _measured(finished.value)
        running = going
    return [{name: each[name] for name in metrics} for each in found]


def _measured(result: Measured | float) -> Measured:
    return result if isinstance(result, Measured) else Measured(float(result))


def truth_of(truths: Truths, index: int, count: int, size: Size) -> NDArray[np.bool_] | None:
    """The mask of one image of a batch.

    Args:
        truths: One mask, or one for each image.
        index: Which image.
        count: How many there are.
        size: ``(H, W)`` of the network's input.

    Raises:
        InputError: A mask has another size, or their number is wrong.
    """
    if truths is None:
        return None
    several = isinstance(truths, (list, tuple))
    if several and len(truths) != count:
        raise InputError(
            f'{counted(len(truths), "mask")} for {counted(count, "image")}',
            accepted='one for each image',
            parameter='truth',
        )
    chosen: Any = truths[index] if several else truths
    if chosen is None:
        return None
    mask: NDArray[np.bool_] = np.asarray(chosen.detach().cpu() if isinstance(chosen, Tensor) else chosen) != 0
    if mask.shape != size:
        raise InputError(
            f'a mask of {"×".join(map(str, mask.shape))} for an image of {size[0]}×{size[1]}',
            accepted="a mask (H, W) at the network's input size",
            parameter='truth',
        )
    return mask


def no_truth(metrics: Sequence[str]) -> InputError:
    """What to say where metrics of localization are asked for and nothing says where the objects are."""
    rest = [name for name, metric in METRICS.items() if Needs.TRUTH not in metric.needs]
    return InputError(
        f'{", ".join(metrics)} compares a map with a mask of the object, and there is none',
        accepted=', '.join(rest),
        hint=f'or give masks with {param("masks", "FOLDER")}, or a dataset with boxes or masks (@train, @val, @test)',
        parameter='metrics',
    )

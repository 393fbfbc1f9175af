"""Detectors: what one predicts for a batch, and each prediction as a number that can be differentiated.

An adapter knows the detectors of one library (:func:`find_detector`). It watches a forward and reads the predictions
from it. :meth:`Detections.pullbacks` then gives the gradient of single predictions. Where the predictions that the
network returns have a graph, that is used. Where they have none, or where the graph leads through all other
predictions, a prediction is traced back to the raw head output that it equals, and only that is evaluated again: it is
found by its values, and if none has them, that is an error and never a guess.

A library's adapter is one module beside this one, entered in :data:`_ADAPTERS`.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from vistool.errors import InputError
from vistool.network.forward import Pullback
from vistool.network.outputs import ScoreReader
from vistool.network.tensors import NetworkInput, Size

ATTRIBUTES = ('class', 'left', 'top', 'right', 'bottom', 'box')
"""What of a prediction can be explained (Zhao and Chan, ODAM, ICLR 2023): its score, an edge, or all four edges."""

Place: TypeAlias = tuple[int, int]
"""An image of the batch and one of its predictions."""


@dataclass(frozen=True)
class Frame:
    """What a detector that prepares images itself makes of its input before its first layer.

    Attributes:
        size: ``(H, W)`` that its layers see, padding included.
        valid: ``(H, W)`` of the image in the upper left corner of that.
    """

    size: Size
    valid: Size


class Detections:
    """The predictions of one forward, the surest of each image first.

    Attributes:
        scores: ``(N,)`` for each image, what the detector itself gives: probabilities in [0, 1].
        labels: int64 ``(N,)`` for each image.
        boxes: ``(N, 4)`` for each image: left, top, right, bottom in pixels of the network's input.
        frame: What the layers see, where that is not the input as it is; else None.
        masks: bool ``(N, H, W)`` for each image at the input's size, of networks that predict them; else None.
    """

    def __init__(
        self,
        scores: Sequence[Tensor],
        labels: Sequence[Tensor],
        boxes: Sequence[Tensor],
        frame: Frame | None = None,
        masks: Sequence[Tensor] | None = None,
    ) -> None:
        self.scores, self.labels, self.boxes = list(scores), list(labels), list(boxes)
        self.frame, self.masks = frame, masks

    def value(self, place: Place, attribute: str) -> Tensor:
        """A prediction's score, or where an edge lies, as a scalar of the graph; see :func:`attribute_of`."""
        image, index = place
        return attribute_of(self.scores[image][index], self.boxes[image][index], attribute)

    def pullbacks(self, places: Sequence[Place], attribute: str) -> list[Pullback]:
        """The gradient of :meth:`value` for several predictions.

        Raises:
            InputError: A prediction has no graph, and no raw output equals it.
        """
        values = [self.value(place, attribute) for place in places]
        for place, value in zip(places, values, strict=True):
            if not value.requires_grad:
                raise untraceable(self, place)
        return [[(value, None)] for value in values]


def attribute_of(score: Tensor, box: Tensor, attribute: str) -> Tensor:
    """What is differentiated: the score, or the edge's coordinate, counted away from the box.

    So positive evidence for an edge is what pushes it outward: −left, −top, right, bottom, and the sum of the four for
    ``box`` (width plus height).

    Args:
        score: ``(…)``.
        box: ``(…, 4)``.
        attribute: One of :data:`ATTRIBUTES`.
    """
    if attribute == 'class':
        return score
    outward = box * box.new_tensor([-1.0, -1.0, 1.0, 1.0])
    return outward.sum(-1) if attribute == 'box' else outward[..., ATTRIBUTES.index(attribute) - 1]


class Adapter(ABC):
    """How the detectors of one library are run and read.

    Attributes:
        module: The detector inside the network.
        path: Its dotted name there; ``''`` for the network itself.
    """

    def __init__(self, module: nn.Module, path: str) -> None:
        self.module, self.path = module, path

    @classmethod
    @abstractmethod
    def fits(cls, module: nn.Module) -> bool:
        """Whether a module is a detector of this library."""

    def prepared(self, inputs: NetworkInput, samples: Sequence[Any]) -> NetworkInput:
        """The input that makes the network predict; ``samples`` are those of the batch."""
        return inputs

    def repeated(self, inputs: NetworkInput, index: int, count: int) -> NetworkInput:
        """The input for ``count`` copies of an image that are in it already; ``index`` is that image's in the batch."""
        return inputs

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Notes, while the network runs, what :meth:`read` needs besides its output."""
        yield

    @abstractmethod
    def read(self, output: Any, count: int, size: Size) -> Detections:
        """The predictions in what the network returned.

        Args:
            output: What it returned.
            count: How many images.
            size: ``(H, W)`` of the input.
        """

    def reader(self, size: Size) -> ScoreReader:
        """Finds the surest prediction's score in an output, for the search of a layer."""

        def find(output: Any, count: int) -> Tensor:
            found = self.read(output, count, size)
            return torch.stack([scores.max() for scores in found.scores])[:, None]

        return ScoreReader(find, 'detections')

    def query_boxes(self, output: Any, size: Size) -> list[Tensor] | None:
        """The box of each object query, ``(Q, 4)`` for each image, in pixels of the input as :meth:`read` has them.

        None for a detector without object queries, or whose are not known.
        """
        return None

    def first_query(self, size: Size) -> int:
        """Where object queries start among the queries of an attention layer."""
        return 0

    @property
    def extra_tokens(self) -> tuple[int, int] | None:
        """Tokens before and after those of the image in :meth:`layers`, where that is known; else None."""
        return None

    @abstractmethod
    def layers(self) -> list[str]:
        """The layers that are explained by default: every level of the pyramid that predictions come from."""


_ADAPTERS = {
    'torchvision': ('vistool.network.detection.torchvision', 'TorchvisionAdapter'),
    'transformers': ('vistool.network.detection.huggingface', 'HuggingFaceAdapter'),
    'mmdet': ('vistool.network.detection.openmmlab', 'MMDetAdapter'),
}
"""Package of a detector's class → module and name of its adapter, imported only if the package was."""


def find_detector(root: nn.Module) -> Adapter | None:
    """The adapter of the detector in a network; None if it holds none."""
    for path, module in root.named_modules():
        for kind in type(module).__mro__:
            home = _ADAPTERS.get(kind.__module__.partition('.')[0])
            if home is None:
                continue
            adapter: type[Adapter] = getattr(importlib.import_module(home[0]), home[1])
            if adapter.fits(module):
                return adapter(module, path)
            break
        if path.count('.') > 1:
            break
    return None


def query_of(detector: Adapter, output: Any, found: Detections, place: Place, size: Size) -> int:
    """The object query that a prediction comes from, found by its box, as attention layers number them.

    Raises:
        InputError: The detector has no object queries, or none predicts this box.
    """
    boxes, (image, index) = detector.query_boxes(output, size), place
    if boxes is None:
        raise InputError(
            f'{type(detector.module).__name__} has no object queries that vistool knows',
            accepted='DETR and its relatives, YOLOS',
            parameter='queries',
        )
    apart = (boxes[image].detach() - found.boxes[image][index].detach()).abs().amax(1)
    if float(apart.min()) > 1e-2:
        raise InputError(f'no object query predicts the box of #{index}', parameter='queries')
    return detector.first_query(size) + int(apart.argmin())


def untraceable(found: Detections, place: Place) -> InputError:
    """What to say of a prediction whose origin is not known."""
    image, index = place
    numbers = ', '.join(f'{float(number):.1f}' for number in found.boxes[image][index])
    return InputError(
        f'prediction {index} (score {float(found.scores[image][index]):.3f}, box {numbers}) cannot be traced back to '
        'the network: it has no gradient, and no raw output of the head equals it',
        hint='give a score of your own: score= from Python, cam_target in a config',
    )


def matching(scores: Tensor, boxes: Tensor, score: Tensor, box: Tensor) -> int | None:
    """The row that a prediction equals: the same score, and of those rows the nearest box, up to rounding.

    Args:
        scores: ``(A,)`` of all raw outputs for the prediction's class.
        boxes: ``(A, 4)``.
        score: The prediction's.
        box: The prediction's ``(4,)``.

    Returns:
        None if no row equals it.
    """
    close = ((scores - score).abs() <= 1e-5 + 1e-4 * score.abs()).nonzero()[:, 0]
    if not len(close):
        return None
    apart = (boxes[close] - box).abs().amax(1)
    best = int(apart.argmin())
    scale = float(box.abs().amax().clamp_min(1.0))
    return int(close[best]) if float(apart[best]) <= 1e-2 + 1e-4 * scale else None


def iou(boxes: Tensor, box: Tensor) -> Tensor:
    """Intersection over union of boxes ``(N, 4)`` with one ``(4,)``: ``(N,)``."""
    low, high = torch.maximum(boxes[:, :2], box[:2]), torch.minimum(boxes[:, 2:], box[2:])
    inside = (high - low).clamp_min(0).prod(1)
    area = (boxes[:, 2:] - boxes[:, :2]).clamp_min(0).prod(1) + (box[2:] - box[:2]).clamp_min(0).prod()
    return inside / (area - inside).clamp_min(1e-9)

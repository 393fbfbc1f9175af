"""Deformable attention: weighted samples of feature maps, however a model writes them.

Each query looks at a few points of maps of several sizes (Zhu et al., Deformable DETR, ICLR 2021). In PyTorch that is
one ``grid_sample`` for each level, a ``stack`` or ``cat`` of what it gives, a product with the weights, and a sum over
the points. The calls are followed one by one, so points and weights are those that the model computed, whatever its
classes are called.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from vistool.network.tensors import Size

_SAMPLE = {F.grid_sample}
_JOIN = {torch.stack, torch.cat, torch.concat, torch.concatenate}
_RESHAPE = {
    torch.flatten, Tensor.flatten, torch.reshape, Tensor.reshape, Tensor.view, Tensor.contiguous, Tensor.clone,
}  # fmt: skip
_MULTIPLY = {torch.mul, torch.multiply, Tensor.mul, Tensor.multiply, Tensor.__mul__, Tensor.__rmul__}
_SUM = {torch.sum, Tensor.sum}
OFFSETS = 'sampling_offsets'
"""What modules of deformable attention call the layer that moves the points."""
REFERENCE = 'reference_points'
"""What they call where each query looks from."""
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""How far rebuilt outputs may be from the module's own, relative to the largest value, by dtype."""


@dataclass(frozen=True)
class Samples:
    """Maps and the points at which they were read: the result of one ``grid_sample`` for each level, joined.

    Attributes:
        maps: ``(G, d, h, w)`` of each level; groups are images times heads.
        points: ``(G, Nq, P, 2)`` of each level, ``(x, y)`` in fractions of the map's width and height; points outside
            [0, 1] read zeros.
    """

    maps: tuple[Tensor, ...]
    points: tuple[Tensor, ...]


@dataclass(frozen=True)
class SampledProduct:
    """Samples that have met their weights.

    Attributes:
        samples: The samples, the points of the first level first.
        weights: ``(G, Nq, n)``, of all points of all levels.
    """

    samples: Samples
    weights: Tensor


@dataclass(frozen=True)
class SampledAttention:
    """One operation of deformable attention of a batch.

    Attributes:
        index: Position among the attention operations of the forward.
        name: Dotted name of the module that ran it.
        batch: Images in the batch; groups are images times heads.
        product: What was sampled, and the weights; None where an operator that is not PyTorch's hid them.
        output: ``(G, d, Nq)``, the result of the operation.
        reference: ``(B, Nq, 2)``, where each query looks from, in fractions of the network's input; None where it is
            not known.
        of_objects: Whether its queries are a detector's object queries.
        residual: Largest deviation of rebuilt outputs so far, relative to the largest output; a list of one.
    """

    index: int
    name: str
    batch: int = 1
    product: SampledProduct | None = None
    output: Tensor | None = None
    reference: Tensor | None = None
    of_objects: bool = False
    residual: list[float] = field(default_factory=lambda: [0.0])

    @property
    def own(self) -> SampledProduct:
        """:attr:`product`, which must not be None."""
        assert self.product is not None
        return self.product

    @property
    def heads(self) -> int:
        """How many heads it has."""
        return self.own.weights.shape[0] // self.batch

    @property
    def queries(self) -> int:
        """How many queries it has."""
        return int(self.own.weights.shape[1])

    @property
    def sizes(self) -> tuple[Size, ...]:
        """Height and width of each level."""
        return tuple((int(each.shape[2]), int(each.shape[3])) for each in self.own.samples.maps)

    @property
    def levels(self) -> Tensor:
        """The level of each point, int64 ``(n,)``."""
        counts = [each.shape[2] for each in self.own.samples.points]
        return torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))

    def points(self, queries: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Where some queries look and how strongly.

        Returns:
            ``(B, heads, Q, n, 2)``, ``(x, y)`` in fractions of the network's input, and ``(B, heads, Q, n)``, the
            weights, which sum to 1 for each query and head.
        """
        chosen = torch.cat([each[:, queries].detach() for each in self.own.samples.points], 2)
        weights = self.own.weights[:, queries].detach()
        shape = (self.batch, self.heads)
        return chosen.unflatten(0, shape).float(), weights.unflatten(0, shape).float()

    def cells(self, queries: Sequence[int] | slice) -> list[Tensor]:
        """What the weights of some queries come to on the cells of each level, ``(G, Q, h, w)``.

        A point reads the four cells around it, bilinearly. What it reads outside the map is lost. The operation's
        output is the sum of these weights times the values of the cells.
        """
        found, start = [], 0
        for (height, width), points in zip(self.sizes, self.own.samples.points, strict=True):
            stop = start + points.shape[2]
            weights = self.own.weights[:, queries, start:stop].detach()
            found.append(_splatted(points[:, queries].detach().to(weights), weights, height, width))
            start = stop
        return found

    def mean_cells(self) -> list[Tensor]:
        """The mean of :meth:`cells` over all queries, ``(G, h, w)`` of each level, without a map of each query."""
        found, start = [], 0
        for (height, width), points in zip(self.sizes, self.own.samples.points, strict=True):
            stop = start + points.shape[2]
            weights = self.own.weights[:, :, start:stop].detach().float().flatten(1, 2)[:, None] / self.queries
            places = points.detach().float().flatten(1, 2)[:, None]
            found.append(_splatted(places, weights, height, width)[:, 0])
            start = stop
        return found

    def check(self, queries: Sequence[int]) -> bool:
        """Whether the points and weights of some queries give what the operation returned; the residual is kept."""
        if self.output is None:
            return True
        rebuilt = sum(
            torch.einsum('gqhw,gdhw->gdq', cells, maps.detach().to(cells))
            for cells, maps in zip(self.cells(queries), self.own.samples.maps, strict=True)
        )
        own = self.output[:, :, queries].detach()
        residual = float((rebuilt - own).abs().max() / self.output.detach().abs().max().clamp_min(1e-6))
        self.residual[0] = max(self.residual[0], residual) if residual == residual else float('inf')
        return self.residual[0] <= TOLERANCE.get(self.output.dtype, 1e-5)


def _splatted(points: Tensor, weights: Tensor, height: int, width: int) -> Tensor:
    """Weights ``(G, Q, P)`` spread over the cells around their points ``(G, Q, P, 2)``: ``(G, Q, h, w)``."""
    x, y = (points * points.new_tensor([width, height]) - 0.5).unbind(-1)
    left, top = x.floor(), y.floor()
    found = weights.new_zeros(*weights.shape[:2], height * width)
    for down in (0, 1):
        for across in (0, 1):
            column, row = left + across, top + down
            share = weights * (1 - (x - column).abs()) * (1 - (y - row).abs())
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            place = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).long()
            found.scatter_add_(2, place, torch.where(inside, share, 0))
    return found.unflatten(2, (height, width))


class SamplingFollower:
    """Follows what ``grid_sample`` gives through a join and a product with weights to the sum over the points.

    Tensors are remembered weakly: what the model drops is dropped here too.
    """

    def __init__(self) -> None:
        self._samples: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._products: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._started = False  # most networks never sample, and this is asked at every function call

    def follow(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], output: Any) -> SampledProduct | None:
        """Takes a call of a function and its output; returns samples and weights where they were summed, or None."""
        if func in _SAMPLE:
            if (samples := _sampled(*args, **kwargs)) is not None:
                self._samples[output] = samples
                self._started = True
            return None
        if not self._started or not isinstance(output, Tensor):
            return None
        held = args[0] if args else None
        if func in _JOIN and isinstance(held, (list, tuple)) and all(each in self._samples for each in held):
            parts: list[Samples] = [self._samples[each] for each in held]
            maps, points = ([each for part in parts for each in getattr(part, name)] for name in ('maps', 'points'))
            self._samples[output] = Samples(tuple(maps), tuple(points))
        elif func in _RESHAPE and isinstance(held, Tensor) and held in self._samples:
            self._samples[output] = self._samples[held]
        elif func in _MULTIPLY and (product := self._product(args)) is not None:
            self._products[output] = product
        elif func in _SUM and isinstance(held, Tensor) and held in self._products:
            if tuple(output.shape) != tuple(held.shape[:3]):  # a sum over another axis
                return None
            found: SampledProduct = self._products[held]
            self.clear()
            return found
        return None

    def clear(self) -> None:
        """Forgets everything."""
        self._samples.clear()
        self._products.clear()

    def _product(self, args: Sequence[Any]) -> SampledProduct | None:
        """Samples ``(G, d, Nq, n)`` and weights ``(G, 1, Nq, n)`` among the factors of a product."""
        factors = [each for each in args if isinstance(each, Tensor)]
        held = next((each for each in factors if each in self._samples), None)
        if held is None or len(factors) != 2 or held.ndim != 4:
            return None
        other = factors[1] if factors[0] is held else factors[0]
        groups, _, queries, count = held.shape
        if tuple(other.shape) != (groups, 1, queries, count):
            return None
        samples: Samples = self._samples[held]
        if sum(each.shape[2] for each in samples.points) != count:
            return None
        return SampledProduct(samples, other[:, 0])


def samples_points(root: nn.Module) -> bool:
    """Whether a network has modules of deformable attention, as they are usually written.

    Images of such networks are read one by one, so that groups are heads, whatever their order.
    """
    return any(hasattr(module, OFFSETS) for module in root.modules())


def _sampled(
    input: Tensor, grid: Tensor, mode: str = 'bilinear', padding_mode: str = 'zeros', align_corners: bool | None = None
) -> Samples | None:
    """The arguments of a ``grid_sample`` that deformable attention may use: bilinear, zeros outside."""
    if input.ndim != 4 or mode != 'bilinear' or padding_mode != 'zeros' or align_corners:
        return None
    return Samples((input,), ((grid + 1) / 2,))


def reference_of(given: Iterable[Tensor], queries: int) -> Tensor | None:
    """The reference points of a call, ``(B, Nq, 2)`` in fractions of the network's input.

    Args:
        given: What modules around the operation were given as such, innermost first: ``(B, Nq, 2)``, ``(B, Nq, L, 2)``
            for each level, or boxes ``(…, 4)`` around them.
        queries: How many queries the operation has.
    """
    for points in given:
        if points.ndim in (3, 4) and points.shape[1] == queries and points.shape[-1] in (2, 4):
            first = points if points.ndim == 3 else points[:, :, 0]
            return first[..., :2].detach()
    return None

"""Where a layer's values lie in the image, checked by changing the image and seeing which values answer.

A probe is a batch of two images: noise, and the same noise partly replaced by other noise. How much is replaced differs
from place to place, at every scale, and in no symmetric way. The distance between the two outputs of a layer, position
by position, then draws that pattern if the positions are read in the right order, and nothing if they are not. One
forward of the two images records the answers of all modules; it is made once for each network, weights and input size.

Rules:

* An answer counts where it differs between positions. Behind global attention all positions may answer alike; the order
  is then that of the nearest layer with as many tokens whose answer does count, else it could not be checked, which is
  printed.
* A reading is confirmed where the correlation of the logarithms is four standard errors above chance
  (:data:`_CERTAIN`), and kept unless another one is as much better. A grid that no convolution made has to agree
  closely (:data:`_CLOSE`).
* Deep in a network every position sees most of the image. Where no reading is confirmed, maps that convolutions made
  on the way to the layer are changed in the same way instead of the image, the nearest first (:meth:`Check.closer`).
* Where the answers differ and no reading is confirmed, the layer is refused: tokens were pruned, shuffled or mixed.
* ``(B, C, h, w)`` of the size of a convolution's output is a map. It is not checked where the layer convolves. A
  tensor of four axes of any other size, whose answers do not tell, is taken for a map by its shape, which is printed.
* Windows that a module around the layer states are taken as stated. Outside of the table that is printed.
* Networks of the table keep their tokens row by row and are not checked (:func:`known_positions`).
"""

from __future__ import annotations

import itertools
import logging
import math
import weakref
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vistool.network.capture import Hook, borrowed, hooked, remembered
from vistool.network.layers import DEFAULT_LAYERS, default_layers, layers_of, module_path, unwrapped
from vistool.network.tensors import (
    USUAL_PREFIX,
    Grids,
    Layout,
    NetworkInput,
    NoSpatialMap,
    PooledMap,
    Size,
    TokenHints,
    TokenOrder,
    call_module,
    cell_distortion,
    convolves,
    find_image,
    find_layout,
    float_tensors,
    gives_maps,
    input_size,
    joined_inputs,
    map_tensors,
    measured,
    mixes_places,
    repeated,
    rows,
    seen_grids,
    tensors,
    window_orders,
)
from vistool.network.windows import mentions_windows, window_layout

log = logging.getLogger('vistool')

_CERTAIN = 4.0
"""Standard errors of a correlation (Fisher's z) between a reading and chance, or between two readings."""
_LIKELY = 2.0
"""Standard errors by which the best of several unknown readings has to be ahead, or the simplest is taken."""
_BY_CHANCE = 1.0
"""Standard errors by which an unusual order has to agree better than the usual one, whose agreement is weak too."""
_WEAK = 0.3
"""No correlation below this confirms a reading, however many positions there are."""
_CLOSE = 0.8
"""The correlation that a grid needs which no convolution or pooling layer made."""
_LINKED = 0.5
"""Correlation of the answers of two layers that keep their tokens in the same order."""
_OBVIOUS = 0.9
"""Where a row-by-row reading of a grid that was seen agrees so well, other orders are not tried."""
_ALIKE = 0.1
"""Answers whose logarithms vary less than this, as a share of the pattern's own variation, do not count."""
_DIFFERENT = 0.25
"""Answers that vary this much and follow no reading refute all of them."""
_FEW = 20
"""With fewer positions chance refutes nothing."""
_ENOUGH = 16
"""Positions of a layer for which maps inside the network are changed: with fewer, some order fits by chance."""
_FEWEST = 5
"""Fewer tokens in the last axis than these are positions only where their answers show it; a box has four numbers."""
_ROUNDING = 1e-6
"""A tensor that changes by no more than this share of its largest value does not depend on what was changed."""
_ELONGATED = math.log(4.5)
"""How far from square the cells of a grid may be that no convolution made."""
_SOURCES = 4
"""Maps inside a network that are changed for a layer whose answers to a changed image do not tell."""
_REORDERING = ('MaxVit', 'MaxxVit', 'MobileViT', 'TNT')
"""Families of the table whose inner layers hold windows, blocks or patches; their default layers do not."""


@dataclass(frozen=True, eq=False)
class Probe:
    """Two images that differ by a known amount at each place.

    Attributes:
        inputs: The network's input for a batch of two.
        change: ``(H, W)``, the squared difference of the two images.
    """

    inputs: NetworkInput
    change: Tensor
    _expected: dict[tuple[Size, int], Tensor] = field(default_factory=dict, repr=False)

    def expected(self, grid: Size, blur: int = 1) -> Tensor:
        """float64 ``(h, w)``: the logarithm of the change in each cell of a grid.

        Args:
            grid: ``(h, w)``.
            blur: Side of a square of cells over which the change is averaged, for larger receptive fields; odd.
        """
        if (grid, blur) not in self._expected:
            cells = F.adaptive_avg_pool2d(self.change[None, None].double(), grid)
            if blur > 1:
                cells = F.avg_pool2d(F.pad(cells, (blur // 2,) * 4, mode='replicate'), blur, 1)
            self._expected[grid, blur] = cells[0, 0].clamp_min(1e-12).log() / 2
        return self._expected[grid, blur]


def make_probe(inputs: NetworkInput) -> Probe:
    """A probe of the size and range of the first image of ``inputs``; all other inputs, images too, stay as they are.

    So what another image of a siamese network gives does not answer.
    """
    pairs = repeated(rows(inputs, 0, 1), 2)
    image = find_image(pairs)
    assert image is not None, 'the inputs were checked before'
    pair, change = _pair(image[:1], 2, max(2, min(image.shape[2:]) // 4))

    probed = map_tensors(lambda tensor: pair.to(tensor.dtype) if tensor is image else tensor, pairs)
    return Probe(probed, change)


def probe_maps(maps: Tensor) -> Probe:
    """A probe for a module in the middle of a network, of the size and range of the first of its maps ``(B, C, h, w)``.

    What is replaced differs from position to position. Where the maps hardly do, which is what random weights make of
    any image, the channels differ as much as they do from each other.
    """
    side = min(maps.shape[2:])
    return Probe(*_pair(maps[:1], max(2, side // 2), side, least=0.1))


def _pair(image: Tensor, coarsest: int, finest: int, least: float = 0.0) -> tuple[Tensor, Tensor]:
    """The two images ``(2, C, H, W)`` of a probe, and their squared difference ``(H, W)``.

    Args:
        image: ``(1, C, H, W)``, whose mean and range each channel gets.
        coarsest: The fewest cells along the shorter side.
        finest: The most.
        least: The smallest range, as a share of that of all channels together.
    """
    one = image.detach().float()
    mean = one.mean((2, 3), keepdim=True).nan_to_num()
    spread = one.std((2, 3), keepdim=True).nan_to_num()
    spread = spread.clamp_min(least * float(one.std().nan_to_num()))
    spread = torch.where(spread > 0, spread, torch.ones_like(spread))
    noise, other, share = (part.to(one.device) for part in _patterns(tuple(one.shape[1:]), coarsest, finest))
    mixed = (1 - share**2).sqrt() * noise + share * other
    return mean + spread * torch.cat([noise, mixed]), (mixed - noise)[0].square().sum(0).cpu()


@lru_cache(maxsize=8)
def _patterns(shape: tuple[int, int, int], coarsest: int, finest: int) -> tuple[Tensor, Tensor, Tensor]:
    """Two noises ``(1, C, H, W)`` with structure at several scales, and the share ``(H, W)`` that is replaced.

    The share differs between cells of several sizes, ``coarsest`` to ``finest`` of them along the shorter side.
    """
    channels, height, width = shape
    generator = torch.Generator().manual_seed(0)

    def noise() -> Tensor:
        parts = [
            torch.randn(1, channels, -(-height // side), -(-width // side), generator=generator) for side in (1, 4, 16)
        ]
        return torch.stack([F.interpolate(part, (height, width)) for part in parts]).sum(0) / math.sqrt(3)

    total, short, cells = torch.zeros(1, 1, height, width), min(height, width), coarsest
    while cells <= finest:
        grid = round(cells * height / short), round(cells * width / short)
        values = torch.linspace(-1, 1, grid[0] * grid[1])[torch.randperm(grid[0] * grid[1], generator=generator)]
        total += F.interpolate(values.view(1, 1, *grid), (height, width))
        cells *= 2
    ranks = total.flatten().argsort().argsort().view(height, width) / (height * width - 1)
    return noise(), noise(), 0.02 + 0.9 * ranks**2


@dataclass(frozen=True, eq=False)
class Answer:
    """How much each position of a tensor changes between the two images of a probe.

    Attributes:
        shape: The tensor's shape for one image; the first axis counts groups such as windows, 1 where there are none.
        first: The change over the second axis as channels, shape without that axis.
        last: Likewise over the last axis.
        changes: Whether anything changes by more than rounding.
    """

    shape: tuple[int, ...]
    first: Tensor
    last: Tensor
    changes: bool = True

    def over(self, axes: str) -> Tensor:
        """The answer of each position, its axes as in the tensor, without the channels (see :attr:`Layout.axes`)."""
        return self.first if axes in ('BCHW', 'BCL') else self.last


def answer(output: Tensor) -> Answer | None:
    """The answer in a layer's output for the two images of a probe; None where it has no positions.

    Tokens in units of rows and columns ``(B, units, a, b, C)`` (HiViT, Zhang et al., ICLR 2023) count as ``(B, units,
    a·b, C)``. Images are the slowest part of the first axis. Where they are not, nothing will be confirmed.
    """
    output = output.flatten(2, 3) if output.ndim == 5 else output
    if output.ndim not in (3, 4) or output.shape[0] % 2 or not output.is_floating_point():
        return None
    before, after = output.detach().unflatten(0, (2, -1))
    change = (after - before).float()
    first, last = (change.norm(dim=axis).cpu() for axis in (1, -1))
    largest = partial(torch.linalg.vector_norm, ord=math.inf)
    changes = bool(largest(change) > _ROUNDING * largest(before)) if change.numel() else False
    return Answer(tuple(change.shape), first, last, changes) if bool(last.isfinite().all()) else None


@dataclass(frozen=True)
class Reading:
    """A layout and how well the answers follow it.

    Attributes:
        layout: The layout.
        agreement: Correlation of the logarithms of answers and changes.
        spread: Standard deviation of the answers' logarithms, as a share of the changes'.
    """

    layout: Layout
    agreement: float
    spread: float

    @property
    def cells(self) -> int:
        """Positions of the grid."""
        return self.layout.grid[0] * self.layout.grid[1]

    @property
    def confirmed(self) -> bool:
        """Whether the answers differ, and follow this layout."""
        certain = _errors(self.agreement, self.cells) >= _CERTAIN
        return self.spread >= _ALIKE and self.agreement >= _WEAK and certain

    def clearly_beats(self, other: Reading, errors: float = _CERTAIN) -> bool:
        """Whether the agreement of another reading is lower by that many standard errors."""
        cells = min(self.cells, other.cells)
        return _errors(self.agreement, cells) - _errors(other.agreement, cells) >= errors

    @property
    def close(self) -> bool:
        """Whether they follow it closely."""
        return self.confirmed and self.agreement >= _CLOSE


def read(found: Answer, layout: Layout, probe: Probe) -> Reading:
    """How well an answer follows a layout, with the pattern as it is or blurred by receptive fields.

    Unless channels come before both axes of a map, each axis has to matter: heads, which all see the same, would pass
    for the pixels of larger cells, and windows one after the other for the rows of a map. So the agreement is the least
    one that remains when the mean over an axis is taken away.
    """
    every = found.over(layout.axes).double()
    if not bool(every.any()):
        return Reading(layout, 0.0, 0.0)
    every = every.clamp_min(float(every.max()) * 1e-9).log()
    tokens = layout.axes in ('BLC', 'BCL')
    index = layout.index() if tokens else torch.arange(every.numel())
    values = every.flatten()[index]
    expected = [probe.expected(layout.grid, blur).flatten() for blur in (1, 3, 5) if blur < max(2, min(layout.grid))]
    spread = float(values.std() / expected[0].std().clamp_min(1e-12))
    agreements = [_correlation(values, each) for each in expected]
    best = max(range(len(expected)), key=lambda number: agreements[number])
    agreement = agreements[best]
    axes = [axis for axis, count in enumerate(every.shape) if count > 1]
    if layout.axes != 'BCHW' and len(axes) > 1:
        pattern = torch.full((every.numel(),), float(expected[best].mean()), dtype=every.dtype)
        pattern[index] = expected[best]
        pattern, own = pattern.view(every.shape), torch.full_like(pattern, float(values.mean()))
        own[index] = values  # what is left out is padding
        every = own.view(every.shape)
        agreement = min(agreement, *(_correlation(_without(every, axis), _without(pattern, axis)) for axis in axes))
    return Reading(layout, agreement, spread)


def _without(values: Tensor, axis: int) -> Tensor:
    return values - values.mean(axis, keepdim=True)


def _errors(correlation: float, count: int) -> float:
    """Fisher's z of a correlation over ``count`` positions, in standard errors."""
    return math.atanh(max(-0.9999, min(correlation, 0.9999))) * math.sqrt(max(count - 3, 0))


def _correlation(one: Tensor, other: Tensor) -> float:
    one, other = one.flatten() - one.mean(), other.flatten() - other.mean()
    return float(one @ other / (one.norm() * other.norm()).clamp_min(1e-30))


def readings(found: Answer, probe: Probe, layouts: Sequence[Layout]) -> list[Reading]:
    """The readings of an answer, best first."""
    return _best_first([read(found, layout, probe) for layout in layouts])


def _best_first(found: Sequence[Reading]) -> list[Reading]:
    return sorted(found, key=lambda each: (not each.confirmed, -each.agreement))


def possible_layouts(
    shape: tuple[int, ...], grids: Sequence[Size], hints: TokenHints | None = None, orders: bool = True
) -> Iterator[Layout]:
    """Layouts that a tensor of this shape for one image could have.

    Args:
        shape: Its shape; the first axis counts groups.
        grids: Grids that its tokens may fill, with a few to spare.
        hints: What the user says.
        orders: Whether tokens may lie otherwise than row by row.
    """
    hints = hints or TokenHints()
    if len(shape) == 4 and shape[0] == 1 and not hints.flat:
        for axes, grid in (('BCHW', shape[2:]), ('BHWC', shape[1:3])):
            if grid[0] * grid[1] > 1:
                yield Layout(axes, (grid[0], grid[1]))
    for axes, sides in _runs(shape, hints):
        length = math.prod(sides)
        most = USUAL_PREFIX if sum(side > 1 for side in sides) < 2 else 0  # no axis holds extra tokens only
        for grid in grids:
            spare = length - grid[0] * grid[1]
            if grid == (1, 1) or spare not in (range(most + 1) if hints.extra is None else (hints.extra,)):
                continue
            for prefix, middle, suffix in _splits(spare, hints):
                ends = orders and not middle and 0 in (prefix, suffix)
                for order in (None, *(token_orders(grid) if ends else ())):
                    yield Layout(axes, grid, prefix, suffix, middle, order)
    if orders and not hints.extra and (shape[0] > 1 or _may_be_padded(shape, grids)):
        for windows in window_orders(shape[0], math.prod(shape[1:-1]), grids):
            if shape[0] == 1 and any(side >= 2 * n for side, n in zip(windows.window, windows.grid, strict=True)):
                continue
            padded = windows.length > math.prod(windows.grid)
            if padded or any(windows.shift) or windows.scattered:  # the others are blocks
                yield Layout('BLC', windows.grid, order=windows)
            if padded and not windows.centered:  # or the map was enlarged to whole windows, as MobileViT does
                whole = windows.counts[0] * windows.window[0], windows.counts[1] * windows.window[1]
                yield Layout('BLC', whole, order=replace(windows, grid=whole))


def _may_be_padded(shape: tuple[int, ...], grids: Sequence[Size]) -> bool:
    """Whether tokens of an image may be a single window that is larger than the map: they fill no grid themselves."""
    spare = {shape[1] - height * width for height, width in grids}
    return len(shape) == 3 and not spare & set(range(USUAL_PREFIX + 1))


def _runs(shape: tuple[int, ...], hints: TokenHints) -> list[tuple[str, tuple[int, ...]]]:
    """Where the channels may be, with the sizes of the other axes, which are tokens."""
    runs = [('BLC', shape[:-1])]
    return runs if shape[0] > 1 or hints.flat else [*runs, ('BCL', shape[2:])]


def _other_layouts(shape: tuple[int, ...], size: Size, hints: TokenHints) -> Iterator[Layout]:
    """Tokens row by row over grids that no convolution made, with cells that are not too far from square."""
    if len(shape) != 3 or shape[0] > 1:
        return
    for extra in (0, 1, 2, 5) if hints.extra is None else (hints.extra,):
        count = shape[1] - extra
        sides = [h for h in range(1, count + 1) if count >= _FEW and count % h == 0]
        for grid in [(h, count // h) for h in sides if cell_distortion((h, count // h), size) < _ELONGATED]:
            yield Layout('BLC', grid, extra - hints.suffix, hints.suffix)


def _splits(spare: int, hints: TokenHints) -> list[tuple[int, int, int]]:
    """Tokens before, in the middle of and after the grid."""
    if hints.prefix is not None:
        return [(hints.prefix, 0, hints.suffix)]
    middle = [(0, spare, 0)] if spare else []
    return [(before, 0, spare - before) for before in range(spare, -1, -1)] + middle


def _alike(own: Answer, others: Sequence[Answer], axes: str) -> list[Answer]:
    """The answers that are linked to ``own`` by steps between correlated ones: from layer to layer the order is kept.

    Deep layers forget the pattern, though not from one layer to the next; where tokens are shuffled the chain breaks.

    Args:
        own: The answer.
        others: Answers of as many positions, itself among them.
        axes: Which axes those are (see :attr:`Layout.axes`).
    """
    logs = torch.stack([each.over(axes).flatten().double().clamp_min(1e-30).log() for each in others])
    logs = F.normalize(logs - logs.mean(1, keepdim=True), dim=1)
    certain = math.tanh(_CERTAIN / math.sqrt(max(logs.shape[1] - 3, 1)))
    linked = logs @ logs.T >= max(certain, _LINKED)
    reached = torch.tensor([each is own for each in others])
    while bool((grown := reached | linked[reached].any(0)).ne(reached).any()):
        reached = grown
    return [each for each, found in zip(others, reached.tolist(), strict=True) if found]


def _is_plausible(layout: Layout, assumed: Layout | None) -> bool:
    """Whether a layout may be read from answers: a handful of positions does not tell where other tokens lie."""
    few = layout.grid[0] * layout.grid[1] < _FEW
    if not few or not layout.extra or assumed is None or assumed.grid != layout.grid:
        return True
    return (layout.prefix, layout.middle, layout.suffix) == (assumed.prefix, assumed.middle, assumed.suffix)


def _is_part(layout: Layout) -> bool:
    """Whether many tokens stand before or after those of the grid, which hang together."""
    index = layout.index()
    together = int(index.max() - index.min()) == len(index) - 1
    return layout.axes in ('BLC', 'BCL') and together and layout.length - len(index) > USUAL_PREFIX


def ties(ranked: Sequence[Reading]) -> list[Reading]:
    """The confirmed readings that are not clearly worse than the first."""
    return [each for each in ranked if each.confirmed and not ranked[0].clearly_beats(each)]


def _simplest(tied: Sequence[Reading]) -> list[Reading]:
    """Of the best reading and its close rivals the one with the fewest factors."""
    rivals = [each for each in tied if not tied[0].clearly_beats(each, _LIKELY)]
    factors = {id(each): len(getattr(each.layout.order, 'axes', ())) for each in rivals}  # windows have none
    return sorted(rivals, key=lambda each: factors[id(each)])[:1]


@lru_cache(maxsize=128)
def token_orders(grid: Size) -> tuple[TokenOrder, ...]:
    """Orders other than row by row in which networks keep tokens.

    * column by column;
    * block after block (plain windows; NesT, Zhang et al., AAAI 2022), and within nested blocks;
    * first all top left tokens of the blocks, and so on (MobileViT's folding, Mehta and Rastegari, ICLR 2022);
    * unrolled: that for several levels of units of 2 × 2 (Hiera, Ryali et al., ICML 2023), finest or coarsest first.
    """
    height, width = grid
    found = []
    if height > 1 and width > 1:
        found.append(TokenOrder((height,), (width,), (1, 0), 'columns'))
    for rows_, columns in _block_sides(grid):
        sides, name = ((height // rows_, rows_), (width // columns, columns)), f'{rows_}×{columns}'
        found.append(TokenOrder(*sides, (0, 2, 1, 3), f'blocks of {name}'))
        found.append(TokenOrder(*sides, (1, 3, 0, 2), f'strides of {name}'))
    levels = 2
    while height % 2**levels == 0 and width % 2**levels == 0:
        halvings = (2,) * levels
        high, wide = (height >> levels, *halvings), (width >> levels, *halvings)
        nested = [(level, level + levels + 1) for level in range(levels + 1)]
        units, outer = nested[1:], nested[0]
        name = f'{levels} levels of 2×2'
        for axes, title in (
            ((*reversed(units), outer), f'{name}, unrolled'),
            ((*units, outer), f'{name}, unrolled from the coarsest'),
            ((outer, *units), f'{name}, nested'),
        ):
            found.append(TokenOrder(high, wide, tuple(axis for pair in axes for axis in pair), title))
        levels += 1
    distinct: dict[tuple[int, ...], TokenOrder | None] = {tuple(range(height * width)): None}
    for order in found:
        distinct.setdefault(tuple(order.index().tolist()), order)
    return tuple(order for order in distinct.values() if order is not None)


def _block_sides(grid: Size) -> list[Size]:
    """Sides of blocks that divide a grid: square ones, and those with as many blocks along both axes."""
    height, width = grid
    square = [(side, side) for side in range(2, min(grid) + 1) if height % side == 0 and width % side == 0]
    alike = [(height // n, width // n) for n in range(2, min(grid) + 1) if height % n == 0 and width % n == 0]
    return [side for side in dict.fromkeys(square + alike) if side != grid and side != (1, 1)]


@dataclass(eq=False)
class Positions:
    """What the modules of a network answered to a probe.

    Attributes:
        probe: The probe.
        problem: Why there are no answers, or ``''``.
        random: Whether the network gives another output every time.
        grids: Spatial sizes seen.
        calls: Module → one entry for each of its calls: place in its output → answer.
        answers: All answers, in running order.
        sources: Convolution and pooling layers that returned a map of several rows and columns, and which of their
            calls did, in running order.
        before: Module → for each of its calls, how many of the sources had run when it ended.
    """

    probe: Probe
    problem: str = ''
    random: bool = False
    grids: Grids = field(default_factory=Grids)
    calls: WeakKeyDictionary[nn.Module, list[dict[str, Answer]]] = field(default_factory=WeakKeyDictionary)
    answers: list[Answer] = field(default_factory=list)
    sources: list[tuple[weakref.ref[nn.Module], int]] = field(default_factory=list)
    before: WeakKeyDictionary[nn.Module, list[int]] = field(default_factory=WeakKeyDictionary)
    _ranked: dict[Hashable, list[Reading]] = field(default_factory=dict)
    _told: set[str] = field(default_factory=set)

    def answer(self, layer: nn.Module, call: int = 0, place: str | None = None) -> Answer | None:
        """The answer of a layer, or None.

        Args:
            layer: The module.
            call: Which of its calls, counted from 0.
            place: Which of the tensors that it returns (see :func:`~vistool.network.tensors.leaves`); None means the
                first.
        """
        calls = self.calls.get(layer, [])
        if call >= len(calls):
            return None
        found = calls[call]
        return next(iter(found.values()), None) if place is None else found.get(place)

    def sources_before(self, layer: nn.Module, call: int, size: Size) -> Iterator[int]:
        """Numbers of :attr:`sources` to change for a layer, the nearest first: one for each size, then others.

        What a source answers to the changed image must not show that its axes are something else than positions.

        Args:
            layer: The layer.
            call: Which of its calls, counted from 0.
            size: ``(H, W)`` of the network input.
        """
        counts = self.before.get(layer, [])
        first: dict[Size, int] = {}
        others: list[int] = []
        for number in reversed(range(counts[call] if call < len(counts) else 0)):
            layer_of, place = self.sources[number]
            source = layer_of()
            own = None if source is None else self.answer(source, place)
            if own is None or len(own.shape) != 4:
                continue
            grid = own.shape[2], own.shape[3]
            ranked = self.ranked(own, Layout('BCHW', grid), size, TokenHints())
            if ranked and ranked[0].confirmed and ranked[0].layout.axes != 'BCHW':
                continue
            if first.setdefault(grid, number) != number:
                others.append(number)
        yield from sorted(first.values(), reverse=True)
        yield from others

    def changes(self, layer: nn.Module) -> list[bool]:
        """For each call of a layer, whether what it returned depends on the drawn image (true if unknown)."""
        return [not call or any(each.changes for each in call.values()) for call in self.calls.get(layer, [])]

    @property
    def seen(self) -> list[Size]:
        """Grids that convolutions and pooling layers made, and those that halving them makes (merged tokens)."""
        return seen_grids(self.grids)

    def ranked(self, own: Answer, assumed: Layout | None, size: Size, hints: TokenHints) -> list[Reading]:
        """The readings of an answer, best first: of grids that were seen, then of others where none of them is sure.

        Args:
            own: The answer.
            assumed: The layout that its shape suggests.
            size: ``(H, W)`` of the network input.
            hints: What the user says.
        """
        guess = [assumed.grid] if assumed is not None and assumed.axes in ('BLC', 'BCL') else []
        key = (id(own), *guess, hints)
        if key not in self._ranked:
            grids = list(dict.fromkeys([*self.seen, *guess]))
            found = readings(own, self.probe, list(possible_layouts(own.shape, grids, hints, orders=False)))
            if not found or found[0].agreement < _OBVIOUS:
                found = readings(own, self.probe, list(possible_layouts(own.shape, grids, hints)))
            obvious = bool(found) and found[0].agreement >= _OBVIOUS
            if not obvious and not (found and found[0].confirmed and found[0].layout.grid in self.seen):
                found = _best_first([*found, *readings(own, self.probe, list(_other_layouts(own.shape, size, hints)))])
            self._ranked[key] = found
        return self._ranked[key]

    def sure(self, reading: Reading, tied: Sequence[Reading]) -> bool:
        """Whether a reading needs no further evidence.

        A grid that no convolution made has to be followed closely, and no other grid nearly as well.
        """
        if reading.layout.grid in self.seen:
            return reading.confirmed
        place = reading.layout.axes, reading.layout.grid
        return reading.close and all((each.layout.axes, each.layout.grid) == place for each in tied)

    def decided(self, own: Answer, assumed: Layout | None, size: Size, hints: TokenHints, name: str) -> Layout | None:
        """The layout that an answer, or one of as many positions in its stead, shows; None where none does.

        Of readings that are nearly as good as the best, the one of a neighboring layer is taken, then the assumed one,
        then the simplest. The last two are printed, the assumed one where another is ahead of it.
        """
        ranked = self.ranked(own, assumed, size, hints)
        tied = [each for each in ties(ranked) if _is_plausible(each.layout, assumed)]
        alone = len(tied) == 1 and tied[0].close and self.sure(tied[0], tied)
        vouched = None if alone else self.vouched(own, size, hints)
        if vouched is not None and (not _is_plausible(vouched, assumed) or self._refutes(own, tied, vouched)):
            vouched = None
        if vouched is not None and tied and not tied[0].close:
            return self.told(vouched, name)
        usual = next((each for each in ranked if each.layout == assumed), None)
        if vouched is None and tied and self._by_chance(tied, usual):
            return self.unchecked(assumed, NoSpatialMap(), name, 'they answer much alike when the image is changed')
        preferred = [each for wanted in (vouched, assumed) for each in tied if each.layout == wanted]
        chosen = next(iter(preferred or _simplest(tied)), None)
        known = assumed is not None or (chosen is not None and chosen.layout.grid in self.seen)
        if chosen is not None and known and self.sure(chosen, tied):
            behind = chosen.layout != vouched and chosen is not tied[0]
            return self.told(chosen.layout, name, ambiguous=len(tied) > 1 and (behind or not preferred))
        return None if vouched is None else self.told(vouched, name)

    def shown(self, own: Answer, assumed: Layout | None, size: Size, hints: TokenHints) -> Layout | None:
        """The only order that an answer follows closely, whatever other layers do; None where there is none.

        Chance finds one among many for fewer than :data:`_ENOUGH` positions. Many tokens that do not answer come from
        elsewhere, such as the anchors of another level.
        """
        tied = ties(self.ranked(own, assumed, size, hints))
        if not tied or not tied[0].close or tied[0].cells < _ENOUGH or not self.sure(tied[0], tied):
            return None
        layout = tied[0].layout
        same = (each.layout for each in tied[1:])
        alike = all(each.axes == layout.axes and torch.equal(each.index(), layout.index()) for each in same)
        return layout if alike and not _is_part(layout) and _is_plausible(layout, assumed) else None

    def _refutes(self, own: Answer, tied: Sequence[Reading], vouched: Layout) -> bool:
        """Whether an answer follows another order than the one that its neighbors vouch for, half of it and clearly.

        Layers between two steps that cut windows may keep their tokens in either order (MaxViT).
        """
        if not tied or tied[0].agreement < _LINKED:
            return False
        return tied[0].clearly_beats(read(own, vouched, self.probe))

    def _by_chance(self, tied: Sequence[Reading], usual: Reading | None) -> bool:
        """Whether the best reading is hardly better than the usual one, which is not confirmed.

        Among many orders one agrees a little better by chance, as where attention has mixed the places. A class token
        in the middle (Vim, Zhu et al., ICML 2024) is so rare that it has to be certain.
        """
        if usual is None or usual in tied:
            return False
        best, grid = tied[0], usual.layout.grid
        moved = best.layout.middle and best.layout.grid == grid and grid in self.seen
        return not best.clearly_beats(usual, _CERTAIN if moved else _BY_CHANCE)

    def differs(self, own: Answer, assumed: Layout | None, size: Size, hints: TokenHints) -> bool:
        """Whether the answer differs enough between positions to refute what it does not follow."""
        ranked = self.ranked(own, assumed, size, hints)
        return bool(ranked) and ranked[0].spread >= _DIFFERENT

    def vouched(self, own: Answer, size: Size, hints: TokenHints) -> Layout | None:
        """The layout that other answers with as many positions show; None where they show none.

        That is the one that the nearest of those follows that follow a single layout closely. An answer that differs
        between positions and yet follows no layout has to be :func:`_alike` with it. Where none is followed closely,
        most of those that follow a single layout decide, if this answer does not follow another one much better.
        """
        numbers = {id(each): number for number, each in enumerate(self.answers)}
        at = numbers.get(id(own), 0)
        ranked, differs = self.ranked(own, None, size, hints), self.differs(own, None, size, hints)
        for axes in (('BLC', 'BHWC'), ('BCL', 'BCHW')):
            near = [each for each in self.answers if each.over(axes[0]).shape == own.over(axes[0]).shape]
            near = sorted(near, key=lambda each: abs(numbers[id(each)] - at))
            alike = _alike(own, near, axes[0]) if differs else near
            for each in near if ties(ranked) else alike:
                single = self._single(each, axes, size, hints)
                if single is not None and single.close:
                    return single.layout
            singles = (self._single(each, axes, size, hints) for each in alike)
            votes = Counter(each.layout for each in singles if each is not None and each.layout.grid in self.seen)
            most, count = next(iter(votes.most_common(1)), (None, 0))
            voted = next((each for each in ranked if each.layout == most), None)
            if voted is not None and count > max(1, votes.total() / 2) and not ranked[0].clearly_beats(voted, _LIKELY):
                return most
        return None

    def _single(self, own: Answer, axes: Sequence[str], size: Size, hints: TokenHints) -> Reading | None:
        """The only layout that an answer follows, if it is one of these axes."""
        found = ties(self.ranked(own, None, size, hints))
        return found[0] if len(found) == 1 and found[0].layout.axes in axes else None

    def likelier(self, own: Answer, assumed: Layout | None, size: Size, hints: TokenHints) -> Layout | None:
        """Tokens row by row over a grid that was seen where 4-D tensors were assumed to be maps without evidence."""
        if assumed is None or assumed.axes not in ('BCHW', 'BHWC'):
            return assumed
        exact = [
            each
            for each in self.ranked(own, assumed, size, hints)
            if each.layout.axes in ('BLC', 'BCL') and each.layout.order is None and not each.layout.extra
        ]
        return exact[0].layout if exact else assumed

    def told(self, layout: Layout, name: str, ambiguous: bool = False) -> Layout:
        """``layout``; where it is not what anyone would assume, that is printed once for each layer."""
        if ambiguous:
            self._tell(
                log.warning, name, f'{_text(layout)}, the likeliest of several orders by its answers to a changed image'
            )
        elif layout.order is not None or layout.middle or layout.suffix:
            self._tell(log.info, name, f'{_text(layout)}, as its answers to a changed image show')
        return layout

    def unchecked(self, assumed: Layout | None, reason: NoSpatialMap, name: str, why: str) -> Layout:
        """The assumed layout of a layer that could not be checked, which is printed once.

        Nothing is printed for a map of a size that a convolution or a pooling layer made.

        Raises:
            NoSpatialMap: If there is none, for the given reason.
        """
        if assumed is None:
            raise reason
        self.refuse_lists(assumed, least=_FEWEST)
        if assumed.axes in ('BCHW', 'BHWC'):
            if assumed.grid not in self.seen:
                where = 'first' if assumed.axes == 'BCHW' else 'last'
                text = f'taken for {assumed.grid[0]}×{assumed.grid[1]} positions by its shape, channels {where}'
                self._tell(log.info, name, f'its output is {text} ({why})')
            return assumed
        if self.random:
            raise NoSpatialMap(
                'the network draws random numbers in its forward and gives another output every time, as where tokens '
                'are masked or shuffled; nothing shows where its tokens lie'
            )
        self._tell(log.warning, name, f'the order of its tokens could not be checked ({why}): row by row is assumed')
        return replace(assumed, unchecked=True)

    def refuse_lists(self, layout: Layout, least: int) -> None:
        """Refuses a few tokens in the last axis where no convolution or pooling layer made a grid of their number.

        The four numbers of each box of a list, or the nine classes of each anchor, would be a square of positions too.

        Args:
            layout: Of the tokens.
            least: With fewer positions than this, the tokens are refused even if a layer made a grid of their number.

        Raises:
            NoSpatialMap: The tokens are refused.
        """
        (height, width), made = layout.grid, layout.grid in measured(self.grids)
        if layout.axes == 'BCL' and height * width < _FEW and (not made or height * width < least):
            raise NoSpatialMap(
                f'nothing shows that its last axis is {height}×{width} positions: a list of scores or boxes has no '
                'positions in the image'
            )

    def _tell(self, write: Callable[..., None], name: str, text: str) -> None:
        if name and name not in self._told:
            self._told.add(name)
            write('layer %s: %s', name, text)


def _text(layout: Layout) -> str:
    order = 'row by row' if layout.order is None else f'in {layout.order.name}'
    height, width = layout.grid
    outside = [
        f'{count} {where}'
        for count, where in (
            (layout.prefix, 'before them'),
            (layout.middle, 'in their middle'),
            (layout.suffix, 'after them'),
        )
        if count
    ]
    extra = f', {" and ".join(outside)}' if outside else ''
    return f'{height}×{width} tokens {order}{extra}'


def positions(module: nn.Module, inputs: NetworkInput) -> Positions:
    """The answers of a network to a probe of the size of ``inputs``: one forward of two images, then remembered.

    A network that fails on the probe, such as one that takes single images only, gives no answers.

    Raises:
        InputError: If there is no image among the inputs.
    """
    input_size(inputs)
    shapes = tuple(tuple(tensor.shape[1:]) for tensor in tensors(inputs))
    return remembered(module, 'positions', shapes, lambda: _positions(module, inputs))


def _positions(module: nn.Module, inputs: NetworkInput) -> Positions:
    found = Positions(make_probe(inputs))
    _record(module, found, found.probe.inputs)
    return found


def positions_behind(module: nn.Module, inputs: NetworkInput, asked: Positions, number: int) -> Positions:
    """The answers of a network of which a map inside is changed instead of the image, remembered like the others.

    Args:
        module: The network.
        inputs: Its input.
        asked: Its answers to a changed image.
        number: Which of its sources.
    """
    shapes = tuple(tuple(tensor.shape[1:]) for tensor in tensors(inputs))
    return remembered(module, 'positions behind', (shapes, number), lambda: _positions_behind(module, asked, number))


def _positions_behind(module: nn.Module, asked: Positions, number: int) -> Positions:
    held, call = asked.sources[number]
    source = held()
    same = repeated(rows(asked.probe.inputs, 0, 1), 2)
    found, runs = Positions(Probe(same, torch.empty(0))), 0

    def change(name: str, layer: nn.Module, args: Any, output: Any) -> Any:
        nonlocal runs
        runs += 1
        if runs != call + 1:
            return None
        found.probe = probe_maps(output)
        found.answers.clear()
        found.calls.clear()
        assert isinstance(found.probe.inputs, Tensor)
        return found.probe.inputs.to(output.dtype)

    _record(module, found, same, {} if source is None else {'': source}, change)
    found.probe = replace(found.probe, inputs=torch.empty(0))  # two maps, which nobody asks for again
    return found


def _record(
    module: nn.Module,
    found: Positions,
    inputs: NetworkInput,
    changed: Mapping[str, nn.Module] | None = None,
    change: Hook | None = None,
) -> None:
    """Runs a network on two images and notes the answers of all modules, after an output was changed if that is asked.

    Args:
        module: The network.
        found: Gets the answers.
        inputs: Its input for two images.
        changed: Modules whose outputs may be replaced.
        change: Replaces them.
    """
    latest: list[tuple[Tensor, Answer | None]] = []

    def note(name: str, layer: nn.Module, args: Any, output: Any) -> None:
        found.grids.watch(output, args, layer)
        entry = {}
        for place, tensor in float_tensors(output):
            if latest and tensor is latest[0][0]:  # passed on as it is
                own = latest[0][1]
            else:
                own = answer(tensor)
                latest[:] = [(tensor, own)]
                found.answers.extend([own] if own is not None else [])
            if own is not None:
                entry[place] = own
        calls = found.calls.setdefault(layer, [])
        calls.append(entry)
        shape = output.shape if type(output) is Tensor and mixes_places(layer) else ()
        if len(shape) == 4 and shape[0] == 2 and min(shape[2:]) > 1:
            found.sources.append((weakref.ref(layer), len(calls) - 1))
        found.before.setdefault(layer, []).append(len(found.sources))

    with borrowed(module), torch.no_grad(), ExitStack() as stack:  # borrowing exchanges parts that are TorchScript
        distinct = {name or 'root': child for name, child in layers_of(unwrapped(module)).items()}
        if changed is not None and change is not None:
            stack.enter_context(hooked(changed, change))
        before = torch.get_rng_state()
        output: Any = None
        with hooked(distinct, note):
            try:
                output = call_module(module, inputs)
            except Exception as error:  # any failure of foreign code; the caller's own forward reports what matters
                found.problem = f'the network fails on a batch of two images of noise ({type(error).__name__})'
        if output is not None and not torch.equal(before, torch.get_rng_state()):  # or another thread drew numbers
            pairs = zip(float_tensors(output), float_tensors(call_module(module, inputs)), strict=False)
            found.random = any(one.shape == two.shape and not one.allclose(two) for (_, one), (_, two) in pairs)


def known_positions(root: nn.Module, name: str) -> bool:
    """Whether a layer lies in a network of the table, whose tokens are known to lie row by row.

    Of the families in :data:`_REORDERING` only the default layers are.

    Args:
        root: The network.
        name: The layer's dotted name.
    """
    root = unwrapped(root)
    parts = name.partition('[')[0].partition('+')[0].partition('@')[0].split('.')
    paths = ['.'.join(parts[:count]) for count in range(len(parts))]
    for path in paths:
        with suppress(AttributeError):
            for kind in type(root.get_submodule(path)).__mro__:
                if f'{kind.__module__.partition(".")[0]}.{kind.__name__}' in DEFAULT_LAYERS:
                    return kind.__name__ not in _REORDERING or name in default_layers(root)
    return False


@dataclass(frozen=True)
class Check:
    """What a layer is checked against.

    Attributes:
        root: The network.
        inputs: Its input.
        name: The layer's dotted name.
    """

    root: nn.Module
    inputs: NetworkInput
    name: str

    @property
    def known(self) -> bool:
        """Whether the table vouches for the order of the layer's tokens."""
        return known_positions(self.root, self.name)

    @property
    def in_windows(self) -> bool:
        """Whether a module around the layer states anything about windows, which may be padded."""
        parts, root = module_path(self.name).split('.'), unwrapped(self.root)
        return any(mentions_windows(root.get_submodule('.'.join(parts[:depth]))) for depth in range(len(parts) + 1))

    def ask(self) -> Positions:
        """The network's answers, for which it runs if it has not yet."""
        return positions(self.root, self.inputs)

    def closer(self, layer: nn.Module, call: int, size: Size) -> Iterator[Positions]:
        """The network's answers where maps on the way to a layer are changed instead of the image, the nearest first.

        Each costs a forward of two images, once.

        Args:
            layer: The layer.
            call: Which of its calls, counted from 0.
            size: ``(H, W)`` of the network input.
        """
        asked = self.ask()
        for number in itertools.islice(asked.sources_before(layer, call, size), _SOURCES):
            yield positions_behind(self.root, self.inputs, asked, number)

    def windows(self, shape: Sequence[int], size: Size, batch: int, grids: Sequence[Size]) -> Layout | None:
        """The layout of windows that a module around the layer states, or None."""
        return window_layout(shape, unwrapped(self.root), module_path(self.name), batch, grids, size)

    def say_stated(self, layout: Layout, name: str) -> None:
        """Prints once that the windows of a layer are taken as stated, where the table does not vouch for them."""
        if name and not self.known:
            text = f'layer {name}: {_text(layout)}, as a module around it states'
            remembered(self.root, f'windows of {name}', text, partial(log.info, '%s', text))

    def is_needed(self, layout: Layout, grids: Sequence[Size]) -> bool:
        """Whether a layer that was laid out by its shape has to be checked.

        In a known family that is a tensor of four axes to which no convolution gave its size: it may hold heads.
        """
        seen = seen_grids(grids) if isinstance(grids, Grids) else grids
        return not self.known or (layout.axes in ('BCHW', 'BHWC') and layout.grid not in seen)


def checked_layout(
    tensor: Tensor,
    size: Size,
    grids: Sequence[Size],
    *,
    batch: int,
    layer: nn.Module,
    hints: TokenHints,
    check: Check,
    name: str = '',
    call: int = 0,
    place: str | None = None,
) -> Layout:
    """The layout of a layer's output, by :func:`~vistool.network.tensors.find_layout`, checked against its answer.

    Args:
        tensor: The output.
        size: ``(H, W)`` of the network input.
        grids: Spatial sizes that were seen before the layer ran.
        batch: Images in the batch.
        layer: The module.
        hints: What the user says.
        check: What it is checked against; windows that are stated are not.
        name: The layer's name, for what is printed; ``''`` prints nothing.
        call: Which of its calls, counted from 0.
        place: Which of the tensors that it returns; None means the first.

    Raises:
        NoSpatialMap: If there is no map in it, or no order that the answers follow.
    """
    if reason := joined_inputs(tensor.shape, check.inputs):
        raise NoSpatialMap(reason)
    if (stated := check.windows(tensor.shape, size, batch, grids)) is not None:
        check.say_stated(stated, name)
        return stated
    assumed, failed = _by_shape(tensor, size, grids, batch=batch, layer=layer, hints=hints, check=check)
    as_maps = assumed if assumed is not None and gives_maps(layer, assumed, grids) else None
    if as_maps is not None and as_maps.axes == 'BCHW' and convolves(layer):
        return as_maps
    if assumed is not None and not check.is_needed(assumed, grids):
        return assumed
    found = check.ask()
    if assumed is not None and gives_maps(layer, assumed, found.grids):
        as_maps = assumed  # its size is that of a convolution behind it, as where a function enlarges maps (DPT)
    own = found.answer(layer, call, place)
    if own is None or not _is_of_shape(own, tensor, batch):
        why = found.problem or 'it did not run when it was tried'
        return found.unchecked(assumed, failed, name, why) if as_maps is None else as_maps
    if (layout := found.decided(own, assumed, size, hints, name)) is not None:
        found.refuse_lists(layout, least=0)
        return layout
    if assumed is None and check.known:
        raise failed
    if as_maps is not None:
        return as_maps
    nearer = check.closer(layer, call, size) if own.changes else iter(())
    if (layout := _by_nearer_changes(nearer, own, assumed, layer, call, place, size, hints)) is not None:
        found.refuse_lists(layout, least=0)
        return found.told(layout, name)
    return _guessed(tensor, found, own, assumed, failed, size, hints, name)


def _by_shape(
    tensor: Tensor,
    size: Size,
    grids: Sequence[Size],
    *,
    batch: int,
    layer: nn.Module,
    hints: TokenHints,
    check: Check,
) -> tuple[Layout | None, NoSpatialMap]:
    """The layout that a layer's shape suggests, or None with the reason; arguments as in :func:`checked_layout`.

    Raises:
        NoSpatialMap: There is none, and answers could not show one.
    """
    try:
        return find_layout(tensor, size, grids, batch=batch, layer=layer, hints=hints), NoSpatialMap()
    except NoSpatialMap as error:
        if check.known and (isinstance(error, PooledMap) or not check.in_windows):
            raise
        return None, error


def _is_of_shape(own: Answer, tensor: Tensor, batch: int) -> bool:
    """Whether an answer is of outputs like this one: they may differ where the network is tried with other inputs."""
    shape = tuple(tensor.flatten(2, 3).shape if tensor.ndim == 5 else tensor.shape)
    return own.shape[1:] == shape[1:] and own.shape[0] * batch == shape[0]


def _by_nearer_changes(
    nearer: Iterable[Positions],
    own: Answer,
    assumed: Layout | None,
    layer: nn.Module,
    call: int,
    place: str | None,
    size: Size,
    hints: TokenHints,
) -> Layout | None:
    """The layout that a layer's answer to changes of nearer maps shows, as :meth:`Check.closer` tries them; or None."""
    for found in nearer:
        reply = found.answer(layer, call, place)
        if reply is not None and reply.shape == own.shape:
            layout = found.shown(reply, assumed, size, hints)
            if layout is not None:
                return layout
    return None


def _guessed(
    tensor: Tensor,
    found: Positions,
    own: Answer,
    assumed: Layout | None,
    failed: NoSpatialMap,
    size: Size,
    hints: TokenHints,
    name: str,
) -> Layout:
    """The likelier layout of a layer whose answer shows none, which is printed.

    Raises:
        NoSpatialMap: There is none, or the answer contradicts it.
    """
    if assumed is None and not own.changes and not isinstance(failed, PooledMap):
        raise NoSpatialMap(
            f'{failed}; nothing in it changes with the image (weights that are random, or too small), which would show '
            'where its values lie'
        )
    guess = found.likelier(own, assumed, size, hints)
    _refuse_contradiction(tensor, guess, assumed, own, found, differs=found.differs(own, assumed, size, hints))
    return found.unchecked(guess, failed, name, 'its positions are few, or answer alike when the image is changed')


def _refuse_contradiction(
    tensor: Tensor, guess: Layout | None, assumed: Layout | None, own: Answer, found: Positions, differs: bool
) -> None:
    """Refuses a layer whose answers follow no layout, where they contradict the one that its shape suggests.

    Args:
        tensor: Its output.
        guess: The layout that would be taken.
        assumed: The layout that the shape suggests.
        own: Its answer.
        found: The answers of all layers.
        differs: Whether its answer differs between positions.

    Raises:
        NoSpatialMap: It cannot be taken.
    """
    places = own.over('BLC' if guess is None else guess.axes).numel()
    if differs and places >= _FEW:
        raise NoSpatialMap(
            f'its output {tuple(tensor.shape)} follows no known order (row by row, in blocks, unrolled) when the image '
            'is changed: its tokens were pruned, shuffled or mixed, or its axes are not positions'
        )
    other = guess if guess is not None and assumed is not None and guess.grid != assumed.grid else None
    if other is not None and min(own.over(other.axes).shape[-2:]) > 1:
        raise NoSpatialMap(
            f'its output {tuple(tensor.shape)} may be {other.grid[0]}×{other.grid[1]} positions in windows or patches, '
            'whose order is not known: their answers to a changed image do not tell'
        )
    sure = guess is not None and guess.axes == 'BLC' and guess.grid in found.seen
    if tensor.ndim == 3 and tensor.shape[1] <= USUAL_PREFIX and not sure:
        raise NoSpatialMap(
            f'its output {tuple(tensor.shape)} has as few tokens as networks have beside those of the image'
        )

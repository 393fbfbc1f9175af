"""Where the tokens of an attention operation are in the image: grids, prefix tokens, and windows.

For families that are known to keep their tokens row by row (:func:`~vistool.network.attention_answers.is_known`) the
number of tokens and the grids seen before decide; windows are traced. For all others the tokens themselves are asked:
their answers to a changed image decide what the axes are and where each token lies, or the layer is refused.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial

import torch
from torch import Tensor, nn

from vistool.errors import InputError
from vistool.network.attention import HEADS, AttentionOp, Frame, of_objects
from vistool.network.attention_answers import AttentionAnswers, TokenAnswers, answers_within, correlated
from vistool.network.capture import remembered
from vistool.network.positions import Answer, Probe, Reading, possible_layouts, readings
from vistool.network.tensors import (
    Grids,
    Layout,
    NoSpatialMap,
    Size,
    TokenHints,
    WindowOrder,
    cell_distortion,
    find_layout,
    measured,
    seen_grids,
    window_orders,
)
from vistool.network.windows import mentions_windows, trace_windows

log = logging.getLogger('vistool')

_FEW = 12
"""Fewer tokens than this cannot show their order; row by row is assumed."""
_BETTER = 0.05
"""By how much the correlation of another order has to exceed that of the assumed one."""
_PLAUSIBLE, _LIKELY = 0.5, 2.0
"""The correlation, and its certainty in standard errors, that keep row by row over a grid that was seen."""
_ELONGATED = math.log(4.5)
"""How far from square the cells of a grid may be that was not seen before."""
_ALIKE = 0.25
"""Answers whose logarithms vary less than this come from the whole image."""
_CHANNEL_ATTENTION = ('XCA', 'ChannelAttention', 'CrossCovariance', 'ChannelBlock')


@dataclass(frozen=True)
class TokenLayout:
    """Where queries and keys are.

    Attributes:
        grid: ``(h, w)`` of the keys.
        prefix: Keys before the grid (class, distillation, registers).
        query_grid: ``(h, w)`` of the queries; None where they do not form a grid (a class query, latents).
        query_prefix: Queries before the grid.
        windows: int64 ``(G, n)``: for each window's keys the token ``image · h · w + row · w + column``, or -1 for
            padding; None where every query attends to the whole image.
        query_windows: Likewise for the queries on their own grid; None where they are the keys' tokens.
        query_order: For each query of the operation, the number that the model gives it; None where it is the same.
        assumed: What was assumed of it and could not be checked, or ``''``.
    """

    grid: Size
    prefix: int
    query_grid: Size | None
    query_prefix: int
    windows: Tensor | None = None
    query_windows: Tensor | None = None
    query_order: tuple[int, ...] | None = None
    assumed: str = field(default='', compare=False)

    @property
    def asking(self) -> Tensor | None:
        """:attr:`query_windows`, or :attr:`windows` where queries and keys are the same tokens."""
        return self.windows if self.query_windows is None else self.query_windows


class Unplaced(InputError):
    """An attention layer whose tokens cannot be placed in the image; it is left out where others can be."""


class Unrecognized(Unplaced):
    """Likewise, but the network has not been asked for its answers yet, which may place them."""


def find_token_layout(op: AttentionOp, batch: int, size: Size) -> TokenLayout:
    """Finds out where the tokens of an operation are.

    The rule, for families that are known: windows that a module states, or whose groups are not the images, are traced.
    Else the keys fill the grid that :func:`~vistool.network.tensors.find_layout` gives for their number, row by row,
    and so do the queries. Queries of another number have places only where they fill a grid of the image with as many
    tokens before it; otherwise they are latents or class queries. The queries of DETR's decoder and its relatives are
    learned whatever their number, and have no places.

    Args:
        op: The operation, not compacted.
        batch: Images in the batch.
        size: ``(H, W)`` of the network input.

    Raises:
        Unplaced: If it attends over channels, or its tokens cannot be laid out over the image.
    """
    _refuse_channels(op, batch)
    groups, _, queries, keys = op.shape
    learned = of_objects(op.frames, queries)
    own = '.'.join(op.name.split('.')[-2:])
    if learned and queries == keys and 'self' in own and 'cross' not in own:
        raise Unplaced(
            f'{op.name}: the {queries} queries of its decoder are learned, and attend to each other, not to places',
            parameter='layers',
        )
    if groups != batch or any(mentions_windows(frame.module) for frame in op.frames):
        windowed = _windowed(op, batch, size)
        if windowed is not None:
            return windowed
    try:
        grid, prefix = _grid(keys, size, op.grids)
    except NoSpatialMap as error:
        raise Unrecognized(
            f'{op.name}: {queries} queries × {keys} keys, and the keys form no grid over the image',
            parameter='layers',
        ) from error
    if learned:
        return TokenLayout(grid, prefix, None, queries)
    if queries == keys:
        return TokenLayout(grid, prefix, grid, prefix)
    try:
        query_grid, query_prefix = _grid(queries, size, op.grids, prefix)  # latents form a grid only by accident
    except NoSpatialMap:
        return TokenLayout(grid, prefix, None, queries)
    return TokenLayout(grid, prefix, query_grid, query_prefix)


def place_tokens(
    op: AttentionOp, batch: int, size: Size, answers: AttentionAnswers | None
) -> tuple[AttentionOp, TokenLayout]:
    """The operation with images first and its tokens row by row, and where they are.

    Args:
        op: The operation, not compacted.
        batch: Images in the batch.
        size: ``(H, W)`` of the network input.
        answers: The answers of the network; None for a family that is known.

    Raises:
        Unplaced: If it does not attend over places in the image, or they are not found.
    """
    if answers is None or answers.problem:
        layout = find_token_layout(op, batch, size)
        if answers is not None:
            assumed = f'{op.name or "the attention of the network"}: its tokens are taken to lie row by row'
            layout = replace(layout, assumed=f'{assumed}, as {answers.problem}')
        return op, layout
    _refuse_channels(op, batch)
    found, placed = answers.remember(op.ordinal, lambda: _place(op, batch, size, answers))
    if found is None or isinstance(placed, str):
        raise Unplaced(f'{op.name} {placed}', parameter='layers')
    sizes = [batch if axis.role == 'image' else axis.size for axis in found.axes]
    order = [i for role in ('image', 'window', 'head') for i, each in enumerate(found.axes) if each.role == role]
    op = op.regrouped(sizes, order, found.shape[1])
    layout = placed.layout(batch, op)
    layout = replace(layout, assumed=_assumed(op, found, layout))
    return op.reordered(placed.query_order, placed.key_order), layout


def _assumed(op: AttentionOp, found: TokenAnswers, layout: TokenLayout) -> str:
    """What the answers did not show of the order of queries and keys, in words; ``''`` for nothing."""
    name = op.name or 'the attention of the network'
    if layout.query_grid is not None and not _shows_order(found):
        return f'{name}: its {op.shape[2]} queries are taken to be in the order of its keys'
    if layout.windows is None and op.shape[3] < _FEW and math.prod(layout.grid) > 1:
        return f'{name}: its {op.shape[3]} tokens are too few to show their order, and are taken to lie row by row'
    return ''


def _shows_order(found: TokenAnswers) -> bool:
    """Whether the queries are seen to answer in the order of their own grid, or of the keys.

    Queries of another number than the keys are placed by their answers alone.
    """
    if found.shape[2] != found.shape[3]:
        return True
    return found.queries is not None and correlated(found.queries, found.keys) > _PLAUSIBLE


@dataclass(frozen=True, eq=False)
class Placement:
    """Where the tokens of an operation lie in one image.

    Attributes:
        grid: Of the keys.
        prefix: Keys outside the grid; they come first once the keys are in order.
        query_grid: Of the queries, or None.
        query_prefix: Queries outside the grid.
        key_order: int64 ``(Nk,)``: the model's number of each key, those outside the grid first; None where it is the
            same, or the operation is confined to windows.
        query_order: Likewise for the queries.
        windows: int64 ``(W, Nk)``, the cell of each key, or -1; None where there is one window.
        query_windows: ``(W, Nq)``.
    """

    grid: Size
    prefix: int
    query_grid: Size | None
    query_prefix: int
    key_order: Tensor | None = None
    query_order: Tensor | None = None
    windows: Tensor | None = None
    query_windows: Tensor | None = None

    def layout(self, batch: int, op: AttentionOp) -> TokenLayout:
        """The layout for a batch."""

        def table(cells: Tensor | None, grid: Size | None) -> Tensor | None:
            if cells is None or grid is None:
                return None
            first = torch.arange(batch)[:, None, None] * (grid[0] * grid[1])
            assert op.value is not None
            return torch.where(cells < 0, -1, cells + first).flatten(0, 1).to(op.value.device)

        return TokenLayout(
            self.grid,
            self.prefix,
            self.query_grid,
            self.query_prefix,
            table(self.windows, self.grid),
            table(self.query_windows, self.query_grid),
            None if self.query_order is None else tuple(self.query_order.tolist()),
        )


def _place(
    op: AttentionOp, batch: int, size: Size, answers: AttentionAnswers
) -> tuple[TokenAnswers | None, Placement | str]:
    """Places the tokens of an operation by their answers, or where those do not suffice, by those of its block."""
    found = answers.of(op)
    placed: Placement | str
    if found is None or not found.fits(op, batch):
        reason = 'are the same for all images, or mix them (text, or an axis of images taken for tokens)'
        placed = f'attends over {op.shape[3]} tokens that {reason}'
    elif answers.silent:
        placed = (
            f'attends over {op.shape[3]} tokens that hardly change with the image: its effect is lost in the layers '
            'before (weights that are random, or too small)'
        )
    elif not found.from_image:
        reason = 'do not come from the image (text, learned tokens or another image)'
        placed = f'attends over {op.shape[3]} tokens that {reason}'
    else:
        placed = place_answers(found, answers.probe, size, op)
    doubtful = found is not None and found.doubtful and not _states(op, found.shape[1])
    if isinstance(placed, Placement) and not doubtful:
        return found, placed
    for closer, probe, grid in answers_within(op, batch):
        if not closer.fits(op, batch) or (closer.doubtful and op.shape[3] < _FEW):
            continue
        at = place_answers(closer, probe, size, replace(op, grids=_latest(op, grid)))
        if isinstance(at, Placement):
            return closer, at
        if doubtful and found is not None and closer.axes != found.axes:  # windows that passed for heads
            placed = at
    if doubtful and op.shape[3] < _FEW:
        return found, f'attends over {op.shape[3]} tokens, too few to tell windows from heads'
    return found, placed


def _states(op: AttentionOp, heads: int) -> bool:
    """Whether the module that runs an operation, or one around it, states that many heads."""
    return any(getattr(frame.module, name, None) == heads for frame in op.frames for name in HEADS)


def _latest(op: AttentionOp, grid: Size) -> Sequence[Size]:
    """The sizes seen before an operation, with ``grid`` as the most recent one."""
    sizes = [*(size for size in op.grids if size != grid), grid]
    return Grids(sizes, {*measured(op.grids), grid})


def place_answers(found: TokenAnswers, probe: Probe, size: Size, op: AttentionOp) -> Placement | str:
    """Places the tokens of an operation by their answers; or says why that cannot be done, as ``'attends …'``.

    Args:
        found: Its answers.
        probe: The images that were asked.
        size: ``(H, W)`` of the network input.
        op: The operation, for the grids that were seen before it.
    """
    windows, keys = found.keys.shape
    if windows > 1 and found.same_place:
        return f'attends over {keys} keys that all show one place (experts or branches), {windows} times'
    if windows > 1:
        return _placed_windows(found, probe, size, op)
    own = _best(found.keys, probe, size, op)
    if own is None:
        single = _placed_windows(found, probe, size, op)  # one that is padded, or reaches beyond the image
        return _reason(found.keys, keys) if isinstance(single, str) else single
    prefix = keys - own.grid[0] * own.grid[1]
    order = _order(own, keys)
    if found.same_tokens:
        return Placement(own.grid, prefix, own.grid, prefix, order, order)
    asking = None if found.queries is None else _best(found.queries, probe, size, op, prefix)
    if asking is None and found.shape[2] == keys and found.asks_from_image:
        # answers of queries are weaker; as many as keys are taken for the same tokens, which is said
        return Placement(own.grid, prefix, own.grid, prefix, order, order)
    if asking is None:
        return Placement(own.grid, prefix, None, found.shape[2], order)
    extra = found.shape[2] - asking.grid[0] * asking.grid[1]
    return Placement(own.grid, prefix, asking.grid, extra, order, _order(asking, found.shape[2]))


def _best(answers: Tensor, probe: Probe, size: Size, op: AttentionOp, prefix: int | None = None) -> Layout | None:
    """The layout that answers ``(1, tokens)`` follow; row by row over a grid that was seen unless another is better.

    Fewer than :data:`_FEW` tokens cannot show their order: row by row is assumed, which :func:`_assumed` says, where a
    convolution or a pooling made such a grid, or there is none in the network. Else they may be channels.

    Args:
        answers: The answers.
        probe: The images that were asked.
        size: ``(H, W)`` of the network input.
        op: The operation.
        prefix: Tokens before the grid, where that is known.
    """
    tokens = answers.shape[1]
    assumed = None
    with suppress(NoSpatialMap):
        shape = torch.empty(1, tokens, 1, device='meta')
        assumed = find_layout(shape, size, op.grids, hints=TokenHints(prefix, flat=True))
    if tokens < _FEW:
        made = seen_grids(op.grids) if isinstance(op.grids, Grids) else []
        return assumed if assumed is not None and (assumed.grid in made or not made) else None
    return _chosen(answers, probe, size, op, assumed, TokenHints(flat=True))


def _chosen(
    answers: Tensor, probe: Probe, size: Size, op: AttentionOp, assumed: Layout | None, hints: TokenHints
) -> Layout | None:
    tokens = answers.numel()
    flat = answers.reshape(1, tokens)  # windows are places too: unlike heads, they need not each follow the pattern
    found = Answer((1, tokens, 1), flat, flat)
    ranked: list[Reading] = []
    seen = seen_grids(op.grids) if isinstance(op.grids, Grids) else []
    for grids in (list(dict.fromkeys([*op.grids, *seen])), _any_grids(tokens, size)):
        tried = possible_layouts(found.shape, grids, hints)
        tokens_only = [each for each in tried if not isinstance(each.order, WindowOrder)]  # see _partitions
        ranked += readings(found, probe, tokens_only)
        ranked.sort(key=lambda each: -each.agreement)
        best = next(iter(ranked), None)
        plain = next((each for each in ranked if each.layout == assumed), None)
        if plain is not None and best is not None and best.agreement - plain.agreement < _BETTER and _likely(plain):
            return plain.layout
        if best is not None and (best.close or (best.layout.grid in seen and _stands_out(ranked))):
            return best.layout
    return None


def _stands_out(ranked: Sequence[Reading]) -> bool:
    """Whether the best reading of grids that were seen is confirmed, and no other comes near it."""
    best = ranked[0]
    return best.confirmed and best.agreement > _PLAUSIBLE and all(best.clearly_beats(each) for each in ranked[1:])


def _likely(reading: Reading) -> bool:
    """Whether answers support what is assumed anyway: with few tokens they cannot do more."""
    cells = reading.layout.grid[0] * reading.layout.grid[1]
    agreement = min(reading.agreement, 0.9999)
    return agreement > _PLAUSIBLE and math.atanh(agreement) * math.sqrt(max(cells - 3, 0)) > _LIKELY


def _any_grids(tokens: int, size: Size) -> list[Size]:
    """Grids that a number of tokens may form, class tokens and registers left out."""
    found = []
    for count in (tokens - spare for spare in (0, 1, 2, 5) if tokens - spare > 1):
        found += [
            (h, count // h)
            for h in range(1, count + 1)
            if count % h == 0 and cell_distortion((h, count // h), size) < _ELONGATED
        ]
    return found


def _order(layout: Layout, tokens: int) -> Tensor | None:
    """The model's numbers of the tokens outside the grid, then of those in it row by row; None if they are in order."""
    inside = layout.index()
    outside = torch.ones(tokens, dtype=torch.bool).index_fill_(0, inside, False).nonzero()[:, 0]
    order = torch.cat([outside, inside])
    return None if torch.equal(order, torch.arange(tokens)) else order


def _reason(answers: Tensor, keys: int) -> str:
    spread = float(answers.clamp_min(float(answers.max()) * 1e-9).log().std()) if keys > 1 else 0.0
    if spread < _ALIKE:
        return (
            f'attends over {keys} keys that all depend on the whole image alike: they are not places in it (latents, '
            'or tokens that were mixed before)'
        )
    return (
        f'attends over {keys} keys whose places in the image are not known: when the image is changed they follow no '
        'known order (row by row, in blocks, unrolled); they were pruned, merged, masked or shuffled'
    )


def _placed_windows(found: TokenAnswers, probe: Probe, size: Size, op: AttentionOp) -> Placement | str:
    """Windows whose tokens are in any order that a flat sequence may have, or that overlap."""
    windows, _, queries, keys = found.shape
    own = _window_table(found.keys, probe, size, op, overlapping=True)
    if own is None:
        return f'attends within {windows} windows of {keys} tokens, whose places in the image are not known'
    grid, table = own
    if found.same_tokens:
        return Placement(grid, 0, grid, 0, windows=table)
    asking = None if found.queries is None else _window_table(found.queries, probe, size, op)
    if asking is None and queries == keys and not _overlaps(table):
        return Placement(grid, 0, grid, 0, windows=table)
    if asking is None:
        return f'attends within {windows} windows from {queries} queries each, whose places in the image are not known'
    return Placement(grid, 0, asking[0], 0, windows=table, query_windows=asking[1])


def _window_table(
    answers: Tensor, probe: Probe, size: Size, op: AttentionOp, overlapping: bool = False
) -> tuple[Size, Tensor] | None:
    """The grid, and the cell of each token ``(windows, tokens)`` or -1, by the arrangement that the answers follow.

    Half of the differences have to be those of that arrangement, and no other may come near it.
    """
    tried = [*_in_order(answers, probe, size, op), *_partitions(answers.shape, op)]
    if overlapping:
        tried += _overlapping(answers.shape, size)
    found = []
    for grid, table in tried:
        agreement = _agreement(answers, table, grid, probe)
        found.append((_z(agreement, grid[0] * grid[1]), agreement, grid, table))
    found.sort(key=lambda each: -each[0])
    if not found:
        return None
    certain, agreement, grid, table = found[0]
    ahead = certain - max((each[0] for each in found if not torch.equal(each[3], table)), default=0.0)
    return (grid, table) if agreement > _PLAUSIBLE and ahead >= _LIKELY else None


def _z(correlation: float, count: int) -> float:
    """A correlation over ``count`` positions in standard errors."""
    return math.atanh(max(-0.9999, min(correlation, 0.9999))) * math.sqrt(max(count - 3, 0))


def _overlaps(table: Tensor) -> bool:
    cells = table[table >= 0]
    return len(cells.unique()) < len(cells)


def _in_order(answers: Tensor, probe: Probe, size: Size, op: AttentionOp) -> Iterator[tuple[Size, Tensor]]:
    """Windows whose tokens, one window after another or alternating, lie in an order of :func:`token_orders`."""
    windows, tokens = answers.shape
    for swapped in (False, True):  # (windows, tokens), or all first tokens of the windows, then all second ones
        flat = answers.mT.contiguous() if swapped else answers
        layout = _chosen(flat, probe, size, op, None, TokenHints(prefix=0, flat=True))
        if layout is not None:
            table = torch.empty(windows * tokens, dtype=torch.long)
            table[layout.index()] = torch.arange(windows * tokens)
            yield layout.grid, table.view(tokens, windows).mT.contiguous() if swapped else table.view(windows, tokens)


def _partitions(shape: Sequence[int], op: AttentionOp) -> Iterator[tuple[Size, Tensor]]:
    """Windows over a grid that was seen: of neighbors or of positions a stride apart, padded at the edges, shifted."""
    seen = seen_grids(op.grids) if isinstance(op.grids, Grids) else []
    return ((order.grid, order.cells()) for order in window_orders(shape[0], shape[1], seen))


def _overlapping(shape: Sequence[int], size: Size) -> Iterator[tuple[Size, Tensor]]:
    """Square windows around blocks, padded at the edges of the image (HaloNet, Vaswani et al., CVPR 2021)."""
    windows, tokens = shape
    side = math.isqrt(tokens)
    for down in (n for n in range(1, windows + 1) if windows % n == 0 and side * side == tokens):
        across = windows // down
        for block in range(side - 2, 0, -2):
            grid = down * block, across * block
            if cell_distortion(grid, size) < math.log(2):
                yield grid, _haloed((down, across), block, side)


def _haloed(blocks: Size, block: int, side: int) -> Tensor:
    """``(windows, side · side)``: the cell of each token where windows reach ``(side - block) / 2`` beyond a block."""
    height, width = blocks[0] * block, blocks[1] * block
    reach = torch.arange(side) - (side - block) // 2
    y = (torch.arange(blocks[0])[:, None] * block + reach)[:, None, :, None]
    x = (torch.arange(blocks[1])[:, None] * block + reach)[None, :, None, :]
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    return torch.where(inside, y * width + x, -1).reshape(blocks[0] * blocks[1], side * side)


def _agreement(answers: Tensor, table: Tensor, grid: Size, probe: Probe) -> float:
    """Correlation of the logarithms of answers and of what the cells of a table changed, as they are or blurred."""
    inside = table >= 0
    if int(inside.sum()) < 3:
        return 0.0
    values = answers[inside].double()
    values = values.clamp_min(float(values.max()) * 1e-9).log()
    expected = (probe.expected(grid, blur).flatten()[table[inside]] for blur in (1, 3) if blur < max(2, min(grid)))
    return max(float(torch.corrcoef(torch.stack([values, each]))[0, 1].nan_to_num()) for each in expected)


def covered_size(size: Size, grid: Size, stride: Size | None, root: nn.Module | None = None) -> Size:
    """Which part of the network input a grid of tokens covers, ``(H, W)`` pixels from the top left.

    A patch embedding drops what is left over at the right and below, or pads it. Where its stride is not known, or no
    multiple of it by a power of two gives the grid, the grid is assumed to cover the input.

    Args:
        size: ``(H, W)`` of the network input.
        grid: ``(h, w)``.
        stride: Stride of the first convolution.
        root: The network, for which that assumption is printed once.
    """
    first = stride or (0, 0)
    for halvings in range(7 if stride else 0):
        strides = first[0] << halvings, first[1] << halvings
        if all(n in (length // s, -(-length // s)) for n, length, s in zip(grid, size, strides, strict=True)):
            return grid[0] * strides[0], grid[1] * strides[1]
    if root is not None and grid != (1, 1):
        why = 'no convolution takes the image' if stride is None else f'no stride of {stride[0]}×{stride[1]} · 2ⁿ fits'
        text = f'its {grid[0]}×{grid[1]} tokens are taken to cover the whole input of {size[0]}×{size[1]}: {why}'
        remembered(root, f'cover of {grid}', text, partial(log.info, '%s', text))
    return size


def _grid(length: int, size: Size, grids: Sequence[Size], prefix: int | None = None) -> tuple[Size, int]:
    return _grid_among(length, size, tuple(grids), frozenset(measured(grids)), prefix)


@lru_cache(maxsize=1024)
def _grid_among(
    length: int, size: Size, seen: tuple[Size, ...], measured: frozenset[Size], prefix: int | None
) -> tuple[Size, int]:
    """The grid of so many tokens and the tokens before it; the layers of a network ask the same."""
    grids = Grids(list(seen), set(measured))
    layout = find_layout(torch.empty(1, length, 1, device='meta'), size, grids, hints=TokenHints(prefix, flat=True))
    return layout.grid, layout.prefix


def _refuse_channels(op: AttentionOp, batch: int) -> None:
    """Cross-covariance attention has channels as keys: its weights say nothing about places."""
    _, heads, queries, keys = op.shape
    values = op.value.shape[3] if op.value is not None else 0
    frame = next((f for f in reversed(op.frames) if f.tensor is not None and f.tensor.ndim >= 3), None)
    named = frame is not None and any(name in type(frame.module).__name__ for name in _CHANNEL_ATTENTION)
    shaped = False
    if frame is not None and frame.tensor is not None and queries == keys != values:
        shape = frame.tensor.shape
        laid_out = [(shape[1:-1].numel(), shape[-1])] + [(shape[2:].numel(), shape[1])] * (len(shape) == 4)
        shaped = any(values == tokens != keys and heads * keys == channels for tokens, channels in laid_out)
    if named or shaped:
        raise Unplaced(
            f'{op.name} attends over channels: its {queries}×{keys} weights relate channels, not places in the image',
            parameter='layers',
        )


def _windowed(op: AttentionOp, batch: int, size: Size) -> TokenLayout | None:
    """The layout of attention within windows, found by tracing random tokens through the block.

    Returns:
        None where the one window of each image is the whole image.

    Raises:
        InputError: If the tokens are not recognized.
    """
    groups, _, queries, keys = op.shape
    for frame in _candidates(op.frames, batch):
        tensor = frame.tensor
        assert tensor is not None
        try:
            shape = torch.empty(tensor.shape, device='meta')
            layout = find_layout(shape, size, op.grids, batch=batch, hints=TokenHints(flat=tensor.ndim == 3))
        except NoSpatialMap:
            continue
        tokens = layout.grid[0] * layout.grid[1]
        if groups == batch and (layout.prefix or queries != keys):
            return None
        table = trace_windows(frame, tensor, layout, groups * queries, batch * tokens)
        if table is not None:
            whole = torch.arange(batch * tokens)
            if groups == batch and torch.equal(table, whole):
                return None
            return TokenLayout(layout.grid, 0, layout.grid, 0, table.view(groups, queries).to(tensor.device))
    raise Unrecognized(
        f'{op.name}: attention within {op.shape[0]} groups of {op.shape[3]} tokens, which cannot be placed in the '
        'image',
        parameter='layers',
    )


def _candidates(frames: Sequence[Frame], batch: int) -> Iterator[Frame]:
    """Modules around an operation to trace from: the enclosing block, then the modules in it, then those around it."""
    numbered = [number for number, frame in enumerate(frames) if frame.name.rpartition('.')[2].isdigit()]
    start = numbered[-1] if numbered else 0
    for frame in (*frames[start:], *reversed(frames[:start])):
        tensor = frame.tensor
        if tensor is not None and tensor.ndim in (3, 4) and tensor.shape[0] == batch and not frame.attended:
            yield frame

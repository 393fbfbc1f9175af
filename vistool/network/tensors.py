"""Tensors that networks take and return: one walker over nested containers, and how tokens become maps.

Containers are whatever :mod:`torch.utils._pytree` knows (tuples, named tuples, lists, dicts, the outputs of
transformers), dataclasses, and subclasses of those that are not registered there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from copy import copy
from dataclasses import dataclass, field, is_dataclass
from functools import lru_cache, partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from vistool.data.inputs import drawn_of, entries, several, shared_of
from vistool.errors import InputError, counted

NetworkInput: TypeAlias = Tensor | Sequence[Any] | Mapping[str, Any]
"""A tensor ``(B, C, H, W)``, or a tuple (by position) or dict (by name) of tensors."""

Size: TypeAlias = tuple[int, int]
"""Height and width."""

Rebuild = Callable[[list[Any]], Any]


def leaves(value: Any, place: str = '') -> Iterator[tuple[str, Any]]:
    """Whatever is not a container, with its place in ``value``: ``''``, ``'[0]'``, ``'[hidden][1]'``."""
    node = _open(value)
    if node is None:
        yield place, value
        return
    keys, children, _ = node
    for key, child in zip(keys, children, strict=True):
        yield from leaves(child, f'{place}[{key}]')


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in ``value``, in order."""
    return (leaf for _, leaf in leaves(value) if isinstance(leaf, Tensor))


def float_tensors(value: Any) -> Iterator[tuple[str, Tensor]]:
    """The floating-point tensors in ``value`` with their places; those of int8 layers as the numbers they stand for."""
    if type(value) is Tensor and not value.is_quantized:  # what most modules return, in a tenth of the time
        return iter([('', value)] if value.is_floating_point() else [])
    found = ((place, leaf) for place, leaf in leaves(value) if isinstance(leaf, Tensor))
    plain = ((place, leaf.dequantize() if leaf.is_quantized else leaf) for place, leaf in found)
    return ((place, leaf) for place, leaf in plain if leaf.is_floating_point())


def part_of(value: Any, place: str) -> tuple[str, Any]:
    """What lies at ``place`` in ``value``, such as ``'[aux][0]'``, with that place as :func:`leaves` writes it.

    A number that is not a key is a position, counted from the end where it is negative.

    Raises:
        LookupError: If there is nothing at that place.
    """
    found = ''
    for word in re.findall(r'\[\s*["\']?([^\]]*?)["\']?\s*\]', place):
        node = _open(value)
        if node is None:
            raise LookupError(place)
        keys, children, _ = node
        index = next((index for index, key in enumerate(keys) if str(key) == word), None)
        if index is None and re.fullmatch(r'-?\d{1,9}', word) and -len(children) <= int(word) < len(children):
            index = int(word) % len(children)
        if index is None:
            raise LookupError(place)
        value, found = children[index], f'{found}[{keys[index]}]'
    return found, value


def first_tensor(value: Any) -> Tensor | None:
    """The first floating-point tensor in ``value``."""
    head = value[0] if type(value) is tuple and value else value
    if type(head) is Tensor and head.is_floating_point():  # what most modules are given, in a tenth of the time
        return head
    return next((tensor for _, tensor in float_tensors(value)), None)


def map_tensors(change: Callable[[Tensor], Any], value: Any) -> Any:
    """``value`` with every tensor replaced by ``change(tensor)``.

    Containers in which nothing changes are returned as they are, not rebuilt.
    """
    if isinstance(value, Tensor):
        return change(value)
    node = _open(value)
    if node is None:
        return value
    _, children, rebuild = node
    changed = [map_tensors(change, child) for child in children]
    same = all(new is old for new, old in zip(changed, children, strict=True))
    return value if same else rebuild(changed)


def replace_tensor(value: Any, old: Tensor, new: Tensor) -> Any:
    """``value`` with the tensor ``old``, compared by identity, replaced by ``new``."""
    return map_tensors(lambda tensor: new if tensor is old else tensor, value)


def copied(value: Any) -> Any:
    """``value`` with detached copies of its tensors, which no in-place operation on the originals reaches."""
    return map_tensors(lambda tensor: tensor.detach().clone(), value)


def _open(value: Any) -> tuple[Sequence[Any], list[Any], Rebuild] | None:
    """The keys and children of a container, and a function that rebuilds it from other children; None for a leaf."""
    if isinstance(value, Tensor):
        return None
    if type(value) is tuple or type(value) is list:
        return range(len(value)), list(value), type(value)
    children, spec = pytree.tree_flatten(value, is_leaf=lambda node: node is not value)
    if not (len(children) == 1 and children[0] is value):
        keys = list(value) if isinstance(value, Mapping) else range(len(children))
        if len(keys) != len(children):  # a registered container with an order of its own
            keys = range(len(children))
        return keys, children, lambda changed: pytree.tree_unflatten(changed, spec)
    if isinstance(value, Mapping):
        return list(value), list(value.values()), lambda changed: _remapped(value, changed)
    if is_dataclass(value) and not isinstance(value, type):
        fields = vars(value)
        return list(fields), list(fields.values()), lambda changed: _refielded(value, changed)
    if isinstance(value, list):
        return range(len(value)), list(value), lambda changed: _relisted(value, changed)
    if isinstance(value, tuple):
        return range(len(value)), list(value), type(value)
    return None


def _relisted(value: list[Any], changed: Sequence[Any]) -> list[Any]:
    rebuilt = copy(value)
    rebuilt[:] = changed
    return rebuilt


def _remapped(value: Mapping[Any, Any], changed: Sequence[Any]) -> Mapping[Any, Any]:
    if not isinstance(value, MutableMapping):
        return type(value)(**dict(zip(value, changed, strict=True)))
    rebuilt = copy(value)
    for key, child in zip(list(value), changed, strict=True):
        rebuilt[key] = child
    return rebuilt


def _refielded(value: Any, changed: Sequence[Any]) -> Any:
    rebuilt = copy(value)
    for name, child in zip(vars(value), changed, strict=True):
        object.__setattr__(rebuilt, name, child)  # works for frozen dataclasses too
    return rebuilt


def call_module(module: nn.Module, inputs: NetworkInput) -> Any:
    """``module(inputs)``, with tuples and lists spread by position and dicts by name."""
    if isinstance(inputs, Mapping):
        return module(**inputs)
    return module(*inputs) if isinstance(inputs, (tuple, list)) else module(inputs)


def find_image(inputs: NetworkInput) -> Tensor | None:
    """The image on which maps are drawn: the first tensor ``(B, C, H, W)``, of the drawn input if that is known."""
    drawn = drawn_of(inputs)
    within: Any = inputs if drawn is None else inputs[drawn]  # type: ignore[index]
    return next((tensor for tensor in tensors(within) if tensor.ndim == 4), None)


def input_size(inputs: NetworkInput) -> tuple[Size, int]:
    """``(H, W)`` and the batch size of the image on which maps are drawn.

    Raises:
        InputError: If there is no tensor ``(B, C, H, W)``.
    """
    image = find_image(inputs)
    if image is None:
        raise no_image(inputs)
    return (int(image.shape[2]), int(image.shape[3])), int(image.shape[0])


NO_VIDEO = 'video and volumes are not supported'


def no_image(inputs: Any) -> InputError:
    """What to say of inputs without an image."""
    shapes = [tuple(tensor.shape) for tensor in tensors(inputs)]
    if any(len(shape) > 4 for shape in shapes):
        return InputError(f'{NO_VIDEO}: the inputs have the shapes {shapes}', accepted='images (B, C, H, W)')
    return InputError(
        f'no image among inputs {shapes}; signals and other inputs without rows and columns are not supported',
        accepted='(C, H, W) or (B, C, H, W)',
    )


def map_rows(change: Callable[[Tensor], Tensor], inputs: NetworkInput) -> Any:
    """``inputs`` with ``change(tensor)`` for every tensor that has the images' batch axis; the others stay whole.

    These are the tensors as long as the image, except inputs that are known to be shared by all images.
    """
    image, shared = find_image(inputs), shared_of(inputs)
    count = None if image is None else len(image)

    def changed(tensor: Tensor) -> Tensor:
        return change(tensor) if tensor.ndim and count in (None, len(tensor)) else tensor

    if not shared:
        return map_tensors(changed, inputs)
    result = several(inputs)  # type: ignore[arg-type]
    for key, value in entries(result):
        if key not in shared:
            result[key] = map_tensors(changed, value)
    return result


def joined_inputs(shape: Sequence[int], inputs: NetworkInput) -> str:
    """Says that a tensor holds several image inputs joined to one batch, as by ``torch.cat([a, b])``; else ``''``."""
    image = find_image(inputs)
    several = sum(tensor.ndim == 4 and image is not None and len(tensor) == len(image) for tensor in tensors(inputs))
    if image is None or several < 2 or not shape or shape[0] != several * len(image):
        return ''
    return (
        f'its output {tuple(shape)} holds {several} inputs joined to one batch, so its rows are not those of the drawn '
        'image alone'
    )


def rows(inputs: NetworkInput, start: int, stop: int) -> Any:
    """The images ``start`` to ``stop`` of a batch, with their rows of every tensor that has one for each image."""
    return map_rows(lambda tensor: tensor[start:stop], inputs)


def repeated(inputs: NetworkInput, count: int) -> Any:
    """A batch of one image, repeated ``count`` times without copying."""
    return map_rows(lambda tensor: tensor.expand(count, *tensor.shape[1:]), inputs)


MAX_PREFIX = 64
"""A grid that leaves more tokens than this is the wrong grid: they are not prefix tokens."""

USUAL_PREFIX = 8
"""Most networks have no more class, distillation and register tokens; a grid that leaves more is the last guess."""

_SUM_TOLERANCE = 0.05  # covers bfloat16
_CHANNELS_FIRST = (nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm)
_CHANNELS_LAST = (nn.Linear, nn.LayerNorm)
_MEASURES = (nn.Conv2d, nn.ConvTranspose2d, nn.MaxPool2d, nn.AvgPool2d)
_ADAPTIVE = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


@dataclass(frozen=True)
class TokenHints:
    """What the user says about token layouts; None leaves it to be found.

    Attributes:
        prefix: Number of tokens before the grid; 0 is a value.
        flat: Whether layers return tokens, ``(B, L, C)``.
        suffix: Number of tokens after the grid; it counts only where ``prefix`` is given.
    """

    prefix: int | None = None
    flat: bool | None = None
    suffix: int = 0

    @property
    def extra(self) -> int | None:
        """Tokens outside the grid, or None."""
        return None if self.prefix is None else self.prefix + self.suffix

    @property
    def text(self) -> str:
        """The extra tokens as the user writes them: ``'1'`` or ``'1,2'``."""
        return f'{self.prefix},{self.suffix}' if self.suffix else f'{self.prefix}'


def token_hints(extra_tokens: int | Sequence[int] | None, flat: bool | None = None) -> TokenHints:
    """The user's words as hints.

    Args:
        extra_tokens: How many tokens come before the grid, or ``(before, after)``; None leaves it to be found.
        flat: Whether layers return tokens.

    Raises:
        InputError: If it is something else, or negative.
    """
    if extra_tokens is None:
        return TokenHints(flat=flat)
    counts = tuple(extra_tokens) if isinstance(extra_tokens, Sequence) else (extra_tokens,)
    if not 1 <= len(counts) <= 2 or not all(type(count) is int and count >= 0 for count in counts):
        raise InputError(
            f'{extra_tokens!r} is not a number of tokens',
            accepted='how many come before the grid (1), or before and after it (1,0), 0 or more',
            parameter='extra_tokens',
        )
    return TokenHints(counts[0], flat, counts[1] if len(counts) == 2 else 0)


@dataclass
class Grids(Sequence[Size]):
    """Spatial sizes seen in a forward, most recent last: candidates for laying out flat tokens.

    Attributes:
        sizes: Both readings of an ambiguous 4-D output count.
        measured: Those among them that a convolution or a pooling layer returned. They are maps whatever their shape.
    """

    sizes: list[Size] = field(default_factory=list)
    measured: set[Size] = field(default_factory=set)
    _latest: Grids | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator[Size]:
        return iter(self.sizes)

    def __getitem__(self, index: Any) -> Any:
        return self.sizes[index]

    @property
    def measured_sizes(self) -> list[Size]:
        """The measured sizes in the order in which they were seen."""
        return [size for size in self.sizes if size in self.measured]

    def copy(self) -> Grids:
        """The sizes seen so far."""
        return Grids(list(self.sizes), set(self.measured))

    def snapshot(self) -> Grids:
        """:meth:`copy`; one copy, which nobody may change, as long as the sizes are the same."""
        if self._latest is None:
            self._latest = self.copy()
        return self._latest

    def watch(self, output: Any, args: Sequence[Any] = (), module: nn.Module | None = None) -> None:
        """Notes the size of a 4-D map, or the ``(H, W)`` that token models pass along with their tokens.

        Args:
            output: What a module returned.
            args: What it was given, in which token models often say how their tokens are laid out.
            module: The module, which may tell where the channels of a 4-D map are.
        """
        for value in args:
            if type(value) is not Tensor:
                self._note_pair(value)
        if not isinstance(output, Tensor) and isinstance(output, Mapping):
            output = first_tensor(output)
        if isinstance(output, Tensor):
            if output.ndim == 4:
                if not isinstance(module, _CHANNELS_LAST):
                    self._note(output.shape[2], output.shape[3])
                if module is not None and mixes_places(module):
                    self.measure(output)
                if not isinstance(module, _CHANNELS_FIRST):
                    self._note(output.shape[1], output.shape[2])
        elif isinstance(output, tuple) and output:
            pairs = [self._note_pair(value) for value in output[1:]]
            if not any(pairs):
                self.watch(output[0], module=module)

    def measure(self, maps: Tensor) -> None:
        """Notes the size of ``(B, C, h, w)``, which a convolution or a pooling layer returned."""
        self._note(maps.shape[-2], maps.shape[-1])
        if self.sizes[-1] not in self.measured:
            self.measured.add(self.sizes[-1])
            self._latest = None

    def _note_pair(self, value: Any) -> bool:
        found = isinstance(value, (tuple, list)) and len(value) == 2 and all(type(n) is int and n > 0 for n in value)
        if found:
            self._note(value[0], value[1])
        return found

    def _note(self, height: int, width: int) -> None:
        size = (int(height), int(width))
        if self.sizes and self.sizes[-1] == size:
            return
        self._latest = None
        if size in self.sizes:
            self.sizes.remove(size)
        self.sizes.append(size)


def seen_grids(grids: Grids) -> list[Size]:
    """Grids that convolutions and pooling layers made, and those that halving them makes (merged tokens)."""
    halved = [
        (height >> times, width >> times)
        for height, width in grids.measured_sizes
        for times in range(6)
        if height % 2**times == 0 and width % 2**times == 0
    ]
    return list(dict.fromkeys(halved))


@dataclass(frozen=True)
class TokenOrder:
    """Tokens that do not lie row by row: the grid is split into factors, which run in another order.

    A grid of ``4 × 4`` cut into blocks of ``2 × 2`` has rows ``(2, 2)`` and columns ``(2, 2)``, coarse to fine. Row by
    row the axes run ``(0, 1, 2, 3)``; block after block ``(0, 2, 1, 3)``.

    Attributes:
        rows: Factors of the height, coarse to fine.
        columns: Factors of the width.
        axes: The axes in the order of the tokens, slowest first: rows are counted from 0, columns go on after them.
        name: For messages: ``'blocks of 7×7'``.
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    axes: tuple[int, ...]
    name: str

    def index(self) -> Tensor:
        """int64 ``(h · w,)``: which token lies at each position, row by row."""
        return _order_index(self)


@lru_cache(maxsize=1024)
def _order_index(order: TokenOrder) -> Tensor:
    sides = (*order.rows, *order.columns)
    tokens = torch.arange(math.prod(sides)).view([sides[axis] for axis in order.axes])
    return tokens.permute([order.axes.index(axis) for axis in range(len(sides))]).flatten()


@dataclass(frozen=True)
class WindowOrder:
    """Tokens that lie in windows over a grid, one window after the other; what a window has beyond the grid is padding.

    Attributes:
        grid: ``(h, w)`` of all tokens.
        window: ``(h, w)`` of a window.
        shift: How far the windows are moved down and to the right; what leaves the padded grid comes in again.
        scattered: Whether a window gathers positions that are a stride apart (MaxViT's grid attention, Tu et al., ECCV
            2022) instead of neighbors.
        centered: Whether padding is on both sides instead of at the end.
    """

    grid: Size
    window: Size
    shift: Size = (0, 0)
    scattered: bool = False
    centered: bool = False

    @property
    def counts(self) -> Size:
        """Rows and columns of windows."""
        return -(-self.grid[0] // self.window[0]), -(-self.grid[1] // self.window[1])

    @property
    def length(self) -> int:
        """Tokens in all windows, padding included."""
        return math.prod((*self.counts, *self.window))

    @property
    def name(self) -> str:
        """For messages."""
        moved = f', shifted by {self.shift[0]}×{self.shift[1]}' if any(self.shift) else ''
        return f'{"scattered " * self.scattered}windows of {self.window[0]}×{self.window[1]}{moved}'

    def cells(self) -> Tensor:
        """int64 ``(windows, tokens)``: the cell of the grid that each token is, -1 for padding."""
        return _window_cells(self)

    def index(self) -> Tensor:
        """int64 ``(h · w,)``: which token lies at each position, row by row."""
        cells = self.cells().flatten()
        found = torch.empty(self.grid[0] * self.grid[1], dtype=torch.long)
        found[cells[cells >= 0]] = (cells >= 0).nonzero()[:, 0]
        return found


@lru_cache(maxsize=256)
def _window_cells(order: WindowOrder) -> Tensor:
    lines = []
    for length, side, count, moved in zip(order.grid, order.window, order.counts, order.shift, strict=True):
        whole = torch.arange(side * count)
        at = (whole + moved) % len(whole) - ((len(whole) - length) // 2 if order.centered else 0)
        at = torch.where((at >= 0) & (at < length), at, -1)
        lines.append(at.view(side, count).mT if order.scattered else at.view(count, side))
    y, x = lines[0][:, None, :, None], lines[1][None, :, None, :]
    return torch.where((y >= 0) & (x >= 0), y * order.grid[1] + x, -1).reshape(math.prod(order.counts), -1)


def window_orders(windows: int, tokens: int, grids: Sequence[Size]) -> Iterator[WindowOrder]:
    """The ways to cut grids into so many windows of so many tokens: plain, shifted by half a window, scattered.

    Args:
        windows: Windows of an image.
        tokens: Tokens of a window.
        grids: The grids.
    """
    for grid in grids:
        for high in (n for n in range(1, tokens + 1) if tokens % n == 0):
            sides = high, tokens // high
            plain = WindowOrder(grid, sides)
            if math.prod(plain.counts) != windows or max(sides) > 4 * min(sides):
                continue
            half = tuple(0 if count == 1 else side // 2 for count, side in zip(plain.counts, sides, strict=True))
            for scattered, shift in dict.fromkeys(((False, (0, 0)), (False, half), (True, (0, 0)))):
                for centered in (False, True) if plain.length > grid[0] * grid[1] else (False,):
                    yield WindowOrder(grid, sides, (shift[0], shift[1]), scattered, centered)


@dataclass(frozen=True)
class Layout:
    """How a tensor becomes ``(B, C, h, w)``.

    Attributes:
        axes: ``'BCHW'``, ``'BHWC'``, ``'BLC'`` (tokens) or ``'BCL'``. Several axes between the batch and the channels
            are one run of tokens, and so are groups of tokens along the first axis.
        grid: ``(h, w)``.
        prefix: Tokens before the grid (class, distillation, registers).
        suffix: Tokens after the grid.
        middle: Tokens in the middle of the grid's tokens, after ``h · w // 2`` of them.
        order: How the tokens run over the grid; None means row by row.
        unchecked: Whether the order is assumed, because it could not be checked.
    """

    axes: str
    grid: Size
    prefix: int = 0
    suffix: int = 0
    middle: int = 0
    order: TokenOrder | WindowOrder | None = None
    unchecked: bool = field(default=False, compare=False)

    @property
    def length(self) -> int:
        """Tokens of an image."""
        if isinstance(self.order, WindowOrder):
            return self.order.length
        return self.grid[0] * self.grid[1] + self.extra

    @property
    def extra(self) -> int:
        """Tokens outside the grid."""
        return self.prefix + self.middle + self.suffix

    @property
    def plain(self) -> bool:
        """Whether the tokens lie row by row without a gap."""
        return self.order is None and not self.middle

    def index(self) -> Tensor:
        """int64 ``(h · w,)``: which of an image's tokens lies at each position, row by row."""
        cells = self.grid[0] * self.grid[1]
        patches = torch.arange(cells) if self.order is None else self.order.index()
        return patches + self.prefix + self.middle * (patches >= cells // 2)

    def to_map(self, tensor: Tensor) -> Tensor:
        """``tensor`` as ``(B, C, h, w)``, a view where that is possible; tokens outside the grid are dropped."""
        if self.axes == 'BCHW':
            return tensor
        if self.axes == 'BHWC':
            return tensor.permute(0, 3, 1, 2)
        tokens = self._tokens(tensor)
        if self.plain:
            return tokens[:, :, self.prefix : tokens.shape[2] - self.suffix].unflatten(2, self.grid)
        return tokens[:, :, self.index().to(tensor.device)].unflatten(2, self.grid)

    def from_map(self, maps: Tensor, like: Tensor) -> Tensor:
        """The inverse of :meth:`to_map`; tokens outside the grid are taken from ``like``."""
        if self.axes == 'BCHW':
            return maps
        if self.axes == 'BHWC':
            return maps.permute(0, 2, 3, 1)
        tokens = self._tokens(like).clone()
        tokens[:, :, self.index().to(like.device)] = maps.flatten(2)
        if self.axes == 'BLC':
            return tokens.transpose(1, 2).reshape(like.shape)
        return tokens.unflatten(2, (-1, math.prod(like.shape[2:]))).transpose(1, 2).reshape(like.shape)

    def _tokens(self, tensor: Tensor) -> Tensor:
        """``(B, C, L)``."""
        if self.axes == 'BLC':
            return tensor.reshape(-1, self.length, tensor.shape[-1]).transpose(1, 2)
        tokens = math.prod(tensor.shape[2:])  # of a window
        groups = tensor.reshape(-1, self.length // tokens, tensor.shape[1], tokens)
        return groups.transpose(1, 2).reshape(-1, tensor.shape[1], self.length)


class NoSpatialMap(ValueError):
    """A tensor that cannot be laid out in space; the message says why."""


class PooledMap(NoSpatialMap):
    """A map with a single position."""


def find_layout(
    tensor: Tensor,
    input_size: Size,
    grids: Sequence[Size] = (),
    *,
    batch: int | None = None,
    layer: nn.Module | None = None,
    hints: TokenHints | None = None,
) -> Layout:
    """How ``tensor``, the output of ``layer``, is laid out.

    Args:
        tensor: The layer's output.
        input_size: ``(H, W)`` of the network input, for the aspect ratio.
        grids: Spatial sizes that were seen before the layer ran, most recent last.
        batch: Images in the batch; a tensor with another first axis holds windows or heads, not images.
        layer: The module, which tells where the channels are when the shape alone does not.
        hints: What the user says.

    Raises:
        NoSpatialMap: If there is no map in it.
    """
    shape, hints = tuple(tensor.shape), hints or TokenHints()
    if batch is not None and shape and shape[0] != batch:
        joined = 'windows, heads, regions, copies or tiles of an image, or several inputs joined to one batch'
        shared = 'what all images share (a position embedding), or a region'
        what = joined if shape[0] % batch == 0 else shared if shape[0] == 1 else 'regions'
        raise NoSpatialMap(
            f'its output {shape} has {counted(shape[0], "entry", "entries")} for {counted(batch, "image")}: {what}'
        )
    if tensor.ndim == 4:
        if weighs_tokens(tensor, grids, layer):
            raise NoSpatialMap(f'its output {shape} weighs {shape[3]} tokens against each other')
        return _find_map(shape, input_size, layer, grids)
    if tensor.ndim == 3:
        return _find_tokens(shape, input_size, grids, layer, hints)
    raise NoSpatialMap(f'its output {shape} does not have two spatial axes')


def weighs_tokens(tensor: Tensor, grids: Sequence[Size], layer: nn.Module | None) -> bool:
    """Whether a tensor of four axes is ``(B, heads, tokens, tokens)``, which would pass for a square map."""
    if not may_weigh_tokens(tensor.shape, grids, layer):
        return False
    # 56 × 56 positions could be 7 × 7 tokens and 7 more: only weights sum to 1
    return tensor.is_meta or bool(((tensor[0, :, 0].detach().double().sum(-1) - 1).abs() < _SUM_TOLERANCE).all())


def may_weigh_tokens(shape: Sequence[int], grids: Sequence[Size], layer: nn.Module | None) -> bool:
    """Whether a tensor of this shape may be ``(B, heads, tokens, tokens)``, so that its values have to tell."""
    if len(shape) != 4 or shape[2] != shape[3] or shape[2] == 1:
        return False
    side, weights = shape[2], isinstance(layer, (nn.Softmax, nn.modules.dropout._DropoutNd))
    for height, width in grids:
        spare = side - height * width
        if (0 < spare <= USUAL_PREFIX and height > 1 and width > 1) or (weights and spare == 0):
            return True
    return False


def _find_map(shape: tuple[int, ...], input_size: Size, layer: nn.Module | None, grids: Sequence[Size]) -> Layout:
    """Where the channels of a tensor of four axes are.

    In this order: what the layer works on; which of both readings has a size that a convolution or a pooling layer
    made; which has the more nearly square cells.
    """
    first, last = (shape[2], shape[3]), (shape[1], shape[2])
    normalized = tuple(getattr(layer, 'normalized_shape', ()) or ())
    if isinstance(layer, nn.Linear) or (type(layer) is nn.LayerNorm and normalized == shape[-1:]):
        axes = 'BHWC'
    elif isinstance(layer, _CHANNELS_FIRST):
        axes = 'BCHW'
    elif (first in measured(grids)) != (last in measured(grids)):
        axes = 'BCHW' if first in measured(grids) else 'BHWC'
    else:
        axes = 'BCHW' if cell_distortion(first, input_size) <= cell_distortion(last, input_size) else 'BHWC'
    grid = first if axes == 'BCHW' else last
    if grid == (1, 1):
        raise PooledMap(f'its output {shape} is pooled to a single position')
    return Layout(axes, grid)


def _find_tokens(
    shape: tuple[int, ...],
    input_size: Size,
    grids: Sequence[Size],
    layer: nn.Module | None,
    hints: TokenHints,
) -> Layout:
    """The grid that tokens fill, and which of the axes they are.

    The first of these that fits:

    1. ``(B, L, C)``: a size seen on the way, with at most :data:`USUAL_PREFIX` tokens to spare;
    2. ``(B, L, C)``: the grid that one whole stride makes of the image, with none to spare;
    3. ``(B, C, L)``: a size seen on the way, with none to spare: channels before tokens are rare;
    4. ``(B, L, C)``, then ``(B, C, L)``: the grid that one stride makes, with one, two or five tokens to spare;
    5. ``(B, L, C)``: a size seen on the way, with at most :data:`MAX_PREFIX` tokens to spare.

    What the user says, and what the layer works on, limits these.
    """
    extra = hints.extra
    seen = partial(_seen_grid, grids=grids)
    rules: tuple[tuple[str, Callable[..., Any], int | None], ...] = (
        ('BLC', partial(seen, most=USUAL_PREFIX), extra),
        ('BLC', _aspect_grid, extra or 0),
        ('BCL', seen, extra or 0),
        ('BLC', _aspect_grid, extra),
        ('BCL', _aspect_grid, extra or 0),
        ('BLC', seen, extra),
    )
    possible = _axes(layer, shape, hints.flat)
    for axes, grid_of, spare in rules:
        length = shape[1] if axes == 'BLC' else shape[2]
        if axes in possible and (fit := grid_of(length, input_size, extra=spare)) is not None:
            grid, outside = fit
            return Layout(axes, grid, outside if hints.prefix is None else hints.prefix, hints.suffix if extra else 0)
    said = '' if extra is None else f' after {hints.text} extra {"token" if extra == 1 else "tokens"}'
    raise NoSpatialMap(f'its output {shape} leaves {shape[1] - (extra or 0)} tokens{said}, which form no grid')


def measured(grids: Sequence[Size]) -> set[Size]:
    """The sizes among ``grids`` that a convolution or a pooling layer returned."""
    return grids.measured if isinstance(grids, Grids) else set()


def _is_quantized_conv(module: nn.Module | None) -> bool:
    """Whether a module is a 2-D convolution of int8 numbers; those do not extend ``nn.Conv2d``."""
    return any(kind.__name__ == 'Conv2d' and '.quantized.' in kind.__module__ for kind in type(module).__mro__)


def mixes_places(module: nn.Module) -> bool:
    """Whether a module is a convolution or a pooling layer over several places of ``(B, C, h, w)``.

    A kernel of 1 × 1 works on tokens and heads as well, so it says nothing about places.
    """
    if isinstance(module, _ADAPTIVE):
        return True
    if not isinstance(module, _MEASURES) and not _is_quantized_conv(module):
        return False
    kernel: Any = module.kernel_size
    return kernel > 1 if isinstance(kernel, int) else max(kernel) > 1


def convolves(layer: nn.Module) -> bool:
    """Whether a layer is or holds one that :func:`mixes_places`."""
    return any(mixes_places(module) for module in layer.modules())


def gives_maps(layer: nn.Module, layout: Layout, grids: Sequence[Size]) -> bool:
    """Whether a 4-D output is certainly a map: of a convolution over places, or of the size of such a one's output.

    Neither a norm nor a kernel of 1 × 1 tells positions from heads, windows, or pixels of patches.
    """
    return layout.axes in ('BCHW', 'BHWC') and (mixes_places(layer) or layout.grid in measured(grids))


def _seen_grid(
    length: int,
    input_size: Size,
    grids: Sequence[Size],
    extra: int | None,
    most: int = MAX_PREFIX,
) -> tuple[Size, int] | None:
    """The spatial size among ``grids`` that ``length`` tokens fill with the fewest to spare, the latest first.

    Cells are roughly square, unless a convolution or a pooling layer made them otherwise.
    """
    allowed = range(most + 1) if extra is None else (extra,)
    sure = measured(grids)
    fits = [
        (length - h * w, -age, (h, w))
        for age, (h, w) in enumerate(grids)
        if h * w > 1
        and length - h * w in allowed
        and ((h, w) in sure or cell_distortion((h, w), input_size) < math.log(2))
    ]
    if not fits:
        return None
    spare, _, grid = min(fits)
    return grid, spare


def _axes(layer: nn.Module | None, shape: tuple[int, ...], flat: bool | None) -> tuple[str, ...]:
    """Where the channels may be: the user's word, what the layer works on, or either."""
    normalized = tuple(getattr(layer, 'normalized_shape', ()) or ())
    if flat or isinstance(layer, nn.Linear) or (isinstance(layer, nn.LayerNorm) and normalized == shape[-1:]):
        return ('BLC',)
    return ('BCL',) if isinstance(layer, (nn.BatchNorm1d, nn.Conv1d, nn.Unfold)) else ('BLC', 'BCL')


def _aspect_grid(length: int, input_size: Size, extra: int | None) -> tuple[Size, int] | None:
    """The grid that one whole stride makes of the image (rounded up or down), with as few prefix tokens as possible."""
    height, width = input_size
    for spare in (0, 1, 2, 5) if extra is None else (extra,):
        area = length - spare
        if area < 2:
            continue
        near = math.sqrt(height * width / area)
        for stride in sorted(range(max(1, int(near * 0.5)), int(near * 2) + 2), key=lambda s: abs(s - near)):
            for grid in ((height // stride, width // stride), (-(-height // stride), -(-width // stride))):
                if grid[0] * grid[1] == area:
                    return grid, spare
    return None


def cell_distortion(grid: Size, input_size: Size) -> float:
    """How far a grid's cells are from square, as |log| of their aspect ratio."""
    return abs(math.log((input_size[0] * grid[1]) / (input_size[1] * grid[0])))

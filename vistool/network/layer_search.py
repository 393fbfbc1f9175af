"""Layer search: the layer to explain of a network that no table knows, found by running it once on one image.

The layer is the last, in running order, whose map the score depends on, at the positions of the image and not only at a
class token. Maps are told apart by their values, not by the tensor objects that carry them: what an in-place operation
made of a map is another map. Three rules name it:

- of modules that pass one map on unchanged, the outermost;
- after a transformer block whose patch tokens no longer reach the score, that block's first norm, not the projections
  or heads inside its attention;
- a pooling or a linear projection is explained at its input, where that is a map.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vistool.network.capture import ReluCalls, borrowed, hooked
from vistool.network.inputs import run_network
from vistool.network.layers import is_norm, module_path
from vistool.network.tensors import (
    Grids,
    Layout,
    NetworkInput,
    NoSpatialMap,
    Size,
    find_image,
    find_layout,
    first_tensor,
    float_tensors,
    input_size,
    map_tensors,
    rows,
)

Objective = Callable[[Any], Tensor | None]
"""A network's output → a scalar to differentiate, or None."""

_SQUARE = math.log(1.3)
"""Cells of a map are roughly square; where no convolution or pooling made such a grid, anything further off holds heads
and tokens, not rows and columns."""
_IDLE = (nn.Identity, nn.modules.dropout._DropoutNd)
_POOLINGS = (
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
    nn.modules.pooling._AdaptiveAvgPoolNd,
)


@dataclass(frozen=True)
class FoundLayer:
    """What the search found.

    Attributes:
        name: The layer.
        zero: The layer whose weights are all zero, so that no score depends on anything before it; ``''`` for none.
    """

    name: str
    zero: str = ''


@dataclass
class _Map:
    """A tensor that a module returned, named by the outermost module that passes it on.

    Attributes:
        name: The layer.
        layer: Its module.
        kept: The tensor.
        passed: The copy with which the network goes on, so that in-place operations do not reach what is kept.
        version: That of the copy when the network got it; a later one is another map.
        grids: Spatial sizes seen before.
        given: The map that the module was called with, if it was one.
        pooled: Whether the module only pools.
    """

    name: str
    layer: nn.Module
    kept: Tensor
    passed: Tensor
    version: int
    grids: Sequence[Size]
    given: _Map | None = None
    pooled: bool = False

    def is_passed(self, tensor: Tensor, version: int) -> bool:
        """Whether ``tensor`` still holds this map."""
        return tensor is self.passed and version == self.version


@dataclass
class _Run:
    """One recorded forward.

    Attributes:
        maps: What the modules returned, in the order in which they finished.
        projections: Linear and convolution layers with their inputs, in that order.
        made: Spatial sizes that convolutions and poolings made.
        output: What the network returned.
    """

    maps: list[_Map] = field(default_factory=list)
    projections: list[tuple[str, nn.Module, Tensor]] = field(default_factory=list)
    made: set[Size] = field(default_factory=set)
    output: Any = None

    def holder(self, tensor: Tensor, version: int) -> _Map | None:
        """The map that ``tensor`` holds, the newest first."""
        return next((entry for entry in reversed(self.maps) if entry.is_passed(tensor, version)), None)


def search(module: nn.Module, inputs: NetworkInput, objective: Objective) -> FoundLayer | None:
    """The layer to explain, from one forward and one full backward of one image.

    A head whose weights are all zero lets no gradient through; then what it is given is differentiated in its place.

    Args:
        module: The network.
        inputs: Its input, a tensor ``(B, C, H, W)`` or a tuple or dict of tensors; only the first image is used.
        objective: What is differentiated.
    """
    one = _with_differentiable_image(rows(inputs, 0, 1))
    size = input_size(one)[0]
    with borrowed(module):
        run = _record(module, one)
        scalar = objective(run.output)
        if run.maps and scalar is not None and scalar.requires_grad and (name := _choose(run, scalar, size)):
            return FoundLayer(name)
        for zero, layer, given in reversed(run.projections):
            if given.requires_grad and not layer.weight.any():  # type: ignore[operator]
                name = _choose(run, random_mixture(given), size)
                return FoundLayer(name, zero) if name else None
    return None


def random_mixture(features: Tensor) -> Tensor:
    """A scalar that depends on all of ``features``, with fixed random weights."""
    generator = torch.Generator().manual_seed(0)
    return (features * torch.randn(features.shape, generator=generator).to(features)).sum()


def _record(module: nn.Module, inputs: NetworkInput) -> _Run:
    run, grids = _Run(), Grids()

    def keep(name: str, layer: nn.Module, args: Any, output: Any) -> Any:
        given = first_tensor(args)
        if given is not None and isinstance(layer, (nn.Linear, nn.modules.conv._ConvNd)):
            run.projections.append((name, layer, given))
        found = [(place, tensor) for place, tensor in float_tensors(output) if tensor.requires_grad and tensor.ndim > 1]
        source = None if given is None else run.holder(given, given._version)
        passed: dict[int, Tensor] = {}
        for place, tensor in found:
            held = run.holder(tensor, tensor._version)
            if held is None and id(tensor) not in passed:
                full = name + (place if len(found) > 1 else '')
                passed[id(tensor)] = _enter(run, full, layer, tensor, grids, source)
            elif held is run.maps[-1] and isinstance(output, Tensor) and not isinstance(layer, _IDLE):
                held.name, held.layer = name, layer  # else something used the map before this module passed it on
        if passed:
            grids.watch(output, args, layer)
        return map_tensors(lambda tensor: passed.get(id(tensor), tensor), output) if passed else None

    def follow(given: Tensor, version: int, output: Tensor) -> Tensor | None:
        source = run.holder(given, version)
        if source is None or source.name != module_path(source.name):
            return None
        return _enter(run, f'{source.name}+relu', source.layer, output, grids, source)

    named = {name: child for name, child in module.named_modules() if name}
    with hooked(named, keep), ReluCalls(follow):
        run.output = run_network(module, inputs)
    run.made |= grids.measured
    return run


def _enter(run: _Run, name: str, layer: nn.Module, tensor: Tensor, grids: Grids, given: _Map | None) -> Tensor:
    copy = tensor.clone()
    pooled = isinstance(layer, _POOLINGS)
    run.maps.append(_Map(name, layer, tensor, copy, copy._version, grids.copy(), given, pooled))
    return copy


def _choose(run: _Run, scalar: Tensor, size: Size) -> str:
    """The name of the layer to explain, ``''`` if no map reaches the score."""
    tensors = [entry.kept for entry in run.maps] + [entry.passed for entry in run.maps]
    found = torch.autograd.grad(scalar, tensors, retain_graph=True, allow_unused=True)
    count = len(run.maps)
    # A function that works in place may have its return value ignored: then its copy leads nowhere
    reached = [
        None if entry.name.endswith('+relu') and after is None else before
        for entry, before, after in zip(run.maps, found[:count], found[count:], strict=True)
    ]
    last = next(
        (index for index in range(count - 1, -1, -1) if _is_spatial(run.maps[index], reached[index], size, run.made)),
        None,
    )
    if last is None:
        return ''
    for index in _norms_before(run.maps, reached, last, size):
        if _is_spatial(run.maps[index], reached[index], size, run.made):
            return run.maps[index].name
    return run.maps[_before_projections(run, reached, last, size)].name


def _before_projections(run: _Run, reached: Sequence[Tensor | None], last: int, size: Size) -> int:
    """The map that poolings and linear projections at the end were given; of a part of one, the map before."""
    spatial = [index for index in range(last) if _is_spatial(run.maps[index], reached[index], size, run.made)]
    places = {id(entry): index for index, entry in enumerate(run.maps)}
    while run.maps[last].pooled or isinstance(run.maps[last].layer, nn.Linear):
        given = run.maps[last].given
        before = [index for index in spatial if index < last and (given is None or index == places[id(given)])]
        if not before:
            break
        last = before[-1]
    return last


def _norms_before(maps: Sequence[_Map], reached: Sequence[Tensor | None], last: int, size: Size) -> Iterator[int]:
    """The norms of the transformer block around the last spatial map, in running order.

    A block is the nearest numbered module around it that returns tokens of which only those before the grid reach the
    score.
    """
    parts = module_path(maps[last].name).split('.')
    for depth in range(len(parts) - 1, 0, -1):
        block = '.'.join(parts[:depth])
        inside = [index for index, entry in enumerate(maps) if f'{entry.name}.'.startswith(f'{block}.')]
        if not parts[depth - 1][-1].isdigit():
            continue
        if any(index > last and _is_prefix_only(maps[index], reached[index], size) for index in inside):
            yield from (index for index in inside if index < last and is_norm(maps[index].layer))
            return


def _is_prefix_only(entry: _Map, gradient: Tensor | None, size: Size) -> bool:
    if gradient is None or not gradient.any() or (layout := _layout(entry, size)) is None:
        return False
    return layout.prefix > 0 and not layout.to_map(gradient).any()


def _is_spatial(entry: _Map, gradient: Tensor | None, size: Size, made: set[Size]) -> bool:
    if gradient is None or (layout := _layout(entry, size)) is None:
        return False
    if (layout.axes == 'BCL' and layout.grid not in entry.grids) or (layout.axes == 'BLC' and entry.kept.shape[2] == 1):
        return False  # by chance the number of channels is that of positions in some grid
    (height, width), (rows_, columns) = size, layout.grid
    square = layout.grid in made or abs(math.log(height * columns / (width * rows_))) < _SQUARE
    return square and rows_ * columns > 1 and bool(layout.to_map(gradient).any())


def _layout(entry: _Map, size: Size) -> Layout | None:
    try:
        return find_layout(entry.kept, size, entry.grids, batch=1, layer=entry.layer)
    except NoSpatialMap:
        return None


def _with_differentiable_image(inputs: NetworkInput) -> NetworkInput:
    """Inputs of which only the image that maps are drawn on asks for gradients: maps of other inputs are not found."""
    image = find_image(inputs)
    leaf = None if image is None else image.detach().clone()
    if leaf is not None and leaf.is_floating_point():
        leaf.requires_grad_()
    return map_tensors(lambda tensor: leaf if tensor is image else tensor.detach(), inputs)

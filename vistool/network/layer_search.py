"""Layer search: the layer to explain of a network that no table knows, found by running it once on one image.

The layer is the last, in running order, whose map the score depends on, at the positions of the image and not only at a
class token. Maps are told apart by their values, not by the tensor objects that carry them: what an in-place operation
made of a map is another map. Three rules name it:

- of modules that pass one map on unchanged, the outermost;
- after a transformer block whose patch tokens no longer reach the score, that block's first norm, not the projections
  or heads inside its attention;
- a pooling or a linear projection is explained at its input, where that is a map.

Where a map lies in the image is read from its shape; what is chosen is then checked by changing the image
(:mod:`~vistool.network.positions`), and another map chosen if that shows no place.

The same forward shows through which calls of each module the score depends on the image (:attr:`FoundLayer.calls`).
Where no gradient leads back from the score (int8 layers), the last map at all is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from vistool.data.inputs import drawn_of
from vistool.errors import InputError
from vistool.network.capture import ReluCalls, borrowed, hooked, remembered, uncollected
from vistool.network.inputs import run_network
from vistool.network.layers import is_norm, layers_of, module_path
from vistool.network.outputs import BY_PLACE, ScoreReader
from vistool.network.positions import Check, checked_layout
from vistool.network.tensors import (
    Grids,
    Layout,
    NetworkInput,
    NoSpatialMap,
    Size,
    TokenHints,
    find_image,
    find_layout,
    first_tensor,
    float_tensors,
    input_size,
    joined_inputs,
    map_tensors,
    may_weigh_tokens,
    rows,
    tensors,
)

Objective = Callable[[Any], Tensor | None]
"""A network's output → a scalar to differentiate, or None."""

_SQUARE = math.log(1.3)
"""Cells of a map are roughly square; where no convolution or pooling made such a grid, anything further off holds heads
and tokens, not rows and columns."""
_STEP = 8
"""Maps from the end to which the first backward goes."""
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
        name: The layer; ``''`` for none.
        zero: The layer whose weights are all zero, so that no score depends on anything before it; ``''`` for none.
        followed: Whether gradients lead from the score back to the layer.
        calls: Module → for each of its calls, whether the score depends on the drawn image through more than the first
            token of what it returned. Without gradients it is empty, and where one image goes through each module once.
        joined: Why a layer holds other rows than one for each image, where no layer was found; ``''`` for none.
        grids: Spatial sizes seen until the layer ended, if it ran once.
    """

    name: str = ''
    zero: str = ''
    followed: bool = True
    calls: Mapping[str, tuple[bool, ...]] = field(default_factory=dict)
    joined: str = ''
    grids: Sequence[Size] = ()


@dataclass
class _Map:
    """A tensor that a module returned, named by the outermost module that passes it on.

    Attributes:
        name: The layer.
        layer: Its module.
        kept: The tensor. Only its shape is certain, unless it was copied: an operation in place may write to it.
        edge: Where it is in the graph, whatever becomes of it; None without a graph.
        passed: The tensor with which the network goes on.
        version: That of ``passed`` when the network got it; a later one is another map.
        grids: Spatial sizes seen before.
        given: The map that the module was called with, if it was one.
        pooled: Whether the module only pools.
        source: The module, which of its calls and where in its output: what the map is checked by.
        placed: Whether the check leaves it a map; None until there was one.
        until: Spatial sizes seen until the module ended.
    """

    name: str
    layer: nn.Module
    kept: Tensor
    edge: GradientEdge | None
    passed: Tensor
    version: int
    grids: Sequence[Size]
    given: _Map | None = None
    pooled: bool = False
    source: tuple[nn.Module, int, str] | None = None
    placed: bool | None = None
    until: Sequence[Size] = ()


@dataclass
class _Run:
    """One recorded forward.

    Attributes:
        maps: What the modules returned, in the order in which they finished.
        projections: Linear and convolution layers with their inputs, in that order.
        made: Spatial sizes that convolutions and poolings made.
        calls: Module → the maps that each of its calls returned.
        output: What the network returned.
    """

    maps: list[_Map] = field(default_factory=list)
    calls: dict[str, list[list[_Map]]] = field(default_factory=dict)
    projections: list[tuple[str, nn.Module, Tensor]] = field(default_factory=list)
    made: set[Size] = field(default_factory=set)
    output: Any = None
    _held: dict[int, _Map] = field(default_factory=dict)

    def add(self, entry: _Map) -> None:
        """Adds a map."""
        self.maps.append(entry)
        self._held[id(entry.passed)] = entry

    def holder(self, tensor: Tensor, version: int) -> _Map | None:
        """The map that ``tensor`` still holds, or None."""
        entry = self._held.get(id(tensor))
        return entry if entry is not None and entry.version == version else None


def searched(module: nn.Module, inputs: NetworkInput, read: ScoreReader = BY_PLACE) -> FoundLayer:
    """:func:`search`, done once for a network, its weights, an input size and a way to read the score.

    Args:
        module: The network.
        inputs: Its input.
        read: Finds the scores in what the network returns.
    """
    shapes = tuple(tuple(tensor.shape[1:]) for tensor in tensors(inputs))
    scalar = partial(objective, count=1, read=read)
    # The reader itself may hold the network, which would then never be freed
    key = shapes, drawn_of(inputs), read.key
    return remembered(module, 'layer search', key, lambda: search(module, inputs, scalar))


def objective(output: Any, count: int, read: ScoreReader = BY_PLACE) -> Tensor | None:
    """A scalar to differentiate: the best class's score, or a fixed random mixture of a headless network's features.

    These are the first floating-point tensor of its output.

    Args:
        output: What the network returned.
        count: Number of images.
        read: Finds the scores in it.
    """
    scores = read(output, count)
    if scores is not None and scores.numel():
        return scores.amax(1).sum()
    features = first_tensor(output)
    return None if features is None else random_mixture(features)


def search(module: nn.Module, inputs: NetworkInput, objective: Objective) -> FoundLayer:
    """The layer to explain, from one forward of one image and a backward that goes as far back as it has to.

    A head whose weights are all zero lets no gradient through; then what it is given is differentiated in its place.
    Where there are no gradients at all, a second forward finds the last map.

    Args:
        module: The network.
        inputs: Its input, a tensor ``(B, C, H, W)`` or a tuple or dict of tensors; only the first image is used.
        objective: What is differentiated.
    """
    with borrowed(module), uncollected:
        try:
            return _search(module, inputs, objective)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, InputError):
            pass  # the first graph is gone before the second is made
        return _search(module, inputs, objective, copies=True)


def _search(module: nn.Module, inputs: NetworkInput, objective: Objective, *, copies: bool = False) -> FoundLayer:
    """:func:`search` in a borrowed network.

    Args:
        module: The network.
        inputs: Its input.
        objective: What is differentiated.
        copies: Whether the network goes on with copies of its maps. Only one that writes to tensors that the backward
            needs, and so cannot be trained, fails without.
    """
    one = _with_differentiable_image(rows(inputs, 0, 1))
    size = input_size(one)[0]
    single = _takes_one_image(one)
    check = partial(_check, module, inputs, size)
    run = _Recorder(module, one, copies=copies).run()
    scalar = objective(run.output)
    if run.maps and scalar is not None and scalar.requires_grad:
        reached = _Gradients(run, scalar)
        if entry := _choose(run, reached, size, check):
            grids = entry.until if len(run.calls[module_path(entry.name)]) == 1 else ()
            return FoundLayer(entry.name, calls=_used(run, reached, single), grids=grids)
    for zero, layer, given in reversed(run.projections):
        if given.requires_grad and not layer.weight.any():  # type: ignore[operator]
            reached = _Gradients(run, random_mixture(given))
            entry = _choose(run, reached, size, check)
            return FoundLayer(entry.name, zero, calls=_used(run, reached, single)) if entry else FoundLayer()
    if scalar is not None and scalar.requires_grad:
        return FoundLayer(joined=_joined(run, one))
    with torch.no_grad():
        return FoundLayer(_last_map(_Recorder(module, one, graph=False).run(), size), followed=False)


def _joined(run: _Run, one: NetworkInput) -> str:
    """Why maps of a network hold other rows than one for its one image; ``''`` if they do not."""
    for entry in reversed(run.maps):
        if joined_inputs(entry.kept.shape, one):
            why = 'several inputs joined to one batch (torch.cat), so its rows are not those of the drawn image alone'
            return f'{entry.name} runs on {why}'
        if entry.kept.ndim == 4 and len(entry.kept) > 1:
            rows_of = f'{len(entry.kept)} rows for each image'
            return f'{entry.name} runs on {rows_of}: copies, crops or tiles that the network makes of it'
    return ''


def random_mixture(features: Tensor) -> Tensor:
    """A scalar that depends on all of ``features``, with fixed random weights."""
    generator = torch.Generator().manual_seed(0)
    return (features * torch.randn(features.shape, generator=generator).to(features)).sum()


class _Recorder:
    """Runs a network once and records its maps: those that depend on the image by the autograd graph, else all.

    The network goes on with its own tensors, each told by its object and its version. It gets a copy where what it
    computed has no gradient, and of what a function returns, which may work in place and have that ignored.

    Args:
        module: The network.
        inputs: Its input.
        graph: Whether a graph is recorded.
        copies: Whether it gets copies of all maps.
    """

    def __init__(self, module: nn.Module, inputs: NetworkInput, *, graph: bool = True, copies: bool = False) -> None:
        self._module, self._inputs, self._graph, self._copies = module, inputs, graph, copies
        self._single = _takes_one_image(inputs)
        self._found, self._grids, self._all = _Run(), Grids(), Grids()

    def run(self) -> _Run:
        """What one forward shows."""
        named = {name: child for name, child in layers_of(self._module).items() if name}
        with hooked(named, self._watch), ReluCalls(self._follow), torch.set_grad_enabled(self._graph):
            self._found.output = run_network(self._module, self._inputs)
        self._found.made |= self._grids.measured
        return self._found

    def _watch(self, name: str, layer: nn.Module, args: Any, output: Any) -> Any:
        if type(output) is not Tensor:  # a class of the network's own stays what it is
            return self._keep(name, layer, args, output)
        with torch._C.DisableTorchFunction():  # else each look at a tensor in here goes through ReluCalls as well
            if type(layer) is nn.Identity and self._passes_on(name, output):
                return None
            return self._keep(name, layer, args, output)

    def _passes_on(self, name: str, output: Tensor) -> bool:
        """Whether an idle module returns the newest map, which keeps its name; half of GhostNetV3's calls do."""
        run = self._found
        held = run.holder(output, output._version)
        if held is None or held is not run.maps[-1]:
            return False
        run.calls.setdefault(name, []).append([held])
        return True

    def _keep(self, name: str, layer: nn.Module, args: Any, output: Any) -> Any:
        run, given = self._found, first_tensor(args)
        self._all.watch(output, args, layer)
        if given is not None and isinstance(layer, (nn.Linear, nn.modules.conv._ConvNd)):
            run.projections.append((name, layer, given))
        found = self._maps_in(output)
        source = None if given is None else run.holder(given, given._version)
        passed: dict[int, Tensor] = {}
        returned: list[_Map] = []
        calls = run.calls.setdefault(name, [])
        for place, tensor in found:
            held = run.holder(tensor, tensor._version)
            if held is None and id(tensor) not in passed:
                held = self._enter(name + (place if len(found) > 1 else ''), layer, tensor, source)
                held.source, held.until = (layer, len(calls), place), self._all.snapshot()
                passed[id(tensor)] = held.passed
            elif held is run.maps[-1] and isinstance(output, Tensor) and not isinstance(layer, _IDLE):
                held.name, held.layer = name, layer  # else something used the map before this module passed it on
                held.source, held.until = (layer, len(calls), place), self._all.snapshot()
            returned += [held] if held is not None else []
        calls.append(returned)
        if not passed:
            return None
        self._grids.watch(output, args, layer)
        return map_tensors(lambda tensor: passed.get(id(tensor), tensor), output)

    def _maps_in(self, output: Any) -> list[tuple[str, Tensor]]:
        """The tensors among which maps are looked for, with their places.

        A block of the network's own without gradients (``no_grad``) ends with them.
        """
        frozen = self._graph and self._single and not torch.is_grad_enabled()
        if frozen:
            torch.set_grad_enabled(True)
        return [
            (place, tensor)
            for place, tensor in float_tensors(output)
            if tensor.ndim > 1 and (tensor.requires_grad or not self._graph or (frozen and not tensor.is_inference()))
        ]

    def _follow(self, given: Tensor, version: int, output: Tensor) -> Tensor | None:
        source = self._found.holder(given, version)
        if source is None or source.name != module_path(source.name):
            return None
        entry = self._enter(f'{source.name}+relu', source.layer, output, source, copy=True)
        entry.source = source.source
        return entry.passed

    def _enter(self, name: str, layer: nn.Module, tensor: Tensor, given: _Map | None, copy: bool = False) -> _Map:
        """Adds a map."""
        graph, grids = self._graph, self._grids.snapshot()
        leaf = tensor if tensor.requires_grad or not graph else tensor.detach().requires_grad_()
        edge = get_gradient_edge(leaf) if graph else None
        passed = leaf.clone() if copy or self._copies or leaf is not tensor else tensor
        kept = tensor.detach()
        if passed is tensor and may_weigh_tokens(tensor.shape, grids, layer):
            kept = kept.clone()
        pooled = isinstance(layer, _POOLINGS)
        entry = _Map(name, layer, kept, edge, passed, passed._version, grids, given, pooled)
        self._found.add(entry)
        return entry


class _Gradients(Sequence[Tensor | None]):
    """The gradient of a scalar at each map of a run; None where it does not depend on it.

    The backward goes only as far back as it is asked to, in steps that double: the layer to explain is near the end.
    """

    def __init__(self, run: _Run, scalar: Tensor) -> None:
        self._maps, self._scalar = run.maps, scalar
        self._known: dict[int, Tensor | None] = {}
        self._first = len(run.maps)

    def __len__(self) -> int:
        return len(self._maps)

    @overload
    def __getitem__(self, index: int) -> Tensor | None: ...

    @overload
    def __getitem__(self, index: slice) -> list[Tensor | None]: ...

    def __getitem__(self, index: int | slice) -> Tensor | list[Tensor | None] | None:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        if number < self._first:
            self._go_back(min(number, len(self) - max(_STEP, 2 * (len(self) - self._first))))
        return self._known[number]

    def _go_back(self, to: int) -> None:
        first = max(to, 0)
        entries = self._maps[first : self._first]
        edges = [entry.edge for entry in entries if entry.edge is not None]
        # A function that works in place may have its return value ignored: then its copy leads nowhere
        copies = {
            number: get_gradient_edge(entry.passed)
            for number, entry in enumerate(entries)
            if entry.name.endswith('+relu')
        }
        found = torch.autograd.grad(self._scalar, [*edges, *copies.values()], retain_graph=True, allow_unused=True)
        unused = {number for number, after in zip(copies, found[len(edges) :], strict=True) if after is None}
        for number, before in enumerate(found[: len(edges)]):
            self._known[first + number] = None if number in unused else before
        self._first = first


def _used(run: _Run, reached: Sequence[Tensor | None], single: bool) -> dict[str, tuple[bool, ...]]:
    """What :attr:`FoundLayer.calls` holds."""
    if single and all(len(calls) < 2 for calls in run.calls.values()):
        return {}
    used = set()
    for entry, gradient in zip(run.maps, reached, strict=True):
        if gradient is not None and gradient.ndim > 2:
            places = gradient if gradient.ndim > 3 else gradient[:, 1:]
            used |= {id(entry)} if bool(places.any()) else set()
    return {name: tuple(any(id(e) in used for e in call) for call in calls) for name, calls in run.calls.items()}


def _last_map(run: _Run, size: Size) -> str:
    """The last map in running order that is neither pooled nor a linear projection; ``''`` for none."""
    maps = (entry for entry in reversed(run.maps) if not entry.pooled and not isinstance(entry.layer, nn.Linear))
    return next((entry.name for entry in maps if _map_layout(entry, size, run.made)), '')


def _check(module: nn.Module, inputs: NetworkInput, size: Size, entry: _Map) -> bool:
    """Whether a map of a network that no table knows has a place in the image."""
    layer, call, place = entry.source or (entry.layer, 0, '')
    try:
        checked_layout(
            entry.kept,
            size,
            entry.grids,
            batch=1,
            layer=layer,
            hints=TokenHints(),
            check=Check(module, inputs, entry.name),
            call=call,
            place=place,
        )
    except NoSpatialMap:
        return False
    return True


def _choose(run: _Run, reached: Sequence[Tensor | None], size: Size, check: Callable[[_Map], bool]) -> _Map | None:
    """The map to explain, None if none reaches the score."""
    while (entry := _likeliest(run, reached, size)) is not None:
        if entry.placed is None:
            entry.placed = check(entry)
        if entry.placed:
            return entry
    return None


def _likeliest(run: _Run, reached: Sequence[Tensor | None], size: Size) -> _Map | None:
    """The map to explain, by the shapes of those that no check has ruled out."""
    count = len(run.maps)
    last = next(
        (index for index in range(count - 1, -1, -1) if _is_spatial(run.maps[index], reached[index], size, run.made)),
        None,
    )
    if last is None:
        return None
    for index in _norms_before(run.maps, reached, last, size):
        if _is_spatial(run.maps[index], reached[index], size, run.made):
            return run.maps[index]
    return run.maps[_before_projections(run, reached, last, size)]


def _before_projections(run: _Run, reached: Sequence[Tensor | None], last: int, size: Size) -> int:
    """The map that poolings and linear projections at the end were given; of a part of one, the map before."""
    places = {id(entry): index for index, entry in enumerate(run.maps)}
    while run.maps[last].pooled or isinstance(run.maps[last].layer, nn.Linear):
        given = run.maps[last].given
        earlier = range(last - 1, -1, -1) if given is None else [places[id(given)]]
        before = (index for index in earlier if _is_spatial(run.maps[index], reached[index], size, run.made))
        if (found := next(before, None)) is None:
            break
        last = found
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
    layout = None if gradient is None else _map_layout(entry, size, made)
    return gradient is not None and layout is not None and bool(layout.to_map(gradient).any())


def _map_layout(entry: _Map, size: Size, made: set[Size]) -> Layout | None:
    """The layout of a map; None for what is laid out in space by chance only."""
    if entry.placed is False or (layout := _layout(entry, size)) is None:
        return None
    if (layout.axes == 'BCL' and layout.grid not in entry.grids) or (layout.axes == 'BLC' and entry.kept.shape[2] == 1):
        return None  # by chance the number of channels is that of positions in some grid
    (height, width), (rows_, columns) = size, layout.grid
    square = layout.grid in made or abs(math.log(height * columns / (width * rows_))) < _SQUARE
    return layout if square and rows_ * columns > 1 else None


def _layout(entry: _Map, size: Size) -> Layout | None:
    try:
        return find_layout(entry.kept, size, entry.grids, batch=1, layer=entry.layer)
    except NoSpatialMap:
        return None


def _takes_one_image(inputs: NetworkInput) -> bool:
    return sum(tensor.ndim == 4 for tensor in tensors(inputs)) == 1


def _with_differentiable_image(inputs: NetworkInput) -> NetworkInput:
    """Inputs of which only the image that maps are drawn on asks for gradients: maps of other inputs are not found."""
    image = find_image(inputs)
    leaf = None if image is None else image.detach().clone()
    if leaf is not None and leaf.is_floating_point():
        leaf.requires_grad_()
    return map_tensors(lambda tensor: leaf if tensor is image else tensor.detach(), inputs)

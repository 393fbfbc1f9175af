"""The stages of any network, found by watching sizes in one forward: the default layers of feature maps."""

from __future__ import annotations

import itertools
import math
import re
import weakref
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vistool.errors import InputError, param
from vistool.network.capture import hidden_parts, remembered, uncollected
from vistool.network.features import Feature, Kept, certain_maps, features, known_counts, run_until
from vistool.network.layers import (
    find_target_layers,
    is_norm,
    layers_of,
    module_path,
    place_of,
    require_layers,
    unwrapped,
)
from vistool.network.outputs import BY_PLACE, ScoreReader
from vistool.network.positions import Check, checked_layout
from vistool.network.tensors import (
    Grids,
    Layout,
    NetworkInput,
    NoSpatialMap,
    Size,
    TokenHints,
    convolves,
    find_layout,
    float_tensors,
    gives_maps,
    input_size,
    joined_inputs,
    may_weigh_tokens,
    rows,
    tensors,
    weighs_tokens,
)
from vistool.network.windows import stated_windows, window_layout

_MOST_STAGES = 9
"""As many as a U-Net with four steps down has (Ronneberger et al., MICCAI 2015)."""
_MOST_KEPT = 4 * 224 * 224
"""A batch with more pixels than four usual photos is not kept whole: finding the stages takes one more forward."""
_BLOCKS = 4
_PASSING = r'^(Permute|Identity|(De)?Quant\w*|Dropout\w*|DropPath|StochasticDepth|Adaptive\w+Pool\w*)$'
"""Modules that only pass a map on: no stage is named after them."""


_POINTWISE = (nn.BatchNorm2d, nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Hardswish, nn.LeakyReLU, nn.ELU, nn.Mish)


@dataclass(frozen=True)
class _Seen:
    """A tensor that passed: its shape, and whether it weighs tokens against each other."""

    shape: tuple[int, ...]
    weighs: bool


@dataclass(frozen=True, eq=False)
class _Sizes:
    """What the sizes of tensors are read from: the network, the image's size, the batch, whether windows are stated."""

    root: nn.Module
    image: Size
    batch: int
    windowed: bool
    found: dict[Hashable, tuple[Sequence[Size], Layout | None]] = field(default_factory=dict)

    def of(self, seen: _Seen, name: str, module: nn.Module, grids: Sequence[Size]) -> Layout | None:
        """How a tensor that a module was given or returned is laid out by its shape, or None."""
        if self.windowed:
            return self._find(seen, name, module, grids)
        # What its shape tells depends on nothing else; most tensors have the shape of another one
        normalized = tuple(getattr(module, 'normalized_shape', ()) or ())
        key = seen.shape, seen.weighs, type(module), normalized, id(grids)
        if key not in self.found:
            self.found[key] = grids, self._find(seen, name, module, grids)  # held, so that its id stays its own
        return self.found[key][1]

    def _find(self, seen: _Seen, name: str, module: nn.Module, grids: Sequence[Size]) -> Layout | None:
        try:
            if self.windowed:
                stated = window_layout(seen.shape, self.root, name, self.batch, grids, self.image)
                if stated is not None:
                    return stated
            tensor = torch.zeros(()).expand(seen.shape)
            return None if seen.weighs else find_layout(tensor, self.image, grids, batch=self.batch, layer=module)
        except NoSpatialMap:
            return None


@dataclass(frozen=True, eq=False)
class ModuleCall:
    """One call of a module in a forward. Sizes are read from it only where they are asked for: most never are.

    Attributes:
        name: Dotted name; ``''`` for the network itself.
        module: The module.
        shapes: Shapes of the tensors that it returned.
        given: The first tensor that it was given, or None.
        gave: The first tensor that it returned, or None.
        returned: Place of each tensor that it returned, and the tensor; the oldest first.
        takes: The tensors that it was given, as numbers.
        gives: The tensors that it returned, likewise; an in-place operation makes another tensor of one.
        inside: Whether it ran while a module that does not contain it did: it is a part of that one.
        known: Spatial sizes seen before it began.
        grids: Spatial sizes seen until it ended.
        begun_after: The last call that had ended when it began, or None.
        ended_after: The last call that had ended when it ended, or None.
        sizes: Reads sizes.
    """

    name: str
    module: nn.Module
    shapes: tuple[tuple[int, ...], ...]
    given: _Seen | None
    gave: _Seen | None
    returned: tuple[tuple[str, _Seen], ...]
    takes: frozenset[int]
    gives: frozenset[int]
    inside: bool
    known: Sequence[Size]
    grids: Sequence[Size]
    begun_after: ModuleCall | None
    ended_after: ModuleCall | None
    sizes: _Sizes

    @cached_property
    def grid(self) -> Size | None:
        """Spatial size of its first map, or None."""
        return None if self.gave is None else self._size(self.gave, self.grids)

    @cached_property
    def before(self) -> Size:
        """Spatial size of its input, or of the newest map if the input is not a map."""
        own = None if self.given is None else self._size(self.given, self.known)
        call = self.begun_after
        while own is None and call is not None:
            own, call = call.grid, call.ended_after
        return own or self.sizes.image

    @cached_property
    def maps(self) -> tuple[tuple[str, Size], ...]:
        """Place and size of each map that it returned, the oldest tensor first; empty unless there are several."""
        found = [(place, self._size(seen, self.grids)) for place, seen in self.returned if len(self.returned) > 1]
        return tuple((place, grid) for place, grid in found if grid is not None)

    @cached_property
    def is_map(self) -> bool:
        """Whether it certainly returned a map, since it holds convolutions over places that make that size."""
        if len(self.returned) != 1:
            return False
        layout = self.sizes.of(self.returned[0][1], self.name, self.module, self.grids)
        if layout is None or layout.axes != 'BCHW' or layout.order is not None:
            return False
        return gives_maps(self.module, layout, self.grids) and convolves(self.module)

    def _size(self, seen: _Seen, grids: Sequence[Size]) -> Size | None:
        layout = self.sizes.of(seen, self.name, self.module, grids)
        return None if layout is None else layout.grid

    def sized(self, grid: Size | None, *, place: str = '', maps: tuple[tuple[str, Size], ...] = ()) -> ModuleCall:
        """The same call, taken to return a map of another size, or none, at a place."""
        changed = replace(self, name=f'{self.name}{place}')
        vars(changed).update(grid=grid, before=self.before, maps=maps)
        return changed


class _Started(NamedTuple):
    """A call that has begun; see :class:`ModuleCall`."""

    name: str
    inside: bool
    given: _Seen | None
    takes: frozenset[int]
    known: Sequence[Size]
    after: ModuleCall | None


@dataclass(frozen=True)
class _Returned:
    """What one call of a module returned: the tensors themselves, not copies, with their versions at that time."""

    kept: Kept
    versions: tuple[int, ...]

    def copied(self) -> Kept | None:
        """Copies; None where an operation in place has written to one of the tensors since, or nobody knows."""
        those = [tensor for _, tensor in self.kept.tensors]
        if any(tensor.is_inference() for tensor in those):
            return None
        if self.versions != tuple(tensor._version for tensor in those):
            return None
        return replace(self.kept, tensors=[(place, each.detach().clone()) for place, each in self.kept.tensors])


class _Watch:
    """Notes what modules take and return in one forward.

    Attributes:
        calls: The calls in the order in which they end.
    """

    def __init__(self, root: nn.Module, inputs: NetworkInput, kept: list[_Returned] | None) -> None:
        self.calls: list[ModuleCall] = []
        self._names = {module: name for name, module in root.named_modules()}
        windowed = any(stated_windows(module) is not None for module in self._names)
        self._sizes = _Sizes(root, *input_size(inputs), windowed)
        self._kept = kept
        self._grids = Grids()
        self._shapes: tuple[Grids | None, dict[Hashable, _Seen]] = None, {}
        self._started: list[_Started] = []
        self._times = Counter[str]()
        self._numbers: dict[int, tuple[weakref.ref[Tensor], dict[int, int]]] = {}
        self._count = itertools.count()

    def begin(self, module: nn.Module, args: Any) -> None:
        """The hook before a module."""
        given = [tensor for _, tensor in float_tensors(args[0] if len(args) == 1 else args)]
        grids = self._grids.snapshot()
        first = self._see(given[0], module, grids) if given else None
        last, name = self.calls[-1] if self.calls else None, self._names[module]
        inside = bool(self._started) and self._is_inside(name)
        self._started.append(_Started(name, inside, first, frozenset(map(self._number, given)), grids, last))

    def end(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        """The hook after a module."""
        self._grids.watch(output, args, module)
        places, distinct = list(float_tensors(output)), dict[int, tuple[str, Tensor]]()
        for place, tensor in places:
            distinct.setdefault(self._number(tensor), (place, tensor))
        begun, grids = self._started.pop(), self._grids.snapshot()
        seen = {number: (place, self._see(tensor, module, grids)) for number, (place, tensor) in distinct.items()}
        call = ModuleCall(
            begun.name,
            module,
            tuple(tuple(tensor.shape) for _, tensor in places),
            begun.given,
            next((first for _, first in seen.values()), None),
            tuple(each for _, each in sorted(seen.items(), key=itemgetter(0))),
            begun.takes,
            frozenset(distinct),
            begun.inside,
            begun.known,
            grids,
            begun.after,
            self.calls[-1] if self.calls else None,
            self._sizes,
        )
        self.calls.append(call)
        if self._kept is not None:
            self._times[begun.name] += 1
            kept = Kept(begun.name, self._times[begun.name], list(distinct.values()), call.grids)
            versions = (0 if tensor.is_inference() else tensor._version for _, tensor in kept.tensors)
            self._kept.append(_Returned(kept, tuple(versions)))

    def _is_inside(self, name: str) -> bool:
        """Whether a module that begins does so while one runs that does not contain it."""
        outer = self._started[-1]
        if not outer.inside:  # then those around it contain it
            return bool(outer.name) and not name.startswith(f'{outer.name}.')
        return any(each.name and not name.startswith(f'{each.name}.') for each in self._started)

    def _see(self, tensor: Tensor, module: nn.Module, grids: Grids) -> _Seen:
        """What passes; most tensors have the shape of one before, by which they cannot weigh tokens."""
        if self._shapes[0] is not grids:
            self._shapes = grids, {}
        key = tensor.shape, type(module)
        if key not in self._shapes[1]:
            if may_weigh_tokens(tensor.shape, grids, module):
                return _Seen(tuple(tensor.shape), weighs_tokens(tensor, grids, module))
            self._shapes[1][key] = _Seen(tuple(tensor.shape), False)
        return self._shapes[1][key]

    def _number(self, tensor: Tensor) -> int:
        held = self._numbers.get(id(tensor))
        if held is None or held[0]() is not tensor:  # the object that had this id is gone
            held = self._numbers[id(tensor)] = weakref.ref(tensor), {}
        version = 0 if tensor.is_inference() else tensor._version
        if version not in held[1]:
            held[1][version] = next(self._count)
        return held[1][version]


def trace(
    root: nn.Module, inputs: NetworkInput, *, only: str = '', kept: list[_Returned] | None = None
) -> list[ModuleCall]:
    """The calls of all modules in one forward, in the order in which they end.

    Args:
        root: The network.
        inputs: Its input.
        only: Name of a module after whose first call the network may fail.
        kept: Gets everything that the modules returned.
    """
    root = unwrapped(root)
    watch = _Watch(root, inputs, kept)
    modules = layers_of(root)
    with uncollected:
        handles = [module.register_forward_pre_hook(watch.begin) for module in modules.values()]
        try:
            run_until(root, inputs, [(modules, watch.end)])
        except InputError:
            if not only or all(each.name != only for each in watch.calls):
                raise
        finally:
            for handle in handles:
                handle.remove()
    return watch.calls


def find_stages(root: nn.Module, inputs: NetworkInput) -> list[str]:
    """Names of the last module at each resolution of the backbone, or of evenly spaced blocks.

    The blocks are taken where there are one or two resolutions and more blocks than those (a plain transformer).

    A module with sizes inside it that lie between those of its input and output holds several stages, and its children
    are looked at instead, unless they are branches, which work on one tensor side by side. The modules that remain, in
    the order of the forward, are split where the size changes. Plain layers before the first block are a stem, not a
    stage, and neither are norms after the last stage, nor the layer that predicts a map for each class.

    One forward finds them, once for a network, its weights and an input size. Where tokens of a network that no table
    knows are among them, another one checks that they are places in the image; else the module counts as none.

    Args:
        root: The network.
        inputs: An input to run with.

    Raises:
        InputError: If the network gives no maps.
    """
    root = unwrapped(root)
    require_layers(root)
    return list(remembered(root, 'stages', _sizes_of(inputs), lambda: _find_stages(root, rows(inputs, 0, 1))))


def block_layers(root: nn.Module, inputs: NetworkInput, most: int) -> tuple[list[str], str]:
    """Names of the stages and of all blocks that give a map of several positions, and the last stage.

    Blocks are modules of one type in a row, with modules of their own inside. One forward finds them, once for a
    network and its weights: at another input size the same layers are taken.

    Args:
        root: The network.
        inputs: An input to run with.
        most: The largest number of values that their maps may have together; with more, the stages alone are taken.

    Returns:
        The names in the order of the forward, and the last stage's.

    Raises:
        InputError: If the network gives no maps.
    """
    root = unwrapped(root)
    require_layers(root)

    def find() -> tuple[list[str], list[str], float]:
        one = rows(inputs, 0, 1)
        every = trace(root, one, only=_backbone(root))
        stages = remembered(root, 'stages', _sizes_of(inputs), lambda: _find_stages(root, one, every=every))
        calls = {each.name: each for each in reversed(every)}  # of several calls the first
        candidates = [each for each in calls.values() if not is_norm(each.module)]
        blocks = [name for row in _rows_of_blocks(candidates) if len(row) > 1 for name in row]
        order = {each.name: place for place, each in reversed(list(enumerate(every)))}
        wanted = [name for name in {*blocks, *stages} if '[' in name or math.prod(calls[name].grid or (0, 0)) > 1]
        values = sum(math.prod(shape) for name in wanted if name in calls for shape in calls[name].shapes)
        names = sorted(wanted, key=lambda name: order.get(name.partition('[')[0], len(order)))
        return names, list(stages), values / math.prod(input_size(inputs)[0])

    names, stages, density = remembered(root, 'stages and blocks', (), find)
    return list(names if density * math.prod(input_size(inputs)[0]) <= most else stages), stages[-1]


def stage_features(
    root: nn.Module, inputs: NetworkInput, hints: TokenHints | None = None, read: ScoreReader = BY_PLACE
) -> tuple[list[str], list[Feature]]:
    """The stages and their feature maps; one forward gives both where the batch is small.

    Args:
        root: The network.
        inputs: A batch.
        hints: What the user says about token layouts.
        read: Finds the scores; see :func:`~vistool.network.features.features`.

    Raises:
        InputError: See :func:`find_stages` and :func:`~vistool.network.features.features`.
    """
    root = unwrapped(root)
    require_layers(root)
    (height, width), batch = input_size(inputs)
    kept: list[Kept] = []

    def find() -> list[str]:
        if batch * height * width > _MOST_KEPT:
            return _find_stages(root, rows(inputs, 0, 1))
        returned: list[_Returned] = []
        names = _find_stages(root, inputs, returned)
        paths = set(map(module_path, names))
        copies = [each.copied() for each in returned if each.kept.name in paths]
        kept[:] = [] if None in copies else [each for each in copies if each is not None]
        return names

    names = remembered(root, 'stages', _sizes_of(inputs), find)
    return list(names), features(root, inputs, find_target_layers(root, names), hints, kept, read)


def _sizes_of(inputs: NetworkInput) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(tensor.shape[1:]) for tensor in tensors(inputs))


def _backbone(root: nn.Module) -> str:
    """The name of the module that holds the stages; ``''`` for the network itself."""
    return 'backbone' if isinstance(getattr(root, 'backbone', None), nn.Module) else ''


def _find_stages(
    root: nn.Module,
    inputs: NetworkInput,
    kept: list[_Returned] | None = None,
    every: Sequence[ModuleCall] | None = None,
) -> list[str]:
    """The stages, from a forward that is run, or from the calls of one that was."""
    with uncollected:
        every = every or trace(root, inputs, only=_backbone(root), kept=kept)
        known_counts(root, inputs).update(Counter(each.name for each in every))
        return _stages_of(root, inputs, every)


def _stages_of(root: nn.Module, inputs: NetworkInput, every: Sequence[ModuleCall]) -> list[str]:
    """The stages among the calls of a forward; sizes that their order in the image contradicts are mended."""
    backbone = _backbone(root)
    calls: dict[str, ModuleCall] = {}
    inner = {each.name for each in every if each.inside}
    for each in every:
        if each.name not in inner:
            calls.setdefault(each.name, each)
    givers: dict[int, list[ModuleCall]] = {}
    for each in every:
        for number in each.gives:
            givers.setdefault(number, []).append(each)
    checked: set[str] = set()

    def grid_of(name: str) -> Size | None:
        call, place = calls[module_path(name)], place_of(name)
        return dict(call.maps).get(place) if place else call.grid

    while True:
        try:
            names = _stages_among(root, backbone, calls)
        except InputError:
            joined = (text for each in every for shape in each.shapes if (text := joined_inputs(shape, inputs)))
            if reason := next(joined, ''):
                raise InputError(f'no layer gives a map: {reason}', parameter='layers') from None
            raise
        sizes = {
            name: _checked_size(root, inputs, calls[module_path(name)], givers, place_of(name))
            for name in names
            if name not in checked
        }
        checked |= sizes.keys()
        wrong = {name: grid for name, grid in sizes.items() if grid != grid_of(name)}
        if not wrong:
            return names
        for name, grid in wrong.items():
            call, place = calls[module_path(name)], place_of(name)
            changed = tuple((at, grid if at == place else size) for at, size in call.maps)
            maps = tuple((at, size) for at, size in changed if size is not None)
            calls[call.name] = call.sized(call.grid, maps=maps) if place else call.sized(grid)


def _checked_size(
    root: nn.Module,
    inputs: NetworkInput,
    call: ModuleCall,
    givers: Mapping[int, Sequence[ModuleCall]],
    place: str = '',
) -> Size | None:
    """The spatial size of what a module returned, checked by changing the image; None where that shows no places.

    Modules of the table are not checked, nor those that return several tensors of one size, windows that they state,
    or what is computed position by position from a map.

    Args:
        root: The network.
        inputs: Its input.
        call: The call.
        givers: Number of a tensor → the calls that returned it.
        place: Where it is in what the module returned, if that is several tensors.
    """
    size, batch = input_size(inputs)
    check = Check(root, inputs, call.name)
    shapes = [seen.shape for at, seen in call.returned if at == place] if place else call.shapes
    grid = dict(call.maps).get(place) if place else call.grid
    if check.known or len(shapes) != 1 or shapes[0][0] != batch:
        return grid
    if not place and _keeps_a_map(call, givers):
        certain_maps(root, inputs).add(call.name)
        return grid
    tensor, hints = torch.zeros(1).expand(shapes[0]), TokenHints()
    try:
        return checked_layout(
            tensor, size, call.grids, batch=batch, layer=call.module, hints=hints, check=check, place=place or None
        ).grid
    except NoSpatialMap:
        return None


def _keeps_a_map(call: ModuleCall, givers: Mapping[int, Sequence[ModuleCall]]) -> bool:
    """Whether what a module returned is a map, followed from tensor to tensor through layers that keep its places."""
    wanted, followed = next(iter(call.gives)), set[int]()
    while wanted not in followed:
        followed.add(wanted)
        if any(each.is_map and each.grid == call.grid for each in givers.get(wanted, ())):
            return True
        steps = (each for each in givers.get(wanted, ()) if each.takes != each.gives and len(each.takes) == 1)
        step = next((each for each in steps if _is_pointwise(each.module)), None)
        wanted = next(iter(call.gives if step is None else step.takes))
    return False


def _is_pointwise(module: nn.Module) -> bool:
    """Whether a layer of ``(B, C, h, w)`` computes every position from that position alone."""
    if isinstance(module, nn.Conv2d):
        padding: Any = module.padding
        return module.kernel_size == module.stride == (1, 1) and padding in ((0, 0), 'valid', 'same')
    return isinstance(module, _POINTWISE)


def _stages_among(root: nn.Module, backbone: str, calls: dict[str, ModuleCall]) -> list[str]:
    """The stages, by the sizes of what the modules returned."""
    within = [name for name in calls if name.startswith(f'{backbone}.' if backbone else '') and name != backbone]
    children = _children(within, backbone)
    found = [calls[name] for name in _parts(backbone, calls, children) if calls[name].grid is not None]
    parts = [part for part in found if not re.search(_PASSING, type(part.module).__name__)] or found
    if sum(len({grid for _, grid in part.maps}) > 1 for part in parts) > 1:  # else it is a stage of several maps
        parts = [each for part in parts for each in _by_size(part)]
    runs = [list(run) for _, run in groupby(parts, key=lambda part: part.grid)]
    first = next((number for number, run in enumerate(runs) if _has_blocks(run)), 0)
    runs = runs[first:]
    while len(runs) > 1 and all(is_norm(part.module) for part in runs[-1]):  # of another branch than the last stage
        runs.pop()
    if runs and len(runs[-1]) > 1 and _predicts(runs[-1][-1], calls):
        runs[-1].pop()
    runs = _latest_of_branches(runs)
    if len(runs) > _MOST_STAGES:
        latest = {run[-1].grid: number for number, run in enumerate(runs)}
        runs = [runs[number] for number in sorted(latest.values())]
    names = [run[-1].name for run in runs]
    if len(names) < 3:
        names = max(names, _even_blocks([calls[name] for name in within]), key=len)
    if not names:
        raise InputError(
            f'{type(root).__name__} gives no feature maps{hidden_parts(root) or _copies(calls)}',
            hint=f'list its layers with {param("preview_model")}',
            parameter='images',
        )
    return names


def _copies(calls: dict[str, ModuleCall]) -> str:
    """``': stem runs on 4 rows for each image …'`` where layers run on crops, tiles or copies of an image."""
    for name, call in calls.items():
        batch = call.sizes.batch
        rows = max((shape[0] for shape in call.shapes if len(shape) == 4), default=0)
        if name and rows > batch and rows % batch == 0:
            return (
                f': {name} runs on {rows // batch} rows for each image: copies, crops or tiles that the network makes '
                'of it'
            )
    return ''


def _predicts(part: ModuleCall, calls: dict[str, ModuleCall]) -> bool:
    """Whether a part returns what the network predicts, a map for each class, by a single layer with weights."""
    layers = [layer for layer in part.module.modules() if next(layer.parameters(recurse=False), None) is not None]
    return len(layers) == 1 and not is_norm(layers[0]) and '' in calls and bool(part.gives & calls[''].gives)


def _by_size(part: ModuleCall) -> list[ModuleCall]:
    """A module that returns maps of several sizes, once for each size: Swin's stage, before and after its step down."""
    if len({grid for _, grid in part.maps}) < 2:
        return [part]
    return [part.sized(grid, place=place, maps=part.maps) for place, grid in part.maps]


def _latest_of_branches(runs: Sequence[list[ModuleCall]]) -> list[list[ModuleCall]]:
    """Without what comes again at the same size: blocks with two branches (Conformer) return both sizes every time."""
    sizes = [run[-1].grid for run in runs]
    return [run for number, run in enumerate(runs) if not run[-1].maps or sizes[number] not in sizes[number + 1 :]]


def _children(names: Sequence[str], top: str) -> dict[str, list[str]]:
    """For each module that ran, the modules that ran directly inside it."""
    known = set(names)
    found: dict[str, list[str]] = {}
    for name in names:
        parent = name.rpartition('.')[0]
        while parent != top and parent not in known and parent:
            parent = parent.rpartition('.')[0]
        found.setdefault(parent, []).append(name)
    return found


def _parts(top: str, calls: dict[str, ModuleCall], children: dict[str, list[str]]) -> list[str]:
    """The modules below ``top`` that hold at most one stage, in the order of the forward."""
    found: list[str] = []
    for name in children.get(top, ()):
        found += _parts(name, calls, children) if _holds_stages(name, calls, children) else [name]
    return found


def _holds_stages(name: str, calls: dict[str, ModuleCall], children: dict[str, list[str]]) -> bool:
    """Whether a module holds several stages, so that its children are looked at in its place.

    It does where sizes inside lie between those of its input and output, or where blocks at the size of its input are
    followed by a step down. A module without a map of its own does if sizes change inside; else it is a head.
    """
    call = calls[name]
    inner = children.get(name, [])
    if not inner or (call.grid is not None and call.grid == call.before):
        return False
    if call.grid is None:
        return any(size != call.before for size in _sizes_inside(name, calls, children))  # else it is a head
    if _has_branches(call, [calls[child] for child in inner]):
        return False
    # Sizes beyond both ends are not stages but queries, keys or squeezes on the side
    if any(_between(call.grid, size, call.before) for size in _sizes_inside(name, calls, children)):
        return True
    # Blocks at the size it begins with, then a step down: the step ends the previous stage (Swin)
    grids = [calls[child].grid for child in inner]
    blocks = [
        child for child in inner if calls[child].grid == call.before and child in children and child[-1].isdigit()
    ]
    return bool(blocks) and grids[-1] == call.grid


def _has_branches(call: ModuleCall, inner: Sequence[ModuleCall]) -> bool:
    """Whether a module's children work side by side: two of them on its own input, or three on any one tensor."""
    taken = Counter(number for child in inner if not child.takes & child.gives for number in child.takes)
    return any(count > 1 + (number not in call.takes) for number, count in taken.items())


def _between(small: Size, size: Size, large: Size) -> bool:
    return small[0] < size[0] < large[0] and small[1] < size[1] < large[1]


def _sizes_inside(name: str, calls: dict[str, ModuleCall], children: dict[str, list[str]]) -> set[Size]:
    sizes: set[Size] = set()
    for child in children.get(name, ()):
        grid = calls[child].grid
        if grid is not None:
            sizes.add(grid)
        sizes |= _sizes_inside(child, calls, children)
    return sizes


def _has_blocks(run: Sequence[ModuleCall]) -> bool:
    """Whether a module holds more than plain layers (a norm with its activation counts as plain)."""
    inner = (child for part in run for child in part.module.children() if not is_norm(child))
    return any(name != 'parametrizations' for child in inner for name, _ in child.named_children())


def _even_blocks(calls: Sequence[ModuleCall]) -> list[str]:
    """Four evenly spaced blocks of the longest row of blocks of one type, the last one included."""
    longest = max(_rows_of_blocks(calls), key=len, default=[])
    count = min(_BLOCKS, len(longest))
    return [longest[math.ceil(len(longest) * (k + 1) / count) - 1] for k in range(count)] if len(longest) > 1 else []


def _rows_of_blocks(calls: Sequence[ModuleCall]) -> list[list[str]]:
    """Names of numbered modules of one type side by side that hold other modules and give a map."""
    rows: dict[tuple[str, type], list[str]] = {}
    for each in calls:
        parent, _, last = each.name.rpartition('.')
        if last[-1:].isdigit() and each.grid is not None and next(each.module.children(), None) is not None:
            rows.setdefault((parent, type(each.module)), []).append(each.name)
    return list(rows.values())


def module_tree(root: nn.Module, inputs: NetworkInput) -> list[str]:
    """One line per module: name, class, output shapes without the batch, how often it ran, whether it is a stage.

    Args:
        root: The network.
        inputs: Its input, of one image.

    Raises:
        InputError: If the forward fails.
    """
    root = unwrapped(root)
    calls: dict[str, list[ModuleCall]] = {}
    for each in trace(root, inputs):
        calls.setdefault(each.name, []).append(each)
    try:
        stages = {name: f'stage {number}' for number, name in enumerate(find_stages(root, inputs), 1)}
    except InputError:
        stages = {}
    rows = []
    for name, module in root.named_modules():
        depth = name.count('.') + 1 if name else 0
        label = '  ' * depth + (f'{name}: ' if name else '') + type(module).__name__
        rows.append((label, _shape_text(module, calls.get(name, [])), stages.get(name, '')))
    width = max(len(label) for label, _, _ in rows)
    return [f'{label:<{width}}  {text}{f"  ← {stage}" if stage else ""}'.rstrip() for label, text, stage in rows]


def _shape_text(module: nn.Module, calls: Sequence[ModuleCall]) -> str:
    if not calls:
        container = isinstance(module, (nn.ModuleList, nn.ModuleDict))
        return '' if container else 'not called'
    shapes = ', '.join(_shapes(calls[0])) or 'no tensor'
    return f'{shapes}  called {len(calls)} times (#1 … #{len(calls)})' if len(calls) > 1 else shapes


def _shapes(call: ModuleCall) -> Iterator[str]:
    for shape in call.shapes:
        yield '×'.join(map(str, shape[1:])) or 'scalar'

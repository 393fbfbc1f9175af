"""A forward that stops after the last target layer, and the feature maps of the layers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from vistool.errors import InputError, param
from vistool.network.calls import choose_call
from vistool.network.capture import Hook, borrowed, hooked_layers, remembered, tensors_of
from vistool.network.inputs import run_network
from vistool.network.layers import (
    EVERY_CALL,
    TargetLayer,
    function_of,
    layers_of,
    module_path,
    place_of,
    unwrapped,
)
from vistool.network.outputs import BY_PLACE, ScoreReader
from vistool.network.positions import Check, checked_layout
from vistool.network.tensors import (
    Grids,
    NetworkInput,
    NoSpatialMap,
    Size,
    TokenHints,
    find_layout,
    input_size,
    tensors,
)


class _Stop(BaseException):
    """Ends a forward early. Not an ``Exception``: a network that catches those must not swallow it."""


@dataclass(frozen=True)
class Feature:
    """The output of one layer for a batch.

    Attributes:
        name: The layer, with ``[i]`` where it returned several maps and ``#n`` where a later call was asked for.
        maps: ``(B, C, h, w)`` in at least float32, the layer's own values.
        layer: The layer as it was asked for.
        place: ``'[i]'`` where it returned several maps, else ``''``.
        unchecked: Whether the order of its tokens is assumed.
    """

    name: str
    maps: Tensor
    layer: str = ''
    place: str = ''
    unchecked: bool = False

    @property
    def size(self) -> str:
        """Rows, columns and channels: ``'14×14×320'``."""
        channels, height, width = self.maps.shape[1:]
        return f'{height}×{width}×{channels}'


@dataclass
class Kept:
    """Copies of the tensors that one call of a layer returned, by their place in it.

    Attributes:
        name: The layer's name, without a call.
        call: Which of its calls, counted from 1.
        tensors: The copies.
        grids: Spatial sizes seen until then.
    """

    name: str
    call: int
    tensors: list[tuple[str, Tensor]]
    grids: Sequence[Size] = ()


def features(
    root: nn.Module,
    inputs: NetworkInput,
    targets: Sequence[TargetLayer],
    hints: TokenHints | None = None,
    recorded: Sequence[Kept] = (),
    read: ScoreReader = BY_PLACE,
) -> list[Feature]:
    """Runs ``root`` until every target layer has been called, and lays out the layers' outputs as maps.

    The network is as before afterwards. Outputs are copied, so that no in-place operation after the layer reaches them.
    The first forward of a network and input size runs to its end, to see how often each layer is called.

    Args:
        root: The network.
        inputs: A tensor ``(B, C, H, W)``, or a tuple (by position) or dict (by name) of tensors.
        targets: The layers.
        hints: What the user says about token layouts.
        recorded: What a forward of ``inputs`` has already kept of all these layers: then there is no other.
        read: Finds the scores, which decide between several calls of a layer.

    Raises:
        InputError: If the forward fails, or a layer is not reached or gives no spatial map.
    """
    root = unwrapped(root)
    size, batch = input_size(inputs)
    counts = known_counts(root, inputs)
    wanted = [_with_call(root, inputs, target, counts, read) for target in targets]
    kept = recorded or _run(root, inputs, wanted)
    found: list[Feature] = []
    for target in wanted:
        mine = _recorded(recorded, target) or [entry for entry in kept if entry.name == _plain(target)]
        if target.call is None and mine:
            counts[target.name] = len(mine)
            target = _with_call(root, inputs, target, counts, read)
        if target.call != EVERY_CALL:
            mine = [entry for entry in mine if entry.call == target.call]
        if not mine:
            raise _unreached(root, target)
        for entry in mine:
            chosen = counts.get(target.name, 1) > 1 and '#' not in target.name
            numbered = chosen or (target.call == EVERY_CALL and len(mine) > 1)
            name = f'{target.name}#{entry.call}' if numbered else target.name
            check = Check(root, inputs, target.name)
            found += _laid_out(name, target, entry, size, batch, hints or TokenHints(), check)
    return found


def known_counts(root: nn.Module, inputs: NetworkInput) -> dict[str, int]:
    """How often layers run in one forward, as far as one has shown it; remembered for each input size."""
    shapes = tuple(tuple(tensor.shape[1:]) for tensor in tensors(inputs))
    return remembered(root, 'number of calls', shapes, dict)


def certain_maps(root: nn.Module, inputs: NetworkInput) -> set[str]:
    """Layers whose first call is known to return a map, since its places were followed; filled by search of stages."""
    shapes = tuple(tuple(tensor.shape[1:]) for tensor in tensors(inputs))
    return remembered(root, 'certain maps', shapes, set)


def _with_call(
    root: nn.Module, inputs: NetworkInput, target: TargetLayer, counts: Mapping[str, int], read: ScoreReader
) -> TargetLayer:
    """The target with the call that is meant, if its name says so or the number of its calls is known."""
    if target.call is not None or target.name not in counts:
        return target
    chosen = choose_call(root, target.name, target.module, inputs, counts[target.name], read)
    return replace(target, call=chosen + 1)


def _recorded(kept: Sequence[Kept], target: TargetLayer) -> list[Kept]:
    """What was kept of a layer's module, as far as it lies at the place that the layer's name gives."""
    path, place = module_path(target.name), place_of(target.name)
    return [
        replace(entry, tensors=[found for found in entry.tensors if found[0].startswith(place)])
        for entry in kept
        if entry.name == path
    ]


def _plain(target: TargetLayer) -> str:
    return target.name.partition('#')[0]


def _run(root: nn.Module, inputs: NetworkInput, targets: Sequence[TargetLayer]) -> list[Kept]:
    """The wanted calls of the targets; every call, and the whole forward, where it is open which is wanted."""
    kept: list[Kept] = []
    grids, calls = Grids(), Counter[tuple[nn.Module, str]]()
    waiting = set(range(len(targets)))
    is_open = any(target.call is None for target in targets)
    wanted = [(target.module, function_of(target.name)) for target in targets]

    def keep(name: str, module: nn.Module, args: Any, output: Any) -> None:
        source = module, function_of(name)
        calls[source] += 1
        for index, target in enumerate(targets):
            if wanted[index] == source and target.call in (None, EVERY_CALL, calls[source]):
                found = tensors_of(target.name, output)
                copies = [(place, tensor.detach().clone()) for place, tensor in found.items()]
                kept.append(Kept(_plain(target), calls[source], copies, grids.copy()))
                if target.call != EVERY_CALL:
                    waiting.discard(index)
        if not waiting and not is_open:
            raise _Stop

    def note(name: str, module: nn.Module, args: Any, output: Any) -> None:
        grids.watch(output, args, module)

    # Each module once, even if it has several names
    hooks = {
        f'{number}+{function}' if function else f'{number}': module
        for number, (module, function) in enumerate(dict.fromkeys(wanted))
    }
    try:
        run_until(root, inputs, [(layers_of(root), note), (hooks, keep)])
    except InputError:
        if waiting:  # else what fails comes after the layers
            raise
    return kept


@contextmanager
def recorded_layers(root: nn.Module, targets: Sequence[TargetLayer]) -> Iterator[list[Kept]]:
    """Keeps what every call of the targets returns in a forward that runs inside, for :func:`features`.

    Args:
        root: The network.
        targets: The layers.

    Yields:
        What was kept; of several forwards the last.
    """
    kept: list[Kept] = []
    grids, calls = [Grids()], Counter[str]()

    def restart(module: nn.Module, args: Any) -> None:
        kept.clear()
        calls.clear()
        grids[0] = Grids()

    def note(name: str, module: nn.Module, args: Any, output: Any) -> None:
        grids[0].watch(output, args, module)

    def keep(name: str, module: nn.Module, args: Any, output: Any) -> None:
        calls[name] += 1
        copies = [(place, tensor.detach().clone()) for place, tensor in tensors_of(name, output).items()]
        kept.append(Kept(name, calls[name], copies, grids[0].copy()))

    root = unwrapped(root)
    handle = root.register_forward_pre_hook(restart)
    try:
        with (
            hooked_layers(layers_of(root), note),
            hooked_layers({_plain(target): target.module for target in targets}, keep),
        ):
            yield kept
    finally:
        handle.remove()


def run_until(root: nn.Module, inputs: NetworkInput, hooks: Sequence[tuple[Mapping[str, nn.Module], Hook]]) -> None:
    """Runs ``root`` without gradients under ``hooks``, one of which may end it early.

    Raises:
        InputError: If the network's own code fails.
    """
    with borrowed(root), ExitStack() as stack:
        torch.set_grad_enabled(False)  # borrowed() restores the caller's mode
        for modules, hook in hooks:
            stack.enter_context(hooked_layers(modules, hook))
        with suppress(_Stop):
            run_network(root, inputs)


def _laid_out(
    name: str,
    target: TargetLayer,
    entry: Kept,
    size: Size,
    batch: int,
    hints: TokenHints,
    check: Check,
) -> list[Feature]:
    """Each tensor of a layer's output that is a map; an error where none is."""
    certain = target.name in certain_maps(check.root, check.inputs)
    if not entry.tensors:
        raise InputError(f'layer {name!r} gives no tensor', hint=_LIST, parameter='layers')
    found, reasons = [], []
    for place, tensor in entry.tensors:
        try:
            if certain and entry.call == 1:
                layout = find_layout(tensor, size, entry.grids, batch=batch, layer=target.module, hints=hints)
            else:
                layout = checked_layout(
                    tensor, size, entry.grids, batch=batch, layer=target.module, hints=hints, check=check, name=name,
                    call=entry.call - 1, place=place,
                )  # fmt: skip
        except NoSpatialMap as error:
            reasons.append(str(error))
            continue
        maps = layout.to_map(tensor)
        maps = maps if maps.dtype in (torch.float32, torch.float64) else maps.float()
        found.append((place, maps, layout.unchecked))
    if not found:
        if hints.prefix is not None:
            raise InputError(
                f'{hints.text} does not fit layer {name!r}: {reasons[0]}',
                hint='leave it out to have the layout found',
                parameter='extra_tokens',
            )
        raise InputError(f'layer {name!r} gives no spatial map: {reasons[0]}', hint=_LIST, parameter='layers')
    if len(found) == 1:
        return [Feature(name, found[0][1], target.name, unchecked=found[0][2])]
    stem, call = re.fullmatch(r'([^#\[]*)[^#]*(.*)', name).groups()  # type: ignore[union-attr]
    return [Feature(f'{stem}{place}{call}', maps, target.name, place, unchecked) for place, maps, unchecked in found]


_LIST = f'list all layers with their output shapes with {param("preview_model")}'


def _unreached(root: nn.Module, target: TargetLayer) -> InputError:
    if function := function_of(target.name):
        path = module_path(target.name)
        problem = f'layer {target.name!r}: the network applies no {function} to what {path!r} returns'
    elif target.call and target.call > 1:
        problem = f'layer {target.name!r}: it is called fewer than {target.call} times in the forward pass'
    else:
        problem = f'layer {target.name!r} was not reached in the forward pass of {type(root).__name__}'
    return InputError(
        problem, hint=f'{param("preview_model")} marks the layers that run, and how often', parameter='layers'
    )

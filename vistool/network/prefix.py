"""A network cut at a layer: what comes before it is replayed from a cache, only the rest runs again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from vistool.network.capture import hooked, hooked_layers
from vistool.network.layers import function_of, module_path
from vistool.network.tensors import NetworkInput, call_module, copied, part_of, repeated, replace_tensor, tensors


class CannotReplay(RuntimeError):
    """The prefix of this network cannot be replayed."""


@dataclass
class CachedPrefix:
    """The part of a network before a layer, cached for one image; it runs what follows as a function of the layer.

    Attributes:
        module: The network.
        inputs: Its input for one image.
        name: The layer's name.
        layer: Its module.
        output: What the network returned.
        container: What the layer returned, with its containers.
        value: The tensor in that, ``(1, …)``.
        place: Where that is in the container.
        call: Which of the layer's calls is meant, counted from 0.
        outputs: The modules that ran up to that call, outermost ones only, in order, each with a copy of its output;
            the layer last. Empty where the prefix cannot be replayed.
        altered: Positions in ``outputs`` that the network later changes in place, so that each run needs a copy; None
            until a first run has shown which.
    """

    module: nn.Module
    inputs: NetworkInput
    name: str
    layer: nn.Module
    output: Any
    container: Any
    value: Tensor
    place: str
    call: int
    outputs: list[tuple[nn.Module, Any]] = field(repr=False)
    altered: set[int] | None = None

    def run(self, values: Tensor) -> Any:
        """The network's output for ``values`` ``(n, …)`` in place of the layer's; the prefix stays at batch 1.

        Raises:
            CannotReplay: If the modules are not called in the order recorded.
        """
        if not self.outputs:
            raise CannotReplay('the layer is called from within another module than its parent')
        position = 0
        copies: dict[int, Any] = {}

        def play(child: nn.Module, original: Callable[..., Any], args: Any, kwargs: Any) -> Any:
            nonlocal position
            if position >= len(self.outputs):
                return original(*args, **kwargs)
            expected, output = self.outputs[position]
            position += 1
            if child is not expected:
                raise CannotReplay('the modules ran in another order this time')
            if position == len(self.outputs):
                return replace_tensor(self.container, self.value, values)
            if self.altered is None or position in self.altered:
                output = copies[position] = copied(output)
            return output

        with _patched_forward({id(child): child for child, _ in self.outputs}.values(), play):
            output = call_module(self.module, self.inputs)
        if self.altered is None:
            self.altered = {at for at, copy in copies.items() if any(tensor._version for tensor in tensors(copy))}
        return output

    def run_whole(self, values: Tensor) -> Any:
        """The same by running the whole network on n copies of the image: slow, but right for any network."""
        seen = 0

        def swap(name: str, child: nn.Module, args: Any, output: Any) -> Any:
            nonlocal seen
            seen += 1
            own = part_of(output, self.place)[1]
            return replace_tensor(output, own, values) if seen == self.call + 1 else None

        with hooked_layers({self.name: self.layer}, swap):
            return call_module(self.module, repeated(self.inputs, len(values)))


def cache_prefix(
    module: nn.Module, name: str, layer: nn.Module, inputs: NetworkInput, number: int = 0, place: str = ''
) -> CachedPrefix:
    """Runs a network once on one image and keeps what the outermost modules before ``layer`` returned.

    Args:
        module: The network, in eval mode, gradients off.
        name: The layer's name.
        layer: Its module.
        inputs: A batch of one image.
        number: Which call of the layer is meant, counted from 0.
        place: Where in what the layer returns its map is.
    """
    parts = module_path(name).split('.')
    above = {id(module.get_submodule('.'.join(parts[:depth]))) for depth in range(len(parts))}
    watched = {f'{key}': child for key, child in module.named_modules() if id(child) not in above}
    outputs: list[tuple[nn.Module, Any]] = []
    containers: list[Any] = []
    depth = 0

    def enter(child: nn.Module, args: Any) -> None:
        nonlocal depth
        depth += 1

    def leave(key: str, child: nn.Module, args: Any, output: Any) -> None:
        nonlocal depth
        depth -= 1
        kept = copied(output) if depth == 0 or child is layer else None
        if depth == 0:
            outputs.append((child, kept))
        if child is layer and not function_of(name):
            containers.append(kept)

    def keep(key: str, child: nn.Module, args: Any, output: Any) -> None:
        containers.append(copied(output))

    function = {name: layer} if function_of(name) else {}

    handles = [child.register_forward_pre_hook(enter) for child in watched.values()]
    try:
        with hooked(watched, leave), hooked_layers(function, keep):
            output = call_module(module, inputs)
    finally:
        for handle in handles:
            handle.remove()
    value = part_of(containers[number], place)[1]
    positions = [position for position, (child, _) in enumerate(outputs) if child is layer]
    whole = len(positions) == len(containers) and not function
    kept = outputs[: positions[number] + 1] if whole else []
    return CachedPrefix(module, inputs, name, layer, output, containers[number], value, place, number, kept)


@contextmanager
def _patched_forward(
    modules: Iterable[nn.Module], play: Callable[[nn.Module, Callable[..., Any], Any, Any], Any]
) -> Iterator[None]:
    """``play(module, forward, args, kwargs)`` in place of each module's ``forward``."""
    patched: list[tuple[nn.Module, Any]] = []
    try:
        for child in modules:
            own = child.__dict__.get('forward')

            def forward(*args: Any, _child: nn.Module = child, _original: Any = child.forward, **kwargs: Any) -> Any:
                return play(_child, _original, args, kwargs)

            patched.append((child, own))
            child.__dict__['forward'] = forward
        yield
    finally:
        for child, own in patched:
            if own is None:
                del child.__dict__['forward']
            else:
                child.__dict__['forward'] = own

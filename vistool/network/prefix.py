"""A network cut at a layer: everything before it is played back, only the tail is run again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from vistool.analyses.cam.probe import repeated
from vistool.network.capture import first_tensor, hooked, replace_tensor
from vistool.network.forward import call


class CannotReplay(RuntimeError):
    """The network is not built so that its prefix can be played back."""


@dataclass
class Tail:
    """What follows a layer, as a function of the layer's output.

    Attributes:
        module: The network.
        inputs: Its input for one image.
        layer: The layer.
        output: What the network returned.
        container: What the layer returned, as it returned it.
        value: The tensor in that, ``(1, …)``.
        call: Which of the layer's calls, counted from 0, is the one.
        tape: The modules that ran up to that call, outermost ones only, in order, each with a copy of its output; the
            layer last.
        altered: Positions on the tape of what the network writes into further on, so that it needs a copy each time;
            None until a first run has shown.
    """

    module: nn.Module
    inputs: Any
    layer: nn.Module
    output: Any
    container: Any
    value: Tensor
    call: int
    tape: list[tuple[nn.Module, Any]] = field(repr=False)
    altered: set[int] | None = None

    def run(self, values: Tensor) -> Any:
        """The network's output for ``values`` ``(n, …)`` in place of the layer's; the prefix stays at batch 1.

        Raises:
            CannotReplay: If the modules are not called in the order recorded.
        """
        if not self.tape:
            raise CannotReplay('the layer is called from within another module than its parent')
        position = 0
        copies: dict[int, Any] = {}

        def play(child: nn.Module, original: Callable[..., Any], args: Any, kwargs: Any) -> Any:
            nonlocal position
            if position >= len(self.tape):
                return original(*args, **kwargs)
            expected, output = self.tape[position]
            position += 1
            if child is not expected:
                raise CannotReplay('another run takes another way')
            if position == len(self.tape):
                return replace_tensor(self.container, self.value, values)
            if self.altered is None or position in self.altered:
                output = copies[position] = _copied(output)
            return output

        with _forwards({id(child): child for child, _ in self.tape}.values(), play):
            output = call(self.module, self.inputs)
        if self.altered is None:
            self.altered = {at for at, copy in copies.items() if any(tensor._version for tensor in _tensors(copy))}
        return output

    def run_whole(self, values: Tensor) -> Any:
        """The same by the whole network on n copies of the image: slow, right for any network."""
        seen = 0

        def swap(name: str, child: nn.Module, args: Any, output: Any) -> Any:
            nonlocal seen
            seen += 1
            return replace_tensor(self.container, self.value, values) if seen == self.call + 1 else None

        with hooked({'layer': self.layer}, swap):
            return call(self.module, repeated(self.inputs, len(values)))


def record(module: nn.Module, name: str, layer: nn.Module, inputs: Any, number: int = 0) -> Tail:
    """Runs the network once on one image and keeps what the outermost modules before ``layer`` returned.

    Args:
        module: The network, in eval mode, gradients off.
        name: The layer's dotted name.
        layer: The layer.
        inputs: A batch of one image.
        number: Which call of the layer is meant, counted from 0.
    """
    above = {id(module.get_submodule('.'.join(name.split('.')[:depth]))) for depth in range(name.count('.') + 1)}
    watched = {f'{key}': child for key, child in module.named_modules() if id(child) not in above}
    tape: list[tuple[nn.Module, Any]] = []
    containers: list[Any] = []
    depth = 0

    def enter(child: nn.Module, args: Any) -> None:
        nonlocal depth
        depth += 1

    def leave(key: str, child: nn.Module, args: Any, output: Any) -> None:
        nonlocal depth
        depth -= 1
        kept = _copied(output) if depth == 0 or child is layer else None
        if depth == 0:
            tape.append((child, kept))
        if child is layer:
            containers.append(kept)

    handles = [child.register_forward_pre_hook(enter) for child in watched.values()]
    try:
        with hooked(watched, leave):
            output = call(module, inputs)
    finally:
        for handle in handles:
            handle.remove()
    value = first_tensor(containers[number])
    assert value is not None  # the shared forward has been there
    positions = [position for position, (child, _) in enumerate(tape) if child is layer]
    whole = len(positions) == len(containers)
    kept = tape[: positions[number] + 1] if whole else []
    return Tail(module, inputs, layer, output, containers[number], value, number, kept)


@contextmanager
def _forwards(modules: Any, play: Callable[[nn.Module, Callable[..., Any], Any, Any], Any]) -> Iterator[None]:
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


def _copied(output: Any) -> Any:
    """A copy of a module's output: what changes it in place further on does not reach the copy."""
    if isinstance(output, Tensor):
        return output.detach().clone()
    if isinstance(output, Mapping):
        copy = {key: _copied(value) for key, value in output.items()}
        return copy if type(output) is dict else type(output)(**copy)
    if isinstance(output, tuple) and hasattr(output, '_fields'):
        return type(output)(*(_copied(item) for item in output))
    return type(output)(_copied(item) for item in output) if type(output) in (tuple, list) else output


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, (Mapping, tuple, list)):
        for item in output.values() if isinstance(output, Mapping) else output:
            yield from _tensors(item)

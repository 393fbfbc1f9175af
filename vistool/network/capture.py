"""Watching a module's inner tensors: hooks as context managers that leave nothing behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from copy import copy as copy_of
from dataclasses import dataclass, field, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Eval mode, no parameter asking for gradients, autograd on; everything as found afterwards, also after an error.

    With the parameters frozen no graph is recorded before a layer's output is made a leaf, so a forward costs what a
    ``no_grad`` forward costs, yet contexts inside the model that restore the gradient mode cannot switch the tail off.
    """
    training = [(child, child.training) for child in module.modules()] if module.training else []
    wanting = [parameter for parameter in module.parameters() if parameter.requires_grad]
    try:
        if training:
            module.eval()
        for parameter in wanting:
            parameter.requires_grad_(False)
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for parameter in wanting:
            parameter.requires_grad_(True)
        if training:
            module.train()  # some models fuse or split weights in train(), so the attribute alone is not enough
            for child, flag in training:
                child.training = flag


@contextmanager
def hooked(modules: Mapping[str, nn.Module], hook: Callable[[str, nn.Module, Any, Any], Any]) -> Iterator[None]:
    """Calls ``hook(name, module, args, output)`` after each module's forward; anything but None replaces its output."""
    with ExitStack() as stack:
        for name, module in modules.items():
            handle = module.register_forward_hook(
                lambda child, args, output, name=name: hook(name, child, args, output), always_call=False
            )
            stack.callback(handle.remove)
        yield


def first_tensor(output: Any) -> Tensor | None:
    """The first floating-point tensor in an output: a tensor, tuple, list, dict, dataclass or Hugging Face output."""
    if isinstance(output, Tensor):
        return output if output.is_floating_point() else None
    if isinstance(output, Mapping):
        output = output.values()
    elif is_dataclass(output) and not isinstance(output, type):
        output = vars(output).values()
    elif not isinstance(output, (tuple, list)):
        return None
    return next((found for item in output if (found := first_tensor(item)) is not None), None)


def replace_tensor(output: Any, old: Tensor, new: Tensor) -> Any:
    """``output`` with ``old`` (by identity) exchanged for ``new``, its containers rebuilt."""
    if output is old:
        return new
    if isinstance(output, Mapping):
        values = {key: replace_tensor(value, old, new) for key, value in output.items()}
        return values if type(output) is dict else type(output)(**values)
    if is_dataclass(output) and not isinstance(output, type):
        copy = copy_of(output)
        for name, value in vars(output).items():
            object.__setattr__(copy, name, replace_tensor(value, old, new))  # frozen ones too
        return copy
    if isinstance(output, tuple) and hasattr(output, '_fields'):
        return type(output)(*(replace_tensor(item, old, new) for item in output))
    if isinstance(output, (tuple, list)):
        return type(output)(replace_tensor(item, old, new) for item in output)
    return output


_CHANNELS_FIRST = (nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm)
_CHANNELS_LAST = (nn.Linear, nn.LayerNorm)


@dataclass
class Grids:
    """Spatial sizes that went by in a forward, most recent last: what flat tokens can be laid out by."""

    sizes: list[tuple[int, int]] = field(default_factory=list)

    def watch(self, output: Any, args: Sequence[Any] = (), module: nn.Module | None = None) -> None:
        """Notes the size of a 4-D map, or the ``(H, W)`` that token models hand along with their tokens.

        Args:
            output: What a module gave.
            args: What it was given, in which token models often say how their tokens lie.
            module: The module, which may settle where the channels of a 4-D map are.
        """
        for value in args:
            self._note_pair(value)
        if isinstance(output, Mapping):
            output = first_tensor(output)
        if isinstance(output, Tensor):
            if output.ndim == 4:
                if not isinstance(module, _CHANNELS_LAST):
                    self._note(output.shape[2], output.shape[3])
                if not isinstance(module, _CHANNELS_FIRST):
                    self._note(output.shape[1], output.shape[2])
        elif isinstance(output, tuple) and output:
            pairs = [self._note_pair(value) for value in output[1:]]
            if not any(pairs):
                self.watch(output[0], module=module)

    def _note_pair(self, value: Any) -> bool:
        found = isinstance(value, (tuple, list)) and len(value) == 2 and all(type(n) is int and n > 0 for n in value)
        if found:
            self._note(value[0], value[1])
        return found

    def _note(self, height: int, width: int) -> None:
        size = (int(height), int(width))
        if size in self.sizes:
            self.sizes.remove(size)
        self.sizes.append(size)


@dataclass
class Activation:
    """A layer's output in one forward.

    Attributes:
        value: The tensor as the layer gave it, a leaf of the autograd graph (or behind an earlier leaf).
        grids: Spatial sizes seen up to that layer.
    """

    value: Tensor
    grids: list[tuple[int, int]]


@contextmanager
def activations(
    root: nn.Module, layers: Mapping[str, nn.Module], *, cut: bool = True, watch: bool = True
) -> Iterator[dict[str, list[Activation]]]:
    """Collects the outputs of ``layers`` while ``root`` runs.

    Args:
        root: The model.
        layers: Name → module.
        cut: Whether the earliest layer's output becomes a leaf, so that autograd records the tail behind it and nothing
            before it. Downstream gets a copy: an in-place operation there does not reach what is kept here.
        watch: Whether spatial sizes are noted on the way (needed for layers that give flat tokens).

    Yields:
        Name → one :class:`Activation` per call of that layer, in call order; filled during the forward.
    """
    found: dict[str, list[Activation]] = {name: [] for name in layers}
    grids = Grids()

    def keep(name: str, module: nn.Module, args: Any, output: Any) -> Any:
        tensor = first_tensor(output)
        if tensor is None:
            return None
        if cut:
            torch.set_grad_enabled(True)
        value = tensor.clone() if tensor.requires_grad else tensor.detach().clone().requires_grad_(cut)
        found[name].append(Activation(value, list(grids.sizes)))
        return replace_tensor(output, tensor, value.clone()) if cut else None

    def note(name: str, module: nn.Module, args: Any, output: Any) -> None:
        grids.watch(output, args, module)

    watched = dict(root.named_modules()) if watch else {}
    with hooked(watched, note), hooked(layers, keep):
        yield found

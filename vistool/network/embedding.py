"""How a network cuts its image into tokens, found by watching it run.

Hooks see which convolution or unfolding takes the image, its settings, and the size of its output. The forward stops as
soon as the sequence that the blocks receive is known.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vistool.data.patches import PatchGrid, by
from vistool.errors import InputError, counted, param
from vistool.network.capture import borrowed
from vistool.network.inputs import run_network
from vistool.network.tensors import MAX_PREFIX, NetworkInput, Size, first_tensor, map_tensors
from vistool.network.windows import Windows, find_windows

log = logging.getLogger('vistool')


def first_convolution(module: nn.Module) -> nn.Conv2d | None:
    """The first convolution over images (of up to four channels) in a network; its stride is that of the patches."""
    convolutions = (child for child in module.modules() if isinstance(child, nn.Conv2d))
    return next((child for child in convolutions if child.in_channels <= 4), None)


def patch_stride(module: nn.Module) -> Size | None:
    """The stride ``(vertical, horizontal)`` of :func:`first_convolution`, or None where there is none."""
    convolution = first_convolution(module)
    return None if convolution is None else as_pair(convolution.stride)


@dataclass(frozen=True)
class Step:
    """One step of an embedding.

    Attributes:
        name: The module.
        kernel: Its size, in pixels or in tokens of the step before.
        stride: Likewise.
        grid: Its tokens' receptive fields in the image.
    """

    name: str
    kernel: Size
    stride: Size
    grid: PatchGrid


def first_step(name: str, module: nn.Module, taken: Tensor, output: Tensor, image: Tensor | None, size: Size) -> Step:
    """The step that takes the image; ``taken`` and ``output`` are the input and output of the module."""
    seen = (int(taken.shape[2]), int(taken.shape[3]))
    if seen[0] < size[0] or seen[1] < size[1]:
        folded = image is not None and taken.shape[1:].numel() == image.shape[1:].numel()
        change = f'folds the image into {by(seen)} positions of' if folded else f'resizes the image to {by(seen)} with'
        raise InputError(
            f'the network {change} {counted(taken.shape[1], "channel")} before {name} takes it',
            accepted='a network whose first layer takes the image itself',
            hint=f'or leave out {param("model")} and give {param("patch_size")}',
            parameter='model',
        )
    kernel, stride, before, shape = _setting(module, taken, output)
    top, left = _place(taken, image, size)
    grid = PatchGrid(size, kernel, stride, (-before[0] - top, -before[1] - left), shape)
    return Step(name, kernel, stride, grid)


def next_step(name: str, module: nn.Module, taken: Tensor, output: Tensor, last: Step) -> Step:
    """A step that takes the tokens of the ``last``."""
    if tuple(taken.shape[2:]) != last.grid.shape:
        raise InputError(
            f'the embedding branches at {name}: its tokens do not have a single receptive field', parameter='model'
        )
    kernel, stride, before, shape = _setting(module, taken, output)
    return Step(name, kernel, stride, last.grid.then(kernel, stride, before, shape))


def _setting(module: nn.Module, taken: Tensor, output: Tensor) -> tuple[Size, Size, Size, Size]:
    """Kernel (dilation included), stride, padding above and at the left, and the shape of the output."""
    dilation = as_pair(getattr(module, 'dilation', 1))
    sides = zip(as_pair(module.kernel_size), dilation, strict=True)
    kernel = _both(spacing * (side - 1) + 1 for side, spacing in sides)
    stride, shape = as_pair(module.stride), _shape_of(module, output, taken)
    declared = module.padding if not isinstance(module.padding, str) else 0
    before = []
    for axis, padding in enumerate(as_pair(declared)):
        # Some layers pad on both sides without a setting that says so; the size of the output shows it.
        wanted = (shape[axis] - 1) * stride[axis] + kernel[axis] - int(taken.shape[2 + axis])
        before.append(wanted // 2 if wanted > 2 * padding else padding)
    return kernel, stride, _both(before), shape


def _shape_of(module: nn.Module, output: Tensor, taken: Tensor) -> Size:
    if not isinstance(module, nn.Unfold):
        return int(output.shape[2]), int(output.shape[3])
    settings = (as_pair(value) for value in (module.kernel_size, module.dilation, module.padding, module.stride))
    kernel, dilation, padding, stride = settings
    return _both(
        (int(taken.shape[2 + i]) + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1
        for i in range(2)
    )


def _place(taken: Tensor, image: Tensor | None, size: Size) -> Size:
    """Where the image lies in the input of the first layer: networks pad on one side, or on both."""
    spare = taken.shape[2] - size[0], taken.shape[3] - size[1]
    for top, left in ((0, 0), (spare[0] // 2, spare[1] // 2), (-(-spare[0] // 2), -(-spare[1] // 2))):
        part = taken[:, :, top : top + size[0], left : left + size[1]]
        if image is not None and part.shape == image.shape and torch.equal(part, image):
            return top, left
    return 0, 0


def as_pair(value: Any) -> Size:
    """A setting of a module, one number or two."""
    return (int(value), int(value)) if isinstance(value, (int, float)) else _both(value)


def _both(values: Any) -> Size:
    height, width = values
    return int(height), int(width)


_EMBEDDING = re.compile(r'patch|embed|tokens?_to_token|conv_proj|stem', re.IGNORECASE)
_ATTENTION = re.compile(r'attn|attention|msa\b|mixer|mixing', re.IGNORECASE)
_SPATIAL = (nn.Conv2d, nn.Unfold, nn.MaxPool2d, nn.AvgPool2d)
_SPECIAL = {
    'CLS': ('cls_token', 'class_token', 'class_embedding'),
    'DIST': ('dist_token', 'distillation_token'),
    'REG': ('reg_token', 'register_tokens', 'storage_tokens', 'registers'),
}


@dataclass(frozen=True)
class Embedding:
    """How a network cuts its image into tokens.

    Attributes:
        name: The module that does it.
        steps: From pixels to tokens; several where tokens are merged again (T2T) or there are several convolutions.
        later: Steps between the blocks that merge overlapping tokens again (MViT's pooling).
        special: Names of the tokens before the patches, as the blocks receive them.
        attends: Whether there is attention (or mixing) between tokens; a convolutional network keeps a map.
        windows: The first two ways in which attention is confined to windows.
    """

    name: str
    steps: tuple[Step, ...]
    later: tuple[Step, ...] = ()
    special: tuple[str, ...] = ()
    attends: bool = False
    windows: tuple[Windows, ...] = ()

    @property
    def grid(self) -> PatchGrid:
        """The patches that are the blocks' tokens."""
        return self.steps[-1].grid


class _Enough(BaseException):
    """Ends a forward once everything is known. Not an ``Exception``, which a network may catch."""


@dataclass
class _Watch:
    """What hooks have seen of a forward."""

    model: nn.Module
    image: Size
    source: Tensor | None
    names: dict[nn.Module, str] = field(default_factory=dict)
    root: str | None = None
    done: bool = False
    steps: list[Step] = field(default_factory=list)
    later: list[Step] = field(default_factory=list)
    length: int = 0
    tokens: Tensor | None = None
    attends: bool = False
    to_the_end: bool = False

    def spatial(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if not args or not isinstance(args[0], Tensor) or args[0].ndim != 4 or not isinstance(output, Tensor):
            return
        name, taken = self.names[module], args[0]
        if self.root is None:
            self.root = _embedding_root(self.model, name)
            self.steps.append(first_step(name, module, taken, output, self.source, self.image))
            self.done = self.root == name
        elif not self.done and max(*as_pair(module.kernel_size), *as_pair(module.stride)) > 1:
            self.steps.append(next_step(name, module, taken, output, self.steps[-1]))
        elif self.done and name.endswith('pool_q') and max(as_pair(module.stride)) > 1:
            self.later.append(next_step(name, module, taken, output, [*self.steps, *self.later][-1]))

    def finished(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self.done = self.done or self.names[module] == self.root

    def entered(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if not self.done:
            return
        tokens = first_tensor(args)
        count = self.steps[-1].grid.count
        flat = not self.attends and tokens is not None and tokens.ndim == 3 and tokens.shape[0] == 1
        if flat and tokens is not None and count <= tokens.shape[1] <= count + MAX_PREFIX:
            self.length, self.tokens = tokens.shape[1], tokens.detach()
        if _ATTENTION.search(type(module).__name__) or _ATTENTION.search(self.names[module].rpartition('.')[2]):
            self.attends = True
            if not self.to_the_end:
                raise _Enough


def find_embedding(model: nn.Module, inputs: NetworkInput) -> Embedding:
    """Runs a network on one image until its tokens are known.

    The first convolution, unfolding or pooling that runs takes the image. The outermost module around it whose name or
    class says embedding (:data:`_EMBEDDING`) is the embedding, else that layer alone. Padding that no setting states is
    read from the size of the output, and where the image lies in it by comparing values. Tokens beyond the grid are
    drawn before it; where a second, changed image shows that they lie elsewhere, that is printed. They have the names
    of the parameters in :data:`_SPECIAL` if these are as many, else T1, T2 and so on. Attention is known by the names
    of modules (:data:`_ATTENTION`), windows by what modules state.

    Args:
        model: The network.
        inputs: Its input for one image, ``(1, C, H, W)``, or a tuple or dict that holds it.

    Raises:
        InputError: It cuts no patches (a convolutional network), or not along a grid.
    """
    source = first_tensor(inputs)
    if source is None or source.ndim != 4:
        raise InputError('the network input holds no image (1, C, H, W)')
    size = (int(source.shape[2]), int(source.shape[3]))
    watch = _watched(model, inputs, source, size)
    if watch.steps and watch.tokens is not None and watch.length > watch.steps[-1].grid.count:
        _say_scattered(model, watch, inputs, source)
    return _described(watch)


def _watched(model: nn.Module, inputs: NetworkInput, source: Tensor, size: Size) -> _Watch:
    """What hooks see of one forward."""
    with borrowed(model), ExitStack() as stack, torch.no_grad():
        watch = _Watch(model, size, source, {module: name for name, module in model.named_modules()})
        watch.to_the_end = any(name.endswith('pool_q') for name in watch.names.values())
        for module in watch.names:
            stack.callback(module.register_forward_pre_hook(watch.entered).remove)
            if isinstance(module, _SPATIAL):
                stack.callback(module.register_forward_hook(watch.spatial).remove)
            stack.callback(module.register_forward_hook(watch.finished).remove)
        with suppress(_Enough):
            run_network(model, inputs)
    return watch


def _say_scattered(model: nn.Module, watch: _Watch, inputs: NetworkInput, source: Tensor) -> None:
    """Prints where the tokens lie that do not change with the image, unless it is before the others."""
    changed = source.flip((2, 3)) + torch.randn(source.shape, generator=torch.Generator().manual_seed(0)).to(source)
    other = map_tensors(lambda tensor: changed if tensor is source else tensor, inputs)
    first, second = watch.tokens, _watched(model, other, changed, watch.image).tokens
    if first is None or second is None or first.shape != second.shape:
        return
    same = (first == second).all(-1)[0].nonzero().flatten().tolist()
    count = watch.length - watch.steps[-1].grid.count
    if len(same) == count and same != list(range(count)):
        places = ', '.join(str(place) for place in same)
        text = 'special tokens are number %s of the %d tokens, counted from 0; they are drawn first'
        log.warning(text, places, watch.length)


def _described(watch: _Watch) -> Embedding:
    kind = type(watch.model).__name__
    if not watch.steps:
        raise InputError(f'{kind} has no convolution or unfolding that takes the image', parameter='model')
    first, root = watch.steps[0], watch.root or ''
    named = re.search(
        r'patch|tokens?_to_token|overlap', f'{root} {type(watch.model.get_submodule(root)).__name__}', re.I
    )
    if first.kernel != first.stride and not named and not watch.length:
        raise InputError(
            f'this network cuts no patches: its first layer {first.name} is a {by(first.kernel)} convolution that '
            f'moves by {by(first.stride)}, and its output is not a sequence of tokens',
            accepted='a vision transformer, or a network that starts with patches (ConvNeXt)',
            hint=f'or leave out {param("model")} and give {param("patch_size")}',
            parameter='model',
        )
    grid = watch.steps[-1].grid
    count = max(watch.length - grid.count, 0)
    windows = find_windows(watch.model, grid.shape)
    return Embedding(root, tuple(watch.steps), tuple(watch.later), _special(watch.model, count), watch.attends, windows)


def _embedding_root(model: nn.Module, name: str) -> str:
    """The outermost module around a layer whose name or class says embedding; the layer itself where none does."""
    for path in _ancestors(name):
        module = model.get_submodule(path)
        if isinstance(module, (nn.ModuleList, nn.ModuleDict)):
            continue
        if _EMBEDDING.search(path.rpartition('.')[2]) or _EMBEDDING.search(type(module).__name__):
            return path
    return name


def _ancestors(name: str) -> Iterator[str]:
    parts = name.split('.')
    yield from ('.'.join(parts[: end + 1]) for end in range(len(parts) - 1))


def _special(model: nn.Module, count: int) -> tuple[str, ...]:
    """Names for ``count`` tokens before the patches, by the parameters that hold them."""
    names = []
    parameters = dict(model.named_parameters())
    for label, known in _SPECIAL.items():
        held = [value for name, value in parameters.items() if name.rpartition('.')[2] in known]
        several = held[0].shape[-2] if held and held[0].ndim > 1 else len(held)
        names += [f'{label}{index + 1}' if several > 1 else label for index in range(several)]
    return tuple(names) if len(names) == count else tuple(f'T{index + 1}' for index in range(count))

"""Independent computations of what vistool shows. Nothing here uses vistool.

Each takes a network and images and says what is true: what a layer returns, and the gradient of the score there (plain
hooks and a full backward); what the formula of a class activation map gives; what attention weights are (the softmax is
replaced by one that keeps its result); and which part of the image a position of a tensor answers to (parts of the
image are replaced by noise, and the changes are measured).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Size: TypeAlias = tuple[int, int]


def logits_of(output: Any) -> Tensor | None:
    """The class scores ``(B, C)`` of a network of the four libraries; None for a network without a head."""
    logits = getattr(output, 'logits', output)
    if isinstance(logits, Tensor):
        return logits if logits.ndim == 2 else None
    first = logits[0] if isinstance(logits, (tuple, list)) and logits else None
    return first if isinstance(first, Tensor) and first.ndim == 2 else None


def tensors_in(value: Any) -> list[Tensor]:
    """The floating-point tensors in nested tuples, lists and dicts, in order."""
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (tuple, list)) else ()
    return [tensor for part in parts for tensor in tensors_in(part)]


# What a layer returned


@dataclass(frozen=True)
class Call:
    """The tensors that one call of a layer returned, and the gradients of the score there, in order."""

    values: list[Tensor]
    gradients: list[Tensor | None]


Score: TypeAlias = Callable[[Any], Tensor]
"""What a network returned → a number for each image, ``(B,)``."""


@contextlib.contextmanager
def _received(module: nn.Module, names: Sequence[str], receive: Callable[[str, Any], Any]) -> Iterator[None]:
    """Hands what layers return to ``receive``, which may return something in its place.

    ``NAME+relu`` is what the network's ``F.relu`` makes of what the module returns.
    """
    handles = []
    relu = _Relu(receive)
    for name in names:
        path, plus, _ = name.partition('+')

        def keep(layer: nn.Module, args: Any, output: Any, name: str = name, plus: str = plus) -> Any:
            if not plus:
                return receive(name, output)
            relu.awaited.append((name, output))
            return None

        handles.append(module.get_submodule(path).register_forward_hook(keep))
    try:
        with relu if any('+' in name for name in names) else contextlib.nullcontext():
            yield
    finally:
        for handle in handles:
            handle.remove()


class _Relu(TorchFunctionMode):
    """Hands the output of ReLU as a function of an awaited tensor to ``receive``."""

    def __init__(self, receive: Callable[[str, Any], Any]) -> None:
        super().__init__()
        self.receive, self.awaited = receive, list[tuple[str, Any]]()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if function in (F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_):
            for name, tensor in self.awaited:
                if tensor is args[0]:
                    other = self.receive(name, result)
                    return result if other is None else other
        return result


def hooked_values(module: nn.Module, images: Tensor, names: Sequence[str]) -> dict[str, list[list[Tensor]]]:
    """What the layers return: for each call in a forward, its tensors, copied before anything changes them."""
    found: dict[str, list[list[Tensor]]] = {name: [] for name in names}

    def keep(name: str, output: Any) -> None:
        found[name].append([tensor.detach().clone() for tensor in tensors_in(output)])

    with _received(module, names, keep), torch.no_grad():
        module(images)
    return found


def backward_through(
    module: nn.Module, images: Tensor, names: Sequence[str], score: Score
) -> tuple[dict[str, list[Call]], Tensor]:
    """What the layers return and the gradient of the score there, by a full backward; and the scores ``(B,)``.

    Layers return copies, so that operations in place after them change neither the values nor the gradients.
    """
    kept: dict[str, list[list[Tensor]]] = {name: [] for name in names}

    def copied(value: Any, into: list[Tensor]) -> Any:
        if isinstance(value, Tensor):
            if not value.is_floating_point():
                return value
            own = value.clone()  # the layer's own: a tensor that it only passes on has other uses too
            if own.requires_grad:
                own.retain_grad()
            into.append(own)
            return own.clone()
        if isinstance(value, dict):
            for key in list(value):
                value[key] = copied(value[key], into)
            return value
        if isinstance(value, (tuple, list)):
            parts = [copied(part, into) for part in value]
            return type(value)(*parts) if hasattr(value, '_fields') else type(value)(parts)
        return value

    def keep(name: str, output: Any) -> Any:
        kept[name].append([])
        return copied(output, kept[name][-1])

    try:
        with _received(module, names, keep), torch.enable_grad():
            values = score(module(images.clone().requires_grad_()))
            values.sum().backward()
        calls = {
            name: [Call([each.detach().clone() for each in into], [each.grad for each in into]) for into in every]
            for name, every in kept.items()
        }
    finally:
        module.zero_grad(set_to_none=True)
    return calls, values.detach()


# Formulas of class activation maps. A and G are (B, positions, channels), of the positions of the map only.


def formula(method: str, a: Tensor, g: Tensor) -> Tensor:
    """The map ``(B, positions)`` before ReLU and scaling, in float64, as the method's paper defines it."""
    a, g = a.double(), g.double()
    if method == 'gradcam':
        return (a * g.mean(1, keepdim=True)).sum(2)
    if method == 'hirescam':
        return (a * g).sum(2)
    if method == 'gradcamelementwise':
        return (a * g).clamp_min(0).sum(2)
    if method == 'layercam':
        return (a * g.clamp_min(0)).sum(2)
    if method == 'xgradcam':
        return (a * ((a * g).sum(1, keepdim=True) / (a.sum(1, keepdim=True) + 1e-7))).sum(2)
    assert method == 'gradcam++'
    denominator = 2 * g**2 + a.sum(1, keepdim=True) * g**3 + 1e-6
    alpha = torch.where(g == 0, 0.0, g**2 / denominator)
    return (a * (alpha * g.clamp_min(0)).sum(1, keepdim=True)).sum(2)


def magnitude(method: str, a: Tensor, g: Tensor, conditioned: bool = True) -> Tensor:
    """The sum of the absolute terms of the formula, ``(B, positions)``: what its rounding errors are relative to.

    Args:
        method: The method.
        a: Activations.
        g: Gradients.
        conditioned: Whether errors of denominators that cancel count as well.
    """
    a, g = a.double(), g.double()
    if method == 'gradcam':
        return (a.abs() * g.abs().mean(1, keepdim=True)).sum(2)
    if method == 'xgradcam':
        total, product = a.sum(1, keepdim=True).abs() + 1e-7, a * g
        weights = product.abs().sum(1, keepdim=True) / total
        if conditioned:
            cancels = a.abs().sum(1, keepdim=True) / total
            weights = weights + product.sum(1, keepdim=True).abs() * cancels / total
        return (a.abs() * weights).sum(2)
    if method == 'gradcam++':
        square, cube = 2 * g**2, a.sum(1, keepdim=True) * g**3
        denominator = (square + cube + 1e-6).abs()
        alpha = torch.where(g == 0, 0.0, g**2 / denominator)
        if conditioned:
            alpha = alpha * (square + cube.abs() + 1e-6) / denominator
        return (a.abs() * (alpha * g.clamp_min(0)).sum(1, keepdim=True)).sum(2)
    return (a * g).abs().sum(2)


def unit_map(signed: Tensor, size: Size, epsilon: float) -> Tensor:
    """ReLU, scaling to [0, 1], upsampling, scaling again, as grad-cam draws maps.

    Args:
        signed: ``(B, h, w)``.
        size: ``(H, W)`` to upsample to.
        epsilon: What is added to the range before dividing by it; grad-cam has 1e-7.

    Returns:
        ``(B, H, W)``.
    """

    def scaled(maps: Tensor) -> Tensor:
        low = maps.amin((1, 2), keepdim=True)
        return (maps - low) / (maps.amax((1, 2), keepdim=True) - low + epsilon)

    positive = signed.double().clamp_min(0)
    return scaled(F.interpolate(scaled(positive)[:, None], size, mode='bilinear', align_corners=False)[:, 0])


# Attention


@dataclass(frozen=True)
class Weights:
    """One softmax over keys.

    Attributes:
        module: Name of the innermost module that ran it.
        weights: ``(…, queries, keys)``; the axis that the softmax sums over is the last.
        logits: What the softmax was taken of, same shape.
    """

    module: str
    weights: Tensor
    logits: Tensor


class _Recorder(TorchFunctionMode):
    """Replaces fused attention by a plain one, and keeps what softmax returns inside some modules."""

    def __init__(self, wanted: Callable[[str], bool]) -> None:
        super().__init__()
        self.wanted, self.inside, self.found = wanted, [''], []
        self.found: list[Weights]

    def keep(self, logits: Tensor, weights: Tensor) -> None:
        if self.wanted(self.inside[-1]) and weights.ndim > 2:
            self.found.append(Weights(self.inside[-1], weights.detach().clone(), logits.detach().clone()))

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is F.scaled_dot_product_attention:
            return self._attend(*args, **kwargs)
        if function in (torch.softmax, Tensor.softmax, F.softmax):
            result = function(*args, **kwargs)
            logits = args[0] if args else kwargs['input']
            axis = kwargs.get('dim', args[1] if len(args) > 1 else -1)
            self.keep(logits.movedim(axis, -1), result.movedim(axis, -1))
            return result
        return function(*args, **kwargs)

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if enable_gqa:
            key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
            value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
        logits = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
        if is_causal:
            logits = logits.masked_fill(torch.ones_like(logits[..., :, :]).triu(1).bool(), -torch.inf)
        if attn_mask is not None:
            logits = logits.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else logits + attn_mask
        weights = logits.exp() / logits.exp().sum(-1, keepdim=True) if logits.amax() < 60 else logits.softmax(-1)
        self.keep(logits, weights)
        return weights @ value


@contextlib.contextmanager
def _names_tracked(module: nn.Module, inside: list[str]) -> Iterator[None]:
    """Keeps the names of the modules that are running, innermost last."""
    handles = []
    for name, child in module.named_modules():

        def enter(layer: nn.Module, args: Any, name: str = name) -> None:
            inside.append(name)

        def leave(layer: nn.Module, args: Any, output: Any) -> None:
            inside.pop()

        handles += [child.register_forward_pre_hook(enter), child.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def attention_weights(module: nn.Module, images: Tensor, names: Sequence[str]) -> list[Weights]:
    """The weights of every softmax inside the named modules, in running order; ``''`` names the network."""
    recorder = _Recorder(lambda inner: any(name in ('', inner) or inner.startswith(f'{name}.') for name in names))
    with torch.no_grad(), _names_tracked(module, recorder.inside), recorder:
        module(images)
    return recorder.found


def librarys_own_weights(module: nn.Module, images: Tensor, name: str) -> Tensor | None:
    """The weights ``(groups, heads, queries, keys)`` as the library itself shows them; None where it shows none.

    timm applies ``attn_drop`` to them where attention is not fused; transformers returns them from the attention module
    in its eager implementation; ``nn.MultiheadAttention`` returns them on request.
    """
    layer = module.get_submodule(name)
    kept: list[Tensor] = []
    handles = []
    with contextlib.ExitStack() as undo:
        if isinstance(layer, nn.MultiheadAttention):

            def ask(child: Any, args: Any, kwargs: Any) -> None:
                if not kept:
                    kept.append(torch.empty(0))
                    options = {**kwargs, 'need_weights': True, 'average_attn_weights': False}
                    kept.append(child(*args, **options)[1].detach())

            handles.append(layer.register_forward_pre_hook(ask, with_kwargs=True))
        elif type(layer).__module__.startswith('timm.') and isinstance(getattr(layer, 'attn_drop', None), nn.Module):
            if getattr(layer, 'fused_attn', False):
                layer.fused_attn = False  # type: ignore[assignment]
                undo.callback(setattr, layer, 'fused_attn', True)
            handles.append(
                layer.attn_drop.register_forward_hook(lambda child, args, out: kept.append(out.detach().clone()))
            )
        elif type(layer).__module__.startswith('transformers.'):
            config: Any = getattr(layer, 'config', None)
            if config is not None and getattr(config, '_attn_implementation', '') != 'eager':
                undo.callback(setattr, config, '_attn_implementation', config._attn_implementation)
                config._attn_implementation = 'eager'
            handles.append(
                layer.register_forward_hook(lambda child, args, out: kept.extend(t.detach() for t in tensors_in(out)))
            )
        try:
            with torch.no_grad():
                module(images)
        finally:
            for handle in handles:
                handle.remove()
    weights = [each for each in kept if each.ndim == 4 and bool(((each.sum(-1) - 1).abs() < 1e-3).all())]
    return weights[-1] if weights else None


# Which part of the image a position answers to


@dataclass(frozen=True)
class Answers:
    """How much each position of a tensor changes when a part of the image does.

    Attributes:
        parts: Rows and columns of parts that the image is divided into.
        change: ``(rows · columns, positions)``, not negative.
    """

    parts: Size
    change: Tensor

    @property
    def locality(self) -> Tensor:
        """How far each position's strongest answer stands out, ``(positions,)``: 1 means that all parts are alike."""
        share = self._shares
        return share.amax(0) / share.mean(0).clamp_min(1e-12)

    @property
    def _shares(self) -> Tensor:
        """Answers relative to the mean answer to the same part, which some parts draw more of than others."""
        return self.change / self.change.mean(1, keepdim=True).clamp_min(1e-12)

    def places(self) -> Tensor:
        """Where each position seems to lie, ``(positions, 2)``: row and column in [0, 1]."""
        rows, columns = self.parts
        share = self._shares
        share = (share / share.amax(0, keepdim=True).clamp_min(1e-12)) ** 4
        share = share / share.sum(0, keepdim=True)
        down = (torch.arange(rows, dtype=share.dtype) + 0.5) / rows
        across = (torch.arange(columns, dtype=share.dtype) + 0.5) / columns
        centers = torch.cartesian_prod(down, across)
        return share.T @ centers


def image_parts(images: Tensor, parts: Size, seed: int) -> Tensor:
    """The first image with one part after the other replaced by noise: ``(rows · columns, C, H, W)``."""
    generator = torch.Generator().manual_seed(seed)
    height, width = images.shape[2:]
    noise = torch.randn(images.shape[1:], generator=generator) * 2
    changed = []
    for row in range(parts[0]):
        for column in range(parts[1]):
            image = images[0].clone()
            rows = slice(row * height // parts[0], (row + 1) * height // parts[0])
            columns = slice(column * width // parts[1], (column + 1) * width // parts[1])
            image[:, rows, columns] = noise[:, rows, columns]
            changed.append(image)
    return torch.stack(changed)

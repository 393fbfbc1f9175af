"""Tensors inside nested containers: what networks take, what their modules return, and one walker for both.

Containers are whatever :mod:`torch.utils._pytree` knows (tuples, named tuples, lists, dicts, the outputs of
transformers), dataclasses, and subclasses of those that are not registered there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from copy import copy
from dataclasses import is_dataclass
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from vistool.errors import InputError

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
    """The floating-point tensors in ``value`` with their places."""
    return ((place, leaf) for place, leaf in leaves(value) if isinstance(leaf, Tensor) and leaf.is_floating_point())


def first_tensor(value: Any) -> Tensor | None:
    """The first floating-point tensor in ``value``."""
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
    if isinstance(value, (tuple, list)):
        return range(len(value)), list(value), type(value)
    return None


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
    """The first tensor ``(B, C, H, W)`` among a network's inputs, or None."""
    return next((tensor for tensor in tensors(inputs) if tensor.ndim == 4), None)


def input_size(inputs: NetworkInput) -> tuple[Size, int]:
    """``(H, W)`` and the batch size of the first image among a network's inputs.

    Raises:
        InputError: If there is no tensor ``(B, C, H, W)``.
    """
    image = find_image(inputs)
    if image is None:
        shapes = [tuple(tensor.shape) for tensor in tensors(inputs)]
        raise InputError(f'no image among the inputs {shapes}', accepted='at least one tensor (B, C, H, W)')
    return (int(image.shape[2]), int(image.shape[3])), int(image.shape[0])


def rows(inputs: NetworkInput, start: int, stop: int) -> Any:
    """The images ``start`` to ``stop`` of a batch, from each of its tensors."""
    return map_tensors(lambda tensor: tensor[start:stop] if tensor.ndim else tensor, inputs)


def repeated(inputs: NetworkInput, count: int) -> Any:
    """A batch of one image, repeated ``count`` times without copying."""
    return map_tensors(lambda tensor: tensor.expand(count, *tensor.shape[1:]) if tensor.ndim else tensor, inputs)

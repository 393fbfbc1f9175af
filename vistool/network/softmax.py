"""Softmax weights however a model writes them, and the products in which they meet their values.

A weight tensor starts with a softmax over any axis or with an exponential (``exp(s) / exp(s).sum()``,
``exp(s - logsumexp(s))``). It is followed through whatever keeps its number of elements: dropout, ``detach``,
``clone``, a transpose, a division by its sum. A product with the values ends the search: a matrix product, ``einsum``
with any equation, or a multiplication and a sum. Only weights whose rows sum to 1 over the axis that the product
contracts are attention. They may also be divided by their sums after the product, and two softmaxes of one shape may be
subtracted before it (Differential Transformer, Ye et al., ICLR 2025).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

_SOFTMAX = {F.softmax, torch.softmax, Tensor.softmax, torch.special.softmax}
_EXPONENTIAL = {torch.exp, Tensor.exp, torch.exp_, Tensor.exp_}
_MATMUL = {
    torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.linalg.matmul, torch.bmm, Tensor.bmm
}  # fmt: skip
_MULTIPLY = {torch.mul, torch.multiply, Tensor.mul, Tensor.multiply, Tensor.__mul__, Tensor.__rmul__}
_DIVIDE = {
    torch.div, torch.divide, torch.true_divide, Tensor.div, Tensor.divide, Tensor.true_divide, Tensor.__truediv__,
    Tensor.div_, Tensor.__itruediv__,
}  # fmt: skip
_COMBINE = {
    torch.sub, torch.subtract, Tensor.sub, Tensor.subtract, Tensor.__sub__, torch.add, Tensor.add, Tensor.__add__
}  # fmt: skip
_SUM = {torch.sum, Tensor.sum}
_MIXING = {F.linear, F.conv2d, torch.conv2d, torch.einsum}
_FEWEST = 4
"""Fewest elements of an exponential that may become weights: a learned temperature ``(heads, 1, 1)`` does not."""


@dataclass(frozen=True)
class Product:
    """Weights ``(*lead, queries, keys)`` times values ``(*lead, keys, dv)``, whose product is ``(*lead, queries, dv)``.

    Attributes:
        weights: The weights.
        value: The values, expanded along axes that several heads share.
        arrange: Turns a tensor with the axes of the model's own output into ``(*lead, queries, dv)``.
        mixed: Whether several softmaxes, those of the heads or two of one head, were mixed after the softmax.
    """

    weights: Tensor
    value: Tensor
    arrange: Callable[[Tensor], Tensor]
    mixed: bool = False

    def restore(self, result: Tensor, like: Tensor) -> Tensor:
        """The inverse of :attr:`arrange`: ``(*lead, queries, dv)`` with the axes of the model's own output."""
        index = self.arrange(torch.arange(like.numel(), device=like.device).view(like.shape))
        return torch.empty_like(like).flatten().index_copy(0, index.flatten(), result.to(like).flatten()).view_as(like)


@dataclass(frozen=True)
class _Origin:
    """What is known of a tensor of weights.

    Attributes:
        root: The softmax that it comes from; all its copies share one.
        whole: Whether that is a softmax, and not an exponential, which may be none.
        mixed: Whether several softmaxes were mixed in it.
        factor: For the result of a multiplication: the weights and the values, with their axes aligned at the right.
    """

    root: object
    whole: bool = False
    mixed: bool = False
    factor: tuple[Tensor, Tensor] | None = None


class SoftmaxFollower:
    """Follows softmax weights through what a model does to them until they meet the values.

    Tensors are remembered weakly: what the model drops is dropped here too.

    Attributes:
        refused: Whether the latest product was one of a softmax whose rows no longer sum to 1.
    """

    def __init__(self) -> None:
        self.refused = False
        self._known: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._sums: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._started = False  # networks with fused attention alone have no softmax to follow

    def follow(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], output: Any) -> Product | None:
        """Takes a call of a function and its output; returns a product of weights and values, or None."""
        self.refused = False
        if func in _SOFTMAX or func in _EXPONENTIAL:
            if isinstance(output, Tensor) and output.ndim >= 3 and output.shape[1:].numel() >= _FEWEST:
                self._known[output] = _Origin(object(), func in _SOFTMAX)
                self._started = True
            return None
        if not self._started or not isinstance(output, Tensor):
            return None
        operands = list(_operands(args, kwargs))
        if func in _DIVIDE and self._sums and operands[0] in self._sums and output.shape == operands[0].shape:
            return self._divided(self._sums.pop(operands[0]), operands[-1], output)
        held = next((tensor for tensor in operands if tensor in self._known), None)
        if held is None:
            return None
        origin: _Origin = self._known[held]
        product = self._product(func, args, kwargs, operands, held, origin, output)
        if product is not None:
            for tensor in [t for t, other in self._known.items() if other.root is origin.root]:
                del self._known[tensor]
            return product
        other = next((tensor for tensor in operands if tensor is not held), held)
        if func in _MULTIPLY and held.ndim == other.ndim == 3 and output.numel() > held.numel():
            self._known[output] = replace(origin, factor=(held, other))
        elif func in _COMBINE and self._mixes(origin, other):
            self._known[output] = replace(origin, mixed=True)
        elif func is torch.einsum and other.ndim > 2:
            return None  # not weights any more: only a matrix over the heads mixes them
        elif output is not held and output.numel() == held.numel() and output.is_floating_point():
            self._known[output] = replace(origin, mixed=origin.mixed or func in _MIXING)
        return None

    def _mixes(self, origin: _Origin, other: Tensor) -> bool:
        """Whether another tensor holds a softmax too, and not the same one."""
        found: _Origin | None = self._known.get(other)
        return found is not None and found.root is not origin.root and found.whole and origin.whole

    def clear(self) -> None:
        """Forgets everything."""
        self._known.clear()
        self._sums.clear()

    def _product(
        self,
        func: Any,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        operands: Sequence[Tensor],
        held: Tensor,
        origin: _Origin,
        output: Tensor,
    ) -> Product | None:
        if origin.factor is not None:
            if func not in _SUM:
                return None
            weights, value = (_unbroadcast(factor, held) for factor in origin.factor)
            labels = _labels_of_sum(origin.factor, held, output, args, kwargs)
        elif len(operands) == 2 and (func in _MATMUL or func is torch.einsum):
            labels = _labels_of_einsum(args, operands) if func is torch.einsum else _labels_of_matmul(operands)
            weights, value = operands
            if held is not weights:
                weights, value = value, weights
                labels = None if labels is None else (labels[1], labels[0], labels[2])
        else:
            return None
        found = None if labels is None else _arranged(weights, value, output, *labels)
        if found is None:
            return None
        if origin.mixed or rows_sum_to_one(found[0]):
            return Product(*found, origin.mixed)
        self.refused = origin.whole
        self._sums[output] = Product(*found)
        return None

    def _divided(self, product: Product, sums: Tensor, output: Tensor) -> Product | None:
        """The product of exponentials and values after a division, if that was by the sums of their rows."""
        totals = product.weights.sum(-1, keepdim=True)
        given = product.arrange(sums.detach().expand_as(output)).to(totals.dtype)
        if not torch.allclose(given, totals.detach().expand_as(given), rtol=1e-3):
            return None
        return Product(product.weights / totals, product.value, product.arrange)


def rows_sum_to_one(weights: Tensor) -> bool:
    """Whether the first row of every matrix sums to 1 over the last axis."""
    return bool((weights[..., 0, :].detach().float().sum(-1) - 1).abs().max() < 0.02)


def _operands(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[Tensor]:
    """The tensors among the arguments of a function, those in a list or tuple included."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from (each for each in value if isinstance(each, Tensor))


Labels = tuple[str, str, str]
"""Names of the axes of two operands and of their product, a letter each, as in ``einsum``."""

_LETTERS = 'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ'


def _labels_of_matmul(operands: Sequence[Tensor]) -> Labels | None:
    left, right = operands
    if left.ndim < 2 or right.ndim < 2:
        return None
    lead = _LETTERS[: max(left.ndim, right.ndim) - 2]
    return f'{lead[len(lead) + 2 - left.ndim :]}XY', f'{lead[len(lead) + 2 - right.ndim :]}YZ', f'{lead}XZ'


def _labels_of_einsum(args: Sequence[Any], operands: Sequence[Tensor]) -> Labels | None:
    """The labels of an equation, ``...`` and the implicit form included; None for the form without an equation."""
    if not args or not isinstance(args[0], str):
        return None
    left, arrow, right = args[0].replace(' ', '').partition('->')
    terms = left.split(',')
    if len(terms) != 2:
        return None
    used = set(left)
    spare = [letter for letter in _LETTERS if letter not in used]
    depths = [
        operand.ndim - len(term.replace('...', '')) if '...' in term else 0
        for term, operand in zip(terms, operands, strict=True)
    ]
    if len(spare) < max(depths):
        return None
    dots = ''.join(spare[: max(depths)])
    first, second = (term.replace('...', dots[len(dots) - depth :]) for term, depth in zip(terms, depths, strict=True))
    if not arrow:
        letters = sorted(used - {',', '.'})
        right = '...' + ''.join(letter for letter in letters if left.count(letter) == 1)
    return first, second, right.replace('...', dots)


def _labels_of_sum(
    factors: tuple[Tensor, Tensor], product: Tensor, output: Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Labels | None:
    """The labels of ``(weights * value).sum(axis)``, without the axes that the multiplication broadcasts."""
    axis = kwargs.get('dim', kwargs.get('axis', args[1] if len(args) > 1 else None))
    if not isinstance(axis, int) or output.ndim != product.ndim - 1:
        return None
    letters = _LETTERS[: product.ndim]
    own, other = (
        ''.join(x for x, n, whole in zip(letters, factor.shape, product.shape, strict=True) if n == whole)
        for factor in factors
    )
    return own, other, letters.replace(letters[axis], '')


def _unbroadcast(factor: Tensor, product: Tensor) -> Tensor:
    return factor.squeeze([axis for axis, n in enumerate(factor.shape) if n != product.shape[axis]])


def _arranged(
    weights: Tensor, value: Tensor, output: Tensor, own: str, other: str, made: str
) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]] | None:
    """Weights and values with the axes ``(*lead, queries, keys)`` and ``(*lead, keys, dv)``; None where they have none.

    An axis of all three is a leading one, and so is one that the values lack where there are more axes of queries than
    of keys: heads that share their values.
    """
    if any(len(set(labels)) < len(labels) for labels in (own, other, made)):
        return None
    keys = [x for x in own if x in other and x not in made]
    asking = [x for x in own if x in made and x not in other]
    shared, queries = asking[: max(0, len(asking) - len(keys))], asking[max(0, len(asking) - len(keys)) :]
    lead = [x for x in own if x in made and (x in other or x in shared)]
    width = [x for x in other if x in made and x not in own]
    whole = {*lead, *keys, *queries} == set(own) and {*lead, *keys, *width} - set(shared) == set(other)
    sizes = dict(zip(made, output.shape, strict=True))
    sizes.update((x, n) for x, n in zip(own, weights.shape, strict=True) if x in keys)
    if not keys or not whole or any(sizes[x] != n for x, n in zip(other, value.shape, strict=True) if x in keys):
        return None
    shape = [sizes[x] for x in lead]
    count = math.prod(sizes[x] for x in keys)
    held = value[(...,) + (None,) * len(shared)]
    return (
        _with_axes(weights, own, lead, queries, keys, sizes).reshape(*shape, -1, count),
        _with_axes(held, other + ''.join(shared), lead, keys, width, sizes).reshape(*shape, count, -1),
        lambda tensor: tensor.permute([made.index(x) for x in (*lead, *queries, *width)]).reshape(
            *shape, math.prod(sizes[x] for x in queries), -1
        ),
    )


def _with_axes(
    tensor: Tensor, labels: str, lead: Sequence[str], rows: Sequence[str], columns: Sequence[str], sizes: dict[str, int]
) -> Tensor:
    """``tensor`` with its axes in the order lead, rows, columns; axes of size 1 are expanded."""
    order = [*lead, *rows, *columns]
    return tensor.permute([labels.index(x) for x in order]).expand([sizes[x] for x in order])

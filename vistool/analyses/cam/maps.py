"""The arithmetic of maps: channels to a signed map, then ReLU, scaling, upsampling, fusion of layers, augmentation."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-7
BRIGHTNESS = (1.0, 0.9, 1.1)
"""Factors of test-time augmentation, the plain image first."""
CANCELED, FLAT = 4096.0, 4.0
"""Roundings in a sum whose terms cancel, with the epsilon of norms (1e-5 of the variance) included; in any sum."""
POSITIONS = 256.0
"""Roundings of a value in a sum over the positions: six times what any network showed where such a sum is zero."""
DEVIATIONS = 4.0
"""Standard deviations of an error that no position exceeds by chance."""
COARSEST = 1 / 16
"""No larger share of its terms makes a sum noise, however coarse the numbers are (bfloat16)."""
AT_ONCE = 1 << 20
"""Pixels of maps that are finished together: they fit the processor's cache."""
DENSE = 512
"""Up to this many positions a full eigendecomposition is faster than an iteration for the first vector."""


def principal_component(weighted: Tensor) -> Tensor:
    """Projection of every position onto the first principal direction of the channels.

    With X the column-centered ``(h·w, K)`` matrix this is X·v₁ = σ₁·u₁, taken from the smaller of the Gram matrices
    X·Xᵀ and Xᵀ·X in float64 (a squared condition number costs half the digits).

    Args:
        weighted: ``(B, K, h, w)``; NaN counts as 0.

    Returns:
        ``(B, h, w)`` in the dtype of ``weighted``.
    """
    x = _centered(weighted)
    positions, channels = x.shape[1:]
    if positions <= channels:
        values, vectors = torch.linalg.eigh(x @ x.transpose(1, 2))
        projection = vectors[..., -1] * values[..., -1:].clamp_min(0).sqrt()
    else:
        _, vectors = torch.linalg.eigh(x.transpose(1, 2) @ x)
        projection = (x @ vectors[..., -1:]).squeeze(-1)
    return _signed(projection, weighted)


def kernel_component(weighted: Tensor) -> Tensor:
    """The first component of kernel PCA with the sigmoid kernel tanh(x·y / K + 1) over the positions.

    Args:
        weighted: ``(B, K, h, w)``; NaN counts as 0.

    Returns:
        ``(B, h, w)`` in the dtype of ``weighted``.
    """
    x = _centered(weighted)
    kernel = torch.tanh(x @ x.transpose(1, 2) / x.shape[2] + 1)
    kernel = kernel - kernel.mean(1, keepdim=True)
    kernel = kernel - kernel.mean(2, keepdim=True)
    if kernel.shape[1] <= DENSE or kernel.device.type != 'cpu':
        values, vectors = torch.linalg.eigh(kernel)
        values, vectors = values[:, -1:], vectors[..., -1]
    else:
        values, vectors = _largest(kernel)
    return _signed(vectors * values.clamp_min(0).sqrt(), weighted)


def _centered(weighted: Tensor) -> Tensor:
    """``(B, h·w, K)`` in float64 where the device has it, with every channel's mean subtracted."""
    double = torch.float64 if weighted.device.type != 'mps' else torch.float32
    x = weighted.nan_to_num(nan=0.0).flatten(2).transpose(1, 2).to(double)
    return x - x.mean(1, keepdim=True)


def _signed(projection: Tensor, like: Tensor) -> Tensor:
    flip = projection.amin(1).abs() > projection.amax(1).abs()
    projection = torch.where(flip[:, None], -projection, projection)
    return projection.unflatten(1, like.shape[2:]).to(like.dtype)


def _largest(symmetric: Tensor) -> tuple[Tensor, Tensor]:
    """The largest eigenvalue ``(B, 1)`` of each matrix and its vector ``(B, n)``, by Lanczos iteration."""
    import numpy as np
    from scipy.sparse.linalg import eigsh

    # not a constant vector: those lie in the kernel's null space
    start = np.random.default_rng(0).uniform(-1, 1, symmetric.shape[1])
    pairs = [eigsh(matrix.numpy(), k=1, which='LA', v0=start) for matrix in symmetric.detach()]
    values, vectors = zip(*pairs, strict=True)
    return torch.from_numpy(np.stack(values)), torch.from_numpy(np.stack(vectors)[..., 0])


def combine(weighted: Tensor, eigen_smooth: bool = False) -> Tensor:
    """Weighted activations ``(B, K, h, w)`` → signed map ``(B, h, w)``: their sum or first principal component."""
    return principal_component(weighted) if eigen_smooth else weighted.sum(1)


def above_rounding(
    signed: Tensor,
    weighted: Tensor,
    dtype: torch.dtype,
    error: Tensor | None = None,
    activations: Tensor | None = None,
) -> Tensor:
    """The signed map, with zeros for images where it is nothing but rounding errors.

    Behind a layer that normalizes each position on its own, gradient and activations are orthogonal: the K terms of
    their product are large and cancel, and what is left would be shown as evidence. The error of a sum of K terms t is
    about c·u·√K·√(Σ t²), with u half the machine epsilon and c roundings on the way. A map is nothing where all its
    values are within that error with c = :data:`CANCELED`, or within the error of the channels' weights, or all values
    are equal up to it with c = :data:`FLAT`. Where only its positive values are, those are zero and the negative ones
    stay. True maps are kept, however small.

    Args:
        signed: ``(B, h, w)``.
        weighted: Its terms ``(B, K, h, w)``.
        dtype: The numbers that the network computed them with.
        error: How far rounding errors move the channels' weights, ``(B, K)``; None where no weight is a sum over the
            positions.
        activations: What the weights are of, ``(B, K, h, w)``.
    """
    rounding = torch.finfo(dtype).eps / 2 * math.sqrt(weighted.shape[1])
    values, terms = signed.flatten(1), weighted.flatten(2)
    moved = None if error is None or activations is None else (error, activations.flatten(2))

    def errors(columns: Tensor | None) -> tuple[Tensor, Tensor]:
        """Of a canceled sum and of any sum, at some positions ``(B, n)`` or at all."""
        size = _at(terms, columns).norm(dim=1)
        noise = min(CANCELED * rounding, COARSEST) * size
        if moved is not None:
            noise = noise.maximum((moved[0][:, :, None] * _at(moved[1], columns)).norm(dim=1))
        return noise, min(FLAT * rounding, COARSEST / 4) * size

    ends = torch.stack([values.argmin(1), values.argmax(1)], 1)
    noise, error_of_any = errors(ends)
    low, high = values.gather(1, ends).to(noise.dtype).unbind(1)
    if bool(((high > noise[:, 1]) & (high - low > error_of_any.sum(1))).all()):
        return signed  # which the two ends show without a look at the other positions
    noise, error_of_any = errors(None)
    values = values.to(noise.dtype)
    canceled = (values.abs() <= noise).all(1)
    negative = (values <= noise).all(1)
    flat = (values - low[:, None] <= error_of_any + error_of_any.gather(1, ends[:, :1])).all(1)
    kept = torch.where(negative[:, None, None], signed.clamp_max(0), signed)
    return torch.where((canceled | flat)[:, None, None], torch.zeros_like(signed), kept)


def _at(tensor: Tensor, columns: Tensor | None) -> Tensor:
    """``(B, K, positions)`` at the positions ``(B, n)`` of each image; None means all."""
    return tensor if columns is None else tensor.gather(2, columns[:, None].expand(-1, tensor.shape[1], -1))


def error_by_trying(weigh: Callable[[Tensor, Tensor], Tensor], a: Tensor, g: Tensor, dtype: torch.dtype) -> Tensor:
    """How far rounding errors move the weights of channels, ``(B, K)``, for a formula that nothing is known about.

    Each value is changed by its own rounding error, times :data:`CANCELED` for gradients and :data:`POSITIONS` for
    activations, up or down at random, and the terms are computed again.

    Args:
        weigh: ``(A, G) → (B, K, h, w)``.
        a: Activations ``(B, K, h, w)``.
        g: Gradients, likewise.
        dtype: The numbers that the network computed them with.
    """
    rounding = torch.finfo(dtype).eps / 2
    one, other = (each.to(a) for each in _signs(tuple(a.shape[1:])))
    near = a * (1 + min(POSITIONS * rounding, COARSEST) * one), g * (1 + min(CANCELED * rounding, COARSEST) * other)
    moved = (weigh(*near) - weigh(a, g)).nan_to_num(nan=0.0).flatten(2).norm(dim=2)
    return DEVIATIONS * moved / a.flatten(2).norm(dim=2).clamp_min(torch.finfo(a.dtype).tiny)


@lru_cache(maxsize=4)
def _signs(shape: tuple[int, ...]) -> Tensor:
    """Two tensors of -1 and 1 at random, ``(2, *shape)``, always the same."""
    return torch.randint(2, (2, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.int8) * 2 - 1


def to_unit(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Min-max scaling of each map: ``(x − min) / (max(x − min) + 1e-7)``, over its finite values.

    The constant is no larger than the largest value, so that small maps are scaled too.

    Args:
        maps: ``(B, h, w)``; what is not finite becomes NaN.

    Returns:
        The scaled maps and ``(B, 2)``, the raw values mapped to 0 and 1.
    """
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    span = high - low
    if not bool(span.isfinite().all()):
        finite = maps.isfinite()
        maps = maps.masked_fill(~finite, torch.nan)
        low = maps.masked_fill(~finite, torch.inf).amin((1, 2), keepdim=True)
        span = (maps - low).masked_fill(~finite, -torch.inf).amax((1, 2), keepdim=True)
    span = span + span.clamp(torch.finfo(span.dtype).tiny, EPSILON)
    return (maps - low).div_(span), torch.cat([low, low + span], 1).squeeze(2)


def finish(
    signed: Sequence[Tensor], size: tuple[int, int], fusion: Literal['mean', 'max'] = 'mean'
) -> tuple[Tensor, Tensor | None]:
    """Signed maps of one or more layers → one map in [0, 1] at the network's input size.

    Per layer: ReLU, min-max, bilinear to ``size`` (half-pixel centers); then the mean or the maximum over the layers,
    and min-max again.

    Args:
        signed: One ``(B, h, w)`` per layer.
        size: ``(H, W)`` of the network input.
        fusion: How several layers become one map.

    Returns:
        ``(B, H, W)`` in [0, 1], and ``(B, 2)``, the raw values mapped to 0 and 1: of the layer's own map after ReLU
        for a single layer, None for several (fused maps have no unit).
    """
    positive = (layer.relu().masked_fill(~layer.isfinite(), torch.nan) for layer in signed)
    scaled, ranges = zip(*map(to_unit, positive), strict=True)
    grown = [_grown(layer, size) for layer in scaled]
    if len(grown) > 1:
        stacked = torch.stack(grown)
        return to_unit(stacked.amax(0) if fusion == 'max' else stacked.mean(0))[0], None
    unit, span = to_unit(grown[0])
    low, high = ranges[0][:, :1], ranges[0][:, 1:]
    return unit, low + span * (high - low)


def finish_all(
    columns: Sequence[Sequence[Tensor]], size: tuple[int, int], fusion: Literal['mean', 'max'] = 'mean'
) -> list[tuple[Tensor, Tensor | None]]:
    """:func:`finish` for each of several; those of the same shapes go through it together.

    Args:
        columns: Signed maps ``(B, h, w)`` of one or more layers, for each method and target.
        size: ``(H, W)`` of the network input.
        fusion: How several layers become one map.
    """
    alike: dict[Hashable, list[int]] = {}
    for number, layers in enumerate(columns):
        alike.setdefault(tuple((each.shape, each.dtype, each.device) for each in layers), []).append(number)
    found: dict[int, tuple[Tensor, Tensor | None]] = {}
    for numbers in alike.values():
        images = len(columns[numbers[0]][0])
        step = max(1, AT_ONCE // (images * math.prod(size)))
        for start in range(0, len(numbers), step):
            some = numbers[start : start + step]
            together = [torch.cat(layer) for layer in zip(*(columns[number] for number in some), strict=True)]
            unit, ranges = finish(together, size, fusion)
            split = [None] * len(some) if ranges is None else ranges.split(images)
            found.update(zip(some, zip(unit.split(images), split, strict=True), strict=True))
    return [found[number] for number in range(len(columns))]


def _grown(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps ``(B, h, w)`` at ``size``; NaN covers its own cells, and around them the others are weighted alone."""

    def resized(each: Tensor, mode: str) -> Tensor:
        corners = None if mode == 'nearest' else False
        return F.interpolate(each[:, None].to(maps), size, mode=mode, align_corners=corners)[:, 0]

    missing = maps.isnan()
    if not missing.any():
        return resized(maps, 'bilinear')
    plain, whole = resized(maps.nan_to_num(0.0), 'bilinear'), ~missing.flatten(1).any(1)
    weighted = plain / resized(~missing, 'bilinear').clamp_min(1e-6)
    grown = torch.where(whole[:, None, None], plain, weighted)
    return grown.masked_fill(resized(missing, 'nearest') > 0.5, torch.nan)


def resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps ``(B, h, w)`` at ``size``, bilinear; those of that size as they are."""
    return maps if maps.shape[-2:] == size else _grown(maps, size)


def merge(maps: Tensor) -> Tensor:
    """The mean over the variants of test-time augmentation, ``(6·B, H, W)`` → ``(B, H, W)``.

    :func:`~vistool.network.inputs.varied` makes them; mirrored ones are flipped back.
    """
    plain, mirrored = maps.unflatten(0, (2, len(BRIGHTNESS), -1))
    return (plain + mirrored.flip(-1)).mean(0) / 2

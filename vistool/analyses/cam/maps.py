"""The arithmetic of maps: channels to a signed map, then ReLU, scaling, upsampling, fusion of layers, augmentation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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
ACTIVATION = 256.0
"""Roundings in an activation. Weights that divide by a sum of them (XGradCAM) are right as long as that sum is."""
DEVIATIONS = 4.0
"""Standard deviations of an error that no position exceeds by chance."""
COARSEST = 1 / 16
"""No larger share of its terms makes a sum noise, however coarse the numbers are (bfloat16)."""
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


def above_rounding(signed: Tensor, weighted: Tensor, dtype: torch.dtype, weights_error: Tensor | None = None) -> Tensor:
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
        weights_error: :func:`error_of_weights`, ``(B, h, w)``.
    """
    rounding = torch.finfo(dtype).eps / 2 * math.sqrt(weighted.shape[1])
    size = weighted.norm(dim=1).flatten(1)
    values = signed.flatten(1).to(size.dtype)
    noise = min(CANCELED * rounding, COARSEST) * size
    if weights_error is not None:
        noise = noise.maximum(weights_error.flatten(1))
    canceled = (values.abs() <= noise).all(1)
    negative = (values <= noise).all(1)
    lowest = values.argmin(1, keepdim=True)
    error = min(FLAT * rounding, COARSEST / 4) * (size + size.gather(1, lowest))
    flat = (values - values.gather(1, lowest) <= error).all(1)
    kept = torch.where(negative[:, None, None], signed.clamp_max(0), signed)
    return torch.where((canceled | flat)[:, None, None], torch.zeros_like(signed), kept)


def error_of_weights(
    weigh: Callable[[Tensor, Tensor], Tensor], a: Tensor, g: Tensor, weighted: Tensor, dtype: torch.dtype
) -> Tensor:
    """How far rounding errors of activations and gradients move a map, ``(B, h, w)``, through its channels' weights.

    Where a constant added to a channel changes no score, the gradient's sum over the positions is zero: before a norm
    over positions, at keys (a softmax ignores what all of its logits share), before pooling minus identity. What is
    left of such a sum is a rounding error, and a weight that is made of it says nothing. So each value is changed by
    its own rounding error, times :data:`CANCELED` for gradients and :data:`ACTIVATION` for activations, up or down at
    random, and the terms are computed again. Errors of different channels are independent of each other.

    Args:
        weigh: ``(A, G) → (B, K, h, w)``.
        a: Activations ``(B, K, h, w)``.
        g: Gradients, likewise.
        weighted: ``weigh(a, g)``.
        dtype: The numbers that the network computed them with.
    """
    rounding = torch.finfo(dtype).eps / 2
    one, other = (each.to(a) for each in _signs(tuple(a.shape[1:])))
    near = a * (1 + min(ACTIVATION * rounding, COARSEST) * one), g * (1 + min(CANCELED * rounding, COARSEST) * other)
    return (weigh(*near) - weighted).nan_to_num(nan=0.0).norm(dim=1) * DEVIATIONS


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
    finite = maps.isfinite()
    maps = maps.masked_fill(~finite, torch.nan)
    low = maps.masked_fill(~finite, torch.inf).amin((1, 2), keepdim=True)
    span = (maps - low).masked_fill(~finite, -torch.inf).amax((1, 2), keepdim=True)
    span = span + span.clamp(torch.finfo(span.dtype).tiny, EPSILON)
    return (maps - low) / span, torch.cat([low, low + span], 1).squeeze(2)


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
    stacked = torch.stack(grown)
    unit, span = to_unit(stacked.amax(0) if fusion == 'max' else stacked.mean(0))
    if len(grown) > 1:
        return unit, None
    low, high = ranges[0][:, :1], ranges[0][:, 1:]
    return unit, low + span * (high - low)


def _grown(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps ``(B, h, w)`` at ``size``; NaN covers its own cells, and around them the others are weighted alone."""

    def resized(each: Tensor, mode: str) -> Tensor:
        corners = None if mode == 'nearest' else False
        return F.interpolate(each[:, None].to(maps), size, mode=mode, align_corners=corners)[:, 0]

    missing = maps.isnan()
    if not missing.any():
        return resized(maps, 'bilinear')
    grown = resized(maps.nan_to_num(0.0), 'bilinear') / resized(~missing, 'bilinear').clamp_min(1e-6)
    return grown.masked_fill(resized(missing, 'nearest') > 0.5, torch.nan)


def merge(maps: Tensor) -> Tensor:
    """The mean over the variants of test-time augmentation, ``(6·B, H, W)`` → ``(B, H, W)``.

    :func:`~vistool.network.inputs.varied` makes them; mirrored ones are flipped back.
    """
    plain, mirrored = maps.unflatten(0, (2, len(BRIGHTNESS), -1))
    return (plain + mirrored.flip(-1)).mean(0) / 2

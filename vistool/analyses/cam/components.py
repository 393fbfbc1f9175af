"""Principal components of weighted activations: one map out of K channels.

The sign, which an eigenvector leaves open, is fixed so that the largest magnitude is positive; it flips on no machine.
"""

from __future__ import annotations

import torch
from torch import Tensor

DENSE = 512
"""Up to this many positions a full eigendecomposition is quicker than an iteration for its first vector."""


def principal_component(weighted: Tensor) -> Tensor:
    """Projection of every position onto the first principal direction of the channels.

    With X the column-centred ``(h·w, K)`` matrix this is X·v₁ = σ₁·u₁, taken from the smaller of the Gram matrices
    X·Xᵀ and Xᵀ·X in float64 (a squared condition number costs half the digits).

    Args:
        weighted: ``(B, K, h, w)``; NaN counts as 0.

    Returns:
        ``(B, h, w)`` in the dtype of ``weighted``.
    """
    x = _centred(weighted)
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
    x = _centred(weighted)
    kernel = torch.tanh(x @ x.transpose(1, 2) / x.shape[2] + 1)
    kernel = kernel - kernel.mean(1, keepdim=True)
    kernel = kernel - kernel.mean(2, keepdim=True)
    if kernel.shape[1] <= DENSE or kernel.device.type != 'cpu':
        values, vectors = torch.linalg.eigh(kernel)
        values, vectors = values[:, -1:], vectors[..., -1]
    else:
        values, vectors = _largest(kernel)
    return _signed(vectors * values.clamp_min(0).sqrt(), weighted)


def _centred(weighted: Tensor) -> Tensor:
    """``(B, h·w, K)`` in float64 where the device has it, every channel's mean taken off."""
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

    start = np.random.default_rng(0).uniform(
        -1, 1, symmetric.shape[1]
    )  # constant vectors lie in the kernel's null space
    pairs = [eigsh(matrix.numpy(), k=1, which='LA', v0=start) for matrix in symmetric.detach()]
    values, vectors = zip(*pairs, strict=True)
    return torch.from_numpy(np.stack(values)), torch.from_numpy(np.stack(vectors)[..., 0])

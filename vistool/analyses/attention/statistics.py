"""What is measured of every head: how spread out its attention is, how far it reaches, how much falls off the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vistool.analyses.attention.capture import has_class_token, observe
from vistool.analyses.attention.reading import verify
from vistool.analyses.attention.selection import LayerChoice
from vistool.network.attention import AttentionOp
from vistool.network.capture import borrowed
from vistool.network.embedding import patch_stride
from vistool.network.tensors import NetworkInput, input_size
from vistool.network.token_layout import TokenLayout, covered_size

MEASURES = ('entropy', 'distance', 'cls', 'prefix', 'padding')
"""Entropy in nats; mean distance in network pixels (Raghu et al., 2021); probabilities on the class token, on other
prefix tokens and on padding. Each is a mean over the queries in the image."""


@dataclass(frozen=True)
class LayerMeasures:
    """What was measured of one layer's heads for a batch.

    Attributes:
        index: The layer's number.
        name: Its name.
        values: ``(B, heads, len(MEASURES))``.
    """

    index: int
    name: str
    values: Tensor

    def rows(self, image: int) -> list[dict[str, Any]]:
        """One row per head, as plain values."""
        found = self.values[image].tolist()
        return [
            {'layer': self.index, 'name': self.name, 'head': head, **dict(zip(MEASURES, row, strict=True))}
            for head, row in enumerate(found)
        ]


def read_statistics(module: nn.Module, inputs: NetworkInput, layers: LayerChoice) -> list[LayerMeasures]:
    """Measures every head of the wanted layers in one forward, a chunk of queries at a time."""
    size, batch = input_size(inputs)
    classes = has_class_token(module)

    def look(call: AttentionOp, where: TokenLayout) -> LayerMeasures:
        verify(call)
        return LayerMeasures(call.index, call.name, _measure(call, where, batch, size, patch_stride(module), classes))

    with borrowed(module), torch.no_grad():
        return observe(module, inputs, layers, look).read


def _measure(
    call: AttentionOp,
    where: TokenLayout,
    batch: int,
    size: tuple[int, int],
    patch: tuple[int, int] | None,
    classes: bool,
) -> Tensor:
    groups, heads = call.shape[:2]
    keys, seen = _centers(where.windows, where.grid, where.prefix, call.shape[3], size, patch)
    if where.query_grid is not None:
        asked, asking = _centers(where.asking, where.query_grid, where.query_prefix, call.shape[2], size, patch)
    else:  # latents and class queries: they are nowhere, so there is no distance
        asked, asking = torch.full((1, call.shape[2], 2), torch.nan), torch.ones(1, call.shape[2], dtype=torch.bool)
    total, count = torch.zeros(groups, heads, len(MEASURES), dtype=torch.float64), torch.zeros(groups)
    for part, weights in call.chunks():
        ours = asking[:, part].expand(groups, -1)
        device = weights.device
        distance = torch.cdist(asked[:, part], keys).to(device)[:, None]
        shares = torch.where(seen[:, None, None].to(device), weights, 0)
        first = weights[..., :1].sum(-1) if classes and where.prefix else torch.zeros_like(weights[..., 0])
        prefix = weights[..., : where.prefix].sum(-1) - first
        padding = (weights * ~seen[:, None, None].to(device)).sum(-1) - prefix - first
        near = (shares * distance.nan_to_num(0)).sum(-1) / shares.sum(-1).clamp_min(1e-12)
        entropy = -torch.special.xlogy(weights, weights).sum(-1)
        stacked = torch.stack([entropy, near, first, prefix, padding], -1)
        total += torch.where(ours[:, None, :, None].to(device), stacked, 0).sum(2).double().cpu()
        count += ours.sum(1)
    image = torch.arange(groups) if where.windows is None else _image_of(where.windows.cpu(), where.grid)
    sums = torch.zeros(batch, heads, len(MEASURES), dtype=torch.float64).index_add_(0, image, total)
    values = sums / torch.zeros(batch).index_add_(0, image, count)[:, None, None]
    if where.query_grid is None:
        values[..., MEASURES.index('distance')] = torch.nan
    if call.mixed:  # weights that may be negative are not a distribution: they have neither entropy nor mean distance
        values[..., [MEASURES.index('entropy'), MEASURES.index('distance')]] = torch.nan
    return values


def _image_of(windows: Tensor, grid: tuple[int, int]) -> Tensor:
    return windows.amax(1).clamp_min(0) // (grid[0] * grid[1])


def _centers(
    windows: Tensor | None,
    grid: tuple[int, int],
    prefix: int,
    count: int,
    size: tuple[int, int],
    patch: tuple[int, int] | None,
) -> tuple[Tensor, Tensor]:
    """Where tokens are, in network pixels ``(1 or G, N, 2)``; and which are on the image, ``(1 or G, N)``."""
    height, width = covered_size(size, grid, patch)
    down, across = (torch.arange(n) + 0.5 for n in grid)
    y, x = torch.meshgrid(down * height / grid[0], across * width / grid[1], indexing='ij')
    flat = torch.stack([x, y], -1).reshape(-1, 2)
    if windows is not None:
        table = windows.cpu()
        inside = table >= 0
        return torch.where(inside[..., None], flat[table.clamp_min(0) % len(flat)], 0.0), inside
    centers = torch.cat([torch.zeros(prefix, 2), flat])[None]
    inside = torch.cat([torch.zeros(prefix, dtype=torch.bool), torch.ones(len(flat), dtype=torch.bool)])[None]
    return centers[:, :count], inside[:, :count]

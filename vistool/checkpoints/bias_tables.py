"""Relative position biases of another window size.

mmpretrain's Swin and BEiT resize them in their loading hooks by a function that SciPy 1.14 removed; so they are resized
before the hooks look at them, by bicubic interpolation as in Swin's own code.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from math import isqrt

import torch
from torch import Tensor, nn

TABLE = 'relative_position_bias_table'
_LOGGER = logging.getLogger('vistool')


def resize_bias_tables(weights: dict[str, Tensor], parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Fits every bias table to the window of the model.

    Args:
        weights: The checkpoint under the model's names. A table is ``((2h-1)(2w-1), heads)`` for a square window, with
            three more rows at the end where there is a class token.
        parameters: The model's parameters by name.

    Returns:
        The weights with resized tables, without the index buffers that belonged to the old ones.
    """
    resized = dict(weights)
    for name, table in weights.items():
        target = parameters.get(name)
        if not name.endswith(TABLE) or target is None or table.ndim != 2 or table.shape[1] != target.shape[-1]:
            continue
        old, new = _grid(len(table)), _grid(len(target))
        if len(table) == len(target) or old is None or new is None or old[1] != new[1]:
            continue
        resized[name] = resize_table(table, (old[0], old[0]), (new[0], new[0]))
        resized.pop(name.replace(TABLE, 'relative_position_index'), None)
        _LOGGER.info('%s resized from %d to %d rows', name, len(table), len(target))
    return resized


def _grid(rows: int) -> tuple[int, int] | None:
    """Side of the square of offsets and the rows after it, or None where it is no square."""
    return next(
        ((isqrt(rows - extra), extra) for extra in (0, 3) if isqrt(rows - extra) ** 2 == rows - extra > 0), None
    )


def resize_table(table: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """A table ``(h · w + extra, heads)`` over ``old`` offsets, vertical and horizontal, resized to ``new`` ones."""
    count = old[0] * old[1]
    offsets, extra = table[:count], table[count:]
    image = offsets.float().T.reshape(1, -1, *old)
    image = nn.functional.interpolate(image, size=new, mode='bicubic', align_corners=False)
    return torch.cat([image.flatten(2)[0].T.to(table.dtype), extra])

"""The whole attention of a layer: every query over every key, as an array."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vistool.errors import InputError
from vistool.results.heatmaps import Array, Layer


@dataclass(frozen=True, eq=False)
class AttentionMatrix:
    """The attention of every query of one layer over every key, for one image.

    ``matrix[3]`` is head 3 and ``matrix['mean']`` the mean of all heads, both ``(queries, keys)``.

    Attributes:
        values: float32 ``(K, queries, keys)``, in the order of ``heads``. Rows sum to 1, unless heads were mixed after
            the softmax. Tokens before those of the image (the class token, registers) come first, then those of the
            image row by row.
        heads: What each of the K is: the number of a head, ``'mean'`` or ``'max'``.
        layer: The layer.
        prefix: How many keys come before those of the image.
        grid: Rows and columns of the keys in the image.
        query_prefix: How many queries come before those of the image.
        query_grid: Rows and columns of the queries; None where they are not places in the image.
    """

    values: Array = field(repr=False)
    heads: tuple[int | str, ...]
    layer: Layer
    prefix: int
    grid: tuple[int, int]
    query_prefix: int = 0
    query_grid: tuple[int, int] | None = None

    def __getitem__(self, head: int | str) -> Array:
        """The matrix of one head, ``(queries, keys)``.

        Raises:
            InputError: It is not among :attr:`heads`.
        """
        if head not in self.heads:
            raise InputError(f'no head {head!r}', accepted=', '.join(map(str, self.heads)), parameter='heads')
        found: NDArray[np.float32] = self.values[self.heads.index(head)]
        return found

    def on_image(self) -> Array:
        """A view of ``values`` without the prefix of the keys, as maps: ``(K, queries, h, w)``."""
        return self.values[..., self.prefix :].reshape(*self.values.shape[:2], *self.grid)

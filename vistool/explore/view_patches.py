"""The view of patches: the token under the point, and how the network cuts the photo."""

from __future__ import annotations

from typing import Any

import numpy as np

from vistool.analyses.patches import caption
from vistool.errors import InputError
from vistool.explore.answers import affine, token_at
from vistool.explore.seen import Answer, Seen
from vistool.explore.view import Drawing, View
from vistool.network.capture import remembered
from vistool.network.embedding import Embedding, find_embedding
from vistool.network.tensors import tensors


class PatchesView:
    """The grid of tokens; it has no map."""

    def __init__(self, seen: Seen) -> None:
        self.seen = seen

    def answer(self, view: View, point: tuple[float, float] | None) -> Answer:
        """See :class:`~vistool.explore.seen.ViewKind`."""
        embedding = self._embedding
        if isinstance(embedding, InputError):
            raise embedding.under('view')
        note = caption(embedding.grid, embedding.special)
        if view.point is None:
            return Answer(None, [], Drawing('vis_patches'), None, note)
        token = token_at(self._matrix(embedding), embedding.grid.shape, view.point)
        chosen = {'highlight': [str(token['number'])]} if token['inside'] else {}
        return Answer(None, [], Drawing('vis_patches', chosen), token, note)

    def _matrix(self, embedding: Embedding) -> np.ndarray:
        """From ``(column, row)`` of patches to the picture; patches that overlap are as large as their stride."""
        grid = embedding.grid
        (down, across), (patch_down, patch_across) = grid.stride, grid.patch
        top, left = grid.start[0] + (patch_down - down) / 2, grid.start[1] + (patch_across - across) / 2
        cells = np.array([[across, 0.0, left], [0.0, down, top], [0.0, 0.0, 1.0]])
        geometry = self.seen.sample.geometry if self.seen.on_original else None
        return cells if geometry is None else geometry.matrix @ cells

    @property
    def _embedding(self) -> Embedding | InputError:
        """How photos of this size are cut, or why they are not; found out once for each size."""
        module, inputs = self.seen.model.module, self.seen.forward.inputs

        def find() -> Embedding | InputError:
            try:
                return find_embedding(module, inputs)
            except InputError as error:
                return error

        shapes = tuple(tuple(tensor.shape) for tensor in tensors(inputs))
        return remembered(module, 'patches explored', shapes, find)

    def offer(self) -> dict[str, Any]:
        """See :class:`~vistool.explore.seen.ViewKind`."""
        embedding = self._embedding
        if isinstance(embedding, InputError):
            return {'available': False, 'why': str(InputError(embedding.problem)), 'grid': None, 'prefix': 0}
        matrix = affine(self._matrix(embedding))
        note, prefix = caption(embedding.grid, embedding.special), len(embedding.special)
        return {'available': True, 'grid': list(embedding.grid.shape), 'prefix': prefix, 'note': note, 'matrix': matrix}

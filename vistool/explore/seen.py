"""One photo as one model sees it: what all views of it share."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from vistool.data.samples import Sample
from vistool.errors import InputError
from vistool.explore.answers import map_entries, token_at
from vistool.explore.forward import Forward, run_once
from vistool.explore.view import Drawing, View, number
from vistool.models.model import Model
from vistool.results import Heatmaps

_MOST_RESULTS = 24


@dataclass(frozen=True, eq=False)
class Answer:
    """The maps of a view.

    Attributes:
        result: The maps; None for a view without any.
        entries: What the header says of each.
        drawing: The command that draws them.
        token: The cell under the point, or None.
        note: One line about them, or None.
    """

    result: Heatmaps | None
    entries: list[dict[str, Any]]
    drawing: Drawing
    token: dict[str, Any] | None = None
    note: str | None = None


class ViewKind(Protocol):
    """A kind of view of a photo."""

    def offer(self) -> dict[str, Any]:
        """What a page is told of the view: whether it is available, and what can be chosen."""

    def answer(self, view: View, point: tuple[float, float] | None) -> Answer:
        """The maps of the view.

        Args:
            view: What is asked for.
            point: Its point in pixels of the photo, as commands name it.

        Raises:
            InputError: The view is not available, or a parameter is not accepted.
        """


class Seen:
    """A photo, a model, and what its one forward gave. Call all methods from the worker's thread.

    Attributes:
        model: The model.
        sample: The photo, read.
        layers: Layers of CAM that are shown first; none: the default.
        on_original: Whether maps can be laid over the original; else pages show what the network saw.
        results: The latest results that are kept.
    """

    def __init__(self, model: Model, sample: Sample, layers: tuple[str, ...] = ()) -> None:
        self.model, self.sample, self.layers = model, sample, layers
        geometry = sample.geometry
        self.on_original = (
            sample.original is not None and geometry is not None and geometry.exact and geometry.field is None
        )
        self.results: OrderedDict[Any, Heatmaps] = OrderedDict()
        self._forward: Forward | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the picture that the page shows."""
        return self.picture.shape[0], self.picture.shape[1]

    @property
    def picture(self) -> np.ndarray:
        """The picture that the page shows, uint8 ``(H, W, 3)`` RGB."""
        original = self.sample.original
        return original if self.on_original and original is not None else self.sample.image

    @property
    def has_run(self) -> bool:
        """Whether the network has run on the photo."""
        return self._forward is not None

    @property
    def forward(self) -> Forward:
        """What the forward gave; the network runs at the first call."""
        if self._forward is None:
            self._forward = run_once(self.model, self.sample, self.layers)
        return self._forward

    def answered(self, result: Heatmaps, drawing: Drawing, view: View) -> Answer:
        """The maps of a result, where they lie on the picture, and the cell under the view's point."""
        entries = map_entries(result, self.on_original)
        token = None
        if view.point is not None and entries:
            first = entries[0]
            grid = (first['height'], first['width'])
            if view.kind in ('attention', 'similarity', 'features'):
                token = token_at(_as_matrix(first['matrix']), grid, view.point)
        return Answer(result, entries, drawing, token)

    def kept(self, key: Any, compute: Callable[[], Heatmaps]) -> Heatmaps:
        """A result that was computed before, or ``compute()``; the latest are kept."""
        if key in self.results:
            self.results.move_to_end(key)
            return self.results[key]
        result = self.results[key] = compute()
        if len(self.results) > _MOST_RESULTS:
            self.results.popitem(last=False)
        return result

    def on_photo(self, point: tuple[float, float]) -> tuple[float, float]:
        """A pixel of the picture as commands name it: in pixels of the photo."""
        geometry = self.sample.geometry
        if self.on_original or geometry is None:
            return point
        (x, y), *_ = geometry.to_original([[point[0] + 0.5, point[1] + 0.5]])
        return round(float(x) - 0.5, 2), round(float(y) - 0.5, 2)


def position_of(wanted: int | None, entries: Sequence[Any], default: int) -> int:
    """The position that a page asks for among entries, or the default.

    Raises:
        InputError: There are fewer.
    """
    if wanted is None:
        return default
    if wanted >= len(entries):
        raise InputError(f'no layer {wanted}', accepted=f'0 to {len(entries) - 1}', parameter='layer')
    return wanted


def point_text(point: tuple[float, float]) -> str:
    """A point as a user types it."""
    return ','.join(number(each) for each in point)


def _as_matrix(numbers: Sequence[float]) -> np.ndarray:
    a, b, c, d, e, f = numbers
    return np.array([[a, c, e], [b, d, f], [0.0, 0.0, 1.0]])

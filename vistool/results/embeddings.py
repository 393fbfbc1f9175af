"""Samples as points of a plane: what a network's features say of a whole dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vistool.errors import counted
from vistool.results.base import Result
from vistool.results.heatmaps import Target, distinct

if TYPE_CHECKING:
    from pandas import DataFrame


def confusion_matrix(truth: Sequence[int], predicted: Sequence[int], classes: int) -> NDArray[np.int64]:
    """How often each class is predicted for the samples of each class.

    Args:
        truth: The class id of each sample.
        predicted: The class id that is predicted for each sample.
        classes: The number of classes, C.

    Returns:
        ``(C, C)``: rows are the samples' own classes, columns the predictions.

    Raises:
        ValueError: The lengths differ, or an id is not in ``range(classes)``.
    """
    rows, columns = np.asarray(truth, np.int64).reshape(-1), np.asarray(predicted, np.int64).reshape(-1)
    if len(rows) != len(columns):
        raise ValueError(f'{counted(len(rows), "label")} and {counted(len(columns), "prediction")}')
    if len(rows) and not 0 <= min(rows.min(), columns.min()) <= max(rows.max(), columns.max()) < classes:
        raise ValueError(f'a class id is not in range({classes})')
    return np.bincount(rows * classes + columns, minlength=classes**2).reshape(classes, classes)


@dataclass(frozen=True, eq=False)
class EmbeddedSample:
    """One sample.

    Attributes:
        index: Its position in the dataset or the run.
        name: Its name.
        path: Its file; None where there is none.
        label: Its own class; None where it is not known.
        predictions: What each model predicts; None for one that gives no classes.
        thumbnail: uint8 ``(h, w, 3)``, what the first network saw, made small; None where it is not wanted.
    """

    index: int
    name: str
    path: str | None
    label: Target | None
    predictions: tuple[Target | None, ...]
    thumbnail: NDArray[np.uint8] | None = field(default=None, repr=False)


@dataclass(frozen=True, eq=False)
class Embedding:
    """The samples under one model.

    Attributes:
        model: Its name.
        layer: Where the features come from.
        features: float32 ``(N, D)``.
        points: float64 ``(N, 2)``.
        silhouette: Mean silhouette coefficient of the labels in the original space, in [-1, 1]; None where it is not
            defined (no labels, one class, a class per sample).
        accuracy: Share of samples whose class most of their nearest neighbors have (leave one out); None likewise.
        variance: For PCA, the share of the variance on each axis; else None.
    """

    model: str
    layer: str
    features: NDArray[np.float32]
    points: NDArray[np.float64]
    silhouette: float | None = None
    accuracy: float | None = None
    variance: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class EmbeddingMap(Result):
    """The features of many samples in a plane, under one model or several.

    Attributes:
        samples: The samples, N of them.
        embeddings: One per model, the first one's first; the points of the others are rotated or mirrored onto
            its points, at the same spread.
        reducer: ``tsne``, ``pca`` or ``umap``.
        settings: Its settings, in words.
        neighbors: How many neighbors ``accuracy`` and ``kept`` look at.
        judged: Whether predictions and labels are of the same classes, so that a prediction can be wrong.
        kept: For each other model, the share of each sample's neighbors in the original space that it keeps, ``(N,)``.
    """

    samples: tuple[EmbeddedSample, ...]
    embeddings: tuple[Embedding, ...]
    reducer: str
    settings: str = ''
    neighbors: int = 10
    judged: bool = True
    kept: tuple[NDArray[np.float64], ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes that color the points, by id; see :attr:`colored_by`."""
        return tuple(self._names_by_id.values())

    @property
    def colored_by(self) -> Sequence[Target | None]:
        """The class of each sample: its label, or its prediction where no sample has a label.

        Classes of one name are numbered: ImageNet has two cranes.
        """
        names = self._names_by_id
        return [each and replace(each, name=names[each.id]) for each in self._colors]

    @property
    def _colors(self) -> list[Target | None]:
        labels = [each.label for each in self.samples]
        return labels if any(labels) else [each.predictions[0] if each.predictions else None for each in self.samples]

    @property
    def _names_by_id(self) -> dict[int | None, str]:
        found = {each.id: each.name for each in self._colors if each is not None}
        ids = sorted(found, key=lambda key: (key is None, key))
        return dict(zip(ids, distinct([found[key] for key in ids]), strict=True))

    def rows(self) -> list[dict[str, Any]]:
        """One row per sample: what it is, what is predicted, and where it lies."""
        rows = []
        for number, sample in enumerate(self.samples):
            row: dict[str, Any] = {
                'index': sample.index,
                'name': sample.name,
                'path': sample.path,
                'label': sample.label and sample.label.name,
            }
            for place, embedding in enumerate(self.embeddings):
                end = f'_{place + 1}' if place else ''
                prediction = sample.predictions[place]
                row[f'prediction{end}'] = prediction and prediction.name
                row[f'score{end}'] = prediction and prediction.score
                row[f'x{end}'], row[f'y{end}'] = map(float, embedding.points[number])
                if place:
                    row[f'kept{end}'] = float(self.kept[place - 1][number])
            rows.append(row)
        return rows

    def confusion(self, place: int = 0) -> list[dict[str, Any]]:
        """The confusion matrix of one model, as rows of a table.

        Args:
            place: Which model.

        Returns:
            One row per class that is a label or a prediction, by id, with a count for each class that is predicted
            for it; none where labels or predictions are missing or are of other classes.
        """
        pairs = [
            (label, guess)
            for label, guess in ((sample.label, sample.predictions[place]) for sample in self.samples)
            if label is not None and guess is not None
        ]
        if not self.judged or not pairs:
            return []
        names = {each.id: each.name for pair in pairs for each in pair if each.id is not None}
        ids = sorted(names)
        position = {each: number for number, each in enumerate(ids)}
        truth = [position[label.id] for label, _ in pairs if label.id is not None]
        predicted = [position[guess.id] for _, guess in pairs if guess.id is not None]
        counts = confusion_matrix(truth, predicted, len(ids))
        titles = distinct([names[each] for each in ids])
        return [
            {'label': title, **dict(zip(titles, row.tolist(), strict=True))}
            for title, row in zip(titles, counts, strict=True)
        ]

    def to_frame(self) -> DataFrame:
        """One row per sample."""
        from pandas import DataFrame

        return DataFrame(self.rows())

    def __repr__(self) -> str:
        return f'EmbeddingMap of {counted(len(self.samples), "sample")} by {self.reducer}'

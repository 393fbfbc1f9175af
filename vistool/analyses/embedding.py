"""What a network's features say of a whole dataset: samples in a plane by t-SNE, PCA or UMAP."""

from __future__ import annotations

import statistics
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vistool.analyses.base import target_of
from vistool.data.samples import Sample
from vistool.errors import InputError, check_count, check_seed, counted, naming
from vistool.models.model import Model
from vistool.network.penultimate import layer_features, score_features
from vistool.registry import ANALYSES
from vistool.results import EmbeddedSample, Embedding, EmbeddingMap, Target

Features = NDArray[np.float32]
Points = NDArray[np.float64]

REDUCERS = ('tsne', 'pca', 'umap')
_LEAST = 3
_MOST_NEIGHBORS = 1000


@ANALYSES.register_module()
@dataclass(frozen=True)
class DatasetEmbedding:
    """Features of many samples, reduced to a plane.

    Attributes:
        layer: A layer in dotted form, whose output is pooled (the class token of tokens, else the mean over positions);
            ``''``: the features that the network decides by, which enter the layer that gives the scores, or its output
            if it gives no scores.
        reducer: ``tsne`` (van der Maaten and Hinton, 2008), ``pca``, or ``umap`` (McInnes et al., 2018; needs the
            package umap-learn).
        perplexity: Of t-SNE, about how many neighbors count, below the number of samples; None: 30, or a third of the
            samples where there are few. UMAP takes it as its number of neighbors.
        early_exaggeration: Of t-SNE.
        learning_rate: Of t-SNE, above 0; None: scikit-learn's ``'auto'``.
        iterations: Of t-SNE, at least 250.
        patience: Of t-SNE, iterations without progress before it stops.
        init: Of t-SNE, ``pca`` or ``random``.
        neighbors: How many neighbors the k-NN accuracy looks at; see :meth:`neighbors_of`.
        seed: Decides everything random: the same seed gives the same points.
    """

    layer: str = ''
    reducer: str = 'tsne'
    perplexity: float | None = None
    early_exaggeration: float = 12.0
    learning_rate: float | None = None
    iterations: int = 1000
    patience: int = 300
    init: str = 'pca'
    neighbors: int = 10
    seed: int = 0

    def check(self) -> None:
        """Checks what can be wrong whatever the samples are.

        Raises:
            InputError: A parameter is not accepted, or a package is missing.
        """
        if self.reducer not in REDUCERS:
            raise InputError(f'unknown reducer {self.reducer!r}', accepted=', '.join(REDUCERS), parameter='reducer')
        if self.reducer == 'umap':
            try:
                import umap  # noqa: F401
            except ImportError as error:
                raise InputError(
                    'UMAP needs another package', hint='pip install umap-learn', parameter='reducer'
                ) from error
        for name, value in (('perplexity', self.perplexity), ('learning_rate', self.learning_rate)):
            if value is not None and not 0 < value < float('inf'):
                raise InputError(f'{value} is not positive', accepted='a number above 0', parameter=name)
        if not 1 <= self.early_exaggeration < float('inf'):
            raise InputError(f'{self.early_exaggeration}', accepted='1 or more', parameter='early_exaggeration')
        if self.init not in ('pca', 'random'):
            raise InputError(f'unknown start {self.init!r}', accepted='pca, random', parameter='init')
        check_count(self.iterations, 250, 1_000_000, 'iterations')
        check_count(self.patience, 1, 1_000_000, 'patience')
        check_count(self.neighbors, 1, _MOST_NEIGHBORS, 'neighbors')
        check_seed(self.seed)

    def check_samples(self, count: int) -> None:
        """Checks whether there are enough samples.

        Raises:
            InputError: There are not.
        """
        if count < _LEAST:
            raise InputError(
                f'{counted(count, "sample")} cannot be laid out', accepted=f'at least {_LEAST}', parameter='images'
            )
        if self.perplexity is not None and self.reducer != 'pca' and self.perplexity >= count:
            raise InputError(
                f'{self.perplexity:g} with {counted(count, "sample")}',
                accepted=f'below {count}',
                hint='leave it out, or take more samples',
                parameter='perplexity',
            )

    def features(self, model: Model, samples: Sequence[Sample]) -> tuple[str, Features, list[Target | None]]:
        """Features and predictions of one batch.

        Returns:
            Where the features are, ``(B, D)``, and each sample's prediction, None for a network that gives no classes.

        Raises:
            InputError: The layer does not exist, or gives no features.
        """
        inputs = model.batch(samples)
        count = len(samples)
        with model.borrowed(), torch.no_grad(), naming('layer', 'layers'):
            if self.layer:
                name = self.layer
                found, output = layer_features(model.module, inputs, name)
            else:
                name, found, output = score_features(
                    model.module, inputs, lambda given: model.scores(given, count, inputs)
                )
            readout = model.readout(output, count, inputs)
            predictions: list[Target | None] = [None] * count
            if readout is not None and not readout.is_value:
                numbers = readout.numbers(readout.scores(output, count))
                predictions = [target_of(model, readout, int(each.argmax()), each) for each in numbers]
        features = found.cpu().numpy()
        if not np.isfinite(features).all():
            raise InputError(f'{name}: features are not finite', hint='look for NaN in the weights or the images')
        return name, features, predictions

    def __call__(
        self, features: Sequence[Features], samples: Sequence[EmbeddedSample], models: Sequence[tuple[str, str]]
    ) -> EmbeddingMap:
        """Lays the samples out.

        Args:
            features: ``(N, D)`` of each model.
            samples: The N samples.
            models: Each model's name, and where its features come from.

        Raises:
            InputError: A parameter is not accepted, or does not fit the number of samples.
        """
        self.check()
        self.check_samples(len(samples))
        labels = [sample.label.id if sample.label else None for sample in samples]
        count = self.neighbors_of(labels)
        found: list[Embedding] = []
        for (model, layer), each in zip(models, features, strict=True):
            points, variance = self._reduced(each)
            if found:
                points = aligned(points, found[0].points)
            silhouette, accuracy = _quality(each, labels, count)
            found.append(Embedding(model, layer, each, points, silhouette, accuracy, variance))
        near = [_nearest(each, count) for each in features] if len(features) > 1 else []
        kept = tuple(
            np.array([len(np.intersect1d(one, other)) / count for one, other in zip(near[0], each, strict=True)])
            for each in near[1:]
        )
        return EmbeddingMap(
            samples=tuple(samples),
            embeddings=tuple(found),
            reducer=self.reducer,
            settings=self._settings(len(samples)),
            neighbors=count,
            kept=kept,
        )

    def _perplexity(self, count: int) -> float:
        return self.perplexity if self.perplexity is not None else min(30.0, max(1.0, (count - 1) / 3))

    def neighbors_of(self, labels: Sequence[int | None]) -> int:
        """How many neighbors are looked at: fewer than asked for where a usual class has fewer other samples.

        Args:
            labels: The class of each sample; None where it is not known.
        """
        sizes = Counter(label for label in labels if label is not None)
        usual = statistics.median_low(sizes.values()) if sizes else len(labels)
        return min(self.neighbors, len(labels) - 1, max(1, usual - 1))

    def _settings(self, count: int) -> str:
        if self.reducer == 'pca':
            return 'PCA'
        perplexity = self._perplexity(count)
        if self.reducer == 'umap':
            return f'UMAP, {round(max(2, perplexity))} neighbors, seed {self.seed}'
        return f't-SNE, perplexity {perplexity:.3g}, seed {self.seed}'

    def _reduced(self, features: Features) -> tuple[Points, tuple[float, float] | None]:
        """The plane's coordinates ``(N, 2)``, and for PCA the share of the variance on each axis."""
        if self.reducer == 'pca' or features.shape[1] < 2:
            from sklearn.decomposition import PCA

            columns = min(2, *features.shape)
            model = PCA(columns, svd_solver='full')
            points = np.zeros((len(features), 2))
            with np.errstate(invalid='ignore', divide='ignore'):
                points[:, :columns] = model.fit_transform(features.astype(np.float64))
                shares = np.nan_to_num([*model.explained_variance_ratio_, 0.0])
            return points, (float(shares[0]), float(shares[1]))
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            return np.asarray(self._reducer(len(features)).fit_transform(features), np.float64), None

    def _reducer(self, count: int) -> Any:
        perplexity = self._perplexity(count)
        if self.reducer == 'umap':
            from umap import UMAP

            return UMAP(n_neighbors=round(max(2, perplexity)), random_state=self.seed, n_jobs=1)
        from sklearn.manifold import TSNE

        return TSNE(
            perplexity=perplexity,
            early_exaggeration=self.early_exaggeration,
            learning_rate='auto' if self.learning_rate is None else self.learning_rate,
            max_iter=self.iterations,
            n_iter_without_progress=self.patience,
            init=self.init,
            random_state=self.seed,
        )


def _quality(features: Features, labels: Sequence[int | None], neighbors: int) -> tuple[float | None, float | None]:
    """Silhouette and k-NN accuracy of the labels in the original space; None where they are not defined."""
    known = [place for place, label in enumerate(labels) if label is not None]
    classes = np.array([labels[place] for place in known])
    count = len(np.unique(classes)) if known else 0
    if count < 2:
        return None, None
    from sklearn.metrics import silhouette_score

    own = features[known].astype(np.float64)
    silhouette = float(silhouette_score(own, classes)) if count < len(known) else None
    near = _nearest(own, min(neighbors, len(known) - 1))
    votes = [np.unique(classes[each], return_counts=True) for each in near]
    guesses = np.array([names[counts.argmax()] for names, counts in votes])
    return silhouette, float((guesses == classes).mean())


def _nearest(features: NDArray[Any], count: int) -> NDArray[np.intp]:
    """The nearest neighbors of each sample, itself left out, ``(N, count)``."""
    from sklearn.neighbors import NearestNeighbors

    found: NDArray[np.intp] = NearestNeighbors(n_neighbors=count).fit(features).kneighbors(return_distance=False)
    return found


def aligned(points: Points, like: Points) -> Points:
    """Points moved, rotated or mirrored, and scaled to the same spread, so that they lie as near to others as they can.

    This is orthogonal Procrustes analysis (Schönemann, 1966) of both sets at their own size: the scale that fits best
    would shrink a set that has little in common with the other to its middle.

    Args:
        points: ``(N, 2)``.
        like: ``(N, 2)``, of the same samples.
    """
    from scipy.linalg import orthogonal_procrustes

    centered, other = points - points.mean(0), like - like.mean(0)
    size, wanted = np.linalg.norm(centered), np.linalg.norm(other)
    if size == 0:
        return np.broadcast_to(like.mean(0), points.shape).copy()
    rotation, _ = orthogonal_procrustes(centered, other)
    return np.asarray(centered @ rotation * (wanted / size) + like.mean(0), np.float64)

"""Principal components as colors: one basis over all images of a run, with a fixed sign, that can be saved."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vistool.errors import InputError, counted, param
from vistool.models.model import Model
from vistool.network.features import Feature
from vistool.records import find_path, read_arrays

Array = NDArray[np.float64]

MOST_POSITIONS = 200_000
"""A basis is learned from about this many positions at most, evenly spaced in each image."""

_PERCENTILES = (2, 98)
_BINS = 256


@dataclass(frozen=True)
class LayerBasis:
    """Three directions in the channels of one layer, and the range of each that the colors span.

    Attributes:
        mean: ``(C,)``.
        components: ``(3, C)``, orthonormal.
        low: ``(3,)``; the projections that are 0 in a color (the 2nd percentile).
        high: ``(3,)``; those that are 1 (the 98th).
        first: ``(2, C)``: mean and direction that separate foreground from background; None if everything is colored.
        threshold: A position is foreground where its projection on ``first`` is larger.
    """

    mean: Array
    components: Array
    low: Array
    high: Array
    first: Array | None = None
    threshold: float = 0.0

    def project(self, maps: Tensor) -> Array:
        """``(C, h, w)`` → ``(h, w, 3)``, before scaling."""
        positions = maps.double().cpu().numpy().transpose(1, 2, 0)
        return (positions - self.mean) @ self.components.T

    def colors(self, maps: Tensor) -> NDArray[np.float32]:
        """``(C, h, w)`` → float32 ``(h, w, 3)`` in [0, 1]; background is black."""
        span = np.where(self.high > self.low, self.high - self.low, 1.0)
        colors = np.clip((self.project(maps) - self.low) / span, 0, 1)
        if self.first is not None:
            positions = maps.double().cpu().numpy().transpose(1, 2, 0)
            colors[(positions - self.first[0]) @ self.first[1] <= self.threshold] = 0
        return colors.astype(np.float32)


@dataclass(frozen=True)
class Basis:
    """The bases of a run's layers.

    Attributes:
        layers: By layer.
        model: Name of the model that it was learned from.
        sha256: Of that model's checkpoint, or ``''``.
    """

    layers: Mapping[str, LayerBasis]
    model: str = ''
    sha256: str = ''

    @classmethod
    def of(cls, model: Model, layers: Mapping[str, LayerBasis]) -> Basis:
        """The bases learned from a model's layers."""
        return cls(layers, model.name, model.checkpoint.sha256 if model.checkpoint else '')

    def layer(self, layer: str, channels: int, source: str = 'basis') -> LayerBasis:
        """The basis of a layer.

        Raises:
            InputError: If there is none, or it has another number of channels: it belongs to another model.
        """
        where = f'the basis was learned from {self.model or "another model"}'
        if layer not in self.layers:
            raise InputError(f'{where} and has no layer {layer!r}', accepted=', '.join(self.layers), parameter=source)
        found = self.layers[layer]
        if len(found.mean) != channels:
            raise InputError(
                f'{where}, whose layer {layer!r} has {counted(len(found.mean), "channel")}, not {channels}',
                hint=f'learn one from this model with {param("save_basis")}',
                parameter=source,
            )
        return found


@dataclass
class Positions:
    """Feature vectors of one layer, collected image by image.

    Attributes:
        images: How many images will be added; determines how many positions of each are kept.
    """

    images: int
    _vectors: list[Array] = field(default_factory=list)
    _at_border: list[NDArray[np.bool_]] = field(default_factory=list)

    def add(self, maps: Tensor) -> None:
        """Adds the features ``(C, h, w)`` of one image."""
        channels, height, width = maps.shape
        border = np.ones((height, width), bool)
        border[1:-1, 1:-1] = False
        step = max(1, -(-height * width * self.images // MOST_POSITIONS))
        self._vectors.append(maps.double().cpu().numpy().reshape(channels, -1).T[::step])
        self._at_border.append(border.ravel()[::step])

    def add_all(self, features: Sequence[Feature]) -> None:
        """Adds the features of one layer for the images of a batch, from several models.

        Raises:
            InputError: If their channels differ in number.
        """
        first = features[0]
        for feature in features:
            if feature.maps.shape[1] != first.maps.shape[1]:
                raise InputError(
                    f'{first.maps.shape[1]} and {feature.maps.shape[1]} channels cannot share a PCA basis '
                    f'({first.name} and {feature.name})',
                    hint=f'compare by another {param("reduction")}',
                    parameter='compare',
                )
            for maps in feature.maps:
                self.add(maps)

    def learn(self, foreground: bool = False) -> LayerBasis:
        """The basis of the collected positions.

        Args:
            foreground: First separate foreground from background along the first component, then learn from the
                foreground alone.

        Raises:
            InputError: If there are fewer than three channels, or no foreground.
        """
        vectors = np.concatenate(self._vectors)
        if vectors.shape[1] < 3:
            raise InputError(f'{counted(vectors.shape[1], "channel")} cannot make three colors', parameter='reduction')
        if not np.isfinite(vectors).all():
            raise InputError('the features hold NaN or infinity', parameter='reduction')
        first, threshold = None, 0.0
        if foreground:
            first, threshold = _split(vectors, np.concatenate(self._at_border))
            vectors = vectors[(vectors - first[0]) @ first[1] > threshold]
            if len(vectors) < 3:
                raise InputError('no foreground stands out', hint='leave it out', parameter='foreground')
        mean, components = vectors.mean(0), principal(vectors, 3)
        low, high = np.percentile((vectors - mean) @ components.T, _PERCENTILES, axis=0)
        return LayerBasis(mean, components, low, high, first, threshold)


def learn_basis(model: Model, every: Sequence[Sequence[Feature]], foreground: bool) -> Basis:
    """The basis of one batch, from the features of each model.

    Args:
        model: The first model, whose name the basis gets.
        every: One list of features per model, layer by layer.
        foreground: As in :meth:`Positions.learn`.
    """
    learned = {}
    for same in zip(*every, strict=True):
        positions = Positions(sum(len(feature.maps) for feature in same))
        positions.add_all(same)
        learned[same[0].name] = positions.learn(foreground)
    return Basis.of(model, learned)


def principal(vectors: Array, count: int) -> Array:
    """The first ``count`` principal directions of ``(N, C)`` as ``(count, C)``, largest variance first.

    The sign is fixed: of a direction's entries the one that is largest in magnitude is positive.
    """
    centered = vectors - vectors.mean(0)
    if len(centered) < centered.shape[1]:
        _, left = np.linalg.eigh(centered @ centered.T)  # as many equations as positions, fewer than channels
        directions = (centered.T @ left[:, ::-1][:, :count]).T
        norms = np.linalg.norm(directions, axis=1, keepdims=True)
        directions = np.divide(directions, norms, out=np.zeros_like(directions), where=norms > 1e-12)
    else:
        directions = np.linalg.eigh(centered.T @ centered)[1][:, ::-1][:, :count].T
    if len(directions) < count:
        directions = np.concatenate([directions, np.zeros((count - len(directions), vectors.shape[1]))])
    largest = np.take_along_axis(directions, np.abs(directions).argmax(1)[:, None], axis=1)
    return directions * np.where(largest < 0, -1.0, 1.0)


def _split(vectors: Array, at_border: NDArray[np.bool_]) -> tuple[Array, float]:
    """Mean and first direction, oriented so that foreground is large, and Otsu's threshold."""
    mean, direction = vectors.mean(0), principal(vectors, 1)[0]
    values = (vectors - mean) @ direction
    threshold = otsu(values)
    # What fills the border of the images is their background
    if (values > threshold)[at_border].mean() > (values > threshold)[~at_border].mean():
        direction, threshold = -direction, -threshold
    return np.stack([mean, direction]), threshold


def otsu(values: Array) -> float:
    """The threshold that separates values into two classes of the largest variance between them (Otsu, 1979)."""
    counts, edges = np.histogram(values, _BINS)
    middles = (edges[:-1] + edges[1:]) / 2
    below, mass = np.cumsum(counts), np.cumsum(counts * middles)
    above = below[-1] - below
    apart = np.zeros(_BINS)
    both = (below > 0) & (above > 0)
    apart[both] = (mass[-1] * below - mass * below[-1])[both] ** 2 / (below * above)[both]
    return float(edges[1:][apart.argmax()])


def basis_bytes(basis: Basis) -> bytes:
    """A basis as the bytes of an ``.npz`` file, which loads without pickle."""
    arrays: dict[str, NDArray] = {
        'layers': np.array(list(basis.layers), np.str_),
        'model': np.array(basis.model),
        'sha256': np.array(basis.sha256),
    }
    for index, layer in enumerate(basis.layers.values()):
        for name in ('mean', 'components', 'low', 'high'):
            arrays[f'{name}_{index}'] = getattr(layer, name)
        if layer.first is not None:
            arrays[f'first_{index}'] = layer.first
            arrays[f'threshold_{index}'] = np.array(layer.threshold)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def read_basis(path: Path | str) -> Basis:
    """The basis in a file written from :func:`basis_bytes`.

    Raises:
        InputError: If there is no such file, or it does not hold a basis.
    """
    path = find_path(path, 'basis')
    if not path.exists():
        raise InputError(f'no file {str(path)!r}', parameter='basis')
    accepted = f'a file written with {param("save_basis")}'
    arrays = read_arrays(path, 'basis', accepted, 'a basis')
    try:
        return _basis_of(arrays)
    except InputError as error:
        problem = f'{str(path)!r} does not hold a basis: {error.problem}'
        raise InputError(problem, accepted=accepted, parameter='basis') from error


def _basis_of(arrays: Mapping[str, NDArray]) -> Basis:
    """The basis whose arrays these are, each checked for its shape and finite numbers."""

    def numbers(name: str, *shape: int | None) -> Array:
        if name not in arrays:
            raise InputError(f'{name} is missing')
        array = arrays[name]
        fits = array.ndim == len(shape) and all(want in (None, side) for want, side in zip(shape, array.shape))  # noqa: B905
        if array.dtype.kind not in 'fiu' or not fits or not np.isfinite(array).all():
            raise InputError(f'{name} is {array.dtype} {array.shape}; accepted: finite numbers {shape}')
        return array.astype(np.float64)

    layers: dict[str, LayerBasis] = {}
    for index, name in enumerate(_texts(arrays, 'layers', 1)):
        mean = numbers(f'mean_{index}', None)
        first = numbers(f'first_{index}', 2, len(mean)) if f'first_{index}' in arrays else None
        threshold = float(numbers(f'threshold_{index}')) if first is not None else 0.0
        components = numbers(f'components_{index}', 3, len(mean))
        low, high = numbers(f'low_{index}', 3), numbers(f'high_{index}', 3)
        layers[name] = LayerBasis(mean, components, low, high, first, threshold)
    if not layers:
        raise InputError('it has no layers')
    return Basis(layers, *(_texts(arrays, name, 0)[0] for name in ('model', 'sha256')))


def _texts(arrays: Mapping[str, NDArray], name: str, ndim: int) -> list[str]:
    array = arrays.get(name)
    if array is None or array.dtype.kind != 'U' or array.ndim != ndim:
        raise InputError(f'{name} is missing or is not text')
    return [str(each) for each in array.ravel()]

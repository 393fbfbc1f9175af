"""Where every head looks: attention weights as the model computed them, at any resolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from vistool.analyses.attention import report as figures
from vistool.analyses.attention.aggregation import follow_attention
from vistool.analyses.attention.capture import network_points, read_rows, require_patch
from vistool.analyses.attention.selection import Layers, Query
from vistool.analyses.attention.statistics import read_statistics
from vistool.analyses.base import MapAnalysis
from vistool.errors import InputError, close_matches
from vistool.models.model import Model
from vistool.models.subjects import Targets, as_model, as_samples
from vistool.registry import ANALYSES
from vistool.results import HeadStatistics, Heatmaps

__all__ = ['METHODS', 'Attention']

METHODS = ('raw', 'rollout', 'grad-rollout', 'legrad')


@ANALYSES.register_module()
@dataclass(frozen=True)
class Attention(MapAnalysis):
    """Attention maps of a transformer.

    Attributes:
        method: ``raw`` (the weights themselves), ``rollout``, ``grad-rollout`` or ``legrad`` (the last two
            explain a class).
        layers: Attention layers by number (negative ones too), range (``'0:4'``), module name, or ``'all'``. None
            means the last for ``raw`` and all for the others.
        heads: ``'all'`` (the mean, then every head), ``'mean'``, ``'max'``, or numbers.
        queries: ``'cls'``, ``'mean'`` (over the tokens of the image), ``'x,y'`` or ``(x, y)`` in pixels of the photo,
            or the number of a token. None means the class token, or the mean where there is none.
        targets: Classes, for the methods that explain one; see :class:`~vistool.analyses.cam.CAM`.
        threshold: Share of the mass whose tokens are outlined and masked, or None.
        stats: Whether each result gets statistics of every head as its companion ``stats``.
    """

    method: str = 'raw'
    layers: Sequence[int | str] = ()
    heads: Sequence[int | str] = ('all',)
    queries: Sequence[str | int | Sequence[float]] = ()
    targets: Targets = ()
    threshold: float | None = None
    stats: bool = False

    def __call__(self, model: Model | nn.Module, subject: Any) -> Any:
        """Reads the attention of one sample or a batch.

        Args:
            model: A loaded model, or any module.
            subject: A sample, a list of samples (one batch; a list of results comes back), or the network's
                input itself.

        Returns:
            A :class:`~vistool.results.Heatmaps` of kind ``attention``, or a list of them. Maps of ``raw`` are the
            probabilities on the token grid; prefix tokens are dropped, and the provenance tells their mass.

        Raises:
            InputError: If a layer, head, query or class does not exist, the model has no attention, or the weights
                do not rebuild the attention module's output.
        """
        model = as_model(model)
        samples, single = as_samples(subject)
        method = self._method()
        queries = [Query.parse(word) for word in self.queries or ('auto',)]
        points = network_points(samples, queries).to(model.device)
        inputs = model.batch(samples)
        require_patch(model, inputs)
        layers = Layers.parse(self.layers or ((-1,) if method == 'raw' else ('all',)), model.module)
        settings = {'method': method, 'threshold': self._threshold()}
        if method == 'raw':
            readings, patch = read_rows(model.module, inputs, layers, queries, points)
            results = [
                figures.raw_result(model, sample, index, readings, patch, self.heads, settings)
                for index, sample in enumerate(samples)
            ]
        else:
            labels = [sample.label for sample in samples]
            flow = follow_attention(model, inputs, method, layers, queries, points, self.targets, labels)
            results = [figures.flow_result(model, s, index, flow, settings) for index, s in enumerate(samples)]
        if self.stats:
            measured = read_statistics(model.module, inputs, Layers.parse(self.layers or ('all',), model.module))
            rows = [[row for layer in measured for row in layer.rows(index)] for index in range(len(samples))]
            results = [
                replace(result, companions={'stats': HeadStatistics(rows=tuple(own))}).with_provenance(statistics=own)
                for result, own in zip(results, rows, strict=True)
            ]
        return results[0] if single else results

    @property
    def choices(self) -> Sequence[object]:
        """What the user chose, for file names."""
        heads = [] if list(self.heads) == ['all'] else self.heads
        queries = [','.join(map(str, each)) if isinstance(each, (tuple, list)) else each for each in self.queries]
        threshold = '' if self.threshold is None else f't{self.threshold:g}'
        return self.method.lower(), self.targets, self.layers, heads, queries, threshold

    def check(self, model: Model) -> None:
        """Checks the method and the threshold."""
        self._method()
        self._threshold()

    def follow(self, results: Sequence[Heatmaps], model: Model) -> Attention:
        """The same for another model, with the classes that each image's result shows."""
        targets = [[target.id for target in result.targets if target.id is not None] for result in results]
        return replace(self, targets=targets if any(targets) else self.targets)

    def _method(self) -> str:
        name = self.method.lower().replace('_', '-')
        if name not in METHODS:
            raise InputError(
                f'no method {self.method!r}', accepted=', '.join(METHODS), hint=close_matches(name, METHODS),
                parameter='method',
            )  # fmt: skip
        if self.targets and name in ('raw', 'rollout'):
            raise InputError(
                f'{name} is of no class', accepted='grad-rollout, legrad', parameter='targets'
            )  # fmt: skip
        return name

    def _threshold(self) -> float | None:
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise InputError(f'{self.threshold:g} is no share', accepted='above 0, up to 1', parameter='threshold')
        return self.threshold

"""Where every head looks: attention weights as the model computed them, at any resolution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import overload

import torch
from torch import nn

from vistool import ranges
from vistool.analyses.attention import report as figures
from vistool.analyses.attention.aggregation import Aggregation, aggregate, rolled_out
from vistool.analyses.attention.capture import (
    RecordedAttention,
    network_points,
    read_rows,
    require_patch,
    whole_layers,
)
from vistool.analyses.attention.reading import read_matrices
from vistool.analyses.attention.selection import LAYERS, LayerChoice, Query, QueryWords, heads_of
from vistool.analyses.attention.statistics import read_statistics
from vistool.analyses.base import MapAnalysis, followed_targets
from vistool.analyses.cam.instances import instances_of
from vistool.analyses.cam.measuring import Measuring
from vistool.analyses.cam.targets import ClassTarget
from vistool.data.samples import Sample
from vistool.errors import InputError, close_matches, counted
from vistool.metrics import Needs as MetricNeeds
from vistool.metrics import Protocol, Truths, find_metrics, find_protocol
from vistool.models.model import Model, Subject, Targets, as_model, as_samples, own_predictions, same_for_all, sign_of
from vistool.network.detection import find_detector, query_of
from vistool.network.inputs import run_network
from vistool.network.layers import words_for
from vistool.network.sampling import samples_points
from vistool.network.tensors import NetworkInput, input_size
from vistool.registry import ANALYSES
from vistool.results import AttentionMatrix, HeadStatistics, Heatmaps

__all__ = ['METHODS', 'Attention']

METHODS = ('raw', 'rollout', 'grad-rollout', 'legrad')
CLASS_AGNOSTIC = ('raw', 'rollout')


@ANALYSES.register_module()
@dataclass(frozen=True)
class Attention(MapAnalysis):
    """Attention maps of a transformer.

    Attributes:
        method: ``raw`` (the weights themselves), ``rollout``, ``grad-rollout`` or ``legrad`` (the last two explain a
            class).
        layers: Attention layers, one or several: by number (negative ones too), range (``'0:4'``), module name, module,
            or ``'all'``. None means the last that can be placed in the image for ``raw`` and all for the others.
        heads: ``'all'`` (the mean, then every head), ``'mean'``, ``'max'``, or numbers.
        queries: ``'cls'``, ``'mean'`` (over the tokens of the image), ``'x,y'`` or ``[(x, y)]`` in pixels of the photo,
            the number of a token, or ``'#0'`` for the object query of a detector's prediction; one or several. None
            means the class token, or the mean if there is none.
        targets: Classes, for the methods that explain one; see :class:`~vistool.analyses.cam.CAM`.
        score_sign: ``'-'`` for the evidence against each target, ``'+'`` for the evidence for it.
        threshold: Share of the mass whose tokens are outlined and masked, or None.
        stats: Whether each result gets statistics of every head as its companion ``stats``.
        metrics: What to measure of each map of a class; see :class:`~vistool.analyses.cam.CAM`.
        protocol: How metrics are measured.
        truth: Where the object is, for metrics of localization.
        copies: How many changed copies of an image run at once for metrics.
    """

    method: str = 'raw'
    layers: int | str | nn.Module | Sequence[int | str | nn.Module] = ()
    heads: int | str | Sequence[int | str] = ('all',)
    queries: QueryWords = ()
    targets: Targets = ()
    score_sign: str | int = '+'
    threshold: float | None = None
    stats: bool = False
    metrics: str | Sequence[str] = ()
    protocol: str | Protocol = 'vistool'
    truth: Truths = None
    copies: int = field(default=32, compare=False)

    @overload
    def __call__(self, model: Model | nn.Module, subject: Sample) -> Heatmaps: ...

    @overload
    def __call__(self, model: Model | nn.Module, subject: Sequence[Sample]) -> list[Heatmaps]: ...

    @overload
    def __call__(self, model: Model | nn.Module, subject: NetworkInput) -> Heatmaps | list[Heatmaps]: ...

    def __call__(self, model: Model | nn.Module, subject: Subject) -> Heatmaps | list[Heatmaps]:
        """Reads the attention of one sample or a batch.

        Args:
            model: A loaded model, or any module. It is used in eval mode and comes back as it was.
            subject: A sample, a list of samples (one batch; a list of results comes back), or the network's input
                itself: a tensor ``(C, H, W)`` (one result) or ``(B, C, H, W)`` (a list), or a tuple or dict of such.

        Returns:
            :class:`~vistool.results.Heatmaps` of kind ``attention``, or a list of them. Maps of ``raw`` are the
            probabilities on the token grid; prefix tokens are dropped, and the provenance says how much they hold.

        Raises:
            InputError: If a layer, head, query or class does not exist, the model has no attention, or the weights do
                not give the attention module's output.
        """
        model = as_model(model)
        samples, single = as_samples(subject, model)
        method = self._method()
        self._check_metrics(method)
        self._measuring.check_truth(samples)
        with model.borrowed():
            results = self._read(model, samples, method)
        return results[0] if single else results

    def explain(self, model: Model, recorded: RecordedAttention) -> Heatmaps:
        """The maps of a photo that :func:`~vistool.analyses.attention.capture.record` kept, without another forward.

        Raises:
            InputError: If a layer, head or query does not exist, or the method explains a class, which needs gradients.
        """
        method, queries, sample = self._method(), Query.parse_all(self.queries), recorded.sample
        if method not in CLASS_AGNOSTIC:
            raise InputError(f'{method} needs gradients', accepted=', '.join(CLASS_AGNOSTIC), parameter='method')
        if not recorded.layers:
            raise InputError(recorded.why, parameter='layers')
        points = network_points([sample], queries).to(model.device)
        size = sample.image.shape[0], sample.image.shape[1]
        settings = {'method': method, 'threshold': self._threshold()}
        layers = LayerChoice.parse(self._layers() or ('all',), model.module)
        if method == 'rollout':
            found = rolled_out(recorded, layers, queries, points, size)
            return figures.flow_result(model, sample, 0, found, settings, figures.Measurements())
        wanted = list(layers.resolve(recorded.names)) if self._layers() else [max(recorded.layers)]
        if missing := [number for number in wanted if number not in recorded.layers]:
            raise InputError(f'layer {missing[0]} cannot be placed in the image', parameter='layers')
        readings = [recorded.read(number, queries, points, size) for number in wanted]
        return figures.raw_result(model, sample, 0, readings, recorded.patch, heads_of(self.heads), settings)

    def matrices(self, model: Model | nn.Module, subject: Subject) -> list[AttentionMatrix]:
        """The attention of every query over every key, of one image.

        Only ``layers`` and ``heads`` apply.

        Args:
            model: A loaded model, or any module.
            subject: One sample, or the network's input itself.

        Returns:
            One :class:`~vistool.results.AttentionMatrix` for each layer, in the order in which they run.

        Raises:
            InputError: If there are several images, another parameter is given, a layer or head does not exist, a
                layer attends within windows or to sampled points, or the matrices take more than 2 GiB.
        """
        self._check_matrices()
        model = as_model(model)
        samples, _ = as_samples(subject, model)
        if len(samples) != 1:
            problem = counted(len(samples), 'image')
            raise InputError(problem, accepted='one image', hint='call it for each', parameter='subject')
        with model.borrowed():
            inputs = model.batch(samples)
            if (detector := find_detector(model.module)) is not None:
                inputs = detector.prepared(inputs, samples)
            require_patch(model, inputs)
            layers = LayerChoice.parse(self._layers(), model.module) if self._layers() else None
            with torch.no_grad():
                return read_matrices(whole_layers(model.module, inputs, layers), heads_of(self.heads))

    @property
    def choices(self) -> Sequence[object]:
        """What the user chose, for file names."""
        heads = [] if heads_of(self.heads) == ['all'] else heads_of(self.heads)
        given = [self.queries] if isinstance(self.queries, (str, int, Query)) else self.queries
        queries = [','.join(map(str, each)) if isinstance(each, (tuple, list)) else each for each in given]
        threshold = '' if self.threshold is None else f't{self.threshold:g}'
        targets = [*(same_for_all(self.targets) or []), *(['against'] if sign_of(self.score_sign) < 0 else [])]
        return self.method.lower(), targets, words_for(self.layers), heads, queries, threshold

    def check(self, model: Model) -> None:
        """Checks the method, the threshold, the queries, and the names of layers.

        Raises:
            InputError: If something is wrong whatever the images are.
        """
        self._check_metrics(self._method())
        self._threshold()

    @property
    def measures(self) -> Sequence[str]:
        """Names of the metrics that are measured of each map."""
        return list(self._measuring.metrics)

    @property
    def needs_truth(self) -> Sequence[str]:
        """The metrics that need samples that know where the objects are."""
        return self._measuring.needs(MetricNeeds.TRUTH) if self.truth is None else []

    @property
    def _measuring(self) -> Measuring:
        protocol = find_protocol(self.protocol)
        return Measuring(find_metrics(self.metrics, protocol), protocol, self.truth, self.copies)

    def _check_matrices(self) -> None:
        """Refuses what a matrix does not depend on."""
        self._check_metrics(self._method())
        given = {
            'method': self._method() != 'raw',
            'queries': Query.parse_all(self.queries) != [Query('auto')],
            'threshold': self.threshold is not None,
            'stats': self.stats,
        }
        for name, present in given.items():
            if present:
                problem = 'a matrix is the raw attention of all queries'
                raise InputError(problem, accepted='layers and heads alone', parameter=name)

    def _check_metrics(self, method: str) -> None:
        self._measuring.check_copies()
        if self._measuring.metrics and method in CLASS_AGNOSTIC:
            raise InputError(
                f'metrics are measured of maps of a class, and {method} is class-agnostic',
                accepted='metrics with grad-rollout and legrad',
                parameter='metrics',
            )

    def follow(self, results: Sequence[Heatmaps], model: Model) -> Attention:
        """The same for another model: each image with the classes that its result shows, or the model's own."""
        targets = followed_targets(results, model)
        if own_predictions(self.targets) or not any(targets):
            return self
        return replace(self, targets=targets, score_sign='+')

    def _read(self, model: Model, samples: Sequence[Sample], method: str) -> list[Heatmaps]:
        queries = Query.parse_all(self.queries)
        if any(query.kind == 'object' for query in queries):
            return [self._of_objects(model, sample, method, queries) for sample in samples]
        if len(samples) > 1 and samples_points(model.module):
            return [result for sample in samples for result in self._read(model, [sample], method)]
        points = network_points(samples, queries).to(model.device)
        inputs = model.batch(samples)
        if (detector := find_detector(model.module)) is not None:
            inputs = detector.prepared(inputs, samples)
        require_patch(model, inputs)
        layers = LayerChoice.parse(self._layers() or ('all',), model.module)
        settings = {'method': method, 'threshold': self._threshold()}
        if method == 'raw':
            chosen = layers if self._layers() else None
            readings, patch = read_rows(model.module, inputs, chosen, queries, points)
            results = [
                figures.raw_result(model, sample, index, readings, patch, heads_of(self.heads), settings)
                for index, sample in enumerate(samples)
            ]
        else:
            labels = [sample.label for sample in samples]
            sign = sign_of(self.score_sign)

            def explained(again: NetworkInput, like: Aggregation | None = None) -> Aggregation:
                return aggregate(model, again, method, layers, queries, points, self.targets, labels, sign, like)

            found = explained(inputs)
            report = self._measured(model, samples, inputs, method, found, explained)
            results = [figures.flow_result(model, s, index, found, settings, report) for index, s in enumerate(samples)]
        if not self.stats:
            return results
        measured = read_statistics(model.module, inputs, LayerChoice.parse(self._layers() or ('all',), model.module))
        rows = [[row for layer in measured for row in layer.rows(index)] for index in range(len(samples))]
        return [
            replace(result, companions={'stats': HeadStatistics(rows=tuple(own))}).with_provenance(statistics=own)
            for result, own in zip(results, rows, strict=True)
        ]

    def _of_objects(self, model: Model, sample: Sample, method: str, queries: Sequence[Query]) -> Heatmaps:
        """The attention of the object queries behind a detector's predictions; each image has its own."""
        detector = find_detector(model.module)
        if detector is None:
            raise InputError(
                f'{model.name} is not a detector', accepted='cls, mean, X,Y, or the number of a token',
                parameter='queries',
            )  # fmt: skip
        inputs = detector.prepared(model.batch([sample]), [sample])
        size = input_size(inputs)[0]
        with torch.no_grad(), detector.watching():
            output = run_network(model.module, inputs)
            found = detector.read(output, 1, size)
        known = instances_of(model, found, 0, sample)
        named = []
        for query in queries:
            if query.kind != 'object':
                named.append(query)
                continue
            if query.index >= len(known):
                raise InputError(
                    f'no prediction {query.index}', accepted=f'#0 to #{len(known) - 1}', parameter='queries'
                )
            token, first = query_of(detector, output, found, (0, query.index), size), detector.first_query(size)
            name = f'#{query.index} {known[query.index].name}'
            named.append(Query('token', index=token, name=name, decoded=not first))
        (result,) = replace(self, queries=named)._read(model, [sample], method)
        numbers: dict[object, int] = {
            query.name: given.index for query, given in zip(named, queries, strict=True) if query.name
        }
        places = [numbers.get(item.coordinates.get('query')) for item in result]
        maps = [item if n is None else item.at(instance=n) for item, n in zip(result, places, strict=True)]
        shown = tuple(known[number] for number in dict.fromkeys(numbers.values()))
        return replace(result, maps=tuple(maps), instances=shown)

    def _measured(
        self,
        model: Model,
        samples: Sequence[Sample],
        inputs: NetworkInput,
        method: str,
        found: Aggregation,
        explained: Callable[[NetworkInput, Aggregation], Aggregation],
    ) -> figures.Measurements:
        """The metrics of every map of a class; for noisy copies of the batch the same classes are explained again."""
        measuring = self._measuring
        if not measuring.metrics or found.chosen is None or found.readout is None or found.numbers is None:
            return figures.Measurements()
        chosen = found.chosen
        asked = [None] * chosen.ids.shape[1] if chosen.asked is None else chosen.asked.unbind(1)
        columns = zip(chosen.ids.unbind(1), chosen.signs.unbind(1), asked, strict=True)
        targets = [ClassTarget(ids, found.numbers, found.readout, signs, None, own) for ids, signs, own in columns]
        drawn, *again = (
            figures.drawn_at(each, method, input_size(inputs)[0])
            for each in (found, *(explained(noisy, found) for noisy in measuring.noisy(inputs)))
        )
        measured = measuring.measure(model, samples, inputs, targets, drawn, again)
        by_image = [{key[1] or 0: values for (key, _), values in each.items()} for each in measured]
        told = {name: metric.told for name, metric in measuring.metrics.items()}
        return figures.Measurements(told, by_image, measuring.entry(found.readout))

    def _layers(self) -> list[int | str | nn.Module]:
        return ranges.several(self.layers, (Integral, str, nn.Module), 'layers', f'{LAYERS}, or modules of the network')

    def _method(self) -> str:
        name = str(self.method).lower().replace('_', '-')
        if name not in METHODS:
            raise InputError(
                f'no method {self.method!r}',
                accepted=', '.join(METHODS),
                hint=close_matches(name, METHODS),
                parameter='method',
            )
        if name in CLASS_AGNOSTIC and (same_for_all(self.targets) != [] or sign_of(self.score_sign) < 0):
            raise InputError(f'{name} is class-agnostic', accepted='grad-rollout, legrad', parameter='targets')
        return name

    def _threshold(self) -> float | None:
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise InputError(f'{self.threshold:g} is not a share', accepted='above 0, up to 1', parameter='threshold')
        return self.threshold

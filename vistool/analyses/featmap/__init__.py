"""Feature maps: what any layer responds to, and what changed between two models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import overload

from torch import nn

from vistool import ranges
from vistool.analyses.base import MapAnalysis, Views
from vistool.analyses.featmap import comparison
from vistool.analyses.featmap import report as drawing
from vistool.analyses.featmap.pca import Basis, LayerBasis, Positions, basis_bytes, learn_basis, read_basis
from vistool.analyses.featmap.plan import Plan, matched_features, matching_layers
from vistool.analyses.featmap.reductions import Point, parse_points
from vistool.analyses.featmap.statistics import BatchStatistics
from vistool.data.samples import Sample
from vistool.models.model import Model, Subject, as_model, as_samples
from vistool.network.features import Feature
from vistool.network.layers import words_for
from vistool.network.tensors import NetworkInput, token_hints
from vistool.registry import ANALYSES
from vistool.results import ChannelStack, Heatmaps, LayerChannels, Result

__all__ = ['Basis', 'Feature', 'FeatureMaps', 'LayerBasis', 'basis_bytes', 'read_basis']


@ANALYSES.register_module()
@dataclass(frozen=True)
class FeatureMaps(MapAnalysis):
    """Feature maps of any layers of any network, from a forward that stops after the last of them.

    Attributes:
        layers: Layers in dotted form (``'backbone.layer3[-1]'``) or as modules of the network, one or several;
            ``NAME@2`` means its second call in a forward, ``NAME@all`` each call. None: each stage of the backbone,
            found by watching sizes; four evenly spaced blocks of a plain transformer.
        reduction: One of :data:`~vistool.analyses.featmap.reductions.CHOICES`; ``''`` means ``none`` if channels are
            chosen, else ``mean``.
        topk: Show this many channels of each layer.
        criterion: What makes a channel one of the top: ``mean``, ``max``, ``norm`` or ``std`` over positions.
        channels: Show these channels: numbers and ranges (``'7-11'``), one or several.
        similar_to: ``(x, y)`` or ``'x,y'`` in pixels of the original, one or several: show the cosine similarity of
            every position to the one there.
        foreground: With ``pca``: separate the foreground by the first component, then color it alone.
        basis: With ``pca``: a basis learned before. None: learned from the images of the call.
        extra_tokens: Number of tokens before the grid, or ``(before, after)``, if it cannot be found by looking.
        tokens: True if the layers' output is to be read as tokens.
        stats: Whether results get statistics of every channel over their batch as their companion ``stats``.
        all_channels: Whether each result gets every channel as its companion ``channels``.
        staged: Whether ``layers`` are the network's own stages, numbered in titles; :meth:`fit` sets it.
    """

    layers: str | nn.Module | Sequence[str | nn.Module] = ()
    reduction: str = ''
    topk: int | None = None
    criterion: str = 'mean'
    channels: int | str | Sequence[int | str] = ()
    similar_to: str | Point | Sequence[str | Point] = ()
    foreground: bool = False
    basis: Basis | None = None
    extra_tokens: int | Sequence[int] | None = None
    tokens: bool | None = None
    stats: bool = False
    all_channels: bool = False
    staged: bool = False

    @overload
    def __call__(self, model: Model | nn.Module, subject: Sample) -> Heatmaps: ...

    @overload
    def __call__(self, model: Model | nn.Module, subject: Sequence[Sample]) -> list[Heatmaps]: ...

    @overload
    def __call__(self, model: Model | nn.Module, subject: NetworkInput) -> Heatmaps | list[Heatmaps]: ...

    def __call__(self, model: Model | nn.Module, subject: Subject) -> Heatmaps | list[Heatmaps]:
        """Feature maps of one sample or a batch.

        Args:
            model: A loaded model, or any module. It is used in eval mode and comes back as it was.
            subject: A sample, a list of samples (one batch; a list of results comes back), or the network's input
                itself: a tensor ``(C, H, W)`` (one result) or ``(B, C, H, W)`` (a list), or a tuple or dict of such for
                several inputs.

        Returns:
            :class:`~vistool.results.Heatmaps` of kind ``feature``, or a list of them. Maps are the layer's own values
            at its own size.

        Raises:
            InputError: If a layer or parameter does not exist or does not fit the model.
        """
        model = as_model(model)
        samples, single = as_samples(subject, model)
        with model.borrowed():
            plan, found = self.plan().located_features(model, samples)
        results = self.drawn(model, samples, found, plan)
        return results[0] if single else results

    def drawn(
        self, model: Model, samples: Sequence[Sample], found: Sequence[Feature], plan: Plan | None = None
    ) -> list[Heatmaps]:
        """The results of features that are known, without another forward.

        Args:
            model: The model.
            samples: The images.
            found: The features of all layers for the whole batch.
            plan: What to show of them; None: as the parameters say.
        """
        plan = plan or self.plan()
        if plan.reduction == 'pca' and plan.basis is None:
            plan = replace(plan, basis=learn_basis(model, [found], plan.foreground))
        results = drawing.results(plan, model, samples, found)
        return self._with_companions(results, [(model.name, '', found)], samples)

    def plan(self) -> Plan:
        """The parameters, checked, with defaults filled in.

        Raises:
            InputError: If values are unknown or contradict each other.
        """
        accepted = 'names of layers, or modules of the network'
        layers = tuple(ranges.several(self.layers, (str, nn.Module), 'layers', accepted))
        return Plan.of(
            self.reduction,
            self.topk,
            ranges.positive(self._channels, 'a channel', 'channels'),
            layers=layers,
            criterion=self.criterion,
            similar_to=parse_points(self.similar_to),
            foreground=self.foreground,
            basis=self.basis,
            hints=token_hints(self.extra_tokens, self.tokens),
            staged=self.staged,
        )

    @property
    def reduces(self) -> str:
        """The parameter that asks for a result over the whole run."""
        return 'stats' if self.stats else ''

    @property
    def choices(self) -> Sequence[object]:
        """What the user chose, for file names."""
        points = [f'at-{x:.10g},{y:.10g}' for x, y in parse_points(self.similar_to)]
        channels = self._channels
        shown = self.reduction or ('' if self.topk or channels or points else 'mean')
        top = f'top{self.topk}-{self.criterion}' if self.topk else ''
        kinds = [kind for kind in (shown, top, *channels, *points) if kind != '']
        return words_for(self.layers), kinds, 'foreground' if self.foreground else ''

    @property
    def _channels(self) -> list[int | str]:
        return ranges.several(self.channels, (Integral, str), 'channels', ranges.POSITIVE_FORMS)

    def check(self, model: Model) -> None:
        """Checks the parameters.

        Raises:
            InputError: If values are unknown or contradict each other.
        """
        self.plan()

    def fit(self, models: Sequence[Model], batches: Iterable[Views], count: int) -> FeatureMaps:
        """The analysis with what is the same over a whole run: the default layers, and the basis of PCA.

        A basis is learned from all models together; see :meth:`MapAnalysis.fit`. For a single image the forward that
        gives the maps finds the default layers as well.
        """
        plan, fitted = self.plan(), self
        if not plan.layers and (count > 1 or len(models) > 1 or plan.reduction == 'pca'):
            first = next(iter(batches), None)
            if first is None:
                return self
            plan = plan.located(models[0], first[0])
            fitted = replace(self, layers=plan.layers, staged=plan.staged)
        if plan.reduction != 'pca' or plan.basis is not None:
            return fitted
        pooled: list[Positions] = []
        names: list[str] = []
        for views in batches:
            every = matched_features(plan, models, views)
            names = [feature.name for feature in every[0]]
            pooled = pooled or [Positions(count * len(models)) for _ in names]
            for positions, *same in zip(pooled, *every, strict=True):
                positions.add_all(same)
        learned = {name: each.learn(plan.foreground) for name, each in zip(names, pooled, strict=True)}
        return replace(fitted, basis=Basis.of(models[0], learned)) if learned else fitted

    def compare(self, models: Sequence[Model], views: Views, names: Sequence[str]) -> list[Heatmaps]:
        """The same layers and channels of several models, and their signed differences from the first.

        See :meth:`MapAnalysis.compare`.
        """
        plan = self.plan().located(models[0], views[0])
        every = matched_features(plan, models, views)
        if plan.reduction == 'pca' and plan.basis is None:
            plan = replace(plan, basis=learn_basis(models[0], every, plan.foreground))
        results = comparison.results(plan, models, views, every, names)
        seen = [(name, name, found) for name, found in zip(names, every, strict=True)]
        return self._with_companions(results, seen, views[0])

    def follow(self, results: Sequence[Heatmaps], model: Model) -> FeatureMaps:
        """The same for another model, with the layers and channels that the results show."""
        chosen = {int(channel) for channel in results[0].coordinates.get('channel', ())}
        return replace(self, layers=matching_layers(self.plan(), model, None), channels=sorted(chosen), topk=None)

    def reduce(self, before: Mapping[str, Result], results: Sequence[Heatmaps]) -> Mapping[str, Result]:
        """Adds the statistics of a batch to those of the batches before."""
        batch = results[0].companions.get('stats') if results else None
        if not isinstance(batch, BatchStatistics):
            return before
        known = before.get('stats')
        return {'stats': known + batch if isinstance(known, BatchStatistics) else batch}

    def _with_companions(
        self,
        results: list[Heatmaps],
        seen: Sequence[tuple[str, str, Sequence[Feature]]],
        samples: Sequence[Sample],
    ) -> list[Heatmaps]:
        """Results with what else was asked for; ``seen`` is a name, a folder and the features of each model."""
        shared: dict[str, Result] = {}
        if self.stats:
            shared['stats'] = BatchStatistics.of({name: found for name, _, found in seen})
        if not self.all_channels:
            return [replace(result, companions=shared) for result in results] if shared else results
        stacks = [
            ChannelStack(
                layers=tuple(
                    LayerChannels(feature.name, feature.maps[index].float().cpu().numpy(), folder)
                    for _, folder, found in seen
                    for feature in found
                ),
                size=(sample.image.shape[0], sample.image.shape[1]),
                name=sample.name,
            )
            for index, sample in enumerate(samples)
        ]
        pairs = zip(results, stacks, strict=True)
        return [replace(result, companions={**shared, 'channels': stack}) for result, stack in pairs]

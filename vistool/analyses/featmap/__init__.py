"""Feature maps: what any layer responds to, and what changed between two models."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from vistool.analyses.base import MapAnalysis, Views
from vistool.analyses.featmap import comparison
from vistool.analyses.featmap import report as drawing
from vistool.analyses.featmap.layer_matching import features_of, layers_of
from vistool.analyses.featmap.pca import Basis, LayerBasis, Positions, basis_bytes, read_basis
from vistool.analyses.featmap.reductions import CHOICES, CRITERIA, check_choice, parse_channels
from vistool.analyses.featmap.statistics import measure, merge
from vistool.data.samples import Sample
from vistool.errors import InputError, param
from vistool.models.model import Model
from vistool.models.subjects import as_model, as_samples
from vistool.network.features import Feature, features
from vistool.network.layers import find_target_layers, unwrapped
from vistool.network.stages import find_stages
from vistool.network.tokens import TokenHints
from vistool.registry import ANALYSES
from vistool.results import ChannelStack, ChannelStatistics, Heatmaps, LayerChannels, Result

__all__ = ['Basis', 'Feature', 'FeatureMaps', 'LayerBasis', 'basis_bytes', 'read_basis']

log = logging.getLogger('vistool')


@ANALYSES.register_module()
@dataclass(frozen=True)
class FeatureMaps(MapAnalysis):
    """Feature maps of any layers of any network, from a forward that stops after the last of them.

    Attributes:
        layers: Layers in dotted form (``'backbone.layer3[-1]'``); ``NAME@2`` means its second call in a forward,
            ``NAME@all`` each call. None: each stage of the backbone, found by watching sizes; of a plain transformer
            four even blocks.
        reduction: One of :data:`~vistool.analyses.featmap.reductions.CHOICES`; ``''`` means ``none`` where channels
            are chosen, else ``mean``.
        topk: Show this many channels of each layer.
        criterion: What makes a channel one of the top: ``mean``, ``max``, ``norm`` or ``std`` over positions.
        channels: Show these channels: numbers and ranges (``'7-11'``).
        similar_to: ``(x, y)`` in pixels of the original: show the cosine similarity of every position to the one there.
        foreground: With ``pca``: part the foreground along the first component, then colour it alone.
        basis: With ``pca``: colours learned before. None: from the images of the call.
        extra_tokens: Number of tokens before the grid, where it is not to be found by looking.
        tokens: True where the layers' output is to be read as tokens.
        staged: Whether ``layers`` are the network's own stages, numbered in titles; set where they are found.
        stats: Whether results have statistics of their channels beside them; a run merges them over all images.
        all_channels: Whether results have every channel of the layers beside them.
    """

    layers: Sequence[str] = ()
    reduction: str = ''
    topk: int | None = None
    criterion: str = 'mean'
    channels: Sequence[int | str] = ()
    similar_to: Sequence[tuple[float, float]] = ()
    foreground: bool = False
    basis: Basis | None = None
    extra_tokens: int | None = None
    tokens: bool | None = None
    staged: bool = False
    stats: bool = False
    all_channels: bool = False

    def __call__(self, model: Model | nn.Module, subject: Any) -> Any:
        """Feature maps of one sample or a batch.

        Args:
            model: A loaded model, or any module.
            subject: A sample, a list of samples (one batch; a list of results comes back), or the network's input
                itself: a tensor ``(C, H, W)`` or ``(B, C, H, W)``, or a tuple or dict of such for several inputs.

        Returns:
            A :class:`~vistool.results.Heatmaps` of kind ``feature``, or a list of them. Maps are the layer's own values
            at its own size.

        Raises:
            InputError: If a layer or option does not exist or does not fit the model.
        """
        plan, model = self.checked(), as_model(model)
        samples, single = as_samples(subject)
        plan = plan.located(model, samples)
        found = plan.features(model, samples)
        if plan.reduction == 'pca':
            plan = replace(plan, basis=plan._basis_for(model, [found]))
        results = plan._with_companions(drawing.results(plan, model, samples, found), samples, {model.name: found})
        return results[0] if single else results

    def features(self, model: Model, samples: Sequence[Sample]) -> list[Feature]:
        """The layers' whole outputs for one batch."""
        root = unwrapped(model.module)
        targets = find_target_layers(root, self.located(model, samples).layers)
        return features(root, model.batch(samples), targets, TokenHints(self.extra_tokens, self.tokens))

    def located(self, model: Model, samples: Sequence[Sample]) -> FeatureMaps:
        """With the model's stages as layers, where none are named."""
        if self.layers:
            return self
        names = find_stages(model.module, model.batch(samples[:1]))
        log.info('layers of %s: %s (its stages)', model.name, ', '.join(names))
        return replace(self, layers=names, staged=True)

    def check(self, model: Model) -> None:
        """Checks options that are unknown or contradict each other."""
        self.checked()

    def fit(self, models: Sequence[Model], batches: Iterable[Views], count: int) -> FeatureMaps:
        """The analysis with the default layers, and with a PCA basis that is learned from all images and models."""
        plan = self.checked()
        if not plan.layers:
            first = next(iter(batches), None)
            if first is None:
                return plan
            plan = plan.located(models[0], first[0])
        if plan.reduction != 'pca' or plan.basis is not None:
            return plan
        pooled: list[Positions] = []
        names: list[str] = []
        for views in batches:
            every = features_of(plan, models, views)
            names = [feature.name for feature in every[0]]
            pooled = pooled or [Positions(count * len(models)) for _ in names]
            _collect(pooled, every)
        learned = {name: each.learn(plan.foreground) for name, each in zip(names, pooled, strict=True)}
        return replace(plan, basis=_basis(models[0], learned)) if learned else plan

    def compare(
        self, models: Sequence[Model], views: Sequence[Sequence[Sample]], names: Sequence[str]
    ) -> list[Heatmaps]:
        """The same layers and channels of several models, and their signed differences from the first.

        Args:
            models: The models.
            views: For each model the same images as it reads them.
            names: What tells the models apart.
        """
        plan = self.checked().located(models[0], views[0])
        every = features_of(plan, models, views)
        if plan.reduction == 'pca':
            plan = replace(plan, basis=plan._basis_for(models[0], every))
        results = comparison.results(plan, models, views, every, names)
        return plan._with_companions(results, views[0], dict(zip(names, every, strict=True)))

    @property
    def choices(self) -> Sequence[object]:
        """What the user chose, for file names."""
        points = [f'at-{x:.10g},{y:.10g}' for x, y in self.similar_to]
        shown = self.reduction or ('' if self.topk or self.channels or points else 'mean')
        top = f'top{self.topk}-{self.criterion}' if self.topk else ''
        kinds = [kind for kind in (shown, top, *self.channels, *points) if kind != '']
        return self.layers, kinds, 'foreground' if self.foreground else ''

    @property
    def reduces(self) -> str:
        """Statistics are merged over all images."""
        return 'stats' if self.stats else ''

    def reduce(self, before: Mapping[str, Result], results: Sequence[Heatmaps]) -> Mapping[str, Result]:
        """Merges the statistics of a batch with those before."""
        whole = before.get('stats')
        for result in results:
            part = result.companions.get('stats')
            if isinstance(part, ChannelStatistics):
                whole = merge(whole if isinstance(whole, ChannelStatistics) else None, part)
        return {} if whole is None else {'stats': whole}

    def follow(self, results: Sequence[Heatmaps], model: Model) -> FeatureMaps:
        """The same for another model, with the layers and channels that the results show."""
        shown = [found for result in results for found in result.provenance['channels'].values()]
        chosen = {channel for found in shown for channel in found or ()}
        return replace(self, layers=layers_of(self, model, None), channels=sorted(chosen), topk=None)

    def checked(self) -> FeatureMaps:
        """With defaults filled in.

        Raises:
            InputError: If options are unknown or contradict each other.
        """
        channels = parse_channels(self.channels)
        reduction = self.reduction or ('none' if self.topk is not None or channels else 'mean')
        check_choice(reduction, CHOICES, 'reduction')
        check_choice(self.criterion, tuple(CRITERIA), 'criterion')
        given = [name for name, value in (('topk', self.topk is not None), ('channels', channels)) if value]
        if len(given) > 1:
            raise InputError(f'given with {param("channels")}', hint='choose one of the two', parameter='topk')
        if given and reduction in ('pca', 'select_max'):
            raise InputError(
                f'{reduction} looks at all channels', hint=f'leave out {param(given[0])}', parameter='reduction'
            )
        if self.similar_to and (given or self.reduction not in ('', 'mean')):
            other = given[0] if given else 'reduction'
            raise InputError('looks at all channels', hint=f'leave out {param(other)}', parameter='similar_to')
        if reduction != 'pca' and (self.foreground or self.basis is not None):
            option = 'foreground' if self.foreground else 'basis'
            raise InputError('is for colours by PCA', hint=f'add {param("reduction", "pca")}', parameter=option)
        return replace(self, channels=channels, reduction=reduction)

    def _with_companions(
        self, results: Sequence[Heatmaps], samples: Sequence[Sample], features: Mapping[str, Sequence[Feature]]
    ) -> list[Heatmaps]:
        """Results with the statistics and the channels beside them that were asked for; features by model."""
        found = []
        for index, (result, sample) in enumerate(zip(results, samples, strict=True)):
            own = [(name, each.name, each.maps[index]) for name, layers in features.items() for each in layers]
            companions: dict[str, Result] = {}
            if self.stats:
                companions['stats'] = ChannelStatistics(layers=tuple(measure(*each) for each in own))
            if self.all_channels:
                several = len(features) > 1
                companions['all_channels'] = ChannelStack(
                    layers=tuple(
                        LayerChannels(layer, maps.float().cpu().numpy(), name if several else '')
                        for name, layer, maps in own
                    ),
                    size=(sample.image.shape[0], sample.image.shape[1]),
                    name=sample.name,
                )
            found.append(replace(result, companions={**result.companions, **companions}))
        return found

    def _basis_for(self, model: Model, every: Sequence[Sequence[Feature]]) -> Basis:
        """The basis given, or one learned from these features (of one batch, by model)."""
        if self.basis is not None:
            return self.basis
        pooled = [Positions(sum(len(found[0].maps) for found in every)) for _ in every[0]]
        _collect(pooled, every)
        names = [feature.name for feature in every[0]]
        learned = {name: each.learn(self.foreground) for name, each in zip(names, pooled, strict=True)}
        return _basis(model, learned)


def _collect(pooled: Sequence[Positions], every: Sequence[Sequence[Feature]]) -> None:
    for found in every:
        for positions, feature, first in zip(pooled, found, every[0], strict=True):
            if feature.maps.shape[1] != first.maps.shape[1]:
                raise InputError(
                    f'{first.maps.shape[1]} and {feature.maps.shape[1]} channels have no PCA basis in common '
                    f'({first.name} and {feature.name})',
                    hint=f'compare by another {param("reduction")}',
                    parameter='compare',
                )
            for maps in feature.maps:
                positions.add(maps)


def _basis(model: Model, learned: dict[str, LayerBasis]) -> Basis:
    return Basis(learned, model.name, model.checkpoint.sha256 if model.checkpoint else '')

"""What feature maps are to be shown: checked parameters, and the features that they name."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from vistool.analyses.featmap.pca import Basis
from vistool.analyses.featmap.reductions import CHOICES, CRITERIA, check_choice
from vistool.data.samples import Sample
from vistool.errors import InputError, counted, param
from vistool.models.model import Model
from vistool.network.capture import remembered
from vistool.network.detection import find_detector
from vistool.network.features import Feature, features
from vistool.network.layers import find_target_layers, unwrapped
from vistool.network.stages import find_stages, stage_features
from vistool.network.tensors import NetworkInput, TokenHints

log = logging.getLogger('vistool')


@dataclass(frozen=True)
class Plan:
    """The parameters of :class:`~vistool.analyses.featmap.FeatureMaps`, checked, with defaults filled in.

    Attributes:
        layers: Names of the layers, as the user gave them; none means the stages of the network.
        reduction: One of :data:`~vistool.analyses.featmap.reductions.CHOICES`.
        topk: Number of channels shown of each layer, or None.
        criterion: What ranks the channels.
        channels: The channels shown.
        similar_to: Query points ``(x, y)`` in pixels of the original.
        foreground: Whether PCA colors the foreground alone.
        basis: The PCA basis, or None.
        hints: What the user says about token layouts.
        staged: Whether the layers are the network's own stages, numbered in titles.
    """

    layers: tuple[str | nn.Module, ...] = ()
    reduction: str = 'mean'
    topk: int | None = None
    criterion: str = 'mean'
    channels: tuple[int, ...] = ()
    similar_to: tuple[tuple[float, float], ...] = ()
    foreground: bool = False
    basis: Basis | None = None
    hints: TokenHints | None = None
    staged: bool = False

    @classmethod
    def of(cls, reduction: str, topk: int | None, channels: tuple[int, ...], **more: object) -> Plan:
        """Checks parameters and fills in defaults.

        Args:
            reduction: As in :class:`~vistool.analyses.featmap.FeatureMaps`; ``''`` is the default.
            topk: Likewise.
            channels: Parsed numbers.
            more: The other fields.

        Raises:
            InputError: If values are unknown or contradict each other.
        """
        chosen = reduction or ('none' if topk is not None or channels else 'mean')
        plan = cls(reduction=chosen, topk=topk, channels=channels, **more)  # type: ignore[arg-type]
        check_choice(chosen, CHOICES, 'reduction')
        check_choice(plan.criterion, tuple(CRITERIA), 'criterion')
        given = [name for name, value in (('topk', topk is not None), ('channels', channels)) if value]
        if len(given) > 1:
            raise InputError(f'given with {param("channels")}', hint='choose one of the two', parameter='topk')
        if given and chosen in ('pca', 'select_max'):
            raise InputError(
                f'{chosen} looks at all channels', hint=f'leave out {param(given[0])}', parameter='reduction'
            )
        if plan.similar_to and (given or reduction not in ('', 'mean')):
            other = given[0] if given else 'reduction'
            raise InputError('looks at all channels', hint=f'leave out {param(other)}', parameter='similar_to')
        if chosen != 'pca' and (plan.foreground or plan.basis is not None):
            option = 'foreground' if plan.foreground else 'basis'
            raise InputError('is for colors by PCA', hint=f'add {param("reduction", "pca")}', parameter=option)
        return plan

    def located(self, model: Model, samples: Sequence[Sample]) -> Plan:
        """The plan with layers: the model's stages if none are named."""
        if self.layers:
            return self
        with model.borrowed():
            names = find_stages(model.module, model.batch(samples[:1]))
        return self._with_stages(model, names)

    def _with_stages(self, model: Model, names: Sequence[str]) -> Plan:
        told = f'layers of {model.name}: {", ".join(names)} (its stages)'
        remembered(model.module, 'stages logged', told, lambda: log.info(told))
        return replace(self, layers=tuple(names), staged=True)

    def located_features(self, model: Model, samples: Sequence[Sample]) -> tuple[Plan, list[Feature]]:
        """:meth:`located` and :meth:`features`; together they may take one forward less."""
        if self.layers:
            return self, self.features(model, samples)
        with model.borrowed():
            inputs = model.batch(samples)
            names, found = stage_features(model.module, inputs, self.hints, model.score_reader(inputs))
        return self._with_stages(model, names), found

    def features(self, model: Model, samples: Sequence[Sample]) -> list[Feature]:
        """The whole outputs of the layers for one batch."""
        with model.borrowed():
            root = unwrapped(model.module)
            targets = find_target_layers(root, self.located(model, samples).layers)
            inputs = model.batch(samples)
            read = model.score_reader(inputs)
            return features(root, _predicting(model, inputs, samples), targets, self.hints, read=read)


def _predicting(model: Model, inputs: NetworkInput, samples: Sequence[Sample]) -> NetworkInput:
    """The input that makes a detector predict, so that its heads run as modules; for other networks the input itself.

    A detector that lacks compiled operators runs as far as its neck.
    """
    detector = find_detector(model.module)
    if detector is None:
        return inputs
    try:
        return detector.prepared(inputs, samples)
    except InputError as error:
        log.debug('%s', error)
        return inputs


def matched_features(plan: Plan, models: Sequence[Model], views: Sequence[Sequence[Sample]]) -> list[list[Feature]]:
    """Layer matching: features of the same images in the layers of several models that correspond.

    Args:
        plan: The plan, with layers.
        models: The models.
        views: For each model the same images as it reads them.

    Returns:
        One list of features per model, all of the same length.

    Raises:
        InputError: If the models give different numbers of maps.
    """
    layers = [
        plan.layers if _same_modules(model, models[0]) else matching_layers(plan, model, samples)
        for model, samples in zip(models, views, strict=True)
    ]
    if plan.staged:  # the deepest stages correspond, as many as all networks have
        layers = [names[-min(map(len, layers)) :] for names in layers]
    every = []
    for model, samples, names in zip(models, views, layers, strict=True):
        mine = replace(plan, layers=names)
        sizes = {sample.image.shape for sample in samples}
        # One batch if that is possible: another batch size changes the last digits, and then the differences.
        groups = [list(samples)] if len(sizes) == 1 else [[sample] for sample in samples]
        every.append(_joined([mine.features(model, group) for group in groups]))
    for model, found in zip(models, every, strict=True):
        if len(found) != len(every[0]):
            raise InputError(
                f'{models[0].name} gives {counted(len(every[0]), "layer")} and {model.name} {len(found)}',
                hint=f'name as many layers as both have with {param("layers")}',
                parameter='compare',
            )
    return every


def matching_layers(plan: Plan, model: Model, samples: Sequence[Sample] | None) -> tuple[str | nn.Module, ...]:
    """The layers of a plan in a network of another architecture: its own stages, or the layers of the same names.

    Without ``samples`` stages cannot be found, and names that the network lacks are dropped.
    """
    if plan.staged and samples is not None:
        return replace(plan, layers=()).located(model, samples).layers
    try:
        find_target_layers(unwrapped(model.module), plan.layers)
    except InputError as error:
        if samples is None:
            return ()
        raise InputError(f'{model.name}: {error.problem}', hint=error.hint, parameter='compare') from error
    return plan.layers


def _same_modules(one: Model, other: Model) -> bool:
    """Whether two networks have modules of the same names, so that names mean the same in both."""
    names = [[name for name, _ in unwrapped(model.module).named_modules()] for model in (one, other)]
    return names[0] == names[1]


def _joined(parts: Sequence[Sequence[Feature]]) -> list[Feature]:
    if len(parts) == 1:
        return list(parts[0])
    sizes = {tuple(feature.maps.shape[1:] for feature in found) for found in parts}
    if len(sizes) > 1:
        raise InputError(
            'images of one batch reach the compared model in different sizes', hint=f'give {param("batch_size", "1")}'
        )
    return [replace(same[0], maps=torch.cat([each.maps for each in same])) for same in zip(*parts, strict=True)]

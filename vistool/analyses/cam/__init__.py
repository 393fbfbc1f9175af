"""Class activation maps: which pixels made the model say so.

The table of methods is in :mod:`~vistool.analyses.cam.methods`, what they explain in
:mod:`~vistool.analyses.cam.targets`, the one forward that most of them share in :mod:`~vistool.network.forward` and
:mod:`~vistool.analyses.cam.passes`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vistool.analyses.base import MapAnalysis
from vistool.analyses.cam import (
    finer,  # noqa: F401 (they register)
    gradcam_adapter,  # noqa: F401 (they register)
    maps,
)
from vistool.analyses.cam import perturbation as ablation  # noqa: F401 (they register)
from vistool.analyses.cam import perturbation as baselines  # noqa: F401 (they register)
from vistool.analyses.cam.methods import METHODS, Method, Needs, find_methods, method, running, titles_of
from vistool.analyses.cam.passes import own_maps, shared_maps
from vistool.analyses.cam.probe import Probe
from vistool.analyses.cam.report import Drawn, Report
from vistool.analyses.cam.targets import Goal, custom_goal, reference_goal
from vistool.data.samples import Sample
from vistool.errors import InputError, close_matches, param
from vistool.models.classes import Targets, resolve_classes
from vistool.models.model import Model
from vistool.models.subjects import as_model, as_samples
from vistool.network import forward as engine
from vistool.network.layer_search import layers_to_explain
from vistool.network.layers import find_layer, network_name
from vistool.network.outputs import has_classes, probabilities
from vistool.network.tensors import input_size, map_tensors
from vistool.network.tokens import TokenHints
from vistool.registry import ANALYSES
from vistool.results import Heatmaps

__all__ = ['CAM', 'METHODS', 'Method', 'Needs', 'Probe', 'method', 'running']

log = logging.getLogger('vistool')
FUSIONS = ('mean', 'max', 'none')


@ANALYSES.register_module()
@dataclass(frozen=True)
class CAM(MapAnalysis):
    """Class activation maps of several methods and classes from one forward.

    Attributes:
        methods: Names out of :data:`~vistool.analyses.cam.methods.METHODS`, case-insensitive; ``'all'`` means those
            that share the forward.
        targets: Class ids, class names, ``'topN'`` or ``'label'``; none means the predicted class, or the config's
            ``cam_target``.
        layers: Target layers in dotted form (``'backbone.layers[-1].ln1'``); none means the default for the network.
        aug_smooth: Average over six variants: mirrored or not, times 0.9, 1 and 1.1.
        eigen_smooth: Take the first principal component of the weighted activations instead of their sum.
        extra_tokens: Number of tokens before the grid, where it is not to be found by looking.
        tokens: True where the layers' output is to be read as tokens.
        layer_fusion: ``'mean'`` or ``'max'`` over several layers, or ``'none'``: a column for each.
        reference: An image (a path, a sample, or a tensor ``(C, H, W)``); the score is then the likeness of features to
            its own.
        score: A score that is no class's: a callable ``(output, samples) → (n,)``, or ``dict(type='Name', …)`` for one
            in :data:`~vistool.registry.CAM_TARGETS`.
        contrast: Classes that FinerCAM contrasts the target with; none means the three with the nearest scores.
        seed: Of RandomCAM.
    """

    methods: Sequence[str] = ('gradcam',)
    targets: Targets = ()
    layers: Sequence[str] = ()
    aug_smooth: bool = False
    eigen_smooth: bool = False
    extra_tokens: int | None = None
    tokens: bool | None = None
    layer_fusion: Literal['mean', 'max', 'none'] = 'mean'
    reference: Any = None
    score: Any = None
    contrast: Sequence[int | str] = ()
    seed: int = 0

    def __call__(self, model: Model | nn.Module, subject: Any) -> Any:
        """Explains one sample or a batch.

        Args:
            model: A loaded model, or any module.
            subject: A sample, a list of samples (one batch; a list of results comes back), or the network's input
                itself: a tensor ``(C, H, W)`` or ``(B, C, H, W)``, or a tuple or dict of such for a network with
                    several inputs.

        Returns:
            A :class:`~vistool.results.Heatmaps` of kind ``cam``, or a list of them. Maps are float32 in [0, 1] at the
            network's input size.

        Raises:
            InputError: If a method, class or layer does not exist or does not fit the model.
        """
        model = as_model(model)
        samples, single = as_samples(subject)
        methods = find_methods(self.methods)
        self._check()
        inputs = model.batch(samples)
        found = self._layers(model, methods, inputs)
        size, _ = input_size(inputs)
        views = map_tensors(maps.augment, inputs) if self.aug_smooth else inputs
        gradients = any(entry.gradients for entry in methods.values())
        said = TokenHints(self.extra_tokens, self.tokens)
        with engine.forward(model.module, views, found, gradients=gradients, hints=said) as run:
            scores = (
                run.scores[: len(samples)].detach() if run.scores is not None and has_classes(model.module) else None
            )
            goals = self._goals(model, samples, scores)
            if not goals and any(entry.shows_class for entry in methods.values()):
                raise _headless(model, methods)
            signed = shared_maps(run, methods, goals, self.eigen_smooth)
            values = [goal.values(run.output, run.count) for goal in goals]
        probe = Probe(model.module, views, run.layers, found, None, self.eigen_smooth, self.seed)
        signed |= own_maps(probe, methods, goals)
        drawn = {key: self._finish(layers, list(found), size) for key, layers in signed.items()}
        shares = None if scores is None else probabilities(model.module, scores).cpu()
        report = Report(model, methods, list(found), goals, shares, values, drawn, self._settings())
        results = [report.result(index, sample) for index, sample in enumerate(samples)]
        return results[0] if single else results

    @property
    def choices(self) -> Sequence[object]:
        """What the user chose, for file names."""
        variants = [name for name in ('aug_smooth', 'eigen_smooth') if getattr(self, name)]
        variants += [self.layer_fusion] if self.layer_fusion != 'mean' else []
        variants += [f'like-{Path(self.reference).stem}'] if isinstance(self.reference, (str, os.PathLike)) else []
        return [name.lower() for name in self.methods], self.targets, self.layers, variants

    def check(self, model: Model) -> None:
        """Checks the names of methods and what cannot be combined."""
        find_methods(self.methods)
        self._check()

    def follow(self, results: Sequence[Heatmaps], model: Model) -> CAM:
        """The same for another model, with the classes that each image's result shows.

        Layers that were named are kept where the other model has them; otherwise its own default is taken.
        """
        targets = [[target.id for target in result.targets if target.id is not None] for result in results]
        try:
            layers = [find_layer(model.module, name)[0] for name in self.layers]
        except InputError:
            layers = []
            log.warning('%s has no layer %s: its default is drawn', model.name, ', '.join(self.layers))
        return replace(self, targets=targets if any(targets) else (), layers=layers)

    def _check(self) -> None:
        if self.layer_fusion not in FUSIONS:
            raise InputError(
                f'unknown fusion {self.layer_fusion!r}',
                accepted=', '.join(FUSIONS),
                hint=close_matches(str(self.layer_fusion), FUSIONS),
                parameter='layer_fusion',
            )
        if self.reference is not None and (self.targets or self.score is not None):
            raise InputError(
                'the score is likeness to the reference, no class', hint='leave the target out', parameter='reference'
            )

    def _layers(self, model: Model, methods: Mapping[str, Method], inputs: Any) -> dict[str, nn.Module]:
        if all(Needs.NO_LAYER in entry.needs for entry in methods.values()):
            return {}
        names = list(self.layers) or model.cached('layers', None, lambda: layers_to_explain(model.module, inputs))
        if not names:
            raise InputError(
                f'no default layer is known for {network_name(model.module)}',
                hint=f'name one (list all with {param("preview_model")})',
                parameter='layers',
            )
        return dict(find_layer(model.module, name) for name in names)

    def _goals(self, model: Model, samples: Sequence[Sample], scores: Tensor | None) -> list[Goal]:
        """What the rows ask for; none for a network that gives no class scores where no other score is named."""
        if self.reference is not None:
            return [reference_goal(model, self.reference, samples)]
        custom = self.score if self.score is not None else (model.config or {}).get('cam_target')
        if custom is not None and not self.targets:
            return [custom_goal(custom, samples)]
        if scores is None:
            return []
        model.fit_classes(scores.shape[1])
        labels = [sample.label for sample in samples]
        classes = resolve_classes(self.targets, scores, model.classes, labels)
        similar = resolve_classes(self.contrast, scores, model.classes, labels) if self.contrast else None
        return [Goal(samples, classes=column, plain=scores, similar=similar) for column in classes.unbind(1)]

    def _finish(self, signed: list[Tensor], layers: Sequence[str], size: tuple[int, int]) -> list[Drawn]:
        if self.layer_fusion == 'none' and len(signed) > 1:
            return [self._draw([one], size, layer) for layer, one in zip(layers, signed, strict=True)]
        return [self._draw(signed, size)]

    def _draw(self, signed: list[Tensor], size: tuple[int, int], layer: str = '') -> Drawn:
        with torch.no_grad():
            unit, ranges = maps.finish(signed, size, 'max' if self.layer_fusion == 'max' else 'mean')
            if self.aug_smooth:
                unit, ranges = maps.merge(unit), None
        return Drawn(unit.float().cpu().numpy(), None if ranges is None else ranges.float().cpu().numpy(), layer)

    def _settings(self) -> dict[str, Any]:
        return {
            'aug_smooth': self.aug_smooth,
            'eigen_smooth': self.eigen_smooth,
            'extra_tokens': self.extra_tokens,
            'layer_fusion': self.layer_fusion,
            'similar': list(self.contrast),
        }


def _headless(model: Model, methods: Mapping[str, Method]) -> InputError:
    wanting = ', '.join(entry.title for entry in methods.values() if entry.shows_class)
    return InputError(
        f'{wanting} needs class scores, and {model.name} gives none (it has no classification head)',
        accepted=titles_of(lambda entry: not entry.shows_class),
        hint=f'or give an image to compare with ({param("reference")} IMG)',
        parameter='methods',
    )

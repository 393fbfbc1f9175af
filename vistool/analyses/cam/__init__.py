"""Class activation maps: which pixels made the model say so."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from vistool import recipe
from vistool.analyses.cam import engine, maps
from vistool.analyses.cam.methods import METHODS, Method, find_methods
from vistool.analyses.cam.targets import find_classes
from vistool.analyses.subjects import as_model, as_samples
from vistool.errors import InputError
from vistool.inputs import Sample
from vistool.layers import find_layer
from vistool.measuring import layers_to_explain
from vistool.models import Model, has_classes, probabilities
from vistool.registry import ANALYSES
from vistool.results import Heatmap, Heatmaps

__all__ = ['CAM', 'METHODS', 'Method']

log = logging.getLogger('vistool')


@ANALYSES.register_module()
@dataclass(frozen=True)
class CAM:
    """Class activation maps of several methods and classes from one forward.

    Attributes:
        methods: Names out of :data:`~vistool.analyses.cam.methods.METHODS`, case-insensitive.
        targets: Class ids, class names, ``'topN'`` or ``'label'``; none means the predicted class.
        layers: Target layers in dotted form (``'backbone.layers[-1].ln1'``); none means the default for the network. Several
            are averaged.
        aug_smooth: Average over six variants: mirrored or not, times 0.9, 1 and 1.1.
        eigen_smooth: Take the first principal component of the weighted activations instead of their sum.
        extra_tokens: Number of tokens before the grid, where it is not to be found by looking.
        tokens: True where the layers' output is to be read as tokens.
    """

    methods: Sequence[str] = ('gradcam',)
    targets: Sequence[int | str] = ()
    layers: Sequence[str] = ()
    aug_smooth: bool = False
    eigen_smooth: bool = False
    extra_tokens: int | None = None
    tokens: bool | None = None

    def __call__(self, model: Model | nn.Module, subject: Any) -> Any:
        """Explains one sample or a batch.

        Args:
            model: A loaded model, or any module.
            subject: A sample, a list of samples (one batch; a list of results comes back), or the network's input itself: a
                tensor ``(C, H, W)`` or ``(B, C, H, W)``, or a tuple or dict of such for a network with several inputs.

        Returns:
            A :class:`~vistool.results.Heatmaps` of kind ``cam``, or a list of them. Maps are float32 in [0, 1] at the network's
            input size.

        Raises:
            InputError: If a method, class or layer does not exist or does not fit the model.
        """
        model = as_model(model)
        samples, single = as_samples(subject)
        methods = find_methods(self.methods)
        inputs = model.batch(samples)
        found = dict(find_layer(model.module, name) for name in self.layers or self._defaults(model, inputs))
        size, count = engine.input_size(inputs)
        views = _augmented(inputs) if self.aug_smooth else inputs
        gradients = any(method.gradients for method in methods.values())
        said = engine.Tokens(self.extra_tokens, self.tokens)
        with engine.forward(model.module, views, found, gradients=gradients, tokens=said) as run:
            scores = None if run.scores is None or not has_classes(model.module) else run.scores
            if scores is None and gradients:
                raise _headless(model, methods)
            labels = [sample.label for sample in samples]
            classes = (
                None if scores is None else find_classes(self.targets, scores[:count].detach(), model.classes, labels)
            )
            drawn = self._maps(run, methods, classes, scores, size)
        results = _results(model, samples, methods, list(found), classes, scores, drawn, self._settings())
        return results[0] if single else results

    def follow(self, result: Heatmaps, model: Model) -> CAM:
        """The same for another model, with the classes that ``result`` shows.

        Layers that were named are kept where the other model has them; otherwise its own default is taken.
        """
        targets = [target['id'] for target in result.recipe['targets']]
        try:
            layers = [find_layer(model.module, name)[0] for name in self.layers]
        except InputError:
            layers = []
            log.warning('%s has no layer %s: its default is drawn', model.name, ', '.join(self.layers))
        return replace(self, targets=targets, layers=layers)

    def _defaults(self, model: Model, inputs: Any) -> list[str]:
        names = layers_to_explain(model.module, inputs)
        if not names:
            raise InputError(
                f'no default layer is known for {type(model.module).__name__}',
                hint='name one (list all with --preview-model)',
                argument='--target-layers',
            )
        log.info('target layer: %s (the default for this network)', ', '.join(names))
        return names

    def _settings(self) -> dict[str, Any]:
        return {'aug_smooth': self.aug_smooth, 'eigen_smooth': self.eigen_smooth, 'extra_tokens': self.extra_tokens}

    def _maps(
        self,
        run: engine.Forward,
        methods: Mapping[str, Method],
        classes: Tensor | None,
        scores: Tensor | None,
        size: tuple[int, int],
    ) -> dict[tuple[str, int | None], tuple[np.ndarray, np.ndarray | None]]:
        """(method, class column) → maps ``(B, H, W)`` and their ranges; class-free methods have the column None."""
        signed: dict[tuple[str, int | None], list[Tensor]] = {}
        values = [layer.map(layer.value) for layer in run.layers]
        for name, method in methods.items():
            if not method.gradients:
                signed[name, None] = [method(value, None, self.eigen_smooth) for value in values]
        columns = (
            () if classes is None or all(not method.gradients for method in methods.values()) else classes.unbind(1)
        )
        for number, column in enumerate(columns):
            assert scores is not None
            wanted = column.repeat(len(scores) // len(column))[:, None]
            gradients = run.gradients(scores.gather(1, wanted).sum(), last=number + 1 == len(columns))
            laid_out = [layer.map(gradient) for layer, gradient in zip(run.layers, gradients, strict=True)]
            for name, method in methods.items():
                if method.gradients:
                    pairs = zip(values, laid_out, strict=True)
                    signed[name, number] = [method(value, gradient, self.eigen_smooth) for value, gradient in pairs]
        return {key: self._finish(layers, size) for key, layers in signed.items()}

    def _finish(self, signed: list[Tensor], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray | None]:
        with torch.no_grad():
            unit, ranges = maps.finish(signed, size)
            if self.aug_smooth:
                unit, ranges = maps.merge(unit), None
        return unit.float().cpu().numpy(), None if ranges is None else ranges.float().cpu().numpy()


def _augmented(inputs: Any) -> Any:
    if isinstance(inputs, Mapping):
        return {name: _augmented(tensor) for name, tensor in inputs.items()}
    if isinstance(inputs, (tuple, list)):
        return tuple(_augmented(tensor) for tensor in inputs)
    return maps.augment(inputs)


def _headless(model: Model, methods: Mapping[str, Method]) -> InputError:
    wanting = ', '.join(method.title for method in methods.values() if method.gradients)
    free = ', '.join(entry.title for entry in METHODS.values() if not entry.gradients)
    return InputError(
        f'{wanting} needs class scores, and {model.name} gives none (it has no classification head)',
        accepted=free,
        argument='--method',
    )


def _results(
    model: Model,
    samples: Sequence[Sample],
    methods: Mapping[str, Method],
    layers: Sequence[str],
    classes: Tensor | None,
    scores: Tensor | None,
    drawn: Mapping[tuple[str, int | None], tuple[np.ndarray, np.ndarray | None]],
    settings: Mapping[str, Any],
) -> list[Heatmaps]:
    """One result per sample: classes down, methods across; class-free methods repeat in no row but the first."""
    group = '+'.join(layers)
    shares = None if scores is None else probabilities(model.module, scores.detach()[: len(samples)]).cpu()
    results = []
    for index, sample in enumerate(samples):
        targets = _named(model, index, classes, shares)
        entries = []
        for number in range(max(1, len(targets))):
            for name, method in methods.items():
                column = number if (name, number) in drawn else None
                if column is None and number:
                    continue
                values, ranges = drawn[name, column]
                flat = values[index].max() == 0
                entries.append(
                    Heatmap(
                        values=values[index],
                        name='/'.join([name, *([targets[number]['name']] if targets and column is not None else [])]),
                        group=group,
                        row=f'{targets[number]["name"]} {targets[number]["score"]:.2f}' if targets else '',
                        column=method.title,
                        range=None if ranges is None else (float(ranges[index, 0]), float(ranges[index, 1])),
                        note='no positive evidence' if flat else '',
                    )
                )
        wrong = shares is not None and sample.label is not None and int(shares[index].argmax()) != sample.label
        results.append(
            Heatmaps(
                kind='cam',
                image=sample.image,
                maps=tuple(entries),
                original=sample.original,
                geometry=sample.geometry,
                caption=f'{model.name} · {group}',
                ground_truth=model.class_name(sample.label) if wrong and sample.label is not None else '',
                recipe={
                    'analysis': 'cam',
                    **model.provenance(),
                    'methods': [method.title for method in methods.values()],
                    'layers': list(layers),
                    'targets': targets,
                    **settings,
                    **recipe.of_sample(sample),
                    'versions': recipe.versions(),
                },
            )
        )
    return results


def _named(model: Model, index: int, classes: Tensor | None, shares: Tensor | None) -> list[dict[str, Any]]:
    if classes is None or shares is None:
        return []
    ids = classes[index].tolist()
    return [
        {'id': class_id, 'name': model.class_name(class_id), 'score': float(shares[index, class_id])}
        for class_id in ids
    ]

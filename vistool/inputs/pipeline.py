"""Which pipeline a config means, and building it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from vistool.errors import InputError
from vistool.inputs.multiple import MultiPipeline
from vistool.inputs.reader import Pipeline

__all__ = ['Pipeline', 'build_pipeline', 'build_transforms', 'find_pipeline']

_logger = logging.getLogger('vistool')


def build_pipeline(config: Any, phase: str = 'test', data_preprocessor: Any = None) -> Pipeline | MultiPipeline:
    """The pipeline that a config runs its images through.

    Args:
        config: An mmengine Config.
        phase: ``test`` falls back on ``val`` and on ``test_pipeline``, then on a resize and centre crop to the model's
            input size, with a warning; ``val`` and ``train`` are taken as they are named.
        data_preprocessor: The model's, built; default: as the config describes it.

    Raises:
        InputError: A transform cannot be built.
    """
    scope = config.get('default_scope')
    if data_preprocessor is None:
        data_preprocessor = (config.get('model') or {}).get('data_preprocessor') or config.get('data_preprocessor')
    if config.get('inputs'):
        return _several(config['inputs'], scope)
    steps = find_pipeline(config, phase)
    if steps is None:
        steps = _fallback(config, phase)
    return Pipeline(build_transforms(steps, scope), data_preprocessor)


def _several(inputs: Any, scope: str | None) -> MultiPipeline:
    """The pipelines of a network with several inputs: ``inputs = dict(NAME=dict(pipeline=[…]))``, or a list of such."""
    named = dict(inputs) if isinstance(inputs, Mapping) else {str(number): each for number, each in enumerate(inputs)}
    for name, each in named.items():
        if not isinstance(each, Mapping) or not each.get('pipeline'):
            raise InputError(
                f'the input {name} has no pipeline', accepted=f'{name}=dict(pipeline=[…])', argument='config'
            )
    pipelines = {name: Pipeline(build_transforms(each['pipeline'], scope)) for name, each in named.items()}
    return MultiPipeline(pipelines, positional=not isinstance(inputs, Mapping))


def find_pipeline(config: Any, phase: str = 'test') -> Sequence[Any] | None:
    """The pipeline's config for a phase, through any dataset wrappers; None where the config has none."""
    for name in ('test', 'val') if phase == 'test' else (phase,):
        loader = config.get(f'{name}_dataloader')
        if loader and (found := _pipeline_of(loader.get('dataset'))) is not None:
            return found
    for name in ('test', 'val') if phase == 'test' else (phase,):
        if config.get(f'{name}_pipeline'):
            return config[f'{name}_pipeline']
    return None


def build_transforms(steps: Sequence[Any], scope: str | None) -> list[Any]:
    """Build transforms from their configs in a scope; ready-made callables are taken as they are."""
    from mmengine.registry import TRANSFORMS, DefaultScope

    scope = 'mmpretrain' if scope == 'mmcls' else scope
    if scope == 'mmpretrain':
        import mmpretrain.datasets.transforms  # noqa: F401  registers its transforms
    else:
        import mmcv.transforms  # noqa: F401  registers its transforms
    built = []
    with DefaultScope.overwrite_default_scope(scope) if scope else nullcontext():
        for step in steps:
            if not isinstance(step, Mapping):
                built.append(step)
                continue
            try:
                built.append(TRANSFORMS.build(dict(step)))
            except Exception as error:
                text = ' '.join(str(error).split())
                raise InputError(
                    f'the pipeline step {step.get("type")} cannot be built: {text}',
                    hint='a transform of your own needs custom_imports in the config',
                ) from error
    return built


def _pipeline_of(dataset: Any) -> Sequence[Any] | None:
    """A dataset's pipeline; wrappers hold one dataset or several."""
    while isinstance(dataset, Mapping):
        if dataset.get('pipeline'):
            return dataset['pipeline']
        inner = dataset.get('dataset') or dataset.get('datasets')
        dataset = inner[0] if isinstance(inner, (list, tuple)) and inner else inner
    return None


def _fallback(config: Any, phase: str) -> list[Any]:
    """Short side to the model's input size, then a centre crop."""
    backbone = (config.get('model') or {}).get('backbone') or {}
    size = backbone.get('img_size') or 224
    height, width = (size, size) if isinstance(size, int) else (int(size[0]), int(size[-1]))
    _logger.warning(
        'the config has no %s pipeline: images are resized and centre-cropped to %dx%d', phase, height, width
    )
    return [
        {'type': 'LoadImageFromFile'},
        Cover((height, width)),
        {'type': 'CenterCrop', 'crop_size': (width, height)},
        Pack(),
    ]


class Cover:
    """Resize so that the image just covers a size, aspect ratio kept."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        import mmcv

        h, w = results['img'].shape[:2]
        scale = max(self.size[0] / h, self.size[1] / w)
        new = max(self.size[1], round(w * scale)), max(self.size[0], round(h * scale))
        results['img'] = mmcv.imresize(results['img'], new)
        return results


class Pack:
    """The image as the tensor ``inputs``."""

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        import numpy as np
        import torch

        image = np.ascontiguousarray(results['img'].transpose(2, 0, 1))
        return {'inputs': torch.from_numpy(image), 'data_samples': None}

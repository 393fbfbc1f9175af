"""Configs for models that come without one: their own data config says how a picture is prepared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vistool.errors import InputError, close_matches

if TYPE_CHECKING:
    from mmengine.config import Config

IMAGENET_CLASSES = 1000


def timm_config(name: str) -> Config:
    """The config of ``timm::NAME``: mmpretrain's ``TimmClassifier``, random weights, timm's evaluation transform.

    Raises:
        InputError: If timm is missing or knows no such model.
    """
    try:
        import timm
        from timm.data import resolve_data_config
    except ImportError as error:
        raise InputError(f'timm::{name} needs timm', hint='pip install timm', argument='config') from error
    try:
        pretrained = timm.models.get_pretrained_cfg(name) if timm.is_model(name) else None
    except RuntimeError:  # a known model, an unknown tag behind the dot
        pretrained = None
    if pretrained is None:
        hint = close_matches(name, [*timm.list_models(), *timm.list_pretrained()])
        raise InputError(f'timm knows no model {name}', hint=hint or 'see timm.list_models()', argument='config')
    data = resolve_data_config(pretrained_cfg=pretrained.to_dict())
    model = {'type': 'TimmClassifier', 'model_name': name, 'pretrained': False}
    steps = evaluation_steps(data['input_size'][1:], data['crop_pct'], data['interpolation'], data['crop_mode'])
    return evaluation_config(model, steps, data['mean'], data['std'], _timm_classes(pretrained))


def _timm_classes(pretrained: Any) -> list[str]:
    """Class names by id, each a list of synonyms where timm knows the dataset; ``[]`` where it says none."""
    from timm.data import ImageNetInfo, infer_imagenet_subset

    own = pretrained.label_descriptions or pretrained.label_names
    if own:
        return [own[name] for name in pretrained.label_names] if isinstance(own, Mapping) else list(own)
    subset = infer_imagenet_subset({'num_classes': pretrained.num_classes})
    return list(ImageNetInfo(subset).label_descriptions()) if subset else []


def evaluation_steps(
    size: tuple[int, int], crop: float, interpolation: str, mode: str = 'center'
) -> list[dict[str, Any]]:
    """The usual evaluation transform as mmpretrain's: resize by pillow, then crop the centre.

    Args:
        size: Network input ``(H, W)`` in pixels.
        crop: Share of the resized picture's side that is kept, in (0, 1].
        interpolation: Pillow's name for it; ``'random'`` becomes bilinear.
        mode: ``'squash'`` resizes to ``size / crop`` whatever the aspect ratio; anything else keeps the ratio.
    """
    height, width = (math.floor(side / crop) for side in size)
    interpolation = 'bilinear' if interpolation == 'random' else interpolation
    return picture_steps((height, width) if mode == 'squash' or height != width else height, size, interpolation)


def picture_steps(
    resize: int | tuple[int, int] | None, crop: tuple[int, int] | None, interpolation: str
) -> list[dict[str, Any]]:
    """Loading, resizing by pillow, cropping the centre, packing.

    Args:
        resize: The short side in pixels, or ``(H, W)`` whatever the aspect ratio, or None.
        crop: ``(H, W)`` or None.
        interpolation: Pillow's name for it.
    """
    how = {'backend': 'pillow', 'interpolation': interpolation}
    steps: list[dict[str, Any]] = [{'type': 'LoadImageFromFile'}]
    if isinstance(resize, int):
        steps.append({'type': 'ResizeEdge', 'scale': resize, 'edge': 'short', **how})
    elif resize is not None:
        steps.append({'type': 'Resize', 'scale': (resize[1], resize[0]), **how})
    if crop is not None:
        steps.append({'type': 'CenterCrop', 'crop_size': (crop[1], crop[0])})  # mmcv's order
    return [*steps, {'type': 'PackInputs'}]


def evaluation_config(
    model: Mapping[str, Any],
    steps: list[dict[str, Any]],
    mean: Sequence[float],
    std: Sequence[float],
    classes: Sequence[str],
) -> Config:
    """A config for looking at ``model`` on pictures prepared by ``steps``.

    Args:
        model: Its ``model`` entry.
        steps: Its test pipeline.
        mean: Of each RGB channel, pixels being in [0, 1].
        std: Likewise.
        classes: Names by id; none where they are unknown. A thousand are ImageNet's.
    """
    from mmengine.config import Config

    entries: dict[str, Any] = {
        'default_scope': 'mmpretrain',
        'model': dict(model),
        'data_preprocessor': {
            'mean': [255 * value for value in mean],
            'std': [255 * value for value in std],
            'to_rgb': True,
        },
        'test_pipeline': steps,
    }
    if classes:
        dataset: dict[str, Any] = {'type': 'CustomDataset', 'data_root': 'data/val', 'pipeline': steps}
        if len(classes) == IMAGENET_CLASSES:
            dataset |= {'type': 'ImageNet', 'data_root': 'data/imagenet', 'split': 'val'}
        dataset['metainfo'] = {'classes': tuple(classes)}
        sampler = {'type': 'DefaultSampler', 'shuffle': False}
        entries['test_dataloader'] = {'batch_size': 32, 'num_workers': 2, 'dataset': dataset, 'sampler': sampler}
    return Config(entries)

"""Configs for models that have none: their own data config describes the preprocessing."""

from __future__ import annotations

import contextlib
import logging
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Gt, Le, Len, Predicate
from typing_extensions import TypedDict

from vistool.data.samples import images_below
from vistool.errors import InputError, close_matches
from vistool.records import checked, read_json, shown

if TYPE_CHECKING:
    from mmengine.config import Config

log = logging.getLogger('vistool')

IMAGENET_CLASSES = 1000


def timm_config(name: str) -> Config:
    """The config of ``timm::NAME``: mmpretrain's ``TimmClassifier``, random weights, timm's evaluation transform.

    Raises:
        InputError: timm is missing or has no such model.
    """
    try:
        import timm
        from timm.data import resolve_data_config
    except ImportError as error:
        raise InputError(f'timm::{name} needs timm', hint='pip install timm', parameter='config') from error
    try:
        pretrained = timm.models.get_pretrained_cfg(name) if timm.is_model(name) else None
    except RuntimeError:  # a known model with an unknown tag after the dot
        pretrained = None
    if pretrained is None:
        hint = close_matches(name, [*timm.list_models(), *timm.list_pretrained()])
        raise InputError(f'timm has no model {name}', hint=hint or 'see timm.list_models()', parameter='config')
    data = resolve_data_config(pretrained_cfg=pretrained.to_dict())
    model = {'type': 'TimmClassifier', 'model_name': name, 'pretrained': False}
    steps = evaluation_steps(data['input_size'][1:], data['crop_pct'], data['interpolation'], data['crop_mode'])
    return evaluation_config(model, steps, data['mean'], data['std'], _timm_classes(pretrained))


def _timm_classes(pretrained: Any) -> list[str]:
    """Class names by id, each a list of synonyms if timm knows the dataset; ``[]`` if it names none."""
    from timm.data import ImageNetInfo, infer_imagenet_subset

    own = pretrained.label_descriptions or pretrained.label_names
    if own:
        return [own[name] for name in pretrained.label_names] if isinstance(own, Mapping) else list(own)
    subset = infer_imagenet_subset({'num_classes': pretrained.num_classes})
    return list(ImageNetInfo(subset).label_descriptions()) if subset else []


def evaluation_steps(
    size: tuple[int, int], crop: float, interpolation: str, mode: str = 'center'
) -> list[dict[str, Any]]:
    """The usual evaluation transform as mmpretrain's steps: resize with pillow, then crop the center.

    Args:
        size: Network input ``(H, W)`` in pixels.
        crop: Share of the resized image's side that is kept, in (0, 1].
        interpolation: Its name in pillow; ``'random'`` becomes bilinear.
        mode: ``'squash'`` resizes to ``size / crop`` and ignores the aspect ratio; any other mode keeps it.
    """
    height, width = (math.floor(side / crop) for side in size)
    interpolation = 'bilinear' if interpolation == 'random' else interpolation
    return image_steps((height, width) if mode == 'squash' or height != width else height, size, interpolation)


def image_steps(
    resize: int | tuple[int, int] | None, crop: tuple[int, int] | None, interpolation: str
) -> list[dict[str, Any]]:
    """Loading, resizing with pillow, cropping the center, packing.

    Args:
        resize: The short side in pixels, or ``(H, W)`` regardless of the aspect ratio, or None.
        crop: ``(H, W)`` or None.
        interpolation: Its name in pillow.
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
    """A config of ``model`` whose images are preprocessed by ``steps``.

    Args:
        model: Its ``model`` entry.
        steps: Its test pipeline.
        mean: Mean of each RGB channel, for pixels in [0, 1].
        std: Standard deviation of each RGB channel, for pixels in [0, 1].
        classes: Names by id; empty if they are unknown. A thousand names are taken to be ImageNet's.
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


def folder_config(folder: Path) -> Config | None:
    """The config of a folder of images as a dataset, which is shown as it is; None if it has no images.

    Images in folders of their own (``cat/1.jpg``) have the folder's name as their class.
    """
    from mmengine.config import Config

    photos = images_below(folder)
    if not photos:
        return None
    labeled = all(len(path.relative_to(folder).parts) > 1 for path in photos)
    dataset = {
        'type': 'vistool.ImageFolder',
        'data_root': str(folder),
        'with_label': labeled,
        'pipeline': [{'type': 'vistool.LoadImageOfFolder'}, {'type': 'PackInputs'}],
    }
    loader = {'batch_size': 1, 'num_workers': 0, 'dataset': dataset}
    return Config({'default_scope': 'mmpretrain', 'train_dataloader': loader})


def named(name: str) -> list[str]:
    """What to write for a model that timm or torchvision has under a bare name, such as ``timm::resnet50``."""
    found = []
    if re.fullmatch(r'\w+(\.\w+)?', name):
        with contextlib.suppress(ImportError):
            import timm

            found += ['timm'] if timm.is_model(name) else []
        from torchvision import models

        found += ['torchvision'] if name in models.list_models() else []
    return [f'{scheme}::{name}' for scheme in found]


def torchvision_config(name: str) -> Config:
    """The config of ``torchvision::NAME`` or ``torchvision::NAME.WEIGHTS``, with the preprocessing of its weights.

    Nothing is downloaded: the weights only determine the preprocessing. ``WEIGHTS``, such as ``IMAGENET1K_V1``,
    defaults to torchvision's best.

    Raises:
        InputError: torchvision has no such classifier, detector or segmenter, or no such weights.
    """
    from torchvision import models

    name, _, tag = name.partition('.')
    detectors, segmenters = (models.list_models(module=each) for each in (models.detection, models.segmentation))
    known = [*models.list_models(module=models), *detectors, *segmenters]
    if name not in known:
        hint = close_matches(name, known) or 'see torchvision.models.list_models()'
        raise InputError(f'torchvision has no classifier, detector or segmenter {name}', hint=hint, parameter='config')
    weights = models.get_model_weights(name)
    if tag and tag not in weights.__members__:
        tags = ', '.join(weights.__members__)
        raise InputError(f'torchvision has no weights {tag} for {name}', accepted=tags, parameter='config')
    chosen: Any = weights[tag or 'DEFAULT']
    transform = chosen.transforms()
    if name in detectors:  # they resize and normalize themselves
        model: dict[str, Any] = {'type': 'vistool.TorchvisionDetector', 'model_name': name}
        return evaluation_config(model, image_steps(None, None, ''), (0.0,) * 3, (1.0,) * 3, chosen.meta['categories'])
    if name in segmenters:
        steps = image_steps(transform.resize_size[0], None, transform.interpolation.value)
        model = {'type': 'vistool.TorchvisionSegmenter', 'model_name': name}
        if not name.startswith('lraspp'):  # torchvision's own weights hold an auxiliary head
            model['aux_loss'] = True
        return evaluation_config(model, steps, transform.mean, transform.std, chosen.meta['categories'])
    side = transform.crop_size[0]
    resize = transform.resize_size
    steps = image_steps(
        resize[0] if len(resize) == 1 else tuple(resize), (side, transform.crop_size[-1]), transform.interpolation.value
    )
    model = {'type': 'vistool.TorchvisionClassifier', 'model_name': name}
    return evaluation_config(model, steps, transform.mean, transform.std, chosen.meta['categories'])


_AGAIN = 'download it again'
_LARGEST_NUMBER, _MOST_LAYERS = 10_000_000, 1000
_COUNTS_OF_LAYERS = ('num_hidden_layers', 'depths', 'num_attention_heads', 'num_heads')


def _is_class_id(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10


Side = Annotated[int, Ge(1), Le(16_384)]
"""Pixels of one side of an image."""


class ShortestEdge(TypedDict):
    """A size by its short side."""

    shortest_edge: Side


class Rectangle(TypedDict):
    """A size by both sides."""

    height: Side
    width: Side


Size = Side | Annotated[list[Side], Len(1, 2)] | ShortestEdge | Rectangle
Numbers = Annotated[list[float], Len(1, 16)]


class ModelSettings(TypedDict, total=False):
    """What is read here of a model's ``config.json``."""

    model_type: str | None
    architectures: list[str] | None
    id2label: dict[Annotated[str, Predicate(_is_class_id)], str] | None
    image_size: Size | None


class ProcessorSettings(TypedDict, total=False):
    """What is read of a ``preprocessor_config.json``."""

    size: Size | Annotated[dict[str, Any], Len(0, 0)] | None
    crop_size: Size | None
    crop_pct: Annotated[float, Ge(0.01), Le(4)] | None
    resample: int | None
    image_mean: Numbers | None
    image_std: Annotated[list[Annotated[float, Gt(0)]], Len(1, 16)] | None
    rescale_factor: Annotated[float, Gt(0)] | None
    do_resize: bool | None
    do_center_crop: bool | None
    do_rescale: bool | None
    do_normalize: bool | None
    image_processor: dict[str, Any] | None


WEIGHTS = (
    'model.safetensors',
    'model.safetensors.index.json',
    'pytorch_model.bin',
    'pytorch_model.bin.index.json',
)
"""Files with weights, or indices of several such files, in order of preference."""
RESAMPLE = ('nearest', 'lanczos', 'bilinear', 'bicubic', 'box', 'hamming')
"""Pillow's filters by their number."""
HALF = (0.5, 0.5, 0.5)


def huggingface_config(folder: Path) -> tuple[Config, str | None]:
    """The config of a folder with a ``config.json``, and the path of its weights if it has any.

    The preprocessing is that of its ``preprocessor_config.json``; class names come from ``id2label``. A folder with a
    backbone only gives a model without a head.

    Raises:
        InputError: There is no such folder or config, or the model needs its own code.
    """
    if not (folder / 'config.json').is_file():
        what = 'has no config.json' if folder.is_dir() else 'is not a folder'
        raise InputError(
            f'hf::{folder} {what}',
            accepted='a local folder with a config.json',
            hint='models on the Hub have to be downloaded first (hf download NAME --local-dir FOLDER)',
            parameter='config',
        )
    path = folder / 'config.json'
    settings = read_json(path, ModelSettings, 'config', _AGAIN)
    _refuse_huge(settings, path)
    kind = _wrapper_of(settings, folder)
    model: dict[str, Any] = {'type': f'vistool.{kind}', 'model_name': str(folder)}
    labels = settings.get('id2label') or {}
    classes = [labels[key] for key in sorted(labels, key=int)]
    named = settings.get('architectures') or ['Classification']
    headless = kind == 'HuggingFaceBackbone' or not any('Classification' in name for name in named)
    if headless and kind not in _DENSE_WRAPPERS.values():
        model['num_labels'], classes = 0, []
    steps, mean, std = _preprocessing(folder, settings)
    return evaluation_config(model, steps, mean, std, classes), _weights(folder)


_DENSE_WRAPPERS = {
    'ForObjectDetection': 'HuggingFaceDetector',
    'ForSemanticSegmentation': 'HuggingFaceSegmenter',
    'ForUniversalSegmentation': 'HuggingFaceUniversalSegmenter',
    'MaskFormerForInstanceSegmentation': 'HuggingFaceUniversalSegmenter',
}
"""How the name of a detector or segmenter of transformers ends → what holds it."""


def _refuse_huge(settings: Mapping[str, Any], path: Path) -> None:
    """Sizes that transformers would build without a question: no network has them, and no machine could hold it."""
    for name, value in settings.items():
        limit = _MOST_LAYERS if name in _COUNTS_OF_LAYERS else _LARGEST_NUMBER
        for number in value if isinstance(value, list) else [value]:
            negative = name.endswith(('_size', '_channels', '_heads')) and isinstance(number, int) and number < 0
            if negative or (isinstance(number, (int, float)) and abs(number) > limit):
                raise InputError(
                    f'{path}: the field {name!r} is {shown(value)}',
                    accepted=f'at most {limit:,}',
                    hint=_AGAIN,
                    parameter='config',
                )


def _wrapper_of(settings: Mapping[str, Any], folder: Path) -> str:
    """What holds the model of a folder: a classifier, or a backbone where transformers has no classifier of its kind.

    Raises:
        InputError: It is neither in the installed transformers, or needs its own code.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as classifiers

    kind = settings.get('model_type')
    named = (settings.get('architectures') or [''])[0]
    for ending, wrapper in _DENSE_WRAPPERS.items():
        if named.endswith(ending):
            return wrapper
    if kind in classifiers:
        return 'HuggingFaceClassifier'
    if _is_backbone(settings):
        return 'HuggingFaceBackbone'
    own = (
        'needs its own code (auto_map), which is not run'
        if 'auto_map' in settings
        else 'is not an image classifier or backbone'
    )
    raise InputError(
        f'hf::{folder}: its model_type {kind!r} {own} in the installed transformers',
        hint='load it in Python and pass the module to vistool.load()',
        parameter='config',
    )


def _is_backbone(settings: Mapping[str, Any]) -> bool:
    """Whether a config describes a network of transformers that takes one image and has no head for another task."""
    from transformers import CONFIG_MAPPING, MODEL_MAPPING

    kind, named = str(settings.get('model_type')), settings.get('architectures') or ['Model']
    if kind not in CONFIG_MAPPING or 'num_frames' in settings or not named[0].endswith(('Model', 'Backbone')):
        return False
    known = MODEL_MAPPING.get(CONFIG_MAPPING[kind], None)
    return getattr(known, 'main_input_name', '') == 'pixel_values'


def _weights(folder: Path) -> str | None:
    return next((str(folder / name) for name in WEIGHTS if (folder / name).is_file()), None)


def _preprocessing(
    folder: Path, settings: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], Sequence[float], Sequence[float]]:
    """The steps of ``preprocessor_config.json``, and mean and standard deviation for pixels in [0, 1]."""
    path = folder / 'preprocessor_config.json'
    if not path.is_file():
        size = _size(settings.get('image_size') or 224)
        log.warning(
            '%s has no preprocessor_config.json: images are resized to %d×%d, with mean and standard deviation 0.5',
            folder,
            *size,
        )
        return image_steps(size, None, 'bilinear'), HALF, HALF
    outer = read_json(path, ProcessorSettings, 'config', _AGAIN)
    inner = checked(outer.get('image_processor') or {}, ProcessorSettings, f'{path}, image_processor', 'config', _AGAIN)
    processor: dict[str, Any] = {**outer, **inner}
    resize, crop = _resize(processor), None
    within: dict[str, Any] = {}
    if processor.get('do_center_crop') and processor.get('crop_size'):
        crop = _size(processor['crop_size'])
    elif isinstance(resize, int) and processor.get('crop_pct'):
        crop = (resize, resize)
        resize = int(resize / processor['crop_pct'])
    elif isinstance(resize, int) and (settings.get('architectures') or [''])[0].endswith(tuple(_DENSE_WRAPPERS)):
        given = processor.get('size')
        longest = given.get('longest_edge') if isinstance(given, Mapping) else None
        within = {'type': 'vistool.ResizeWithin', 'shortest': resize, 'longest': longest}
    elif isinstance(resize, int):
        log.warning('%s: images keep their aspect ratio, so they differ in size', path)
    chosen = processor.get('resample', 2)
    filter_name = RESAMPLE[chosen] if isinstance(chosen, int) and 0 <= chosen < len(RESAMPLE) else 'bilinear'
    mean, std = processor.get('image_mean') or HALF, processor.get('image_std') or HALF
    if processor.get('do_normalize') is False:
        mean, std = (0.0,) * 3, (1.0,) * 3
    unit = 255 * (processor.get('rescale_factor') or 1 / 255) if processor.get('do_rescale', True) else 255.0
    steps = image_steps(None if within else resize, crop, filter_name)
    if within:
        steps.insert(1, {**within, 'interpolation': filter_name})
    return steps, [m / unit for m in mean], [s / unit for s in std]


def _resize(processor: Mapping[str, Any]) -> int | tuple[int, int] | None:
    """The short side, or ``(H, W)``, or None, from the several forms that transformers has used."""
    if processor.get('do_resize') is False or not processor.get('size'):
        return None
    size = processor['size']
    if isinstance(size, Mapping) and 'shortest_edge' in size:
        size = int(size['shortest_edge'])
    elif not (isinstance(size, int) and (processor.get('crop_pct') or _keeps_ratio(processor))):
        return _size(size)
    # ConvNeXt's rule: small images are cropped; from 384 pixels on their aspect ratio is ignored.
    return (size, size) if processor.get('crop_pct') and size >= 384 else size


def _keeps_ratio(processor: Mapping[str, Any]) -> bool:
    kind = str(processor.get('image_processor_type') or processor.get('feature_extractor_type') or '')
    return kind.startswith(('CLIP', 'ConvNext', 'Levit', 'MobileNet', 'MobileViT', 'PoolFormer'))


def _size(value: Any) -> tuple[int, int]:
    if isinstance(value, Mapping):
        if 'shortest_edge' in value:
            return int(value['shortest_edge']), int(value['shortest_edge'])
        return int(value['height']), int(value['width'])
    return (int(value), int(value)) if isinstance(value, (int, float)) else (int(value[0]), int(value[-1]))

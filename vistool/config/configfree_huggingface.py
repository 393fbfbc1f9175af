"""``hf::FOLDER``: a model folder as Hugging Face lays it out, read from the disk alone."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vistool.config.configfree import evaluation_config, picture_steps
from vistool.errors import InputError

if TYPE_CHECKING:
    from mmengine.config import Config

log = logging.getLogger('vistool')

WEIGHTS = (
    'model.safetensors',
    'model.safetensors.index.json',
    'pytorch_model.bin',
    'pytorch_model.bin.index.json',
)
"""Files of weights, or of the names of several such files, the best first."""
RESAMPLE = ('nearest', 'lanczos', 'bilinear', 'bicubic', 'box', 'hamming')
"""Pillow's names for its filters, by their number."""
HALF = (0.5, 0.5, 0.5)


def huggingface_config(folder: Path) -> tuple[Config, str | None]:
    """The config of a folder with a ``config.json``, and the path of its weights if it holds any.

    Pictures are prepared as its ``preprocessor_config.json`` says; class names are ``id2label``'s. A folder of a bare
    backbone gives a headless model.

    Raises:
        InputError: If there is no such folder or config, or the model brings its own code.
    """
    if not (folder / 'config.json').is_file():
        what = 'has no config.json' if folder.is_dir() else 'is no folder'
        raise InputError(
            f'hf::{folder} {what}',
            accepted='a local folder with a config.json',
            hint='models on the Hub have to be downloaded first (hf download NAME --local-dir FOLDER)',
            argument='config',
        )
    settings = _read(folder / 'config.json')
    _refuse_unknown(settings, folder)
    model: dict[str, Any] = {'type': 'vistool.HuggingFaceClassifier', 'model_name': str(folder)}
    labels: Mapping[str, str] = settings.get('id2label') or {}
    classes = [labels[key] for key in sorted(labels, key=int)]
    if not any('Classification' in name for name in settings.get('architectures') or ['Classification']):
        model['num_labels'], classes = 0, []
    steps, mean, std = _preparation(folder, settings)
    return evaluation_config(model, steps, mean, std, classes), _weights(folder)


def _refuse_unknown(settings: Mapping[str, Any], folder: Path) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as known

    kind = settings.get('model_type')
    if kind not in known:
        own = 'brings its own code (auto_map), which is not run' if 'auto_map' in settings else 'is no image classifier'
        raise InputError(
            f'hf::{folder}: its model_type {kind!r} {own}, as far as the installed transformers knows',
            hint='load it in Python and hand the module to vistool.load()',
            argument='config',
        )


def _weights(folder: Path) -> str | None:
    return next((str(folder / name) for name in WEIGHTS if (folder / name).is_file()), None)


def _preparation(
    folder: Path, settings: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], Sequence[float], Sequence[float]]:
    """The steps of ``preprocessor_config.json``, and mean and standard deviation for pixels in [0, 1]."""
    path = folder / 'preprocessor_config.json'
    if not path.is_file():
        size = _size(settings.get('image_size') or 224)
        log.warning(
            '%s has no preprocessor_config.json: pictures are resized to %d×%d, with mean and deviation 0.5',
            folder,
            *size,
        )
        return picture_steps(size, None, 'bilinear'), HALF, HALF
    said = _read(path)
    said = {**said, **said.get('image_processor', {})}
    resize, crop = _resize(said), None
    if said.get('do_center_crop') and said.get('crop_size'):
        crop = _size(said['crop_size'])
    elif isinstance(resize, int) and said.get('crop_pct'):
        crop = (resize, resize)
        resize = int(resize / said['crop_pct'])
    elif isinstance(resize, int):
        log.warning('%s: pictures keep their aspect ratio, so they differ in size', path)
    chosen = said.get('resample', 2)
    filter_name = RESAMPLE[chosen] if isinstance(chosen, int) and 0 <= chosen < len(RESAMPLE) else 'bilinear'
    mean, std = said.get('image_mean') or HALF, said.get('image_std') or HALF
    if said.get('do_normalize') is False:
        mean, std = (0.0,) * 3, (1.0,) * 3
    unit = 255 * said.get('rescale_factor', 1 / 255) if said.get('do_rescale', True) else 255.0
    return picture_steps(resize, crop, filter_name), [m / unit for m in mean], [s / unit for s in std]


def _resize(said: Mapping[str, Any]) -> int | tuple[int, int] | None:
    """The short side, or ``(H, W)``, or None, from the several ways in which it has been written over the years."""
    if said.get('do_resize') is False or not said.get('size'):
        return None
    size = said['size']
    if isinstance(size, Mapping) and 'shortest_edge' in size:
        size = int(size['shortest_edge'])
    elif not (isinstance(size, int) and (said.get('crop_pct') or _keeps_ratio(said))):
        return _size(size)
    # ConvNeXt's rule: small pictures are cropped, from 384 pixels on they are squashed.
    return (size, size) if said.get('crop_pct') and size >= 384 else size


def _keeps_ratio(said: Mapping[str, Any]) -> bool:
    kind = str(said.get('image_processor_type') or said.get('feature_extractor_type') or '')
    return kind.startswith(('CLIP', 'ConvNext', 'Levit', 'MobileNet', 'MobileViT', 'PoolFormer'))


def _size(value: Any) -> tuple[int, int]:
    if isinstance(value, Mapping):
        if 'shortest_edge' in value:
            return int(value['shortest_edge']), int(value['shortest_edge'])
        return int(value['height']), int(value['width'])
    return (int(value), int(value)) if isinstance(value, (int, float)) else (int(value[0]), int(value[-1]))


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise InputError(f'{path} cannot be read: {error}', hint='download it again', argument='config') from error
    if not isinstance(found, dict):
        raise InputError(f'{path} holds no settings', argument='config')
    return found

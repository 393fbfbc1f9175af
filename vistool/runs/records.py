"""What the manifest of a run says: of the run as a whole, and of each image."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vistool.data.datasets import DatasetItem
from vistool.data.samples import Item, Sample
from vistool.environment import versions
from vistool.models.model import Model
from vistool.results import Heatmaps
from vistool.runs.manifest import FORMAT, file_entry
from vistool.runs.spec import ModelSpec, RunSpec

AnyItem = Item | DatasetItem

_MANY = 20
"""A list of more paths than this is known by a digest."""


def run_record(spec: RunSpec, models: Sequence[Model]) -> dict[str, Any]:
    """What ``run.json`` says; two runs with equal ``settings`` write the same files."""
    return {
        'format': FORMAT,
        'tool': spec.tool,
        'command': spec.command,
        **models[0].provenance(),
        'settings': settings_of(spec, models),
        'versions': versions(),
    }


def settings_of(spec: RunSpec, models: Sequence[Model]) -> dict[str, Any]:
    """The fingerprint of a run: everything that decides what it writes, by parameter, as JSON gives it back.

    Device and batch size change no more than the last digits, so they count only in a deterministic run.
    """
    execution, output = spec.execution, spec.output
    exact = {'device': spec.models.device, 'batch_size': execution.batch_size} if execution.deterministic else {}
    configs = '\n'.join(model.config.pretty_text for model in models if model.config is not None)
    found = {
        'images': _images(spec.images),
        **vars(spec.selection),
        'config': _named(spec.models.first),
        'checkpoint': spec.models.first.checkpoint,
        'compare': [[_named(each), each.checkpoint] for each in spec.models.compare],
        'options': spec.models.options,
        'files': spec.models.files,
        'draw_on': spec.models.draw_on,
        'img_size': spec.models.img_size,
        'fit': spec.models.fit,
        'seed': spec.seed,
        'amp': execution.amp,
        'deterministic': execution.deterministic,
        **exact,
        **vars(output.style),
        'save_raw': output.save_raw,
        'panels': output.panels,
        'all_channels': output.all_channels,
        'backends': output.backends,
        'config contents': hashlib.sha256(configs.encode()).hexdigest()[:16],
        'checkpoint contents': [_weights(model) for model in models],
    }
    own = {'analysis': type(spec.analysis).__name__, **vars(spec.analysis)}
    found |= {f'analysis.{key}' if key in found and found[key] != own[key] else key: own[key] for key in own}
    return {key: plain(value) for key, value in found.items()}


def _images(images: object) -> object:
    if isinstance(images, (str, os.PathLike)):
        return os.fspath(images)
    paths = [str(each) for each in images]  # type: ignore[attr-defined]
    if len(paths) <= _MANY:
        return paths
    return f'{len(paths)} paths, {hashlib.sha256(chr(10).join(paths).encode()).hexdigest()[:16]}'


def _named(spec: ModelSpec) -> str:
    model = spec.model
    if isinstance(model, (str, os.PathLike)):
        return os.fspath(model)
    return model.name if isinstance(model, Model) else type(model).__name__


def _weights(model: Model) -> str:
    if model.checkpoint is not None:
        return model.checkpoint.sha256
    digest = hashlib.sha256()
    for name, tensor in model.module.state_dict().items():
        digest.update(name.encode())
        if isinstance(tensor, torch.Tensor):
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def plain(value: Any) -> Any:
    """A value as JSON gives it back; what is not JSON is described, the same way in every process."""
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, torch.Tensor):
        return plain(value.detach().cpu().float().numpy())
    if isinstance(value, np.ndarray):
        digest = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        return f'{value.dtype} {value.shape} {digest[:16]}'
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {each.name: getattr(value, each.name) for each in dataclasses.fields(value) if each.compare}
        return {'type': type(value).__name__, **plain(fields)}
    if callable(value):
        return getattr(value, '__qualname__', type(value).__qualname__)
    return type(value).__qualname__


def fingerprint(item: AnyItem, index: int) -> dict[str, Any]:
    """What an image is known by: its name, and its file's path, size and time, or its index where there is no file.

    Args:
        item: The image.
        index: Position in the run.
    """
    path = item.path
    found: dict[str, Any] = {'name': item.name, 'input': None if path is None else str(path)}
    if path is None or isinstance(item, DatasetItem):
        found['index'] = index
    if path is not None:
        try:
            status = os.stat(path)
        except OSError:
            return {**found, 'bytes': None, 'mtime': None}
        found |= {'bytes': status.st_size, 'mtime': status.st_mtime}
    return found


def entry_of(
    spec: RunSpec, folder: Path, model: Model, item: AnyItem, sample: Sample, result: Heatmaps, written: Sequence[Path]
) -> dict[str, Any]:
    """An image's entry in the manifest, the time it took left out; writes its tiles for the gallery if there is one.

    Args:
        spec: The run.
        folder: Its output folder.
        model: The model that is explained.
        item: The image.
        sample: The same as the model read it.
        result: What the analysis gave.
        written: Its files.
    """
    index = sample.index or 0
    entry = {
        **fingerprint(item, index),
        'index': index,
        'label': None if sample.label is None else {'id': sample.label, 'name': model.class_name(sample.label)},
        'prediction': result.prediction and result.prediction.entry(),
        'targets': [target.entry() for target in result.targets],
        'methods': list(result.methods),
        'layers': list(result.layers),
        'files': [file_entry(folder, path) for path in written],
    }
    if spec.output.gallery is not None:
        from vistool.gallery.tiles import write_tiles

        entry['tiles'] = write_tiles(result, folder, spec.output.style, item.name)
        entry['files'] += [file_entry(folder, folder / tile['file']) for tile in entry['tiles']]
    return entry


def failed_entry(item: AnyItem, index: int, reason: str) -> dict[str, Any]:
    """The entry of an image that could not be read or explained."""
    return {**fingerprint(item, index), 'index': index, 'files': [], 'error': reason}

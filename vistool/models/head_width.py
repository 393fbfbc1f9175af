"""The number of classes of a checkpoint's head, and the setting that gives a network as many.

A head of another width cannot be loaded; a random one would be explained as if it had been trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import nn

from vistool.errors import InputError, param
from vistool.models.checkpoints.weights import mismatches
from vistool.models.configs import Source
from vistool.network.outputs import output_count

if TYPE_CHECKING:
    from vistool.models.checkpoints.reading import Checkpoint

_WRAPPERS = {
    'TimmClassifier': 'num_classes',
    'TorchvisionClassifier': 'num_classes',
    'HuggingFaceClassifier': 'num_labels',
}
"""Classifiers of other libraries → their argument for the number of classes."""


def fit_head(source: Source, module: nn.Module, checkpoint: Checkpoint) -> Source | None:
    """A config whose head has the checkpoint's number of classes; None if the network's own fits.

    Args:
        source: The config.
        module: The network built from it.
        checkpoint: The weights that are to be loaded.

    Raises:
        InputError: The heads differ, and the config is a file, in which the user says how many classes there are.
    """
    count = output_count(module)
    found = None if count is None else _classes_in(module, checkpoint, count)
    if count is None or found is None:
        return None
    keys = list(_keys(source.config.model, count))
    generated = not getattr(source.config, 'filename', None)
    if generated and len(keys) == 1 and _value(source.config, keys[0]) is None:
        config = type(source.config)(source.config.to_dict())
        config.merge_from_dict({keys[0]: found})
        return replace(source, config=config)
    change = ' '.join(f'{key}={found}' for key in keys)
    name = checkpoint.source or 'the checkpoint'
    raise InputError(
        f'the head in {name} has {found} classes, the one of {source.name} has {count}',
        hint=f'add {param("options", change)}' if change else "change the number of classes in the config's head",
        parameter='checkpoint',
    )


def _classes_in(module: nn.Module, checkpoint: Checkpoint, count: int) -> int | None:
    """The width of the checkpoint's classifier if it is another than ``count``."""
    if any(tensor.ndim > 1 and len(tensor) == count for tensor in checkpoint.state_dict.values()):
        return None
    for name, found, expected in mismatches(module, checkpoint):
        own = name.endswith('weight') and len(expected) in (2, 4) and expected[0] == count
        if own and found[1:] == expected[1:]:
            return found[0]
    return None


def _keys(model: Mapping[str, Any], count: int, path: str = 'model') -> Iterator[str]:
    """The options that hold the number of classes."""
    kind = str(model.get('type', '')).rpartition('.')[2]
    if path == 'model' and kind in _WRAPPERS:
        yield f'model.{_WRAPPERS[kind]}'
        return
    for name, value in model.items():
        if isinstance(value, Mapping):
            yield from _keys(value, count, f'{path}.{name}')
        elif name == 'num_classes' and value == count:
            yield f'{path}.{name}'


def _value(config: Any, key: str) -> Any:
    for part in key.split('.'):
        config = config.get(part) if isinstance(config, Mapping) or hasattr(config, 'get') else None
    return config

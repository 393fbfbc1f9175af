"""From what a run names to its images and its models."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from vistool.data.datasets import PHASES, DatasetItem, dataset_items
from vistool.data.samples import Item, Sample, find_inputs
from vistool.errors import InputError
from vistool.models.configs import Source, resolve
from vistool.models.input_size import sizing
from vistool.models.model import Model, load
from vistool.runs.spec import Images, Models, ModelSpec

AnyItem = Item | DatasetItem


def find_source(spec: ModelSpec, models: Models) -> Source | Model | nn.Module:
    """What a model is made of: its config where it is named, the model itself where it is loaded."""
    if isinstance(spec.model, (Model, nn.Module)):
        return spec.model
    return resolve(spec.model, models.options)


def name_of(source: Source | Model | nn.Module) -> str:
    """What a model is called in folders and captions."""
    return type(source).__name__ if isinstance(source, nn.Module) else source.name


def config_of(source: Source | Model | nn.Module) -> Any:
    """A model's config, or None."""
    return None if isinstance(source, nn.Module) else source.config


@contextmanager
def opened_models(models: Models, first: Source | Model | nn.Module, seed: int) -> Iterator[list[Model]]:
    """The models of a run, ready to read images; those that the caller made are restored at the end.

    Args:
        models: Which.
        first: What the first is made of.
        seed: Of random weights.

    Raises:
        InputError: One of them cannot be found, built or loaded.
    """
    sources = [first, *(find_source(each, models) for each in models.compare)]
    resize = sizing(models.img_size, models.fit)
    with ExitStack() as restored:
        loaded = []
        for spec, source in zip((models.first, *models.compare), sources, strict=True):
            model = _load(spec, source, models, seed)
            model.use_files(models.files, models.draw_on)
            if resize is not None:
                restored.callback(resize(model).remove)
            loaded.append(model)
        yield loaded


def _load(spec: ModelSpec, source: Source | Model | nn.Module, models: Models, seed: int) -> Model:
    if isinstance(source, Model):  # the caller's own stays as it is
        return replace(source) if models.files or models.draw_on or models.img_size else source
    return load(
        source,
        spec.checkpoint,
        device=models.device,
        transform=spec.transform,
        trust_checkpoint=models.trust_checkpoint,
        seed=seed,
    )


def find_items(images: Images, source: Source | Model | nn.Module) -> Sequence[AnyItem]:
    """The images of a run, in a fixed order.

    Raises:
        InputError: There are none.
    """
    spec = os.fspath(images) if isinstance(images, (str, os.PathLike)) else ''
    if not spec.startswith('@'):
        return find_inputs(images)
    phase, config = spec[1:], config_of(source)
    if phase not in PHASES:
        raise InputError(
            f'unknown dataset {spec!r}', accepted=', '.join(f'@{each}' for each in PHASES), parameter='images'
        )
    if config is None:
        raise InputError(f'{name_of(source)} has no config that names a dataset', parameter='images')
    items = dataset_items(config, phase)
    if not len(items):
        raise InputError(f'the {phase} dataset of {name_of(source)} is empty', parameter='images')
    return items


def is_one_file(images: Images, items: Sequence[AnyItem]) -> bool:
    """Whether a run is over a single image that was named by its path."""
    return isinstance(images, (str, os.PathLike)) and len(items) == 1 and Path(images).is_file()


def read_views(models: Sequence[Model], item: AnyItem, seed: int, index: int = 0) -> tuple[Sample, ...]:
    """An image as each model's pipeline reads it."""
    if isinstance(item, DatasetItem):
        first = models[0].read(item.source, seed=seed, index=item.index, name=item.name, info=item.info)
    else:
        first = models[0].read(item.path, seed=seed, index=index, name=item.name)
    photo = first.original if first.path is None else first.path
    assert photo is not None, 'an image was read, so there is one'
    others = [model.read(photo, seed=seed, index=first.index or 0, name=first.name) for model in models[1:]]
    return (first, *others)


def labels(models: Sequence[Model]) -> list[str]:
    """What tells the models apart in a figure: their names, or their checkpoints where the names are the same."""
    names = [model.name for model in models]
    if len(set(names)) == len(names):
        return names
    return [f'{model.name} {model.weights_name}' if len(set(names)) > 1 else model.weights_name for model in models]

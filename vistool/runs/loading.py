"""What the arguments name: images, and the models that look at them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from vistool import commands as cli
from vistool.data.datasets import PHASES, DatasetItem, dataset_items
from vistool.data.pipelines import parse_files
from vistool.data.samples import Item, Sample, find_inputs
from vistool.errors import InputError, param
from vistool.models.configs import Source, resolve
from vistool.models.model import Model, build_module, load


def find_items(spec: str, source: Source) -> Sequence[Item | DatasetItem]:
    """The images that ``img`` names: a file, folder, glob or list, or ``@train``, ``@val``, ``@test`` of the config.

    Raises:
        InputError: If there are none.
    """
    if not spec.startswith('@'):
        return find_inputs(spec)
    if spec[1:] not in PHASES:
        raise InputError(
            f'unknown dataset {spec!r}', accepted=', '.join(f'@{phase}' for phase in PHASES), parameter='images'
        )
    items = dataset_items(source.config, spec[1:])
    if not len(items):
        raise InputError(f'the {spec[1:]} dataset of {source.name} is empty', parameter='images')
    return items


def read_item(model: Model, item: Item | DatasetItem, seed: int, index: int = 0) -> Sample:
    """An image as the model's pipeline reads it."""
    if isinstance(item, DatasetItem):
        return model.read(item.source, seed=seed, index=item.index, name=item.name, info=item.info)
    return model.read(item.path, seed=seed, index=index, name=item.name)


def load_all(args: argparse.Namespace, source: Source) -> list[Model]:
    """The model of ``config`` and ``checkpoint``, then those of ``--compare``."""
    given: list[tuple[Source, str | None]] = [(source, args.checkpoint)]
    for words in args.compare:
        if len(words) > 2:
            raise InputError(
                f'{" ".join(words)!r}: {len(words)} words',
                accepted='CONFIG, or CONFIG CHECKPOINT',
                hint=f'put positionals before {param("compare")}',
                parameter='compare',
            )
        given.append((resolve(words[0], cli.config_options(args.cfg_options)), words[1] if len(words) > 1 else None))
    files = parse_files(args.input)
    models = []
    for each, checkpoint in given:
        trusted = args.trust_checkpoint
        models.append(load(each, checkpoint, device=args.device, trust_checkpoint=trusted, seed=args.seed))
        models[-1].use_files(files, args.draw_on)
    return models


def preview_model(args: argparse.Namespace) -> int:
    """Lists the network's modules on stdout; needs neither image nor checkpoint."""
    cli.announce([build_module(resolve(args.config, cli.config_options(args.cfg_options)), args.seed)])
    return cli.OK

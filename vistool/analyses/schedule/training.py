"""The length of a training run: its loop, its iterations per epoch and its batch, read from the config alone."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from vistool.analyses.schedule.scopes import training_scope, type_name
from vistool.data.dataloaders import lists_several
from vistool.data.datasets import annotation_hint, refuse_old_form
from vistool.errors import InputError, cause_of, counted, param
from vistool.models.configs import Source

log = logging.getLogger('vistool')

_PUBLISHED = {'CIFAR10': 50_000, 'CIFAR100': 50_000, 'MNIST': 60_000, 'FashionMNIST': 60_000, 'ImageNet': 1_281_167}
MOST_EPOCHS, MOST_ITERATIONS, MOST_GPUS = 100_000, 100_000_000, 65_536
"""The longest training that is replayed, on the most GPUs."""
_SLOW = 5.0  # seconds after which the hint is given


class _Sized:
    """Stands for a training set of which only the length is known."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length


def read_training_set(source: Source) -> Any:
    """The training set, of which samplers need the length; its annotations are read, but no image, and no downloads.

    If the files are missing, a training set of a published size is assumed to have that size, with a warning.

    Raises:
        InputError: The dataset cannot be read and its size is unknown.
    """
    settings = (source.config.get('train_dataloader') or {}).get('dataset')
    if not isinstance(settings, Mapping):
        raise InputError(
            f'{source.name} has no training set',
            hint=f'give its size with {param("dataset_size")}',
            parameter='config',
        )
    start = time.monotonic()
    try:
        with training_scope(source.config):
            from mmengine.registry import DATASETS

            dataset = DATASETS.build(_without_pipeline(settings))
            size = len(dataset)
    except Exception as error:  # a dataset is foreign code, which can raise anything
        return _Sized(_published(source, settings, error))
    if time.monotonic() - start > _SLOW:
        log.info(f'reading the annotations took a while; {param("dataset_size")} %d skips it', size)
    return dataset


def _without_pipeline(settings: Mapping[str, Any]) -> Any:
    """The dataset's settings without transforms, which may import many packages, and without downloads."""
    plain: Any = copy.deepcopy(settings)

    def strip(node: Any) -> None:
        if isinstance(node, dict):
            if 'pipeline' in node:
                node['pipeline'] = []
            for value in node.values():
                strip(value)
        elif isinstance(node, (list, tuple)):
            for value in node:
                strip(value)

    strip(plain)
    if type_name(plain.get('type', '')) in ('CIFAR10', 'CIFAR100', 'MNIST', 'FashionMNIST'):
        plain['download'] = False
    return plain


def _published(source: Source, settings: Mapping[str, Any], error: Exception) -> int:
    name = type_name(settings.get('type', ''))
    whole = settings.get('split', 'train') in ('', 'train') and not settings.get('indices')
    own = settings.get('ann_file') or settings.get('test_mode')
    if name in _PUBLISHED and whole and not own:
        size = _PUBLISHED[name]
        log.warning(
            f'%s not found%s; taking its published %d images ({param("dataset_size")} gives another size)',
            name,
            f' under {settings["data_root"]}' if settings.get('data_root') else '',
            size,
        )
        return size
    fault = annotation_hint(copy.deepcopy(dict(settings)))
    raise InputError(
        f'the training set of {source.name} cannot be read ({cause_of(error)})',
        hint=f'{fault}{", or " if fault else ""}give its size with {param("dataset_size")}',
        parameter='config',
    ) from error


_OLD_KEYS = {
    'lr_config': 'param_scheduler',
    'momentum_config': 'param_scheduler',
    'runner': 'train_cfg',
    'optimizer_config': 'optim_wrapper',
    'optimizer': 'optim_wrapper=dict(optimizer=…)',
    'total_epochs': 'train_cfg',
}
_LOOPS = {'EpochBasedTrainLoop': True, 'IterBasedTrainLoop': False}


@dataclass(frozen=True)
class TrainingPlan:
    """The counts that a schedule depends on.

    Attributes:
        by_epoch: Whether the loop counts epochs; to mmengine, an iteration-based loop is a single long epoch.
        epochs: Epochs of the loop; 1 for an iteration-based one.
        iterations: Iterations in all.
        epoch_length: The dataloader's length; None if an iteration-based loop does not need it.
        per_gpu: Images in the batch of one GPU; None if the config does not say.
        ngpus: The number of GPUs.
        accumulation: Iterations whose gradients are added for one update of the weights.
    """

    by_epoch: bool
    epochs: int
    iterations: int
    epoch_length: int | None
    per_gpu: int | None
    ngpus: int
    accumulation: int = 1

    @property
    def batch(self) -> int | None:
        """Images in one iteration, over all GPUs."""
        return None if self.per_gpu is None else self.per_gpu * self.ngpus


def read_training(source: Source, dataset_size: int | None, ngpus: int) -> TrainingPlan:
    """The training run that a config describes.

    Args:
        source: The config.
        dataset_size: Images in the training set; None reads the dataset's annotations if the run depends on them.
        ngpus: The number of GPUs.

    Raises:
        InputError: The config has an unsupported form, trains nothing, or the numbers contradict each other.
    """
    if not 1 <= ngpus <= MOST_GPUS:
        raise InputError(f'{ngpus} GPUs cannot train', accepted=f'1 to {MOST_GPUS:,}', parameter='ngpus')
    if dataset_size is not None and dataset_size < 1:
        raise InputError(f'a dataset cannot have {dataset_size} images', accepted='1 or more', parameter='dataset_size')
    config = source.config
    _require_training(source)
    by_epoch = _counts_epochs(source, config.train_cfg)
    loader = config.get('train_dataloader') or {}
    if lists_several(config, 'train_dataloader'):
        raise _refusal(source, "has several train_dataloaders, which mmengine's training loops do not take")
    length = None
    if by_epoch or dataset_size is not None or _converts(config.get('param_scheduler')):
        length = _epoch_length(source, loader, dataset_size, ngpus)
    limit = 'max_epochs' if by_epoch else 'max_iters'
    epochs = _whole(source, config.train_cfg, limit)
    accumulation = _accumulation(config.optim_wrapper)
    iterations = epochs * length if by_epoch and length else epochs
    _check_length(source, dataset_size, epochs if by_epoch else 1, iterations)
    return TrainingPlan(
        by_epoch, epochs if by_epoch else 1, iterations, length, loader.get('batch_size'), ngpus, accumulation
    )


def _require_training(source: Source) -> None:
    config = source.config
    missing = [key for key in ('train_cfg', 'optim_wrapper') if not config.get(key)]
    if not missing:
        return
    refuse_old_form(config, _OLD_KEYS, 'param_scheduler, train_cfg and optim_wrapper', source.name)
    raise _refusal(source, f'trains nothing: it has no {" and no ".join(missing)}')


def _check_length(source: Source, dataset_size: int | None, epochs: int, iterations: int) -> None:
    """Refuses a run so long that its schedule, which is drawn iteration by iteration, fills the memory."""
    if epochs <= MOST_EPOCHS and iterations <= MOST_ITERATIONS:
        return
    raise InputError(
        f'{source.name} trains for {epochs:,} epochs, {iterations:,} iterations',
        accepted=f'at most {MOST_EPOCHS:,} epochs and {MOST_ITERATIONS:,} iterations',
        hint=f'check {param("dataset_size")}, the batch size and train_cfg',
        parameter='config' if dataset_size is None else 'dataset_size',
    )


def _counts_epochs(source: Source, train_cfg: Mapping[str, Any]) -> bool:
    if not isinstance(train_cfg, Mapping):
        raise _refusal(source, 'has a train_cfg that is not a dict')
    kind = train_cfg.get('type')
    if kind is None:
        if 'by_epoch' not in train_cfg:
            raise _refusal(source, 'has a train_cfg with neither by_epoch nor type, which mmengine refuses as well')
        return bool(train_cfg['by_epoch'])
    name = type_name(kind)
    known = _LOOPS.get(name)
    if known is None:
        raise InputError(
            f'{source.name} trains with the loop {name}, which is not supported',
            accepted=', '.join(_LOOPS),
            hint=f'use {param("options")} train_cfg.type=… if it counts like one of them',
            parameter='config',
        )
    return known


def _epoch_length(source: Source, loader: Mapping[str, Any], dataset_size: int | None, ngpus: int) -> int:
    """``len(train_dataloader)`` on one of ``ngpus`` GPUs."""
    if 'batch_sampler' in loader and loader['batch_sampler'] and 'batch_size' not in loader:
        raise _refusal(source, 'has a batch_sampler without a batch_size')
    batch = loader.get('batch_size')
    if not isinstance(batch, int) or batch < 1:
        raise InputError(
            f'{source.name} has no batch size, so the length of its epochs is unknown',
            hint=f'give one with {param("options")} train_dataloader.batch_size=64',
            parameter='config',
        )
    per_epoch = loader.get('num_batch_per_epoch')
    if per_epoch:  # the dataset is cut to this many
        dataset_size = int(per_epoch) * batch * ngpus
    dataset = read_training_set(source) if dataset_size is None else _Sized(dataset_size)
    if not _is_known(loader):
        return _built_length(source, loader, dataset, ngpus)
    size = len(dataset)
    samples = _samples(loader.get('sampler') or {}, size, ngpus)
    length = samples // batch if _drops_last(loader) else math.ceil(samples / batch)
    if size >= batch * ngpus:
        return length
    problem = f'a dataset of {counted(size, "image")} does not fill one batch of {batch} on {counted(ngpus, "GPU")}'
    if length < 1:
        raise InputError(
            f'{problem}, and train_dataloader.drop_last leaves it out',
            accepted=f'{batch * ngpus} or more',
            hint=f'check {param("dataset_size")}, {param("ngpus")} and train_dataloader.batch_size',
            parameter='dataset_size',
        )
    log.warning('%s: %s; an epoch has %s', source.name, problem, counted(length, 'iteration'))
    return length


_SAMPLERS = ('DefaultSampler', 'InfiniteSampler', 'RepeatAugSampler')
_BATCH_SAMPLERS = ('BatchSampler', 'AspectRatioBatchSampler')
"""Batch samplers that group a sampler's indices, each once: mmdet's needs no package to be counted."""


def _is_known(loader: Mapping[str, Any]) -> bool:
    """Whether the sampler and the batch sampler are those whose lengths follow from the size of the dataset."""
    batches = loader.get('batch_sampler')
    return _one_of(loader.get('sampler') or {'type': _SAMPLERS[0]}, _SAMPLERS) and (
        not batches or _one_of(batches, _BATCH_SAMPLERS)
    )


def _one_of(settings: Any, names: Sequence[str]) -> bool:
    kind = settings.get('type') if isinstance(settings, Mapping) else None
    own = isinstance(kind, str) or getattr(kind, '__module__', '').startswith(('mm', 'torch.'))
    return own and type_name(kind) in names


def _built_length(source: Source, loader: Mapping[str, Any], dataset: Any, ngpus: int) -> int:
    """The length that the config's own samplers give, built as mmengine's Runner builds them.

    Raises:
        InputError: They cannot be built or have no length.
    """
    from mmengine.registry import DATA_SAMPLERS

    settings = copy.deepcopy({key: loader.get(key) for key in ('sampler', 'batch_sampler')})
    names = ', '.join(type_name(each.get('type', 'no type')) for each in settings.values() if isinstance(each, Mapping))
    try:
        with training_scope(source.config), _world(ngpus):
            sampler = DATA_SAMPLERS.build(settings['sampler'], default_args={'dataset': dataset, 'seed': 0})
            if batches := settings['batch_sampler']:
                shared = {'sampler': sampler, 'batch_size': loader['batch_size']}
                length = len(DATA_SAMPLERS.build(batches, default_args=shared))
            else:
                length = len(sampler) / loader['batch_size']
    except Exception as error:  # a sampler is foreign code, which can raise anything
        unread = isinstance(dataset, _Sized) and isinstance(error, AttributeError)
        raise InputError(
            f'the sampler of {source.name} ({names}) cannot be built, so the length of its epochs is unknown '
            f'({cause_of(error)})',
            hint=(f'leave {param("dataset_size")} out if it needs the annotations, or ' if unread else '')
            + f'draw with another: {param("options")} train_dataloader.sampler.type=DefaultSampler '
            f'train_dataloader.batch_sampler=None, {param("dataset_size")} N',
            parameter='config',
        ) from error
    whole = math.floor(length) if _drops_last(loader) else math.ceil(length)
    if whole < 1:
        raise InputError(
            f'the sampler of {source.name} ({names}) fills no batch of {loader["batch_size"]} with {len(dataset)}',
            hint=f'check {param("dataset_size")}, {param("ngpus")} and train_dataloader.batch_size',
            parameter='dataset_size',
        )
    return whole


@contextmanager
def _world(size: int) -> Iterator[None]:
    """Makes samplers see several processes of which this is the first, without starting any."""
    from torch import distributed

    if size == 1 or distributed.is_initialized():
        yield
        return
    from torch.testing._internal.distributed.fake_pg import FakeStore

    distributed.init_process_group('fake', store=FakeStore(), rank=0, world_size=size)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def _samples(sampler: Mapping[str, Any], size: int, ngpus: int) -> int:
    """``len(sampler)`` on the first GPU, for the samplers of :data:`_SAMPLERS`."""
    if type_name(sampler.get('type', 'DefaultSampler')) == 'InfiniteSampler':
        return size  # mmengine's returns the length of the whole dataset on every GPU
    return math.ceil(size / ngpus)  # with padding or without, the first GPU gets the most


def _drops_last(loader: Mapping[str, Any]) -> bool:
    batches = loader.get('batch_sampler')
    if batches:
        return bool(batches.get('drop_last', False))
    return bool(loader.get('drop_last', False))


def _whole(source: Source, train_cfg: Mapping[str, Any], key: str) -> int:
    value = train_cfg.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value) or value < 1:
        raise _refusal(source, f'has train_cfg.{key}={value!r}, which is not a positive whole number')
    return int(value)


def _converts(schedulers: Any) -> bool:
    if isinstance(schedulers, Mapping):
        if 'type' in schedulers:
            return bool(schedulers.get('convert_to_iter_based'))
        return any(map(_converts, schedulers.values()))
    return isinstance(schedulers, (list, tuple)) and any(map(_converts, schedulers))


def _accumulation(wrapper: Mapping[str, Any]) -> int:
    counts = wrapper.get('accumulative_counts', 1)
    return counts if isinstance(counts, int) and counts > 0 else 1


def _refusal(source: Source, why: str) -> InputError:
    return InputError(f'{source.name} {why}', parameter='config')

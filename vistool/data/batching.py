"""Samples → the batch that the model receives: collated, preprocessed, mixed; and its images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vistool.data.annotations import Annotations, annotations_of
from vistool.data.dataloaders import read_loader
from vistool.data.datasets import Label, label_of
from vistool.data.geometry import Size
from vistool.data.photometry import Photometry, Preprocessing, float_array
from vistool.data.recording import Record, preprocessor_config, with_mask
from vistool.data.samples import image_keys, planes_of
from vistool.data.transforms import seeded
from vistool.errors import InputError, counted, message_of

if TYPE_CHECKING:
    from mmengine.config import Config


@dataclass(frozen=True, eq=False)
class BatchSample:
    """One sample of a batch as the model receives it.

    Attributes:
        views: uint8 ``(h, w, 3)`` RGB, with normalization undone; several for self-supervised models.
        label: Its label after mixing.
        values: Mean and standard deviation of the normalized values.
        annotations: Boxes, masks, keypoints and label map of its first view; None without any.
    """

    views: tuple[NDArray[np.uint8], ...]
    label: Label
    values: tuple[float, float]
    annotations: Annotations | None = None


class Batcher:
    """What a config's dataloader and data preprocessor do to samples.

    Args:
        config: An mmengine Config.
        phase: ``train`` runs the batch augmentations; ``val`` and ``test`` do not.
        seed: Seeds, with the number of the batch, what batch augmentations draw.

    Raises:
        InputError: The data preprocessor cannot be built.
    """

    def __init__(self, config: Config, phase: str, seed: int = 0) -> None:
        loader = read_loader(config, phase)
        sampler = (loader.get('batch_sampler') or {}).get('sampler') or loader.get('sampler') or {}
        self.size = int(loader.get('batch_size') or 1)
        self.shuffles = bool(sampler.get('shuffle', False))
        self.seed, self.training = seed, phase == 'train'
        self._config = config
        with self._scoped():
            self._collate = _collate_function(loader.get('collate_fn'))
            self._preprocessor = _built(preprocessor_config(config))
        self._does = Preprocessing.of(self._preprocessor)

    def __call__(self, records: Sequence[Record], number: int = 0) -> list[BatchSample]:
        """The samples as one batch.

        Args:
            records: The samples, read.
            number: The number of the batch.

        Raises:
            InputError: They cannot be collated; their sizes differ, for example.
        """
        import torch

        try:
            batch = self._collate([record.data for record in records])
            if self._preprocessor is not None:
                with self._scoped(), torch.no_grad(), seeded(self.seed, number):
                    batch = self._preprocessor(batch, self.training)
        except Exception as error:
            raise InputError(f'the samples cannot be made into a batch: {message_of(error)}') from error
        samples = batch.get('data_samples') if isinstance(batch, Mapping) else None
        views = _images(batch)
        if not views:
            raise InputError(f'the batch, a {type(batch).__name__}, holds no images', hint='give a collate_fn')
        if views[0].dim() == 5:  # several images of a sample, stacked
            views = list(views[0].unbind(1))
        if len(views) == len(records) and views[0].dim() == 3:  # a list of images, not of views
            views = [views] if len({tuple(each.shape) for each in views}) > 1 else [torch.stack(views)]
        if len(views) == len(records) and any(len(view) != len(records) for view in views):
            return [self._fed(record, list(views[i]), samples, i) for i, record in enumerate(records)]  # not by view
        if any(len(view) != len(records) for view in views):
            raise InputError(f'the batch holds {counted(len(views[0]), "image")} for {counted(len(records), "sample")}')
        return [self._fed(record, [view[i] for view in views], samples, i) for i, record in enumerate(records)]

    def _fed(self, record: Record, tensors: list[Any], samples: Any, place: int) -> BatchSample:
        pictures = []
        for view, tensor in enumerate(tensors):
            photometry = replace_mean(record.photometry, self._does, self._preprocessor, view)
            pictures.append(photometry.image(planes_of(tensor, photometry.channels)))
        mask = _of(samples, place, 'mask')
        if mask is not None:
            pictures[0] = with_mask(pictures[0], mask)
        values = np.concatenate([planes_of(tensor).astype(np.float64).reshape(-1) for tensor in tensors])
        return BatchSample(
            tuple(pictures),
            _label(samples, place, record.label),
            (float(values.mean()), float(values.std())),
            self._annotations(record, samples, place, (pictures[0].shape[0], pictures[0].shape[1])),
        )

    def _annotations(self, record: Record, samples: Any, place: int, size: Size) -> Annotations | None:
        """What the batch has of a training sample; else what the pipeline left, in the upper left of a padded image.

        Annotations of test pipelines are in pixels of the original, so the packed ones do not lie on the batch.
        """
        packed = samples[place] if isinstance(samples, Sequence) and place < len(samples) else None
        found = None
        if self.training and packed is not None:
            with suppress(Exception):  # a data sample may hold anything
                found = annotations_of({'data_samples': packed}, size)
        last = record.images[-1].annotations
        return found or (None if last is None else replace(last, size=size))

    def _scoped(self) -> Any:
        from vistool.registry import in_scope

        return in_scope(self._config, 'mmpretrain')


def _images(batch: Any) -> list[Any]:
    """The tensors of images in a batch, ``(B, C, H, W)`` for each view, or one ``(C, H, W)`` for each sample.

    In a tuple as PyTorch's datasets give them, images come first and labels after.
    """
    if isinstance(batch, Mapping):
        return next((found for key in image_keys(batch) if (found := _images(batch[key]))), [])
    if isinstance(batch, (list, tuple)):
        if batch and all(hasattr(each, 'dim') and each.dim() >= 3 for each in batch):
            return list(batch)
        return next((found for each in batch if (found := _images(each))), [])
    return [batch] if hasattr(batch, 'dim') and batch.dim() >= 4 else []


def replace_mean(photometry: Photometry, does: Preprocessing, preprocessor: Any, view: int) -> Photometry:
    """The photometry after the data preprocessor; some have a second mean for their second view."""
    if does.swaps:
        photometry = photometry.reversed()
    if view and getattr(preprocessor, 'second_mean', None) is not None:
        does = replace(does, mean=float_array(preprocessor.second_mean), std=float_array(preprocessor.second_std))
    if does.mean is None or does.std is None:
        return photometry
    return photometry.normalized(does.mean, does.std)


def _collate_function(described: Any) -> Any:
    import mmengine.dataset  # noqa: F401  registers its functions
    from mmengine.registry import FUNCTIONS

    described = dict(described) if described else {'type': 'pseudo_collate'}
    kind = described.pop('type')
    function = FUNCTIONS.get(kind) if isinstance(kind, str) else kind
    if function is None:
        raise InputError(f'unknown collate function {kind!r}', parameter='config')
    return partial(function, **described) if described else function


def _built(described: Any) -> Any:
    """The data preprocessor, or None if the config has none."""
    if described is None or callable(described):
        return described
    from mmengine.registry import MODELS

    try:
        return MODELS.build({'type': 'ClsDataPreprocessor', **described})
    except Exception as error:
        raise InputError(f'the data preprocessor cannot be built: {message_of(error)}', parameter='config') from error


def _label(samples: Any, place: int, known: Label) -> Label:
    """The label in the batch: scores if labels were mixed."""
    score = _of(samples, place, 'gt_score')
    return known if score is None else label_of({'gt_score': score})


def _of(samples: Any, place: int, name: str) -> NDArray[Any] | None:
    """A tensor of one of the batch's data samples as an array; None if there is none."""
    sample = samples[place] if isinstance(samples, Sequence) and place < len(samples) else None
    value = getattr(sample, name, None)
    return np.asarray(value.detach().cpu() if hasattr(value, 'detach') else value) if value is not None else None

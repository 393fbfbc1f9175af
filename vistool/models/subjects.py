"""What an analysis accepts: a model or module; samples or plain tensors; targets for all images or for each."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from vistool.data.samples import Sample
from vistool.errors import InputError
from vistool.models.classes import resolve_classes
from vistool.models.model import Model
from vistool.network.tensors import NetworkInput, leaves, map_tensors

Subject: TypeAlias = Sample | Sequence[Sample] | NetworkInput
"""A sample, several samples as one batch, or the network's input itself."""

ClassChoice: TypeAlias = int | str
"""A class id, a class name, ``'topN'``, or ``'label'`` for the ground truth."""

Targets: TypeAlias = ClassChoice | Tensor | Sequence[ClassChoice] | Sequence[Sequence[ClassChoice] | Tensor]
"""Classes for all images of a batch (one, several, or a tensor of ids), or one list of classes for each image."""


def as_model(model: Model | nn.Module) -> Model:
    """``model`` itself; a plain module becomes a model without preprocessing, on the device of its parameters."""
    if isinstance(model, Model):
        return model
    parameter = next(model.parameters(), None)
    return Model(model, type(model).__name__, device=parameter.device if parameter is not None else torch.device('cpu'))


def as_samples(subject: Subject) -> tuple[list[Sample], bool]:
    """One sample, several, or network inputs without a file, as a list of samples.

    Args:
        subject: A ``Sample``, a list of them, or the network's input: a tensor ``(C, H, W)`` or ``(B, C, H, W)``, or a
            tuple or dict of such.

    Returns:
        The samples, and whether the subject was a single one.

    Raises:
        InputError: If it is something else, or holds no image.
    """
    if isinstance(subject, Sample):
        return [subject], True
    if isinstance(subject, (list, tuple)) and subject and all(isinstance(item, Sample) for item in subject):
        return list(subject), False
    tensors = [leaf for _, leaf in leaves(subject)]
    if not tensors or not all(isinstance(tensor, Tensor) for tensor in tensors):
        raise InputError(
            f'cannot analyze {type(subject).__name__}',
            accepted='a sample from model.read(), a list of samples, or a tensor (C, H, W) or (B, C, H, W)',
        )
    image = next((tensor for tensor in tensors if tensor.ndim in (3, 4) and tensor.shape[-1] > 1), None)
    if image is None:
        raise InputError(
            f'no image among inputs {[tuple(t.shape) for t in tensors]}', accepted='(C, H, W) or (B, C, H, W)'
        )
    if image.ndim == 3:
        return [_sample(subject, image.shape[1:], 0)], True
    images = (map_tensors(operator.itemgetter(index), subject) for index in range(image.shape[0]))
    return [_sample(data, image.shape[2:], index) for index, data in enumerate(images)], False


def _sample(data: object, size: Sequence[int], index: int) -> Sample:
    """A sample without a file: its photo is not known, so a medium gray stands in for it."""
    gray = np.full((*size, 3), 128, np.uint8)
    return Sample(
        data=data, image=gray, original=None, geometry=None, path=None, name=str(index), label=None, index=index
    )


def same_for_all(targets: Targets) -> list[ClassChoice] | None:
    """Targets as one list for all images of a batch; None if each image has a list of its own."""
    if isinstance(targets, Tensor):
        return [int(index) for index in targets.reshape(-1)] if targets.ndim < 2 else None
    if isinstance(targets, (int, str, np.integer)):
        return [_choice(targets)]
    nested = [(isinstance(each, Tensor) and each.ndim > 0) or isinstance(each, (list, tuple)) for each in targets]
    if any(nested):
        if not all(nested):
            raise InputError(
                'single targets and lists of targets are mixed',
                accepted='targets for all images, or one list for each image',
                parameter='targets',
            )
        return None
    return [_choice(each) for each in targets]


def _choice(target: object) -> ClassChoice:
    return target if isinstance(target, str) else int(target)  # type: ignore[call-overload]


def resolve_targets(
    targets: Targets, scores: Tensor, names: Sequence[str] | None, labels: Sequence[int | None]
) -> tuple[Tensor, Tensor | None]:
    """The class ids to explain for each image of a batch.

    Args:
        targets: Classes for all images, or one list for each; none means the predicted class.
        scores: ``(B, C)``.
        names: Class names by id, or None.
        labels: Ground truth per image, None where unknown.

    Returns:
        int64 ``(B, T)``, and bool ``(B, T)`` that says which of them are asked for where images have different numbers
        of targets (the others repeat the image's first), else None.

    Raises:
        InputError: If an id, a name or the number of lists is wrong.
    """
    shared = same_for_all(targets)
    if shared is not None:
        return resolve_classes(shared, scores, names, labels), None
    lists = list(targets)  # type: ignore[arg-type]
    if len(lists) != len(scores):
        raise InputError(
            f'{len(lists)} list(s) of targets for {len(scores)} image(s)',
            accepted='one list for each image of the batch',
            parameter='targets',
        )
    rows = [
        resolve_classes(same_for_all(own) or [], scores[image : image + 1], names, labels[image : image + 1])[0]
        for image, own in enumerate(lists)
    ]
    most = max(len(row) for row in rows)
    asked = torch.stack([torch.arange(most) < len(row) for row in rows])
    classes = torch.stack([torch.cat([row, row[:1].expand(most - len(row))]) for row in rows])
    return classes, None if bool(asked.all()) else asked

"""What an analysis accepts: a loaded model or any module, one sample or several, or plain tensors."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vistool.data.samples import Sample
from vistool.errors import InputError
from vistool.models.model import Model
from vistool.network.tensors import leaves, map_tensors


def as_model(model: Model | nn.Module) -> Model:
    """``model`` itself, or a plain module with the device its parameters are on and no preprocessing."""
    if isinstance(model, Model):
        return model
    parameter = next(model.parameters(), None)
    return Model(model, type(model).__name__, device=parameter.device if parameter is not None else torch.device('cpu'))


def as_samples(subject: Any) -> tuple[list[Sample], bool]:
    """One sample, several, or network inputs without a file, as a list of samples.

    Args:
        subject: A ``Sample``, a list of them, or the network's input: a tensor ``(C, H, W)`` or
            ``(B, C, H, W)``, or a tuple or dict of such.

    Returns:
        The samples, and whether the subject was a single one.
    """
    if isinstance(subject, Sample):
        return [subject], True
    if isinstance(subject, list) and subject and all(isinstance(item, Sample) for item in subject):
        return subject, False
    tensors = [leaf for _, leaf in leaves(subject)]
    if not tensors or not all(isinstance(tensor, Tensor) for tensor in tensors):
        raise InputError(
            f'cannot analyse {type(subject).__name__}',
            accepted='a sample from model.read(), a list of samples, or a tensor (C, H, W) or (B, C, H, W)',
        )
    image = next((tensor for tensor in tensors if tensor.ndim in (3, 4) and tensor.shape[-1] > 1), None)
    if image is None:
        raise InputError(
            f'no image among inputs {[tuple(t.shape) for t in tensors]}', accepted='(C, H, W) or (B, C, H, W)'
        )
    if image.ndim == 3:
        return [_sample(subject, image.shape[1:], 0)], True
    batch = image.shape[0]
    return [
        _sample(map_tensors(operator.itemgetter(index), subject), image.shape[2:], index) for index in range(batch)
    ], False


def _sample(data: Any, size: Sequence[int], index: int) -> Sample:
    """A sample without a file: nobody knows its photo, so a middle grey stands in for it."""
    grey = np.full((*size, 3), 128, np.uint8)
    return Sample(
        data=data, image=grey, original=None, geometry=None, path=None, name=str(index), label=None, index=index
    )

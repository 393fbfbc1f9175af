"""What is in a network's output, whatever container it comes in: class scores, probabilities, features."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from typing import Any

from torch import Tensor, nn

from vistool.errors import InputError
from vistool.network.tensors import NoSpatialMap, Size, find_layout

_SCORES = ('logits', 'cls_score', 'pred', 'scores', 'out', 'output')
_FEATURES = ('pooler_output', 'image_embeds', 'embeddings', 'features')
"""Keys under which ``(B, C)`` does not hold class scores."""


def class_scores(output: Any) -> Tensor | None:
    """The class scores ``(B, C)`` in a model's output, or None where it gives none (a headless backbone).

    Understands tensors, tuples, dicts, dataclasses and Hugging Face output objects.
    """
    if isinstance(output, Tensor):
        return output if output.ndim == 2 and output.shape[1] > 0 else None
    if is_dataclass(output) and not isinstance(output, (type, Mapping)):
        output = vars(output)
    if isinstance(output, Mapping):
        for key in _SCORES:
            if key in output:
                return class_scores(output[key])
        return _first(value for key, value in output.items() if key not in _FEATURES)
    if hasattr(output, 'logits'):
        return class_scores(output.logits)
    return _first(output) if isinstance(output, (tuple, list)) else None


def _first(values: Iterable[Any]) -> Tensor | None:
    return next((found for value in values if (found := class_scores(value)) is not None), None)


def has_classes(module: nn.Module) -> bool:
    """Whether a network has a classification head, as far as its attributes say.

    Without one, mmpretrain's classifiers have ``head=None`` and its backbones no head at all; timm and torchvision have
    ``num_classes``, Hugging Face ``config.num_labels``, which are 0.
    """
    if getattr(module, 'head', module) is None:  # absent (a wrapper, a plain module) is not the same as None
        return False
    for part in (module, getattr(module, 'model', None)):
        classes = getattr(part, 'num_classes', None)
        labels = getattr(getattr(part, 'config', None), 'num_labels', None)
        if (type(classes) is int and classes == 0) or (type(labels) is int and labels == 0):
            return False
    backbone = any(kind.__name__ == 'BaseBackbone' for kind in type(module).__mro__)
    return not backbone or int(getattr(module, 'num_classes', 0) or 0) > 0


def output_count(module: nn.Module) -> int | None:
    """The number of class scores by the network's attributes (its head's ``num_classes``, its labels), or None."""
    for part in (getattr(module, 'head', None), module, getattr(module, 'model', None)):
        for count in (getattr(part, 'num_classes', None), getattr(getattr(part, 'config', None), 'num_labels', None)):
            if type(count) is int and count > 0:
                return count
    return None


def probabilities(module: nn.Module, scores: Tensor) -> Tensor:
    """Scores ``(B, C)`` → probabilities: sigmoid for multi-label heads, else softmax."""
    heads = (type(child).__name__ for child in module.modules())
    parts = (module, getattr(module, 'model', None))
    problems = (getattr(getattr(part, 'config', None), 'problem_type', None) for part in parts)
    if 'multi_label_classification' in problems or any('MultiLabel' in name for name in heads):
        return scores.float().sigmoid()
    return scores.float().softmax(-1)


def pooled_features(output: Any, size: Size) -> Tensor:
    """One feature vector per image: the class token if there is one, else the mean over the positions.

    Args:
        output: What a headless network returned: pooled features ``(B, D)``, tokens ``(B, L, D)``, a map ``(B, D, h,
            w)``, a tuple with one of those per stage, of which the last counts, or a Hugging Face output object.
        size: ``(H, W)`` of the network input.

    Returns:
        ``(B, D)``.

    Raises:
        InputError: If there are no features in it.
    """
    if isinstance(output, Mapping):
        for key in ('pooler_output', 'image_embeds', 'last_hidden_state', 'logits'):
            if isinstance(output.get(key), Tensor):
                return pooled_features(output[key], size)
        output = tuple(output.values())
    if isinstance(output, (tuple, list)) and output:
        return pooled_features(output[-1], size)
    if isinstance(output, Tensor) and output.ndim in (2, 3, 4):
        return output if output.ndim == 2 else _pool(output, size)
    raise InputError(
        f"the network's output ({type(output).__name__}) holds no features to compare",
        accepted='(B, D), (B, L, D) or (B, D, h, w)',
        parameter='reference',
    )


def _pool(output: Tensor, size: Size) -> Tensor:
    try:
        layout = find_layout(output, size)
    except NoSpatialMap:  # pooled to one position, or tokens that form no grid
        return output.mean((2, 3)) if output.ndim == 4 else output.mean(1)
    if layout.axes == 'BLC' and layout.prefix:
        return output[:, 0]
    return layout.to_map(output).mean((2, 3))

"""The class scores in a network's output, whatever container they come in, and their probabilities."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from typing import Any

from torch import Tensor, nn

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

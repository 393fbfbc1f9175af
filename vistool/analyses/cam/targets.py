"""What the evidence is asked for: a class, a registered score of the user's own, or likeness to a reference image."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vistool.data.samples import Sample
from vistool.errors import InputError, close_matches
from vistool.models.model import Model
from vistool.models.subjects import as_samples
from vistool.network.capture import borrowed
from vistool.network.outputs import class_scores
from vistool.network.tensors import call_module, input_size
from vistool.network.tokens import NoSpatialMap, find_layout
from vistool.registry import CAM_TARGETS

Score = Callable[[Any, Sequence[Sample]], Tensor]
"""``(output, samples) → (n,)``: one score for each of the n images in the network's output; ``samples`` names them."""


@dataclass(frozen=True)
class Goal:
    """A score for each image of a batch: what a row of the figure shows the evidence for.

    Attributes:
        samples: The images, B of them.
        name: What the score is called; classes have their own names instead.
        classes: int64 ``(B,)``, the class of each image, or None for a score that is no class's.
        custom: The score where it is no class's.
        plain: The class scores ``(B, C)`` of the images as they are, detached; None where there are none.
        similar: int64 ``(B, S)`` classes that FinerCAM holds against; None leaves them to be found.
    """

    samples: Sequence[Sample]
    name: str = ''
    classes: Tensor | None = None
    custom: Score | None = None
    plain: Tensor | None = None
    similar: Tensor | None = None

    def score(self, output: Any, rows: Tensor) -> Tensor:
        """The score of each row of a network's output.

        Args:
            output: What the network returned for n images.
            rows: int64 ``(n,)``, the image that each is a version of, counted modulo B.

        Returns:
            ``(n,)``.
        """
        images = rows % len(self.samples)
        if self.custom is not None:
            score = self.custom(output, [self.samples[index] for index in images.tolist()])
            if not isinstance(score, Tensor) or score.shape != images.shape:
                shape = tuple(score.shape) if isinstance(score, Tensor) else type(score).__name__
                raise InputError(
                    f'{self.name} gave {shape} for {len(images)} image(s)',
                    accepted='a tensor (n,)',
                    parameter='cam_target',
                )
            return score
        assert self.classes is not None
        scores = scores_of(output)
        return scores.gather(1, self.classes[images.to(self.classes.device), None].to(scores.device))[:, 0]

    def values(self, output: Any, count: int) -> Tensor | None:
        """The scores ``(B,)`` of the plain images, first of ``count``; None for classes: they have probabilities."""
        if self.custom is None:
            return None
        return self.score(output, torch.arange(count))[: len(self.samples)].detach().float().cpu()


def scores_of(output: Any) -> Tensor:
    """The class scores ``(n, C)`` in a network's output."""
    scores = class_scores(output)
    assert scores is not None  # goals for classes are made only where there are some
    return scores


def custom_goal(spec: Any, samples: Sequence[Sample]) -> Goal:
    """The goal that a config's ``cam_target`` asks for.

    Args:
        spec: A callable ``(output, samples) → (n,)``, or ``dict(type='Name', …)`` for one in
            :data:`~vistool.registry.CAM_TARGETS`: a class, whose instance is called, or a function, which gets the
            rest of the dict as keywords.
        samples: The images.

    Raises:
        InputError: If there is none of this name, or it cannot be built.
    """
    if not isinstance(spec, Mapping):
        return Goal(samples, getattr(spec, 'name', '') or getattr(spec, '__name__', type(spec).__name__), custom=spec)
    options = dict(spec)
    kind = options.pop('type', None)
    target: Any = CAM_TARGETS.get(kind) if isinstance(kind, str) else kind
    if not callable(target):
        raise InputError(
            f'no score {kind!r} is registered',
            accepted=', '.join(CAM_TARGETS.module_dict) or 'a name in vistool.registry.CAM_TARGETS',
            hint=close_matches(str(kind), CAM_TARGETS.module_dict) or "name its file in the config's custom_imports",
            parameter='cam_target',
        )
    try:
        built: Any = target(**options) if inspect.isclass(target) else functools.partial(target, **options)
    except (TypeError, ValueError) as error:
        raise InputError(f'{kind} cannot be built: {error}', parameter='cam_target') from error
    name = getattr(built, 'name', '') or (kind if isinstance(kind, str) else target.__name__)
    return Goal(samples, name, custom=built)


def reference_goal(model: Model, reference: Any, samples: Sequence[Sample]) -> Goal:
    """Likeness to ``reference``: the cosine of the angle between the images' features and its own.

    Args:
        model: The network, which runs on the reference once however many batches there are.
        reference: A path, a sample, or a network input.
        samples: The images.
    """

    def find() -> tuple[Any, str, Tensor]:
        read = model.read(reference) if isinstance(reference, (str, Path)) else reference
        sample = as_samples(read)[0][0]
        inputs = model.batch([sample])
        with borrowed(model.module), torch.no_grad():
            # the reference itself is kept, so that its id stays its own
            return reference, sample.name, features(call_module(model.module, inputs), input_size(inputs)[0])

    key = str(reference) if isinstance(reference, (str, Path)) else id(reference)
    _, name, own = model.cached('reference', (key, torch.is_autocast_enabled(model.device.type)), find)

    def similarity(output: Any, images: Sequence[Sample]) -> Tensor:
        size = next((tuple(sample.image.shape[:2]) for sample in images), (1, 1))
        return F.cosine_similarity(features(output, (size[0], size[1])), own)

    return Goal(samples, f'similarity to {name}', custom=similarity)


def features(output: Any, size: tuple[int, int]) -> Tensor:
    """One vector for each image: the class token where there is one, else the mean over the positions.

    Args:
        output: What a headless network returned: pooled features ``(B, D)``, tokens ``(B, L, D)``, a map ``(B, D, h,
            w)``, a tuple of such, one a stage, of which the last counts, or a Hugging Face output object.
        size: ``(H, W)`` of the network input.

    Returns:
        ``(B, D)``.

    Raises:
        InputError: If there are no features in it.
    """
    if isinstance(output, Mapping):
        for key in ('pooler_output', 'image_embeds', 'last_hidden_state', 'logits'):
            if isinstance(output.get(key), Tensor):
                return features(output[key], size)
        output = tuple(output.values())
    if isinstance(output, (tuple, list)) and output:
        return features(output[-1], size)
    if isinstance(output, Tensor) and output.ndim in (2, 3, 4):
        return output if output.ndim == 2 else _pooled(output, size)
    raise InputError(
        f"the network's output ({type(output).__name__}) holds no features to compare",
        accepted='(B, D), (B, L, D) or (B, D, h, w)',
        parameter='reference',
    )


def _pooled(output: Tensor, size: tuple[int, int]) -> Tensor:
    try:
        layout = find_layout(output, size)
    except NoSpatialMap:  # pooled to one position, or tokens in no grid
        return output.mean((2, 3)) if output.ndim == 4 else output.mean(1)
    if layout.axes == 'BLC' and layout.prefix:
        return output[:, 0]
    return layout.to_map(output).mean((2, 3))

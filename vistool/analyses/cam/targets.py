"""What a map explains: a class, a score of the user's own, or the similarity to a reference image."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vistool.data.samples import Sample
from vistool.errors import InputError, cause_of, close_matches, counted
from vistool.models.model import Model, as_samples
from vistool.network.forward import Pullback
from vistool.network.inputs import run_network
from vistool.network.outputs import Readout, feature_place, pooled_features, pooling, written
from vistool.network.tensors import NetworkInput, float_tensors, input_size
from vistool.records import shown
from vistool.registry import CAM_TARGETS

log = logging.getLogger('vistool')

Score: TypeAlias = Callable[[Any, Sequence[Sample]], Tensor]
"""``(output, samples) → (n,)``: one score for each of the n images in the network's output; ``samples`` are these."""


class Target(Protocol):
    """A score for each image of a batch, whose evidence the maps show: a row of the figure."""

    def asks(self, image: int) -> bool:
        """Whether the score is asked for of this image; images may have different numbers of targets."""

    def score(self, output: Any, rows: Tensor) -> Tensor:
        """The score of each row of a network's output.

        Args:
            output: What the network returned for n images.
            rows: int64 ``(n,)``, the image that each row is a version of, counted modulo B.

        Returns:
            ``(n,)``.
        """

    def pullback(self, output: Any, rows: Tensor) -> Pullback:
        """The gradient of the sum of the scores at tensors of an output's graph, such as that sum itself."""

    def values(self, output: Any, count: int) -> Tensor | None:
        """Scores ``(B,)`` of the plain images, the first of ``count``; None for classes (they have probabilities)."""


def pulled_back(scores: Tensor) -> Pullback:
    """The sum of scores ``(n,)``; its gradient is left out, since PyTorch imports sympy for one that is given."""
    return [(scores.sum(), None)]


@dataclass(frozen=True)
class ClassTarget:
    """A class, or a value of a regression, for each image.

    Attributes:
        classes: int64 ``(B,)``, the class of each image.
        plain: The class scores ``(B, C)`` of the images as they are, detached.
        readout: Finds the scores in an output.
        signs: ``(B,)``, 1, or −1 where the maps show the evidence against the class; None means 1.
        contrast: int64 ``(B, S)``, the classes that FinerCAM contrasts the target with; None leaves them to be found.
        asked: bool ``(B,)``, for which images the class is asked for; None means all of them.
        word: How it was asked for, where that does not name it: ``'top1'``, ``'label'``.
    """

    classes: Tensor
    plain: Tensor
    readout: Readout
    signs: Tensor | None = None
    contrast: Tensor | None = None
    asked: Tensor | None = None
    word: str = ''

    def asks(self, image: int) -> bool:
        """Whether the class is asked for of this image."""
        return self.asked is None or bool(self.asked[image])

    @functools.cached_property
    def chosen(self) -> Sequence[tuple[int, bool]]:
        """The class of each image, and whether the evidence against it is shown; fetched from a GPU once."""
        against = [False] * len(self.classes) if self.signs is None else (self.signs < 0).tolist()
        return list(zip(self.classes.tolist(), against, strict=True))

    def score(self, output: Any, rows: Tensor) -> Tensor:
        """The class score of each row of a network's output; see :class:`Target`."""
        scores = self.readout.scores(output, len(rows))
        images = (rows % len(self.classes)).to(self.classes.device)
        return self.signed(scores.gather(1, self.classes[images, None].to(scores.device))[:, 0], rows)

    def pullback(self, output: Any, rows: Tensor) -> Pullback:
        """The sum of the scores."""
        return pulled_back(self.score(output, rows))

    def signed(self, scores: Tensor, rows: Tensor) -> Tensor:
        """Scores ``(n,)`` of rows, negative where the evidence against the class is asked for."""
        if self.signs is None:
            return scores
        images = (rows % len(self.signs)).to(self.signs.device)
        return scores * self.signs[images].to(scores)

    def values(self, output: Any, count: int) -> None:
        """None: classes have probabilities."""


@dataclass(frozen=True)
class ScoreTarget:
    """A score that is not a class score.

    Attributes:
        samples: The images, B of them.
        name: The name of the score.
        function: Computes it.
        reference: uint8 ``(H, W, 3)`` RGB, the photo that the images are compared with; None where there is none.
        parameter: What named it, for errors.
    """

    samples: Sequence[Sample]
    name: str
    function: Score
    reference: NDArray[np.uint8] | None = None
    parameter: str = 'cam_target'

    def asks(self, image: int) -> bool:
        """True: the score is asked for of every image."""
        return True

    def score(self, output: Any, rows: Tensor) -> Tensor:
        """The score of each row of a network's output; see :class:`Target`.

        Raises:
            InputError: If the function fails, or returns something else than one score per row.
        """
        images = rows % len(self.samples)
        try:
            score = self.function(output, [self.samples[index] for index in images.tolist()])
        except InputError:
            raise
        except Exception as error:  # the user's own code
            raise InputError(f'{self.name} failed ({cause_of(error)})', parameter=self.parameter) from error
        if not isinstance(score, Tensor) or score.shape != images.shape:
            shape = tuple(score.shape) if isinstance(score, Tensor) else type(score).__name__
            raise InputError(
                f'{self.name} gave {shape} for {counted(len(images), "image")}',
                accepted='a tensor (n,)',
                parameter=self.parameter,
            )
        return score

    def pullback(self, output: Any, rows: Tensor) -> Pullback:
        """The sum of the scores."""
        return pulled_back(self.score(output, rows))

    def values(self, output: Any, count: int) -> Tensor:
        """The scores ``(B,)`` of the plain images."""
        return self.score(output, torch.arange(count))[: len(self.samples)].detach().float().cpu()


def custom_target(
    spec: Score | Mapping[str, Any], samples: Sequence[Sample], parameter: str = 'cam_target'
) -> ScoreTarget:
    """The target of a score of the user's own: the ``score`` of the analysis, or the config's ``cam_target``.

    Args:
        spec: A callable ``(output, samples) → (n,)``, or ``dict(type='Name', …)`` for one in
            :data:`~vistool.registry.CAM_TARGETS`: a class, whose instance is called, or a function, which gets the
            rest of the dict as keywords.
        samples: The images.
        parameter: Which of the two it is, for errors.

    Raises:
        InputError: If it is neither, no score of this name is registered, or it cannot be built.
    """
    if not isinstance(spec, Mapping):
        if not callable(spec):
            raise InputError(
                f'{shown(spec)} is not a score', accepted="dict(type='NAME', …) or a function", parameter=parameter
            )
        name = getattr(spec, 'name', '') or getattr(spec, '__name__', type(spec).__name__)
        return ScoreTarget(samples, name, spec, parameter=parameter)
    options = dict(spec)
    kind = options.pop('type', None)
    target: Any = CAM_TARGETS.get(kind) if isinstance(kind, str) else kind
    if not callable(target):
        raise InputError(
            f'no score {kind!r} is registered',
            accepted=', '.join(CAM_TARGETS.module_dict) or 'a name in vistool.registry.CAM_TARGETS',
            hint=close_matches(str(kind), CAM_TARGETS.module_dict) or "name its file in the config's custom_imports",
            parameter=parameter,
        )
    try:
        built: Any = target(**options) if inspect.isclass(target) else functools.partial(target, **options)
    except (TypeError, ValueError) as error:
        raise InputError(f'{kind} cannot be built: {error}', parameter=parameter) from error
    name = getattr(built, 'name', '') or (kind if isinstance(kind, str) else target.__name__)
    return ScoreTarget(samples, name, built, parameter=parameter)


def similarity_target(
    model: Model, reference: str | Path | Sample | NetworkInput, samples: Sequence[Sample]
) -> ScoreTarget:
    """The cosine similarity between the images' features and those of a reference image.

    Args:
        model: The network, which runs on the reference only once, however many batches there are.
        reference: A path, a sample, or a network input.
        samples: The images.
    """

    def compute() -> tuple[Any, Sample, Tensor]:
        read = model.read(reference) if isinstance(reference, (str, Path)) else reference
        sample = as_samples(read, model)[0][0]
        inputs = model.batch([sample])
        with model.borrowed(), torch.no_grad():
            output = run_network(model.module, inputs)
            size = input_size(inputs)[0]
            place = f'{written(feature_place(output))} of the output' if len(list(float_tensors(output))) > 1 else ''
            if told := ', '.join(filter(None, (place, pooling(output, size)))):
                log.info('features to compare: %s', told)
            # the reference itself is cached too, so that its id stays its own
            return reference, sample, pooled_features(output, size)

    key = str(reference) if isinstance(reference, (str, Path)) else id(reference)
    _, compared, own = model.cached('reference', (key, torch.is_autocast_enabled(model.device.type)), compute)

    def similarity(output: Any, images: Sequence[Sample]) -> Tensor:
        size = next((tuple(sample.image.shape[:2]) for sample in images), (1, 1))
        return F.cosine_similarity(pooled_features(output, (size[0], size[1])), own)

    return ScoreTarget(samples, f'similarity to {compared.name}', similarity, compared.original, 'reference')

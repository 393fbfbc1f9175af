"""Reading whole photos at a size of the user's own, whatever a config's pipeline would resize and crop them to."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from vistool.errors import InputError
from vistool.inputs.pipeline import build_transforms
from vistool.inputs.reader import Pipeline, original_of
from vistool.inputs.refitting import find_strict, refit, size_of
from vistool.inputs.samples import Sample
from vistool.transforms.tracing import name_of

FITS = ('crop', 'pad', 'resize')
_RESIZING = re.compile(r'Resize|Crop|Pad|Cover|Scale|Expand')


@dataclass(frozen=True)
class Size:
    """A size asked for.

    Attributes:
        edge: Length of the shorter side, or None.
        exact: ``(H, W)``, or None.
        factor: Of the photo's own size, or None.
    """

    edge: int | None = None
    exact: tuple[int, int] | None = None
    factor: float | None = None

    @classmethod
    def parse(cls, text: str) -> Size:
        """Reads ``518``, ``480,640`` or ``0.5x``.

        Raises:
            InputError: If it is none of them.
        """
        plain = text.strip().lower()
        if re.fullmatch(r'0*[1-9]\d*', plain):
            return cls(edge=int(plain))
        if match := re.fullmatch(r'0*([1-9]\d*)\s*[,x]\s*0*([1-9]\d*)', plain):
            return cls(exact=(int(match[1]), int(match[2])))
        if re.fullmatch(r'(\d+\.?\d*|\.\d+)x', plain) and float(plain[:-1]) > 0:
            return cls(factor=float(plain[:-1]))
        raise InputError(f'{text!r} is no size', accepted='an edge (518), H,W (480,640) or 0.5x', argument='--img-size')

    def of(self, photo: tuple[int, int]) -> tuple[int, int]:
        """``(H, W)`` for a photo of this size."""
        if self.exact is not None:
            return self.exact
        factor = self.factor if self.factor is not None else (self.edge or 1) / min(photo)
        return max(1, round(photo[0] * factor)), max(1, round(photo[1] * factor))


class SizedPipeline:
    """A pipeline whose resizes, crops and pads give way to one resize of the whole photo.

    Args:
        pipeline: The config's.
        size: The size asked for.
        fit: What is done with sizes that are no multiple of the patch: ``crop`` the middle, ``pad`` at the right and
            below, or ``resize`` to the nearest multiple.
        patch: ``(vertical, horizontal)`` pixels.
        scope: The config's default scope.
    """

    def __init__(self, pipeline: Any, size: Size, fit: str, patch: tuple[int, int], scope: str | None) -> None:
        if not isinstance(pipeline, Pipeline) or pipeline.takes_images:
            raise InputError('needs a config with one pipeline of OpenMMLab transforms', argument='--img-size')
        self.pipeline, self.size, self.fit, self.patch, self.scope = pipeline, size, fit, patch, scope

    def read(self, source: Any, **more: Any) -> Sample:
        """As :meth:`Pipeline.read`."""
        photo = original_of(source)[0].shape
        height, width = self.size.of((photo[0], photo[1]))
        if self.fit == 'crop' and (height < self.patch[0] or width < self.patch[1]):
            raise InputError(
                f'{height}×{width} is smaller than a patch ({self.patch[0]}×{self.patch[1]})',
                hint='--fit pad or resize keeps at least one',
                argument='--img-size',
            )
        steps = self._steps((height, width))
        kept = [t for t in self.pipeline.transforms if not _RESIZING.search(name_of(t))]
        first = next((i for i, t in enumerate(self.pipeline.transforms) if _RESIZING.search(name_of(t))), None)
        at = min(1, len(kept)) if first is None else first
        sized = Pipeline([*kept[:at], *build_transforms(steps, self.scope), *kept[at:]])
        sized.preprocessing, sized._preprocessor = self.pipeline.preprocessing, self.pipeline._preprocessor
        return sized.read(source, **more)

    def _steps(self, size: tuple[int, int]) -> list[dict[str, Any]]:
        down = [max(n // p, 1) * p for n, p in zip(size, self.patch, strict=True)]
        near = [max(int(np.floor(n / p + 0.5)), 1) * p for n, p in zip(size, self.patch, strict=True)]
        up = [-(-n // p) * p for n, p in zip(size, self.patch, strict=True)]
        height, width = near if self.fit == 'resize' else size
        resize = {'type': 'Resize', 'scale': (width, height), 'backend': 'pillow', 'interpolation': 'bicubic'}
        if self.fit == 'crop' and down != [height, width]:
            return [resize, {'type': 'CenterCrop', 'crop_size': (down[1], down[0])}]
        if self.fit == 'pad' and up != [height, width]:
            return [resize, {'type': 'Pad', 'size': (up[1], up[0])}]
        return [resize]


def sizing(size: str | None, fit: str) -> Callable[[Any], None] | None:
    """What makes a loaded model read and take photos at a size of the user's own; None where no size is given.

    Args:
        size: As :meth:`Size.parse` reads it.
        fit: Out of :data:`FITS`.

    Raises:
        InputError: If one of them is not accepted.
    """
    if fit not in FITS:
        raise InputError(f'{fit!r} is no way to fit', accepted=', '.join(FITS), argument='--fit')
    if size is None:
        return None
    wanted = Size.parse(size)

    def prepare(model: Any) -> None:
        scope = model.config.get('default_scope') if model.config is not None else None
        model.pipeline = SizedPipeline(model.pipeline, wanted, fit, patch_size(model.module), scope)
        accept_any_size(model.module)
        model.fit = _refit

    return prepare


def _refit(model: Any, inputs: Any) -> None:
    size = size_of(inputs)
    if size is not None:
        refit(model, size)


def patch_size(module: nn.Module) -> tuple[int, int]:
    """The patch that a network cuts images into, ``(vertical, horizontal)``; ``(1, 1)`` where any size will do.

    That is the first convolution over images, where its windows do not overlap.
    """
    strict = find_strict(module)
    if strict is not None:
        return strict.patch
    for child in module.modules():
        if isinstance(child, nn.Conv2d) and child.in_channels <= 4:
            stride = child.stride if isinstance(child.stride, tuple) else (child.stride, child.stride)
            kernel = child.kernel_size
            return (int(stride[0]), int(stride[1])) if tuple(kernel) == tuple(stride) else (1, 1)
    return 1, 1


def accept_any_size(module: nn.Module) -> None:
    """Lets networks that are built for one size interpolate their position embedding, where they know how to.

    timm's get their input size set to that of each batch; Hugging Face's are asked to interpolate. Most of mmpretrain's
    do so by themselves; what is left, :mod:`vistool.inputs.refitting` builds again.
    """
    for child in module.modules():
        if callable(getattr(child, 'set_input_size', None)) and type(child).__module__.startswith('timm.'):
            child.register_forward_pre_hook(_set_input_size)
        elif 'interpolate_pos_encoding' in inspect.signature(child.forward).parameters:
            child.register_forward_pre_hook(_interpolate, with_kwargs=True)


def _set_input_size(module: Any, args: tuple[Any, ...]) -> None:
    size = tuple(args[0].shape[-2:])
    if tuple(getattr(getattr(module, 'patch_embed', None), 'img_size', None) or size) != size:
        module.set_input_size(img_size=size)


def _interpolate(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, {**kwargs, 'interpolate_pos_encoding': True}

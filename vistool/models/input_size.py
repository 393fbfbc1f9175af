"""Reading whole photos at a size of the user's own, whatever a config's pipeline would resize and crop them to."""

from __future__ import annotations

import inspect
import logging
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from vistool.data.pipelines import Pipeline, build_transforms, original_of
from vistool.data.samples import Sample
from vistool.data.tracing import name_of
from vistool.errors import InputError, message_of, param
from vistool.models.checkpoints.weights import TABLE, resize_table
from vistool.network.embedding import as_pair, first_convolution
from vistool.network.tensors import find_image

if TYPE_CHECKING:
    from vistool.models.model import Model

log = logging.getLogger('vistool')

Shape = tuple[int, int]
_DERIVED = ('relative_position_index', 'rel_indices')


@dataclass(frozen=True)
class Strict:
    """A network that takes images of one size only.

    Attributes:
        name: Dotted name in the model.
        module: The network.
        argument: Of its constructor.
        size: ``(H, W)`` that it is built for.
        patch: ``(vertical, horizontal)`` pixels.
        resample: ``(embedding (1, N, C), old grid, new grid) → (1, M, C)``.
    """

    name: str
    module: nn.Module
    argument: str
    size: Shape
    patch: Shape
    resample: Callable[[Tensor, Shape, Shape], Tensor]

    def grid(self, size: Shape) -> Shape:
        """Tokens of an image."""
        return size[0] // self.patch[0], size[1] // self.patch[1]


def find_strict(root: nn.Module) -> Strict | None:
    """The part of a model that takes one image size only and can be built for another; None where there is none."""
    for name, child in root.named_modules():
        kind: Any = child
        names = {f'{base.__module__.split(".")[0]}.{base.__name__}' for base in type(child).__mro__}
        if 'mmpretrain.BEiTViT' in names:
            patch = _pair(kind.patch_embed.projection.stride)
            return Strict(name, child, 'img_size', _pair(kind.img_size), patch, _mmpretrain)
        if 'mmpretrain.TNT' in names:
            # The stride of its stem times what is unfolded behind it.
            steps = zip(_pair(kind.pixel_embed.proj.stride), kind.pixel_embed.new_patch_size, strict=True)
            high, wide = (step * pixels for step, pixels in steps)
            return Strict(name, child, 'img_size', _pair(kind.pixel_embed.img_size), (high, wide), _mmpretrain)
        if 'torchvision.VisionTransformer' in names:
            return Strict(name, child, 'image_size', _pair(kind.image_size), _pair(kind.patch_size), _torchvision)
        patches: Any = getattr(child, 'patch_embed', None)
        strict = getattr(patches, 'strict_img_size', False) and not hasattr(child, 'set_input_size')
        if strict and type(child).__module__.startswith('timm.'):
            return Strict(name, child, 'img_size', _pair(patches.img_size), _pair(patches.patch_size), _timm)
    return None


def refit(model: Model, size: Shape) -> None:
    """Makes a model take images of another size where it was built for one; else leaves it as it is.

    Args:
        model: Built from a config; its ``module`` is replaced.
        size: ``(H, W)``.

    Raises:
        InputError: If the network cannot be built for this size.
    """
    strict = find_strict(model.module)
    if strict is None or strict.size == size or model.config is None:
        return
    from vistool.models.configs import Source
    from vistool.models.model import build_module

    config = model.config.copy()
    part = config.model.backbone if strict.name.split('.')[0] == 'backbone' else config.model
    value: Any = size
    if strict.argument == 'image_size':  # torchvision's are square
        if size[0] != size[1]:
            raise _refused(strict, size, 'it takes square images only')
        value = size[0]
    part[strict.argument] = value
    try:
        module = build_module(Source(config, model.name))
        module.load_state_dict(_fitted(strict, size, model.module, module), strict=False)
    except (RuntimeError, InputError) as error:
        raise _refused(strict, size, message_of(error)) from error
    module.to(model.device)
    module.eval()
    model.module = module
    model.clear_cache()
    log.info('%s: built again for %d×%d images', model.name, *size)


def _fitted(strict: Strict, size: Shape, before: nn.Module, after: nn.Module) -> dict[str, Tensor]:
    old, new = strict.grid(strict.size), strict.grid(size)
    wanted = after.state_dict()
    fitted: dict[str, Tensor] = {}
    for name, value in before.state_dict().items():
        kind = name.rpartition('.')[2]
        if kind in _DERIVED:
            fitted[name] = wanted[name]
        elif kind in ('pos_embed', 'pos_embedding', 'patch_pos') and value.ndim == 3:
            fitted[name] = strict.resample(value, old, new)
        elif kind == TABLE:
            owner = name.rpartition('.')[0]
            windows = [_pair(root.get_submodule(owner).window_size) for root in (before, after)]
            fitted[name] = resize_table(value, *((2 * h - 1, 2 * w - 1) for h, w in windows))
        else:
            fitted[name] = value
    return fitted


def _refused(strict: Strict, size: Shape, why: str) -> InputError:
    (height, width), (high, wide) = strict.size, size
    other = (min(size),) * 2 if strict.argument == 'image_size' and high != wide else strict.size
    return InputError(
        f'{type(strict.module).__name__} is built for {height}×{width} images and cannot be for {high}×{wide} ({why})',
        hint=f'take {other[0]},{other[1]}, or leave {param("img_size")} out',
        parameter='img_size',
    )


def _mmpretrain(embedding: Tensor, old: Shape, new: Shape) -> Tensor:
    from mmpretrain.models.utils import resize_pos_embed

    extra = embedding.shape[1] - old[0] * old[1]
    resized: Tensor = resize_pos_embed(embedding, old, new, 'bicubic', extra)
    return resized


def _timm(embedding: Tensor, old: Shape, new: Shape) -> Tensor:
    from timm.layers import resample_abs_pos_embed

    extra = embedding.shape[1] - old[0] * old[1]
    return resample_abs_pos_embed(embedding, list(new), list(old), num_prefix_tokens=extra)


def _torchvision(embedding: Tensor, old: Shape, new: Shape) -> Tensor:
    from torchvision.models.vision_transformer import interpolate_embeddings

    state: Mapping[str, Tensor] = interpolate_embeddings(new[0], 1, OrderedDict({'encoder.pos_embedding': embedding}))
    return state['encoder.pos_embedding']


def _pair(value: Any) -> Shape:
    return (int(value), int(value)) if isinstance(value, (int, float)) else (int(value[0]), int(value[1]))


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
        raise InputError(f'{text!r} is no size', accepted='an edge (518), H,W (480,640) or 0.5x', parameter='img_size')

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
            raise InputError('needs a config with one pipeline of OpenMMLab transforms', parameter='img_size')
        self.pipeline, self.size, self.fit, self.patch, self.scope = pipeline, size, fit, patch, scope

    def read(self, source: Any, **more: Any) -> Sample:
        """As :meth:`Pipeline.read`."""
        photo = original_of(source)[0].shape
        height, width = self.size.of((photo[0], photo[1]))
        if self.fit == 'crop' and (height < self.patch[0] or width < self.patch[1]):
            raise InputError(
                f'{height}×{width} is smaller than a patch ({self.patch[0]}×{self.patch[1]})',
                hint=f'{param("fit", "pad")} or resize keeps at least one',
                parameter='img_size',
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
        raise InputError(f'{fit!r} is no way to fit', accepted=', '.join(FITS), parameter='fit')
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
    image = find_image(inputs)
    if image is not None:
        refit(model, (int(image.shape[2]), int(image.shape[3])))


def patch_size(module: nn.Module) -> tuple[int, int]:
    """The patch that a network cuts images into, ``(vertical, horizontal)``; ``(1, 1)`` where any size will do.

    That is the first convolution over images, where its windows do not overlap.
    """
    strict = find_strict(module)
    if strict is not None:
        return strict.patch
    convolution = first_convolution(module)
    if convolution is None or tuple(convolution.kernel_size) != as_pair(convolution.stride):
        return 1, 1
    return as_pair(convolution.stride)


def accept_any_size(module: nn.Module) -> None:
    """Lets networks that are built for one size interpolate their position embedding, where they know how to.

    timm's get their input size set to that of each batch; Hugging Face's are asked to interpolate. Most of mmpretrain's
    do so by themselves; what is left, :mod:`vistool.models.input_size` builds again.
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

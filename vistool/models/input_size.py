"""Reading whole photos at a size given by the user, regardless of the resizes and crops in the config's pipeline."""

from __future__ import annotations

import inspect
import logging
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from vistool.data.geometry import Size
from vistool.data.images import ImageLike, photo_size
from vistool.data.pipelines import Pipeline, build_transforms
from vistool.data.samples import Sample
from vistool.data.transforms import name_of
from vistool.errors import InputError, message_of, param
from vistool.models.checkpoints.weights import TABLE, resize_table
from vistool.models.configs import Source
from vistool.models.model import Model, build_module
from vistool.network.embedding import as_pair, first_convolution
from vistool.network.tensors import NetworkInput, find_image
from vistool.records import shown

log = logging.getLogger('vistool')

FITS = ('crop', 'pad', 'resize')
"""What can be done with a size that is not a multiple of the patch."""

_RESIZING = re.compile(r'Resize|Crop|Pad|Cover|Scale|Expand')
_DERIVED = ('relative_position_index', 'rel_indices')


def sizing(size: str | None, fit: str) -> Callable[[Model], SizedModel] | None:
    """How a loaded model is made to read and take photos at a size given by the user; None if no size is given.

    Args:
        size: See :meth:`PhotoSize.parse`.
        fit: One of :data:`FITS`.

    Raises:
        InputError: One of them is not accepted.
    """
    if fit not in FITS:
        raise InputError(f'unknown fit {fit!r}', accepted=', '.join(FITS), parameter='fit')
    wanted = None if size is None else PhotoSize.parse(size)
    return None if wanted is None else lambda model: SizedModel(model, wanted, fit)


@dataclass(frozen=True)
class PhotoSize:
    """The size at which photos are read; one of the three attributes is given.

    Attributes:
        edge: Length of the shorter side, in pixels.
        exact: ``(H, W)``.
        factor: Factor of the photo's own size.
    """

    edge: int | None = None
    exact: Size | None = None
    factor: float | None = None

    @classmethod
    def parse(cls, text: str) -> PhotoSize:
        """Reads ``518``, ``480,640`` or ``0.5x``.

        Raises:
            InputError: The text has another form.
        """
        plain = text.strip().lower()
        if re.fullmatch(r'0*[1-9]\d{0,8}', plain):
            return cls(edge=int(plain))
        if match := re.fullmatch(r'0*([1-9]\d{0,8})\s*[,x]\s*0*([1-9]\d{0,8})', plain):
            return cls(exact=(int(match[1]), int(match[2])))
        if re.fullmatch(r'(\d{1,9}\.?\d{0,30}|\.\d{1,30})x', plain) and float(plain[:-1]) > 0:
            return cls(factor=float(plain[:-1]))
        raise InputError(
            f'{shown(text)} is not a size', accepted='an edge (518), H,W (480,640) or 0.5x', parameter='img_size'
        )

    def of(self, photo: Size) -> Size:
        """``(H, W)`` for a photo of this size."""
        if self.exact is not None:
            return self.exact
        factor = self.factor if self.factor is not None else (self.edge or 1) / min(photo)
        return max(1, round(photo[0] * factor)), max(1, round(photo[1] * factor))


class SizedModel:
    """A model that reads and takes photos at a size given by the user, until :meth:`remove` is called.

    Its pipeline becomes a :class:`SizedPipeline`. timm's networks get their input size set to that of each batch, and
    Hugging Face's are asked to interpolate their position embedding, both by hooks. Most of mmpretrain's networks
    interpolate it themselves. Those that cannot are built again by :func:`adapt_to_input`.

    Args:
        model: The model, which is changed in place.
        size: The size of the photos.
        fit: One of :data:`FITS`.
    """

    def __init__(self, model: Model, size: PhotoSize, fit: str) -> None:
        scope = model.config.get('default_scope') if model.config is not None else None
        pipeline = SizedPipeline(model.pipeline, size, fit, patch_size(model.module), scope)
        self.model = model
        self._before = model.pipeline, model.adapt_to_input, model.module
        self._hooks = _interpolate_positions(model.module)
        model.pipeline, model.adapt_to_input = pipeline, _adapt_to_batch

    def remove(self) -> None:
        """Restores the model's pipeline and network, and removes the hooks."""
        for hook in self._hooks:
            hook.remove()
        self.model.pipeline, self.model.adapt_to_input, self.model.module = self._before
        self.model.clear_cache()


class SizedPipeline(Pipeline):
    """A pipeline in which one resize of the whole photo replaces the resizes, crops and pads.

    Args:
        pipeline: The config's.
        size: The size of the photos.
        fit: What is done with sizes that are not multiples of the patch: ``crop`` the center, ``pad`` at the right and
            below, or ``resize`` to the nearest multiple.
        patch: ``(vertical, horizontal)`` pixels.
        scope: The config's default scope.

    Raises:
        InputError: The pipeline does not consist of OpenMMLab's transforms.
    """

    def __init__(self, pipeline: Any, size: PhotoSize, fit: str, patch: Size, scope: str | None) -> None:
        if not isinstance(pipeline, Pipeline) or pipeline.takes_images:
            raise InputError('needs a config with one pipeline of OpenMMLab transforms', parameter='img_size')
        super().__init__(pipeline.transforms, display=pipeline.display, channels=pipeline.channels)
        self.preprocessing, self._preprocessor = pipeline.preprocessing, pipeline._preprocessor
        self.size, self.fit, self.patch, self.scope = size, fit, patch, scope

    def read(
        self,
        source: ImageLike,
        seed: int = 0,
        index: int = 0,
        name: str | None = None,
        info: Mapping[str, Any] | None = None,
        observe: Callable[[Any, Any], None] | None = None,
    ) -> Sample:
        """Like :meth:`Pipeline.read`."""
        height, width = self.size.of(photo_size(source))
        if self.fit == 'crop' and (height < self.patch[0] or width < self.patch[1]):
            raise InputError(
                f'{height}×{width} is smaller than a patch ({self.patch[0]}×{self.patch[1]})',
                hint=f'{param("fit", "pad")} or resize keeps at least one',
                parameter='img_size',
            )
        steps = self._steps((height, width))
        kept = [t for t in self.transforms if not _RESIZING.search(name_of(t))]
        first = next((i for i, t in enumerate(self.transforms) if _RESIZING.search(name_of(t))), None)
        at = min(1, len(kept)) if first is None else first
        sized = self.with_transforms([*kept[:at], *build_transforms(steps, self.scope), *kept[at:]])
        return sized.read(source, seed, index, name, info, observe)

    def _steps(self, size: Size) -> list[dict[str, Any]]:
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


def patch_size(module: nn.Module) -> Size:
    """The patch size ``(vertical, horizontal)`` of a network; ``(1, 1)`` if it takes any size.

    It is the stride of the first convolution over images, if its windows do not overlap.
    """
    fixed = find_fixed_size(module)
    if fixed is not None:
        return fixed.patch
    convolution = first_convolution(module)
    if convolution is None or tuple(convolution.kernel_size) != as_pair(convolution.stride):
        return 1, 1
    return as_pair(convolution.stride)


@dataclass(frozen=True)
class FixedSizeNetwork:
    """A network that takes images of one size only, and can be built for another.

    Attributes:
        name: Dotted name in the model.
        module: The network.
        argument: The argument of its constructor that sets the size.
        size: ``(H, W)`` that it is built for.
        patch: ``(vertical, horizontal)`` pixels.
        resample: ``(embedding (1, N, C), old grid, new grid) → (1, M, C)``.
    """

    name: str
    module: nn.Module
    argument: str
    size: Size
    patch: Size
    resample: Callable[[Tensor, Size, Size], Tensor]

    def grid(self, size: Size) -> Size:
        """Rows and columns of tokens for an image of this size."""
        return size[0] // self.patch[0], size[1] // self.patch[1]


def find_fixed_size(root: nn.Module) -> FixedSizeNetwork | None:
    """The part of a model that takes one image size only and can be built for another, or None."""
    for name, child in root.named_modules():
        kind: Any = child
        names = {f'{base.__module__.split(".")[0]}.{base.__name__}' for base in type(child).__mro__}
        if 'mmpretrain.BEiTViT' in names:
            patch = as_pair(kind.patch_embed.projection.stride)
            return FixedSizeNetwork(name, child, 'img_size', as_pair(kind.img_size), patch, _resample_mmpretrain)
        if 'mmpretrain.TNT' in names:
            # The stride of its stem times the patch that is unfolded after it.
            strides = zip(as_pair(kind.pixel_embed.proj.stride), kind.pixel_embed.new_patch_size, strict=True)
            high, wide = (stride * pixels for stride, pixels in strides)
            size = as_pair(kind.pixel_embed.img_size)
            return FixedSizeNetwork(name, child, 'img_size', size, (high, wide), _resample_mmpretrain)
        if 'torchvision.VisionTransformer' in names:
            size, patch = as_pair(kind.image_size), as_pair(kind.patch_size)
            return FixedSizeNetwork(name, child, 'image_size', size, patch, _resample_torchvision)
        embed: Any = getattr(child, 'patch_embed', None)
        strict = getattr(embed, 'strict_img_size', False) and not hasattr(child, 'set_input_size')
        if strict and type(child).__module__.startswith('timm.'):
            size, patch = as_pair(embed.img_size), as_pair(embed.patch_size)
            return FixedSizeNetwork(name, child, 'img_size', size, patch, _resample_timm)
    return None


def adapt_to_input(model: Model, size: Size) -> None:
    """Builds a model again, with the same weights, if it takes one image size only and this is another one.

    Args:
        model: Built from a config; its ``module`` is replaced. Other models are left unchanged.
        size: ``(H, W)`` of the images.

    Raises:
        InputError: The network cannot be built for this size.
    """
    fixed = find_fixed_size(model.module)
    if fixed is None or fixed.size == size or model.config is None:
        return
    config = model.config.copy()
    part = config.model.backbone if fixed.name.split('.')[0] == 'backbone' else config.model
    value: Any = size
    if fixed.argument == 'image_size':  # torchvision's are square
        if size[0] != size[1]:
            raise _unsuitable(fixed, size, 'it takes square images only')
        value = size[0]
    part[fixed.argument] = value
    try:
        module = build_module(Source(config, model.name))
        module.load_state_dict(_resampled(fixed, size, model.module, module), strict=False)
    except (RuntimeError, InputError) as error:
        raise _unsuitable(fixed, size, message_of(error)) from error
    module.to(model.device)
    module.eval()
    model.module = module
    model.clear_cache()
    log.info('%s: built again for %d×%d images', model.name, *size)


def _adapt_to_batch(model: Model, inputs: NetworkInput) -> None:
    image = find_image(inputs)
    if image is not None:
        adapt_to_input(model, (int(image.shape[2]), int(image.shape[3])))


def _resampled(fixed: FixedSizeNetwork, size: Size, before: nn.Module, after: nn.Module) -> dict[str, Tensor]:
    """The weights of ``before``, with position embeddings and bias tables resized for ``after``."""
    old, new = fixed.grid(fixed.size), fixed.grid(size)
    wanted = after.state_dict()
    resampled: dict[str, Tensor] = {}
    for name, value in before.state_dict().items():
        kind = name.rpartition('.')[2]
        if kind in _DERIVED:
            resampled[name] = wanted[name]
        elif kind in ('pos_embed', 'pos_embedding', 'patch_pos') and value.ndim == 3:
            resampled[name] = fixed.resample(value, old, new)
        elif kind == TABLE:
            owner = name.rpartition('.')[0]
            windows = [as_pair(root.get_submodule(owner).window_size) for root in (before, after)]
            resampled[name] = resize_table(value, *((2 * h - 1, 2 * w - 1) for h, w in windows))
        else:
            resampled[name] = value
    return resampled


def _unsuitable(fixed: FixedSizeNetwork, size: Size, why: str) -> InputError:
    (height, width), (high, wide) = fixed.size, size
    other = (min(size),) * 2 if fixed.argument == 'image_size' and high != wide else fixed.size
    return InputError(
        f'{type(fixed.module).__name__} is built for {height}×{width} images and cannot be for {high}×{wide} ({why})',
        hint=f'take {other[0]},{other[1]}, or leave {param("img_size")} out',
        parameter='img_size',
    )


def _resample_mmpretrain(embedding: Tensor, old: Size, new: Size) -> Tensor:
    from mmpretrain.models.utils import resize_pos_embed

    extra = embedding.shape[1] - old[0] * old[1]
    resized: Tensor = resize_pos_embed(embedding, old, new, 'bicubic', extra)
    return resized


def _resample_timm(embedding: Tensor, old: Size, new: Size) -> Tensor:
    from timm.layers import resample_abs_pos_embed

    extra = embedding.shape[1] - old[0] * old[1]
    return resample_abs_pos_embed(embedding, list(new), list(old), num_prefix_tokens=extra)


def _resample_torchvision(embedding: Tensor, old: Size, new: Size) -> Tensor:
    from torchvision.models.vision_transformer import interpolate_embeddings

    state: Mapping[str, Tensor] = interpolate_embeddings(new[0], 1, OrderedDict({'encoder.pos_embedding': embedding}))
    return state['encoder.pos_embedding']


def _interpolate_positions(module: nn.Module) -> list[RemovableHandle]:
    """Hooks that let networks which are built for one size interpolate their position embedding, if they can."""
    hooks = []
    for child in module.modules():
        if callable(getattr(child, 'set_input_size', None)) and type(child).__module__.startswith('timm.'):
            hooks.append(child.register_forward_pre_hook(_set_input_size))
        elif 'interpolate_pos_encoding' in inspect.signature(child.forward).parameters:
            hooks.append(child.register_forward_pre_hook(_ask_to_interpolate, with_kwargs=True))
    return hooks


def _set_input_size(module: Any, args: tuple[Any, ...]) -> None:
    size = tuple(args[0].shape[-2:])
    if tuple(getattr(getattr(module, 'patch_embed', None), 'img_size', None) or size) != size:
        module.set_input_size(img_size=size)


def _ask_to_interpolate(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, {**kwargs, 'interpolate_pos_encoding': True}

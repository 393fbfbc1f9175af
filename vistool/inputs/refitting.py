"""Networks that are built for one image size, built again for another by their own constructor, with the same weights.

What depends on the size is fitted by the functions that the packages themselves have for it: mmpretrain's
``resize_pos_embed``, timm's ``resample_abs_pos_embed``, torchvision's ``interpolate_embeddings``, and for relative
position biases bicubic interpolation.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vistool.checkpoints.bias_tables import TABLE, resize_table
from vistool.errors import InputError

if TYPE_CHECKING:
    from vistool.models import Model

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
    from vistool.building import build_module
    from vistool.config import Source

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
        raise _refused(strict, size, ' '.join(str(error).split())[:120]) from error
    module.to(model.device)
    module.eval()
    model.module = module
    model.forget()
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
        hint=f'take {other[0]},{other[1]}, or leave --img-size out',
        argument='--img-size',
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


def size_of(inputs: Any) -> Shape | None:
    """``(H, W)`` of the images among a network's inputs."""
    several = (
        inputs.values() if isinstance(inputs, Mapping) else inputs if isinstance(inputs, (tuple, list)) else [inputs]
    )
    found = next((each for each in several if isinstance(each, torch.Tensor) and each.ndim == 4), None)
    return None if found is None else (int(found.shape[2]), int(found.shape[3]))

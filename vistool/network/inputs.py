"""What the inputs of a network are: an image each, shared by all images, or of a kind that is not supported.

Nothing about an input is taken from its name. Whether a tensor belongs to the images of a batch or to all of them is
found by running the first image alone, where the shapes leave a choice.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping
from itertools import chain, combinations
from typing import Any

import torch
from torch import Tensor, nn

from vistool.data.inputs import SeveralInputs, drawn_of, entries, several
from vistool.errors import InputError, cause_of, counted, message_of, param
from vistool.network.capture import borrowed, remembered
from vistool.network.tensors import (
    NO_VIDEO,
    NetworkInput,
    call_module,
    find_image,
    float_tensors,
    map_rows,
    map_tensors,
    tensors,
)

log = logging.getLogger('vistool')

_MOST_DOUBTFUL = 4
_TOLERANCE = 1e-3
"""How far outputs of the same image in batches of different sizes may be apart, relative to the largest value."""
_MOST_CHANNELS = 4
"""Images have no more channels than this (gray, RGB, RGBA), or as many as the image on which maps are drawn."""


def with_shared(module: nn.Module, inputs: NetworkInput, batch: int | None) -> NetworkInput:
    """Inputs that say which of them have no row for each image: those that all images of the batch share.

    The rule, for every input but the image on which maps are drawn:

    - its first axis is not the number of images, nor a multiple of it: it is shared. Where there is one image, all that
      is longer than one is;
    - otherwise the first image is run alone, with its row of the input and with the whole input. What gives the first
      image's row of the output of the whole batch is right. If neither does, an error asks;
    - inputs without a batch axis (``batch`` is None) each get one, unless the network takes them without it only.

    Args:
        module: The network; it runs only where shapes leave a choice, once for each set of shapes.
        inputs: Its inputs. What a :class:`~vistool.data.inputs.NamedInputs` says is taken as it is.
        batch: Number of images; None where the inputs are those of one image, without a batch axis.

    Raises:
        InputError: If it cannot be found out.
    """
    if isinstance(inputs, Tensor) or getattr(inputs, 'shared', None) is not None:
        return inputs
    known = several(inputs)
    known.shared = frozenset()
    drawn = _drawn_entry(known)
    lengths = {key: _lengths(value) for key, value in entries(known) if key != drawn}
    if batch is None:
        return _single(module, known, [key for key, found in lengths.items() if found and not _has_images(known[key])])
    shapes = tuple(tuple(tensor.shape) for tensor in tensors(inputs))
    known.shared = remembered(module, 'shared inputs', (shapes, drawn), lambda: _shared(module, known, lengths, batch))
    return known if known.shared else inputs


def _shared(module: nn.Module, inputs: SeveralInputs, lengths: Mapping[Any, set[int]], batch: int) -> frozenset[Any]:
    """Which inputs are shared, by the rule of :func:`with_shared`; logged in one line."""
    shared = {key for key, found in lengths.items() if all(batch == 1 or n % batch for n in found) and found != {1}}
    shared |= {key for key, found in lengths.items() if found == {1} and batch > 1}
    doubtful = [key for key in lengths if key not in shared and batch > 1]
    if doubtful:
        free = [key for key in doubtful if lengths[key] == {batch}]
        shared = _by_running(module, inputs, shared | (set(doubtful) - set(free)), free)
    if shared:
        how = 'found by running the first image alone' if doubtful else 'its first axis is not the number of images'
        log.info('input %s: given whole to every image (%s)', ', '.join(sorted(map(str, shared))), how)
    return frozenset(shared)


def _by_running(module: nn.Module, inputs: SeveralInputs, fixed: Collection[Any], free: list[Any]) -> set[Any]:
    """Which inputs are shared: ``fixed`` and those of ``free`` with which the first image alone gives the same."""
    every = _outputs(module, inputs)
    subsets = chain.from_iterable(combinations(free, count) for count in range(len(free[:_MOST_DOUBTFUL]) + 1))
    for chosen in subsets:
        trial = several(inputs)
        trial.shared = frozenset(fixed) | set(chosen)
        try:
            alone = _outputs(module, map_rows(lambda tensor: tensor[:1], trial))
        except Exception:  # the network does not take the inputs in this way
            continue
        if _first_agrees(every, alone):
            return set(trial.shared)
    names = ', '.join(map(str, [*fixed, *free]))
    raise InputError(
        f'input {names} may have a row for each image or be shared by all: the first image run alone with either does '
        'not give what it gives in the batch',
        accepted='vistool.NamedInputs(…, shared=[…]), or PositionalInputs for inputs by position',
        hint='or give one image at a time',
    )


def _single(module: nn.Module, inputs: SeveralInputs, doubtful: list[Any]) -> NetworkInput:
    """Inputs of one image without a batch axis; the ``doubtful`` ones may have to be taken as they are."""
    if not doubtful:
        return inputs
    found: dict[frozenset[Any], Any] = {}
    failures = []
    for shared in (frozenset(), frozenset(doubtful)):
        trial = several(inputs)
        trial.shared = shared
        for key, value in entries(inputs):
            if key not in shared:
                trial[key] = map_tensors(lambda tensor: tensor[None], value)
        try:
            found[shared] = _outputs(module, trial)
        except Exception as error:
            failures.append(error)
    names = ', '.join(map(str, doubtful))
    if not found:
        raise failures[0] if isinstance(failures[0], InputError) else failure(module, inputs, failures[0])
    if len(found) > 1 and not _agree(*found.values()):
        raise InputError(
            f'input {names} may lack the axis of the batch or be taken whole: the network takes both',
            accepted='vistool.NamedInputs(…, shared=[…]), or PositionalInputs for inputs by position',
        )
    inputs.shared = next(iter(found))
    if inputs.shared:
        log.info('input %s: taken whole, as the network does not take it with an axis for the batch', names)
    return inputs


def _outputs(module: nn.Module, inputs: NetworkInput) -> list[Tensor]:
    device = next((tensor.device for tensor in chain(module.parameters(), module.buffers())), torch.device('cpu'))

    def ready(tensor: Tensor) -> Tensor:
        return (tensor.float() if tensor.dtype == torch.uint8 else tensor).to(device)

    with borrowed(module), torch.no_grad():
        output = run_network(module, map_tensors(ready, inputs))
    return [tensor for _, tensor in float_tensors(output)]


def _first_agrees(every: list[Tensor], alone: list[Tensor]) -> bool:
    """Whether the outputs for the first image alone are those that it has in the batch, one of them row by row."""
    if len(every) != len(alone):
        return False
    rowwise = False
    for whole, one in zip(every, alone, strict=True):
        if not whole.ndim:
            continue  # a loss, a temperature
        by_row = _close(whole[:1], one)
        if not (by_row or _close(whole, one) or (whole.ndim > 1 and _close(whole[:, :1], one))):
            return False
        rowwise = rowwise or by_row
    return rowwise


def _agree(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(_close(a, b) for a, b in zip(one, other, strict=True))


def _close(one: Tensor, other: Tensor) -> bool:
    scale = float(one.abs().max()) if one.numel() else 0.0
    return one.shape == other.shape and bool(((one - other).abs() <= _TOLERANCE * max(scale, 1e-12)).all())


def _drawn_entry(inputs: SeveralInputs) -> Any:
    known, image = drawn_of(inputs), find_image(inputs)
    if known is not None or image is None:
        three = (key for key, value in entries(inputs) if any(tensor.ndim == 3 for tensor in tensors(value)))
        return known if known is not None else next(three, None)
    return next(key for key, value in entries(inputs) if any(tensor is image for tensor in tensors(value)))


def _lengths(value: Any) -> set[int]:
    return {len(tensor) for tensor in tensors(value) if tensor.ndim}


def _has_images(value: Any) -> bool:
    return any(tensor.ndim == 3 for tensor in tensors(value))


def varied(module: nn.Module, inputs: NetworkInput, factors: tuple[float, ...]) -> NetworkInput:
    """The variants of test-time augmentation as one batch: mirrored or not, times each factor; the plain images first.

    Mirrored are tensors ``(B, …, H, W)`` of the size of the image on which maps are drawn, and other images. Made
    brighter are those of them that hold floating-point numbers other than 0 and 1, which would be a mask. All other
    inputs are repeated; those of a batch of one only if the network does not take them as they are. Where there are
    several inputs, one line says which are mirrored.

    Args:
        module: The network.
        inputs: A batch.
        factors: Factors of the brightness, 1 first.

    Returns:
        ``2 · len(factors) · B`` images.
    """
    image = find_image(inputs)
    assert image is not None  # the caller knows its size
    _say_varied(module, inputs, image)
    one = len(image) == 1 and any(_kept(tensor, image) for tensor in tensors(inputs))
    whole = map_rows(lambda tensor: _variants(tensor, image, factors, repeat=False), inputs)
    if one and _takes(module, whole, 2 * len(factors)):
        return whole
    return map_rows(lambda tensor: _variants(tensor, image, factors, repeat=True), inputs)


def _say_varied(module: nn.Module, inputs: NetworkInput, image: Tensor) -> None:
    """Prints once which of several inputs are mirrored."""
    if isinstance(inputs, Tensor) or len(inputs) < 2:
        return
    found = [str(key) for key, value in entries(inputs) if any(not _kept(tensor, image) for tensor in tensors(value))]
    text = f'test-time augmentation mirrors input {", ".join(found)}; the others stay as they are'
    remembered(module, 'mirrored inputs', text, lambda: log.info('%s', text))


def _variants(tensor: Tensor, image: Tensor, factors: tuple[float, ...], *, repeat: bool) -> Tensor:
    if _kept(tensor, image):
        return tensor.repeat(2 * len(factors), *(1,) * (tensor.ndim - 1)) if repeat else tensor
    scaled = tensor.is_floating_point() and not bool(((tensor == 0) | (tensor == 1)).all())
    views = (tensor, tensor.flip(-1))
    return torch.cat([view * factor if scaled else view for view in views for factor in factors])


def _kept(tensor: Tensor, image: Tensor) -> bool:
    """Whether an input is not an image, nor a mask of the image's size."""
    if tensor.ndim < 3 or tensor.ndim > 4:
        return True
    other = tensor.ndim == 4 and tensor.is_floating_point() and tensor.shape[1] == image.shape[1] <= _MOST_CHANNELS
    return tensor.shape[-2:] != image.shape[-2:] and not other


def _takes(module: nn.Module, inputs: NetworkInput, count: int) -> bool:
    try:
        return any(len(tensor) == count for tensor in _outputs(module, inputs) if tensor.ndim)
    except Exception:
        return False


_FRAMES = ('n_segment', 'num_segments', 'num_frames', 'n_frames', 'clip_len')
"""Attributes by which networks say how many frames of a video they take."""
_VOLUMES = (nn.Conv3d, nn.ConvTranspose3d, nn.BatchNorm3d, nn.MaxPool3d, nn.AvgPool3d)
_SIGNALS = (nn.Conv1d, nn.RNNBase, nn.Embedding)


def run_network(module: nn.Module, inputs: NetworkInput) -> Any:
    """``module(inputs)``; whatever it raises becomes one line.

    Raises:
        InputError: If the network does not take the inputs, or takes several images as one video.
    """
    try:
        output = call_module(module, inputs)
    except (InputError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise failure(module, inputs, error) from error
    _refuse_videos(module, inputs, output)
    return output


def _refuse_videos(module: nn.Module, inputs: NetworkInput, output: Any) -> None:
    """Raises if the images of the batch were taken for the frames of fewer videos."""
    image = find_image(inputs)
    shapes = [tuple(tensor.shape) for _, tensor in float_tensors(output) if tensor.ndim > 1]
    if image is None or any(len(image) in shape[:2] for shape in shapes):
        return
    if isinstance(output, (list, tuple)) and len(output) == len(image):  # a detector's predictions of each image
        return
    lengths = {shape[0] for shape in shapes}
    if len(lengths) == 1 and len(image) > (count := lengths.pop()) and len(image) % count == 0:
        raise InputError(
            f'{NO_VIDEO}: {type(module).__name__} gives {counted(count, "output")} for '
            f'{counted(len(image), "image")}, which it takes for the frames of a video',
            accepted='a network with one output for each image',
        )


def failure(module: nn.Module, inputs: NetworkInput, error: Exception) -> InputError:
    """What to say when a network does not take its inputs: its own words, and the cause if that is known."""
    name, text, image = type(module).__name__, message_of(error), find_image(inputs)
    if kind := _unsupported(module, text):
        return InputError(f'{kind}: {name} does not take images ({text})', accepted='a network for images (B, C, H, W)')
    channels = re.search(r'to have (\d+) channels, but got (\d+) channels', text)
    if channels and image is not None and int(channels[2]) == image.shape[1]:
        hint = 'channels come first: (B, C, H, W)' if image.shape[-1] == int(channels[1]) else ''
        return InputError(
            f'{name} takes images with {counted(int(channels[1]), "channel")}, '
            f'and this one has {channels[2]}: {tuple(image.shape)}',
            hint=hint,
        )
    if image is not None and len(image) > 1 and re.search(r'\bbatch[ _]?size\b|\b(one|single) image\b', text, re.I):
        return InputError(
            f'{name} does not take {len(image)} images at a time ({text})',
            hint=f'give it one image at a time ({param("batch_size", 1)})',
        )
    weight = next((p for p in module.parameters() if p.is_floating_point()), None)
    if image is not None and weight is not None and image.dtype != weight.dtype and re.search('type|dtype', text):
        wanted, given = (str(tensor.dtype).removeprefix('torch.') for tensor in (weight, image))
        return InputError(
            f'the weights of {name} are {wanted} and the input is {given} ({text})',
            hint=f'convert it with .to(torch.{wanted})',
        )
    if (
        not channels
        and image is not None
        and re.search(r'size|shape|height|width|resolution|dimension|must match', text)
    ):
        height, width = image.shape[-2:]
        return InputError(
            f'{name} does not take {height}×{width} images ({text})',
            hint=f'use the size that it was built for, or build it at this size ({param("options")} '
            'model.backbone.img_size=…)',
        )
    if isinstance(inputs, (list, tuple)) and re.search(r'positional arguments? but \d+ were given', text):
        return InputError(
            f'{name} does not take {counted(len(inputs), "input")} ({text})',
            hint='for a batch of images give one tensor: torch.stack(images)',
        )
    return InputError(
        f'the forward of {name} fails on this input: {cause_of(error)}',
        hint=f'run with {param("debug")} for the traceback',
    )


def _unsupported(module: nn.Module, text: str) -> str:
    """What kind of data a network takes that did not take an image; ``''`` if it may well take images."""
    kinds = [type(child) for child in module.modules()]
    frames = (getattr(child, name, None) for child in module.modules() for name in _FRAMES)
    if any(type(count) is int and count > 1 for count in frames):
        return NO_VIDEO
    if any(issubclass(kind, _VOLUMES) for kind in kinds) or re.search(r'\b5\b.*\bgot 4|expected 5\b|5D|conv3d', text):
        return NO_VIDEO
    if any(issubclass(kind, _SIGNALS) for kind in kinds) and not any(issubclass(kind, nn.Conv2d) for kind in kinds):
        return 'signals and text are not supported'
    return ''

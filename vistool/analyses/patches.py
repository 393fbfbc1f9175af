"""How an image is cut into tokens: by a network's embedding, or with given sizes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast, overload

import numpy as np
from numpy.typing import NDArray

from vistool import ranges
from vistool.data.display import Display
from vistool.data.images import ImageLike, read_photo
from vistool.data.patches import MASKS, PatchGrid, Size, by, filling, fitting, make_mask, pair, window
from vistool.data.photometry import pixels_of
from vistool.environment import versions
from vistool.errors import InputError, close_matches, counted, param
from vistool.registry import ANALYSES
from vistool.results import Cut, GridImage, ImageGrid

if TYPE_CHECKING:
    from torch import nn

    from vistool.data.samples import Sample
    from vistool.models.model import Model
    from vistool.network.embedding import Embedding, Step
    from vistool.network.tensors import NetworkInput

log = logging.getLogger('vistool')

FITS = ('resize', 'crop', 'pad')
MOST_PAD = 4096
"""The widest border around a patch, in pixels."""
Pixels = NDArray[np.uint8]


def caption(grid: PatchGrid, special: Sequence[str] = (), noun: str = 'tokens') -> str:
    """``'14×14 = 196 tokens of 16×16 pixels + 1 CLS'``."""
    kinds: dict[str, int] = {}
    for name in special:
        kinds[name.rstrip('0123456789')] = kinds.get(name.rstrip('0123456789'), 0) + 1
    more = ''.join(f' + {count} {name}' for name, count in kinds.items())
    every = (
        f', one every {by(grid.stride) if grid.stride[0] != grid.stride[1] else grid.stride[0]}'
        if grid.overlaps
        else ''
    )
    return f'{by(grid.shape)} = {grid.count} {noun} of {by(grid.patch)} pixels{every}{more}'


def limit_size(image: Pixels, longest: int | None) -> Pixels:
    """The image, made smaller if its longest side has more pixels than ``longest``."""
    if not longest or max(size_of(image)) <= longest:
        return image
    import cv2

    height, width = size_of(image)
    scale = longest / max(height, width)
    smaller = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(image, smaller, interpolation=cv2.INTER_AREA), np.uint8)


def fit_image(image: Pixels, patch: Size, stride: Size, how: str, color: tuple[int, int, int]) -> Pixels:
    """The image at a size that patches cover without a remainder.

    Args:
        image: uint8 ``(H, W, 3)``.
        patch: Size of a patch.
        stride: From one patch to the next.
        how: ``resize`` (as little smaller as possible), ``crop`` (to the center), ``pad`` (at the right and below).
        color: The color of the padding.

    Raises:
        InputError: The patch is larger than the image, or the stride than the patch.
    """
    size = size_of(image)
    try:
        PatchGrid.over(size, patch, stride)
    except InputError as error:
        raise error.under('stride' if 'stride' in error.problem else 'patch_size') from None
    wanted = filling(size, patch, stride) if how == 'pad' else fitting(size, patch, stride)
    if wanted == size:
        return image
    if how == 'resize':
        import cv2

        return np.asarray(cv2.resize(image, wanted[::-1], interpolation=cv2.INTER_LINEAR), np.uint8)
    if how == 'crop':
        top, left = (size[0] - wanted[0]) // 2, (size[1] - wanted[1]) // 2
        return image[top : top + wanted[0], left : left + wanted[1]]
    whole = np.empty((*wanted, 3), np.uint8)
    whole[:] = color
    whole[: size[0], : size[1]] = image
    return whole


def windowed(image: Pixels, cut: Cut, embedding: Embedding | None) -> tuple[GridImage, ...]:
    """One mosaic for each arrangement of the windows."""
    windows = embedding.windows if embedding else ()
    if not windows:
        raise InputError(
            "this network's attention has no windows", accepted='Swin and similar networks', parameter='windows'
        )
    rows, columns = cut.grid.shape
    tiles = []
    for each in windows:
        moved = f', shifted by {each.shift[0] or each.shift[1]}' if any(each.shift) else ''
        edges = each.edges(0, rows), each.edges(1, columns)
        tiles.append(GridImage(image, (f'windows of {by(each.size)} tokens{moved}',), cut=replace(cut, windows=edges)))
    return tuple(tiles)


def overlapping(image: Pixels, cut: Cut, steps: Sequence[Step]) -> tuple[tuple[GridImage, ...], ...]:
    """The patches in full, and below them the receptive fields of four neighbors in the center of the image."""
    grids = [step.grid for step in steps] or [cut.grid]
    mosaics, fields = [], []
    for number, grid in enumerate(grids):
        own = replace(cut, grid=grid, border=cut.border * min(grid.patch) / min(cut.grid.patch))
        own = own if grid == cut.grid else replace(own, highlight=(), order=False)
        mosaics.append(GridImage(image, (_step_title(steps, number, grid),), cut=own))
        said = 'the fields of four neighbors' if not number else ''  # once for the row
        fields.append(_fields(image, grid, grids[-1], said))
    return ((mosaics[0], fields[0]),) if len(grids) == 1 else (tuple(mosaics), tuple(fields))


def _step_title(steps: Sequence[Step], number: int, grid: PatchGrid) -> str:
    of = f' of {by(grid.patch)} px'
    if not number:
        return f'{by(grid.shape)} patches{of}'
    step = steps[number]
    return f'{by(step.kernel)}, stride {step.stride[0]} → {by(grid.shape)}{of}'


def _fields(image: Pixels, grid: PatchGrid, widest: PatchGrid, title: str) -> GridImage:
    """The image with the padding of the widest grid, with four neighboring patches outlined."""
    row, column = max(grid.shape[0] // 2 - 1, 0), max(grid.shape[1] // 2 - 1, 0)
    chosen = [
        r * grid.shape[1] + c
        for r in range(row, min(row + 2, grid.shape[0]))
        for c in range(column, min(column + 2, grid.shape[1]))
    ]
    top, left = min(widest.start[0], 0), min(widest.start[1], 0)
    size = max(widest.stop[0], grid.image[0]) - top, max(widest.stop[1], grid.image[1]) - left
    padded = window(image.transpose(2, 0, 1), (top, left), size, 225).transpose(1, 2, 0)
    boxes = [grid.box(number) for number in chosen]
    outlined = tuple((x0 - left, y0 - top, x1 - left, y1 - top) for x0, y0, x1, y1 in boxes)
    return GridImage(np.ascontiguousarray(padded), (title,) if title else (), boxes=outlined)


def size_of(image: Pixels) -> Size:
    """Height and width."""
    return image.shape[0], image.shape[1]


@ANALYSES.register_module()
@dataclass(frozen=True)
class Patches:
    """An image cut into patches, as a mosaic and in other views.

    Attributes:
        patch_size: Size of a patch, or ``(height, width)``; needed without a model, read from one otherwise.
        stride: From one patch to the next; default: the patch's size. Only without a model.
        pad: Width of the border around each patch, in pixels of the image; default: a 32nd of the patch.
        pad_value: Gray level or RGB color of the borders and of the padding.
        fit: What happens to an image that patches do not cover without a remainder: it is made smaller (``resize``),
            cropped to the center (``crop``), or padded at the right and below (``pad``). Only without a model.
        max_size: Longest side, in pixels, to which larger images are first reduced. Only without a model.
        order: Whether the patches' numbers are written on them, where they are legible.
        sequence: Whether the tokens are shown as the sequence that the network receives, special tokens included.
        windows: Whether the windows of windowed attention are drawn, plain and shifted.
        mask_ratio: Share of the patches to mask, as in masked image modeling.
        mask: ``random``, ``block`` or ``grid``; see :func:`vistool.data.patches.make_mask`.
        highlight: Patches to highlight: numbers and ranges (:mod:`vistool.ranges`).
        seed: Seed of the mask; the image's index is added to it.
        display_range: The values that are shown as black and white, for images that are not photos of 8 bits:
            ``'auto'``, ``'0,4095'``, ``'2%,98%'`` or two numbers. With a model, ``model.use_display`` says it.
        bands: The bands that are shown as red, green and blue, from 1.
        axes: ``HWC`` or ``CHW``, of an array.
    """

    patch_size: int | tuple[int, int] | None = None
    stride: int | tuple[int, int] | None = None
    pad: float | None = None
    pad_value: int | tuple[int, int, int] = 255
    fit: str = 'resize'
    max_size: int | None = None
    order: bool = False
    sequence: bool = False
    windows: bool = False
    mask_ratio: float | None = None
    mask: str = 'random'
    highlight: Sequence[int | str] = ()
    seed: int = 0
    display_range: str | Sequence[float] | None = None
    bands: str | int | Sequence[int] | None = None
    axes: str | None = None

    @property
    def display(self) -> Display:
        """How images that are not photos of 8 bits are shown."""
        return Display.of(self.display_range, self.bands, self.axes)

    def __post_init__(self) -> None:
        """Checks the parameters.

        Raises:
            InputError: A value is not accepted.
        """
        self.display  # noqa: B018
        for name, size in (('patch_size', self.patch_size), ('stride', self.stride)):
            if size is not None:
                try:
                    pair(size, name.replace('_', ' '))
                except InputError as error:
                    raise error.under(name) from None
        if self.pad is not None and not 0 <= self.pad <= MOST_PAD:
            raise InputError(f'a border cannot have {self.pad} pixels', accepted=f'0 to {MOST_PAD}', parameter='pad')
        if self.max_size is not None and self.max_size < 1:
            raise InputError(f'a side cannot have {self.max_size} pixels', accepted='1 or more', parameter='max_size')
        if any(not 0 <= level <= 255 for level in self.color):
            raise InputError(f'{self.pad_value!r} is not a color', accepted='0 to 255', parameter='pad_value')
        if self.mask_ratio is not None and not 0 <= self.mask_ratio <= 1:
            raise InputError(
                f'{self.mask_ratio} is not a share of the patches', accepted='0 to 1', parameter='mask_ratio'
            )
        for option, value, known in (('mask', self.mask, MASKS), ('fit', self.fit, FITS)):
            if value not in known:
                hint = close_matches(value, known)
                raise InputError(f'unknown value {value!r}', accepted=', '.join(known), hint=hint, parameter=option)

    @property
    def color(self) -> tuple[int, int, int]:
        """The color of the borders, RGB."""
        if isinstance(self.pad_value, int):
            return self.pad_value, self.pad_value, self.pad_value
        red, green, blue = self.pad_value
        return red, green, blue

    @overload
    def __call__(self, model: None, subject: ImageLike) -> ImageGrid: ...
    @overload
    def __call__(self, model: Model | nn.Module, subject: Sample) -> ImageGrid: ...
    @overload
    def __call__(self, model: Model | nn.Module, subject: list[Sample]) -> list[ImageGrid]: ...
    @overload
    def __call__(self, model: Model | nn.Module, subject: NetworkInput) -> ImageGrid | list[ImageGrid]: ...
    def __call__(
        self, model: Model | nn.Module | None, subject: ImageLike | Sample | list[Sample] | NetworkInput
    ) -> ImageGrid | list[ImageGrid]:
        """Shows how one image or several are cut.

        Args:
            model: A loaded model or any module, whose embedding is shown; None uses the given sizes.
            subject: With a model, a sample, a list of samples, or network inputs ``(C, H, W)`` or ``(B, C, H, W)``.
                Without a model, an image: a path, a PIL image, or an array.

        Returns:
            One result, or a list of them for several samples.

        Raises:
            InputError: The network has no patches, or a parameter does not fit it or the image.
        """
        if model is None:
            return self._by_sizes(cast(ImageLike, subject))
        given = {'patch_size': self.patch_size, 'stride': self.stride, 'max_size': self.max_size}
        for option, value in given.items():
            if value is not None:
                raise InputError(
                    'the sizes are read from the network',
                    hint=f'leave it out, or leave out {param("model")}',
                    parameter=option,
                )
        from vistool.models.model import as_model, as_samples
        from vistool.network.embedding import find_embedding

        model = as_model(model)
        samples, single = as_samples(cast('Sample | list[Sample] | NetworkInput', subject), model)
        results = []
        for sample in samples:
            with model.borrowed():
                embedding = find_embedding(model.module, model.batch([sample]))
            facts = {**model.provenance(), **sample.provenance(), 'module': embedding.name}
            grid = self._views(sample.image, embedding.grid, embedding, sample.index or 0)
            grid = replace(grid, caption=f'{model.name} · {grid.caption}', shown=(sample.shown,))
            results.append(grid.with_provenance(**facts))
        return results[0] if single else results

    def _by_sizes(self, subject: ImageLike) -> ImageGrid:
        if self.patch_size is None:
            raise InputError('needed without a config', accepted='16, or 16,8 (height, width)', parameter='patch_size')
        if self.windows:
            raise InputError('only networks have windows', hint='give a config', parameter='windows')
        patch = pair(self.patch_size, 'patch size')
        stride = patch if self.stride is None else pair(self.stride, 'stride')
        photo = read_photo(subject, axes=self.display.axes)
        shown = self.display.shown(photo.values)
        if said := shown.describe():
            log.info('%s', said)
        image = limit_size(pixels_of(photo, shown), self.max_size)
        image = fit_image(image, patch, stride, self.fit, self.color)
        views = self._views(image, PatchGrid.over(size_of(image), patch, stride), None, 0)
        return replace(views, shown=(shown,))

    def _highlighted(self, count: int) -> tuple[int, ...]:
        """The patches to highlight among ``count``."""

        def absent(number: int) -> InputError:
            return InputError(f'no patch {number}', accepted=f'0 to {count - 1}', parameter='highlight')

        found: list[int] = []
        for word in ranges.words_of(self.highlight):
            chosen = ranges.places(word, count, absent)
            if not chosen:
                problem = f'{word!r} does not name patches'
                raise InputError(problem, accepted=f'0 to {count - 1}; {ranges.FORMS}', parameter='highlight')
            found += chosen
        return tuple(dict.fromkeys(found))

    def _views(self, image: Pixels, grid: PatchGrid, embedding: Embedding | None, index: int) -> ImageGrid:
        """The requested pictures, with one caption."""
        border = max(1, round(min(grid.patch) / 32)) if embedding is None else min(grid.patch) / 32
        border = border if self.pad is None else self.pad
        cut = Cut(grid, border, self.color, order=self.order, highlight=self._highlighted(grid.count))
        rows = self._rows(image, cut, embedding, self.seed + index)
        special = embedding.special if embedding else ()
        facts = {'patch': grid.patch, 'stride': grid.stride, 'start': grid.start, 'grid': grid.shape}
        entries = {'analysis': 'patches', **facts, 'special': special, 'versions': versions()}
        return ImageGrid(rows, caption(grid, special, 'tokens' if embedding else 'patches'), provenance=entries)

    def _rows(
        self, image: Pixels, cut: Cut, embedding: Embedding | None, seed: int
    ) -> tuple[tuple[GridImage, ...], ...]:
        if self.mask_ratio is not None:
            hidden = make_mask(cut.grid.shape, self.mask_ratio, self.mask, seed)
            cut, whole = replace(cut, hidden=hidden), cut
        if self.sequence:
            if embedding is not None and not embedding.attends:
                raise InputError(
                    'this network keeps its patches as a map, so it has no sequence',
                    accepted='a vision transformer',
                    parameter='sequence',
                )
            return ((GridImage(image, cut=replace(cut, sequence=embedding.special if embedding else ())),),)
        if self.windows:
            return (windowed(image, cut, embedding),)
        if cut.hidden is not None:
            visible = int((~cut.hidden).sum())
            titles = (
                (counted(cut.grid.count, 'patch', 'patches'),),
                (f'{visible} visible, {cut.grid.count - visible} masked',),
            )
            return ((GridImage(image, titles[0], cut=whole), GridImage(image, titles[1], cut=cut)),)
        steps = (*embedding.steps, *embedding.later) if embedding else ()
        if cut.grid.overlaps or len(steps) > 1:
            return overlapping(image, cut, steps)
        return ((GridImage(image, cut=cut),),)

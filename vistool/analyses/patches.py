"""How an image is cut into tokens: by a network's own embedding, or by sizes that are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from vistool import recipe
from vistool.analyses.patch_views import (
    FITS,
    Pixels,
    caption,
    fit_image,
    limit_size,
    overlapping,
    pixels_of,
    size_of,
    windowed,
)
from vistool.errors import InputError, close_matches
from vistool.patching.grid import PatchGrid, pair
from vistool.patching.masking import MASKS, make_mask
from vistool.registry import ANALYSES
from vistool.results import Cut, GridImage, ImageGrid

if TYPE_CHECKING:
    from torch import nn

    from vistool.models import Model
    from vistool.patching.embedding import Embedding


@ANALYSES.register_module()
@dataclass(frozen=True)
class Patches:
    """An image cut into patches, as a mosaic and in other views.

    Attributes:
        patch_size: Size of a patch, or ``(height, width)``; needed without a model, read from one otherwise.
        stride: From one patch to the next; default: the patch's size. Without a model only.
        pad: Width of the border around each patch in pixels of the image; default: a 32nd of the patch.
        pad_value: Grey level or RGB colour of borders, and of what ``fit='pad'`` adds.
        fit: What becomes of an image that patches do not cover without rest: it is made smaller (``resize``), its edges
            are cut off (``crop``), or it is extended at the right and below (``pad``). Without a model only.
        max_size: Longest side, in pixels, beyond which an image is made smaller first. Without a model only.
        order: Write the patches' numbers on them, where they can be read.
        sequence: Lay the tokens out as the row that the network sees, special tokens included.
        windows: Draw the windows that attention is confined to, plain and shifted.
        mask_ratio: Share of the patches to mask, as for masked-image modelling.
        mask: ``random``, ``block`` or ``grid``; see :mod:`vistool.patching.masking`.
        highlight: Numbers of patches to bring out.
        seed: Of the mask; the image's index is added to it.
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
    highlight: Sequence[int] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks what can be checked without an image.

        Raises:
            InputError: A value is not accepted.
        """
        for name, size in (('--patch-size', self.patch_size), ('--stride', self.stride)):
            if size is not None:
                try:
                    pair(size, name.strip('-').replace('-', ' '))
                except InputError as error:
                    raise error.under(name) from None
        if self.pad is not None and not self.pad >= 0:
            raise InputError(f'a border of {self.pad} pixels', accepted='0 or more', argument='--pad')
        if self.max_size is not None and self.max_size < 1:
            raise InputError(f'{self.max_size} pixels', accepted='1 or more', argument='--max-size')
        if any(not 0 <= level <= 255 for level in self.color):
            raise InputError(f'{self.pad_value!r} is no colour', accepted='0 to 255', argument='--pad-value')
        if self.mask_ratio is not None and not 0 <= self.mask_ratio <= 1:
            raise InputError(
                f'{self.mask_ratio} is no share of the patches', accepted='0 to 1', argument='--mask-ratio'
            )
        for option, value, known in (('--mask', self.mask, MASKS), ('--fit', self.fit, FITS)):
            if value not in known:
                hint = close_matches(value, known)
                raise InputError(f'unknown value {value!r}', accepted=', '.join(known), hint=hint, argument=option)

    @property
    def color(self) -> tuple[int, int, int]:
        """The borders' colour, RGB."""
        if isinstance(self.pad_value, int):
            return self.pad_value, self.pad_value, self.pad_value
        red, green, blue = self.pad_value
        return red, green, blue

    def __call__(self, model: Model | nn.Module | None, subject: Any) -> Any:
        """Cuts one image or several.

        Args:
            model: A loaded model or any module, whose embedding is looked at; None: the sizes given are used.
            subject: With a model, a sample, a list of samples, or network inputs ``(C, H, W)`` or ``(B, C, H, W)``.
                Without, a picture: a path, a PIL image, or uint8 ``(H, W, 3)``.

        Returns:
            A :class:`~vistool.results.ImageGrid`, or a list of them.

        Raises:
            InputError: The network cuts no patches, or the options do not fit it or the image.
        """
        if model is None:
            return self._by_sizes(subject)
        given = {'--patch-size': self.patch_size, '--stride': self.stride, '--max-size': self.max_size}
        for option, value in given.items():
            if value is not None:
                raise InputError(
                    'the sizes are read from the network', hint='leave it out, or leave the config out', argument=option
                )
        from vistool.analyses.subjects import as_model, as_samples
        from vistool.patching.embedding import find_embedding

        model = as_model(model)
        samples, single = as_samples(subject)
        results = []
        for sample in samples:
            embedding = find_embedding(model.module, model.batch([sample]))
            facts = {**model.provenance(), **recipe.of_sample(sample), 'module': embedding.name}
            grid = self._views(sample.image, embedding.grid, embedding, sample.index or 0)
            results.append(replace(grid, caption=f'{model.name} · {grid.caption}').with_recipe(**facts))
        return results[0] if single else results

    def _by_sizes(self, subject: Any) -> ImageGrid:
        if self.patch_size is None:
            raise InputError('needed without a config', accepted='16, or 16,8 (height, width)', argument='--patch-size')
        if self.windows:
            raise InputError('windows are a matter of the network', hint='name a config', argument='--windows')
        patch = pair(self.patch_size, 'patch size')
        stride = patch if self.stride is None else pair(self.stride, 'stride')
        image = limit_size(pixels_of(subject), self.max_size)
        image = fit_image(image, patch, stride, self.fit, self.color)
        return self._views(image, PatchGrid.over(size_of(image), patch, stride), None, 0)

    def _views(self, image: Pixels, grid: PatchGrid, embedding: Embedding | None, index: int) -> ImageGrid:
        """The pictures that were asked for, with one caption."""
        wrong = [number for number in self.highlight if not 0 <= number < grid.count]
        if wrong:
            raise InputError(f'no patch {wrong[0]}', accepted=f'0 to {grid.count - 1}', argument='--highlight')
        border = max(1, round(min(grid.patch) / 32)) if embedding is None else min(grid.patch) / 32
        border = border if self.pad is None else self.pad
        cut = Cut(grid, border, self.color, order=self.order, highlight=tuple(self.highlight))
        rows = self._rows(image, cut, embedding, self.seed + index)
        special = embedding.special if embedding else ()
        facts = {'patch': grid.patch, 'stride': grid.stride, 'start': grid.start, 'grid': grid.shape}
        entries = {'analysis': 'patches', **facts, 'special': special, 'versions': recipe.versions()}
        return ImageGrid(rows, caption(grid, special, 'tokens' if embedding else 'patches'), entries)

    def _rows(
        self, image: Pixels, cut: Cut, embedding: Embedding | None, seed: int
    ) -> tuple[tuple[GridImage, ...], ...]:
        if self.mask_ratio is not None:
            hidden = make_mask(cut.grid.shape, self.mask_ratio, self.mask, seed)
            cut, whole = replace(cut, hidden=hidden), cut
        if self.sequence:
            if embedding is not None and not embedding.attends:
                raise InputError(
                    'this network keeps its patches as a map; there is no sequence',
                    accepted='a vision transformer',
                    argument='--sequence',
                )
            return ((GridImage(image, cut=replace(cut, sequence=embedding.special if embedding else ())),),)
        if self.windows:
            return (windowed(image, cut, embedding),)
        if cut.hidden is not None:
            visible = int((~cut.hidden).sum())
            titles = (f'{cut.grid.count} patches',), (f'{visible} visible, {cut.grid.count - visible} masked',)
            return ((GridImage(image, titles[0], cut=whole), GridImage(image, titles[1], cut=cut)),)
        steps = (*embedding.steps, *embedding.later) if embedding else ()
        if cut.grid.overlaps or len(steps) > 1:
            return overlapping(image, cut, steps)
        return ((GridImage(image, cut=cut),),)

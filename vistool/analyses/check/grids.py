"""Grid games: photos of different classes in a grid, where the evidence for a class lies in one known cell.

``gridpg``, the grid pointing game (Böhle et al., B-cos, CVPR 2022): the network sees the whole grid. ``difull`` (Rao et
al., Towards Better Understanding Attribution Methods, CVPR 2022): each photo is classified on its own, so that nothing
outside its cell can have any influence, and a method that still marks other cells leaks. A quarter lies in the right
cell by chance.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vistool.analyses.cam import maps
from vistool.analyses.cam.methods import Method, Probe
from vistool.analyses.cam.targets import ClassTarget
from vistool.analyses.check.explaining import Explained, map_of
from vistool.data.samples import Sample
from vistool.errors import InputError, counted
from vistool.network.forward import Forward, forward
from vistool.network.inputs import run_network
from vistool.network.tensors import input_size, token_hints
from vistool.results.checks import Grid

CELLS = 4
ELSEWHERE = 0.05
"""How likely the explained class may be for other photos of a grid that are not clearly of another class."""


@dataclass(frozen=True)
class Arrangement:
    """Which photos a grid shows.

    Attributes:
        photos: Their numbers, row by row.
        place: The place of the photo whose class is explained.
        target: That class.
    """

    photos: tuple[int, ...]
    place: int
    target: int

    @property
    def cell(self) -> tuple[int, int]:
        """Row and column of the photo whose class is explained."""
        return divmod(self.place, 2)


def arrangements(explained: Explained, sure: float, most: int, seed: int) -> list[Arrangement]:
    """Grids of four different photos: one that the network is sure about, and three that it finds to be something else.

    Args:
        explained: The images.
        sure: How much more likely the predicted class of the one is than the next.
        most: How many grids.
        seed: Draws the other photos.

    Raises:
        InputError: There are too few such photos.
    """
    predicted: dict[int, int] = {}
    for index, shares in enumerate(explained.numbers):
        best = shares.topk(min(2, len(shares)))
        if len(shares) > 1 and float(best.values[0] - best.values[1]) >= sure:
            predicted[index] = int(best.indices[0])
    sketches = [_sketch(sample) for sample in explained.samples] if predicted else []
    draw, found = np.random.default_rng(abs(seed)), list[Arrangement]()
    for index, target in predicted.items():
        size = _tensor(explained.samples[index]).shape
        others = [
            each
            for each, shares in enumerate(explained.numbers)
            if (predicted.get(each, target) != target or float(shares[target]) <= ELSEWHERE)
            and _tensor(explained.samples[each]).shape == size
        ]
        drawn = _different(index, draw.permutation(others).tolist(), sketches)
        if len(drawn) == CELLS and len(found) < most:
            place = len(found) % CELLS
            found.append(Arrangement((*drawn[1 : place + 1], index, *drawn[place + 1 :]), place, target))
    if not found:
        raise InputError(
            f'needs four different photos of one size: one whose class is more likely by {sure:g} than the next one, '
            f'and three of other classes, as clearly, or to which this class is given at most {ELSEWHERE:g}; '
            f'of {counted(len(explained.samples), "photo")}, {_predicted(predicted.values())}'
        )
    return found


def _predicted(labels: Collection[int]) -> str:
    photos, classes = len(labels), len(set(labels))
    if not photos:
        return 'none is predicted so clearly'
    each = 'is' if photos == 1 else 'are'
    return f'{photos} {each} predicted so clearly, as {counted(classes, "class", "classes")}'


def _sketch(sample: Sample) -> Tensor:
    """What the network gets of a photo in 64×64 pixels at most, by which two files of one photo are recognized."""
    values = _tensor(sample).float()
    return F.adaptive_avg_pool2d(values[None], (min(64, values.shape[1]), min(64, values.shape[2])))[0]


def _different(first: int, others: Sequence[int], sketches: Sequence[Tensor]) -> list[int]:
    """The first photo and up to three of the others, none of which shows what another one shows."""
    chosen = [first]
    for each in others:
        if len(chosen) < CELLS and not any(_same(sketches[each], sketches[one]) for one in chosen):
            chosen.append(each)
    return chosen


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether they differ by less than two of 256 levels on average: a photo saved as JPEG and as PNG is one photo."""
    both = torch.stack([a, b])
    return bool((a - b).abs().mean() <= (both.max() - both.min()) / 128)


def share_inside(values: NDArray[np.float32], cell: tuple[int, int]) -> float:
    """The share of a map's positive values that lies in one cell of a grid of 2×2; NaN for an empty map."""
    positive = np.nan_to_num(values).clip(min=0).astype(np.float64)
    half = [side // 2 for side in positive.shape]
    rows, columns = (slice(at * size, (at + 1) * size) for at, size in zip(cell, half, strict=True))
    total = positive.sum()
    return float(positive[rows, columns].sum() / total) if total else float('nan')


def gridpg(explained: Explained, games: Sequence[Arrangement]) -> Iterator[Grid]:
    """The grids and maps of the grid pointing game, if at least half of the grids are ones that can be judged.

    Grids show photos at their full size. A network that takes one input size only gets them at half of it.

    Raises:
        InputError: The network has several inputs, or takes no grid.
    """
    judged = []
    for game in games:
        photos = [explained.samples[index] for index in game.photos]
        sample = grid_sample(photos, half=explained.model.adapt_to_input is not None)
        try:
            seen = evidence(explained, sample, game.target)
        except InputError:
            sample = grid_sample(photos, half=True)
            seen = evidence(explained, sample, game.target)
        if seen[game.place] > 0.5:
            judged.append((game, sample))
    for game, sample in judged if 2 * len(judged) >= len(games) else ():
        result = replace(explained.cam, targets=[game.target])(explained.model, sample)
        for name, method in explained.methods.items():
            if method.shows_class or method.is_baseline:
                yield _grid('gridpg', name, sample.image, map_of(result, name).values, game, result.targets[0].name)


def evidence(explained: Explained, grid: Sample, target: int) -> list[float]:
    """How much of the influence on the score of a class each photo of a grid has: by how much it falls without it.

    Only where one photo has more than half is it known where the evidence lies: a network may not recognize a photo
    that is one of four, or that is half as large.

    Args:
        explained: The images.
        grid: The grid.
        target: The class.

    Returns:
        A share for each photo, 0 where the score does not fall; together 1, or NaN where it never falls.
    """
    model, inputs = explained.model, explained.model.batch([grid])
    if not isinstance(inputs, Tensor):
        raise InputError('networks with several inputs have no grid')
    height, width = (side // 2 for side in inputs.shape[2:])
    copies = inputs.repeat(1 + CELLS, 1, 1, 1)
    for place, copy in enumerate(copies[1:]):
        row, column = divmod(place, 2)
        cell = copy[:, row * height : (row + 1) * height, column * width : (column + 1) * width]
        cell[:] = inputs[0].mean((1, 2))[:, None, None]
    with model.borrowed(), torch.no_grad():
        output = run_network(model.module, copies)
        readout = model.readout(output, len(copies), copies)
        assert readout is not None
        scores = readout.scores(output, len(copies))[:, target]
    fallen = (scores[0] - scores[1:]).clamp(min=0).tolist()
    total = sum(fallen)
    return [each / total if total else math.nan for each in fallen]


def _grid(
    check: str, name: str, image: NDArray[np.uint8], values: NDArray[np.float32], game: Arrangement, target: str
) -> Grid:
    return Grid(check, name, image, values, game.cell, share_inside(values, game.cell), target)


def grid_sample(samples: Sequence[Sample], half: bool = False) -> Sample:
    """Four photos as one, in two rows.

    Args:
        samples: Of one size.
        half: Whether the grid has the size of one photo.

    Raises:
        InputError: They have several inputs or different sizes.
    """
    tensors = [_tensor(each) for each in samples]
    if len({tuple(each.shape) for each in tensors}) > 1:
        raise InputError('the photos have different sizes')
    height, width = tensors[0].shape[1:]
    data = _two_by_two(torch.stack(tensors), (height, width) if half else None)
    image = torch.stack([torch.from_numpy(np.ascontiguousarray(each.image)).permute(2, 0, 1) for each in samples])
    photo = _two_by_two(image, (height, width) if half else None).permute(1, 2, 0).numpy()
    packed = isinstance(samples[0].data, Mapping)
    whole = {**samples[0].data, 'inputs': data} if packed else data
    return replace(
        samples[0], data=whole, image=photo, original=None, geometry=None, path=None, name='grid', label=None,
    )  # fmt: skip


def _tensor(sample: Sample) -> Tensor:
    """What the network gets of an image, ``(C, H, W)``.

    Raises:
        InputError: It has several inputs.
    """
    data = sample.data
    found = data['inputs'] if isinstance(data, Mapping) and 'inputs' in data else data
    if not isinstance(found, Tensor) or found.ndim != 3:
        raise InputError('networks with several inputs have no grid')
    return found


def _two_by_two(images: Tensor, size: tuple[int, int] | None) -> Tensor:
    """``(4, C, H, W)`` → ``(C, 2H, 2W)``, or of the size given."""
    whole = torch.cat([torch.cat(list(images[:2]), 2), torch.cat(list(images[2:]), 2)], 1)
    if size is None:
        return whole
    small = F.interpolate(whole[None].float(), size, mode='bilinear', antialias=True)[0]
    return small if whole.is_floating_point() else small.round().clamp(0, 255).to(whole.dtype)


def difull(explained: Explained, games: Sequence[Arrangement]) -> Iterator[Grid]:
    """The grids and maps of DiFull, for methods that need activations and gradients, and for baselines.

    The photos go through the network as a batch, and activations and gradients are put together as those of the grid:
    the network with disconnected cells. The gradient is zero in all cells but one.

    Raises:
        InputError: The network has several inputs.
    """
    for game in games:
        photos = [explained.samples[index] for index in game.photos]
        image = grid_sample(photos).image
        for name, values in _disconnected(explained, photos, game).items():
            yield _grid('difull', name, image, values, game, explained.model.class_name(game.target))


def _disconnected(explained: Explained, photos: Sequence[Sample], game: Arrangement) -> dict[str, NDArray[np.float32]]:
    model, cam = explained.model, explained.cam
    inputs = model.batch(photos)
    (height, width), _ = input_size(inputs)
    hints, own = token_hints(cam.extra_tokens, cam.tokens), np.arange(CELLS)
    found: dict[str, NDArray[np.float32]] = {}
    with (
        model.borrowed(),
        forward(
            model.module, inputs, explained.layers, gradients=True, hints=hints, read=explained.reader(inputs)
        ) as run,
    ):
        readout = model.readout(run.output, CELLS, inputs)
        assert readout is not None
        scores = readout.scores(run.output, CELLS)
        target = ClassTarget(torch.full((CELLS,), game.target, device=scores.device), scores.detach(), readout)
        for name, method in explained.methods.items():
            if method.is_baseline and method.run is not None:
                grid = _two_by_two(inputs, None)[None] if isinstance(inputs, Tensor) else None
                signed = [] if grid is None else method.run(Probe(model.module, grid, (), {}, seed=cam.seed))
            elif method.run is None and method.shows_class:
                rows = torch.from_numpy(own)
                score = method.score(target, run.output, rows) if method.score else target.score(run.output, rows)
                signed = _maps(run, method, score[game.place], cam.eigen_smooth)
            else:
                continue
            unit, _ = maps.finish(signed, (2 * height, 2 * width), 'max' if cam.layer_fusion == 'max' else 'mean')
            found[name] = unit[0].float().cpu().numpy()
    return found


def _maps(run: Forward, method: Method, score: Tensor, eigen: bool) -> list[Tensor]:
    """A method's signed maps ``(1, 2h, 2w)`` of the disconnected grid, one for each layer."""
    signed = []
    for layer, gradient in zip(run.layers, run.gradients(score, last=False), strict=True):
        a, g = (_assembled(layer.map(each)) for each in (layer.value, gradient))
        signed.append(method(a, g, eigen, layer.value.dtype))
    return signed


def _assembled(cells: Tensor) -> Tensor:
    """``(4, K, h, w)`` → ``(1, K, 2h, 2w)``."""
    return torch.cat([torch.cat(list(cells[:2]), 2), torch.cat(list(cells[2:]), 2)], 1)[None]

"""Whether a detector's map lies where its evidence is: parts of the input are masked, and the maps are compared.

Detectors carry what they see to the cells around an object's center, and a map of a late layer is hot there whatever
the object looks like (feature drift). Masking the input does not know about layers: where the score of the same object
falls, the evidence is. This is D-RISE (Petsiuk et al., CVPR 2021) on a coarse grid, cell by cell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vistool.analyses.cam.instances import InstanceTarget
from vistool.analyses.cam.methods import Key
from vistool.analyses.cam.report import Drawn, MapMeasured
from vistool.analyses.cam.targets import Target
from vistool.metrics import Measured
from vistool.models.model import Model
from vistool.network.detection import Adapter
from vistool.network.inputs import run_network
from vistool.network.tensors import NetworkInput, find_image, replace_tensor

CELLS = 5
"""Cells of a side; the box covers the inner three."""

Boundary = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels of the network's input."""

Similarities = Callable[[Tensor], Tensor]
"""Changed copies ``(n, C, H, W)`` of an image → how much each still holds the object ``(n,)``."""


@dataclass(frozen=True)
class Drift:
    """Two maps of one object on the same cells, compared.

    Attributes:
        agreement: Σ min(p, q) of the map and the losses of the score, both as shares; 1 where they are the same. NaN
            where no masked cell lowers the score, or the map is zero there.
        map_center: The share of the map in the middle cell.
        masked_center: The share of the losses in the middle cell.
    """

    agreement: float
    map_center: float
    masked_center: float


def verified(
    model: Model,
    detector: Adapter,
    inputs: NetworkInput,
    targets: Sequence[Target],
    drawn: Mapping[Key, Sequence[Drawn]],
    at_once: int,
) -> list[dict[tuple[Key, int], MapMeasured]]:
    """How far each map of a batch agrees with what masking the input finds.

    The masked copies of an object serve all its maps: 26 forwards for each.

    Args:
        model: The detector.
        detector: Reads it.
        inputs: The batch.
        targets: What the maps explain.
        drawn: The maps.
        at_once: Copies in one run.

    Returns:
        For each image: the key of a map and its number among those of the key → name → number; nothing for maps that
        explain no prediction.
    """
    images = find_image(inputs)
    assert images is not None
    found: list[dict[tuple[Key, int], MapMeasured]] = []
    for index, image in enumerate(images):
        own: dict[tuple[Key, int], MapMeasured] = {}
        losses: dict[int, NDArray[np.float64]] = {}
        for key, every in drawn.items():
            target = None if key[1] is None else targets[key[1]]
            one = target.chosen[index] if isinstance(target, InstanceTarget) else None
            for place, each in enumerate(every):
                own[key, place] = MapMeasured({}, None)
                if one is None or one.seen is None or target is None:
                    continue
                if one.number not in losses:
                    losses[one.number] = measure_losses(
                        image, one.seen, _similarities(model, detector, inputs, target, index), at_once
                    )
                compared = compare(each.values[index], one.seen, losses[one.number])
                metrics = {name: Measured(value) for name, value in vars(compared).items()}
                own[key, place] = MapMeasured(metrics, None)
        found.append(own)
    return found


def _similarities(model: Model, detector: Adapter, inputs: NetworkInput, target: Target, index: int) -> Similarities:
    """What tells how much copies of an image still hold a target's object."""
    image = find_image(inputs)
    assert image is not None

    def similar(copies: Tensor) -> Tensor:
        given = detector.repeated(replace_tensor(inputs, image, copies), index, len(copies))
        with torch.no_grad():
            return target.score(run_network(model.module, given), torch.full((len(copies),), index))

    return similar


def cell_edges(box: Boundary, size: tuple[int, int]) -> tuple[list[int], list[int]]:
    """The edges of the cells' rows and of their columns in pixels, within the image: a third of the box each.

    Args:
        box: The object's.
        size: ``(H, W)`` of the input.
    """
    left, top, right, bottom = box
    found = []
    for start, end, whole in ((top, bottom, size[0]), (left, right, size[1])):
        side = max((end - start) / (CELLS - 2), 1.0)
        middle = (start + end) / 2
        edges = [middle + (number - CELLS / 2) * side for number in range(CELLS + 1)]
        found.append([int(min(max(round(edge), 0), whole)) for edge in edges])
    return found[0], found[1]


def measure_losses(image: Tensor, box: Boundary, similarities: Similarities, at_once: int) -> NDArray[np.float64]:
    """How much the object is lost when each cell is masked with the image's mean color: ``(CELLS, CELLS)``, from 0 up.

    Args:
        image: ``(C, H, W)``.
        box: Of the object, in its pixels.
        similarities: How much copies still hold the object.
        at_once: Copies in one run.
    """
    rows, columns = cell_edges(box, (int(image.shape[1]), int(image.shape[2])))
    mean = image.flatten(1).mean(1)[:, None, None]
    copies = [image]
    for row in range(CELLS):
        for column in range(CELLS):
            copy = image.clone()
            copy[:, rows[row] : rows[row + 1], columns[column] : columns[column + 1]] = mean
            copies.append(copy)
    scores = torch.cat(
        [similarities(torch.stack(copies[start : start + at_once])) for start in range(0, len(copies), at_once)]
    )
    losses = (scores[0] - scores[1:]).clamp_min(0).double().cpu().numpy()
    found: NDArray[np.float64] = losses.reshape(CELLS, CELLS)
    return found


def compare(values: NDArray[np.float32], box: Boundary, losses: NDArray[np.float64]) -> Drift:
    """A map compared with the losses.

    Outside the cells the map counts where it is at least half as strong as its maximum: evidence that lies elsewhere is
    seen, and a faint background on a large image is not.

    Args:
        values: The map ``(H, W)``.
        box: Of the object, in its pixels.
        losses: ``(CELLS, CELLS)``.
    """
    rows, columns = cell_edges(box, (values.shape[0], values.shape[1]))
    finite = np.nan_to_num(values).astype(np.float64)
    mass = np.array(
        [
            [finite[rows[row] : rows[row + 1], columns[column] : columns[column + 1]].sum() for column in range(CELLS)]
            for row in range(CELLS)
        ]
    )
    strong = np.where(finite >= finite.max(initial=0.0) / 2, finite, 0.0)
    elsewhere = strong.sum() - strong[rows[0] : rows[-1], columns[0] : columns[-1]].sum()
    if not mass.sum() + elsewhere or not losses.sum():
        return Drift(float('nan'), float('nan'), float('nan'))
    own, masked = mass / (mass.sum() + elsewhere), losses / losses.sum()
    middle = CELLS // 2
    return Drift(float(np.minimum(own, masked).sum()), float(own[middle, middle]), float(masked[middle, middle]))

"""The metrics as their papers and other implementations write them: loops, one image at a time, in numpy."""

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import lil_matrix
from scipy.sparse.linalg import splu


def imputed(image, removed):
    """ROAD's linear imputation as one system: each removed pixel is the weighted mean of its neighbors."""
    height, width = removed.shape
    places = [(y, x) for y in range(height) for x in range(width) if removed[y, x]]
    numbers = {place: number for number, place in enumerate(places)}
    matrix, right = lil_matrix((len(places),) * 2), np.zeros((len(places), len(image)))
    for row, (y, x) in enumerate(places):
        for down in (-1, 0, 1):
            for across in (-1, 0, 1):
                near, weight = (y + down, x + across), 1 / 12 if down and across else 1 / 6
                if (down, across) == (0, 0) or not (0 <= near[0] < height and 0 <= near[1] < width):
                    continue
                matrix[row, row] += weight
                if removed[near]:
                    matrix[row, numbers[near]] -= weight
                else:
                    right[row] += weight * image[:, near[0], near[1]]
    result = image.copy()
    for (y, x), values in zip(places, splu(matrix.tocsc()).solve(right), strict=True):
        result[:, y, x] = values
    return result


def rise(network, image, saliency, target, mode, step):
    """Insertion or deletion of one image ``(1, C, H, W)``, as the authors' ``CausalMetric`` computes it."""
    pixels = saliency.size
    offsets = np.arange(11) - 5
    weights = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 5.0**2))
    kernel = torch.zeros(3, 3, 11, 11)
    for channel in range(3):
        kernel[channel, channel] = torch.from_numpy(weights / weights.sum())
    if mode == 'deletion':
        start, finish = image.clone(), torch.zeros_like(image)
    else:
        start, finish = F.conv2d(image, kernel, padding=5), image.clone()
    order = np.argsort(saliency.ravel())[::-1].copy()
    scores = []
    steps = (pixels + step - 1) // step
    for number in range(steps + 1):
        scores.append(float(network(start).softmax(1)[0, target]))
        chosen = order[step * number : step * (number + 1)]
        start.view(1, 3, -1)[..., chosen] = finish.view(1, 3, -1)[..., chosen]
    scores = np.array(scores)
    return (scores.sum() - scores[0] / 2 - scores[-1] / 2) / (len(scores) - 1)


def quantus_pixel_flipping(network, image, saliency, target, features_in_step):
    """The curve of Quantus 0.6.0's ``PixelFlipping`` for one image ``(1, C, H, W)``, written from its source.

    A feature is one channel of one pixel, "black" is the smallest value of the whole tensor, and the curve begins after
    the first step.
    """
    order = np.argsort(-np.broadcast_to(saliency, image[0].shape).ravel())
    flipped, scores = image.clone(), []
    for start in range(0, len(order), features_in_step):
        flipped.view(-1)[order[start : start + features_in_step]] = flipped.min()
        scores.append(float(network(flipped).softmax(1)[0, target]))
    return scores

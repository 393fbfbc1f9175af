"""A dataset in numbers: classes, sizes, colours against the config's normalisation, files that cannot be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vistool.data.datasets.annotations import class_ids, class_name
from vistool.data.datasets.batching import replace_mean
from vistool.data.datasets.reading import Samples
from vistool.data.images import planes_of
from vistool.data.pipelines import network_input
from vistool.errors import InputError
from vistool.registry import ANALYSES
from vistool.results import DatasetSummary

#: Further off than this share of the standard deviation, or by this factor of it, is said in words.
_SHIFT, _SPREAD = 0.25, 1.33
_CHANNELS = ('red', 'green', 'blue')


@dataclass(frozen=True, eq=False)
class Measured:
    """The numbers of one sample.

    Attributes:
        index: Its place in the dataset.
        classes: Its class ids.
        size: ``(height, width)`` as loaded.
        moments: ``(3, 2)`` mean and mean square of R, G, B in 0-255, as the network sees the image.
        expected: ``(3, 2)`` mean and standard deviation of R, G, B that are taken off and divided by; None: neither.
        error: Why it could not be read, else ``''``.
    """

    index: int
    classes: tuple[int, ...] = ()
    size: tuple[int, int] = (0, 0)
    moments: NDArray[np.float64] | None = None
    expected: NDArray[np.float64] | None = None
    error: str = ''

    def row(self) -> dict[str, Any]:
        """As a row of the table."""
        found: dict[str, Any] = {f'{name}_{what}': '' for name in _CHANNELS for what in ('mean', 'std')}
        if self.moments is not None:
            means = self.moments[:, 0]
            spreads = np.sqrt(np.maximum(self.moments[:, 1] - means**2, 0))
            for place, name in enumerate(_CHANNELS):
                found |= {f'{name}_mean': round(means[place], 3), f'{name}_std': round(spreads[place], 3)}
        classes, (height, width) = ' '.join(map(str, self.classes)), self.size
        return {'index': self.index, 'classes': classes, 'height': height, 'width': width, **found, 'error': self.error}


@ANALYSES.register_module()
@dataclass
class DatasetReport:
    """What a dataset is like as a whole."""

    def __call__(self, samples: Samples, indices: Sequence[int]) -> DatasetSummary:
        """Measure samples and sum up."""
        return self.summed(samples, (self.measured(samples, index) for index in indices))

    def measured(self, samples: Samples, index: int) -> Measured:
        """The numbers of one sample; its pipeline runs once."""
        try:
            record = samples.read(index, detail='ends')
            values = planes_of(network_input(record.data))
        except InputError as error:
            return Measured(index, error=str(error))
        pixels = record.photometry.image(values).reshape(-1, 3).astype(np.float64)
        moments = np.stack([pixels.mean(0), (pixels**2).mean(0)], axis=1)
        photometry = replace_mean(record.photometry, samples.preprocessing, None, 0)
        expected = np.stack([np.broadcast_to(each, 3) for each in (photometry.bias, photometry.gain)], axis=1)
        expected = expected[::-1] if photometry.bgr else expected
        plain = bool(np.all(expected == [0, 1]))
        size = record.original.shape[0], record.original.shape[1]
        return Measured(index, class_ids(record.label), size, moments, None if plain else np.array(expected))

    def summed(self, samples: Samples, measured: Iterable[Measured]) -> DatasetSummary:
        """The summary of all samples' numbers.

        Raises:
            InputError: No sample could be read.
        """
        counts: Counter[int] = Counter()
        sizes, moments, failed, rows, expected = [], [], [], [], None
        for each in measured:
            rows.append(each.row())
            if each.moments is None:
                failed.append((each.index, each.error))
                continue
            counts.update(each.classes)
            sizes.append(each.size)
            moments.append(each.moments)
            expected = each.expected
        if not moments:
            raise InputError(f'no sample can be read; the first: {failed[0][1] if failed else "there is none"}')
        first, second = np.mean(moments, axis=0).T
        found = np.stack([first, np.sqrt(np.maximum(second - first**2, 0))], axis=1)
        names = {class_name(index, samples.classes): count for index, count in sorted(counts.items())}
        provenance: dict[str, Any] = {'samples': len(sizes), 'of': len(samples), 'seed': samples.seed}
        return DatasetSummary(
            counts=names,
            sizes=np.array(sizes),
            found=found,
            expected=expected,
            verdict=verdict(found, expected),
            failed=tuple(failed),
            rows=tuple(rows),
            provenance=provenance,
        )


def verdict(found: NDArray[np.float64], expected: NDArray[np.float64] | None) -> str:
    """Whether the data fit the normalisation, in words.

    Args:
        found: ``(3, 2)`` mean and standard deviation of R, G, B.
        expected: The same, of the config; None where it does not normalise.
    """
    if expected is None:
        return 'the config does not normalise'
    shift = np.abs(found[:, 0] - expected[:, 0]) / expected[:, 1]
    spread = found[:, 1] / expected[:, 1]
    if shift.max() <= _SHIFT and max(spread.max(), 1 / spread.min()) <= _SPREAD:
        return 'the data fit the normalisation of the config'
    words = []
    swapped = np.abs(found[::-1, 0] - expected[:, 0]) / expected[:, 1]
    if shift.max() > _SHIFT:
        worst = int(shift.argmax())
        side = 'above' if found[worst, 0] > expected[worst, 0] else 'below'
        words.append(f'the mean of {_CHANNELS[worst]} is {shift[worst]:.2f} standard deviations {side}')
    if spread.max() > _SPREAD or spread.min() < 1 / _SPREAD:
        worst = int(np.abs(np.log(spread)).argmax())
        words.append(f'the standard deviation of {_CHANNELS[worst]} is {spread[worst]:.2f} times')
    hint = '; red and blue look exchanged' if swapped.max() < 0.5 * shift.max() else ''
    return f'mismatch: {" and ".join(words)} the config’s{hint}'

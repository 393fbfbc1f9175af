"""Reading a dataset's samples the way training does, reproducibly, with what happened on the way."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vistool.data.datasets.annotations import Label, bases, class_names, info_of, label_of
from vistool.data.datasets.opening import open_dataset, sample_name
from vistool.data.datasets.recording import Detail, Recorder, Shot
from vistool.data.pipelines import seed_inner
from vistool.data.transforms.photometry import Photometry, Preprocessing
from vistool.data.transforms.replay import seeded
from vistool.errors import InputError


@dataclass(frozen=True, eq=False)
class Record:
    """What became of one sample.

    Attributes:
        index: Its place in the dataset.
        name: Output stem.
        path: Its file, if it has one.
        label: Its ground truth.
        shots: Its images: the original first, then steps or the end.
        data: What the pipeline returned.
        photometry: How the values in ``data`` are to be shown.
        refetched: Its place in the innermost dataset, where the dataset threw others away first; else None.
    """

    index: int
    name: str
    path: Path | None
    label: Label
    shots: list[Shot]
    data: Any
    photometry: Photometry
    refetched: int | None = None

    @property
    def original(self) -> NDArray[np.uint8]:
        """The image as it was loaded."""
        return self.shots[0].pixels


class Samples:
    """A dataset whose samples are read and watched.

    Args:
        dataset: Built, wrappers included. Its pipelines are replaced by recording ones.
        data_preprocessor: The model's, built, as a config, or None.
        seed: With a sample's index, decides whatever its transforms draw.
        channel_order: ``BGR`` or ``RGB``, of loaded images; None: as their loader does it.
    """

    def __init__(
        self, dataset: Any, data_preprocessor: Any = None, seed: int = 0, channel_order: str | None = None
    ) -> None:
        if channel_order not in (None, 'BGR', 'RGB'):
            raise InputError(f'unknown order {channel_order!r}', accepted='BGR, RGB', parameter='channel_order')
        self.dataset, self.seed = dataset, seed
        self.classes = class_names(dataset)
        self.preprocessing = Preprocessing.of(data_preprocessor)
        self._bgr = None if channel_order is None else channel_order == 'BGR'
        self._watch = _Watch()
        self._own = list(bases(dataset))
        for base in self._own:
            base.pipeline = _Watched(getattr(base, 'pipeline', None), self._watch)

    @classmethod
    def of(cls, config: Any, phase: str = 'train', seed: int = 0, channel_order: str | None = None) -> Samples:
        """The samples of a config's dataset.

        Raises:
            InputError: The config has no such phase, or the dataset or its files are not there.
        """
        return cls(open_dataset(config, phase), preprocessor_config(config), seed, channel_order)

    def __len__(self) -> int:
        return len(self.dataset)

    def info(self, index: int) -> dict[str, Any]:
        """A sample's annotations; its pipeline does not run."""
        return info_of(self.dataset, index)

    def label(self, index: int) -> Label:
        """A sample's label; its pipeline does not run."""
        return label_of(self.info(index))

    def read(self, index: int, repeat: int = 0, detail: Detail = 'steps') -> Record:
        """Run the dataset's own pipeline for one sample.

        Args:
            index: Place in the dataset.
            repeat: Another number, another draw: the one that seed + ``repeat`` gives.
            detail: Whether the images after all steps are kept, the first and last alone, or only the first.

        Raises:
            InputError: The image is not readable, or a transform fails on it.
        """
        watch = self._watch
        watch.start(lambda: Recorder(self.preprocessing, self._bgr, detail))
        try:
            with seeded(self.seed + repeat, index) as own:
                for base in self._own:
                    seed_inner(base.pipeline.transforms, own)
                data = self.dataset[index]
        except Exception as error:
            where = _path(watch.info) or f'sample {index}'
            text = error.problem if isinstance(error, InputError) else ' '.join(f'{error}'.split())
            text = text.replace(f": '{where}'", '').replace(f': {where}', '')  # named once is enough
            raise InputError(f'{where}: {text or type(error).__name__}') from error
        if watch.done is None or not watch.done.shots:
            raise InputError(f'sample {index} went through no pipeline that loads an image')
        label, path = label_of(watch.info), _path(watch.info)
        refetched = watch.info.get('sample_idx', index) if watch.discarded else None
        name = sample_name(index, label, path, self.classes)
        return Record(index, name, path, label, watch.done.shots, data, watch.done.photometry, refetched)


def preprocessor_config(config: Any) -> Any:
    """The data preprocessor's config with the model's batch augmentations, as the model would build it; or None."""
    model = config.get('model') or {}
    own = model.get('data_preprocessor') or config.get('data_preprocessor')
    if own is None:
        return None
    own = dict(own)
    augments = (model.get('train_cfg') or {}).get('augments')
    if augments:
        own.setdefault('batch_augments', dict(model['train_cfg']))
    return own


class _Watch:
    """What the pipelines of a dataset did since the last start: the first run that gave something counts."""

    def __init__(self) -> None:
        self.start(None)

    def start(self, make: Any) -> None:
        self.make, self.done, self.discarded = make, None, 0
        self.info: dict[str, Any] = {}
        self._found = False

    def run(self, transforms: list[Any], results: Any) -> Any:
        recorder = self.make()
        if not self._found:
            self.info = {k: copy.copy(v) for k, v in results.items() if k != 'img'} if _named(results) else {}
        out = recorder.record(transforms, results)
        if self._found:
            return out  # a wrapper that mixes samples asks for more of them
        if out is None:
            self.discarded += 1
        else:
            self._found, self.done = True, recorder
        return out


class _Watched:
    """Stands in the place of a dataset's pipeline."""

    def __init__(self, pipeline: Any, watch: _Watch) -> None:
        own = pipeline.transforms if hasattr(pipeline, 'transforms') else pipeline
        self.transforms: list[Any] = [] if own is None else list(own) if isinstance(own, (list, tuple)) else [own]
        self._watch = watch

    def __call__(self, results: Any) -> Any:
        return self._watch.run(self.transforms, results)


def _named(results: Any) -> bool:
    return isinstance(results, Mapping)


def _path(info: Mapping[str, Any]) -> Path | None:
    path = info.get('img_path')
    path = path[0] if isinstance(path, (list, tuple)) and path else path
    return Path(str(path)) if path is not None else None

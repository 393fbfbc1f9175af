"""The runs of vis_tsne: features of a whole dataset, laid out in a plane, drawn, and written as a table."""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vistool.analyses.embedding import DatasetEmbedding
from vistool.data.datasets import DatasetItems, LabeledFiles, class_ids, class_name
from vistool.data.samples import Sample
from vistool.environment import as_typed, shareable, versions
from vistool.errors import InputError, check_seed, naming, param
from vistool.gallery.build import build_gallery, check_others
from vistool.gallery.runs import Facts
from vistool.gallery.tiles import write_photo
from vistool.models.configs import resolve
from vistool.models.model import Model
from vistool.records import RUN, read_json
from vistool.results import EmbeddedSample, Embedding, EmbeddingMap, Target
from vistool.runs.batches import Batches, throughput
from vistool.runs.distributed import DistInfo, hint_at_gpu
from vistool.runs.manifest import FORMAT, Manifest, again_of, fingerprint, label_entry, plain
from vistool.runs.run import Callbacks
from vistool.runs.spec import (
    AnyItem,
    Execution,
    Failure,
    Images,
    Models,
    Output,
    PathLike,
    Prediction,
    RunSummary,
    Selection,
    config_of,
    find_items,
    find_source,
    keep_images,
    labeled,
    labels,
    log_failures,
    name_of,
    opened_models,
    predict,
    read_views,
    select,
)
from vistool.visualization.files import is_file, table, write_file
from vistool.visualization.visualizer import Visualizer

if TYPE_CHECKING:
    from mmengine.config import Config

log = logging.getLogger('vistool')

MOST_CLASSES, MOST_PER_CLASS = 20, 100
"""What is taken of a dataset by default, as mmpretrain's tool does."""
MOST_FILES = 2000
_THUMBNAIL = 64
_TOOL = 'vis_tsne'


@dataclass(frozen=True)
class EmbeddingSpec:
    """Which samples are laid out, and how.

    Attributes:
        analysis: How.
        models: The models; those to compare see the same samples.
        images: A folder, a list, … or ``@train``, ``@val``, ``@test``; None: ``@test`` of the config, else ``@val``.
        data: A config whose dataset is taken in place of the model's own.
        selection: Which samples.
        max_classes: Without ``selection.classes``: the first classes of a dataset, at most this many.
        execution: How features are computed.
        output: What is written, and where; ``save_raw`` writes the features.
        thumbnails: Whether samples are drawn as small pictures.
        seed: Of random weights and random choices of images.
        command: The command line, for provenance.
        again: The words of the same command line for other images, None where those stand; empty: there is none.
    """

    analysis: DatasetEmbedding
    models: Models
    images: Images | None = None
    data: PathLike | None = None
    selection: Selection = field(default_factory=Selection)
    max_classes: int = MOST_CLASSES
    execution: Execution = field(default_factory=Execution)
    output: Output = field(default_factory=Output)
    thumbnails: bool = False
    seed: int = 0
    command: str = ''
    again: tuple[str | None, ...] = ()

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if self.max_classes < 1:
            raise InputError(f'{self.max_classes} is not a number of classes', parameter='max_classes')


@dataclass(frozen=True)
class _Embedded:
    """One sample with its features in every model."""

    sample: EmbeddedSample
    features: tuple[NDArray[np.float32], ...]
    tile: Mapping[str, Any] | None = None
    number: int | None = None


def embed(spec: EmbeddingSpec, callbacks: Callbacks | None = None) -> tuple[EmbeddingMap, RunSummary]:
    """Computes features, lays the samples out, and writes the picture and the table.

    Raises:
        InputError: Something cannot be found, read, or written, or does not fit the samples.
    """
    return _Run(spec, callbacks or Callbacks()).execute()


class _Run:
    def __init__(self, spec: EmbeddingSpec, callbacks: Callbacks) -> None:
        self.spec, self.callbacks = spec, callbacks
        self.embedded: list[_Embedded] = []
        self.failures: list[Failure] = []
        self.layers: list[str] = []
        self.total = 0

    def execute(self) -> tuple[EmbeddingMap, RunSummary]:
        """Does all of it."""
        started, spec = time.perf_counter(), self.spec
        spec.analysis.check()
        source = find_source(spec.models.first, spec.models)
        data = source if spec.data is None else resolve(spec.data, {})
        self.items: Sequence[AnyItem] = find_items(self.images(config_of(data)), data)
        out = spec.output.path(name_of(source), 'vis_tsne')
        keep_images(self.items, out=out)
        visualizer = Visualizer(out, spec.output.style, show=spec.output.show)
        visualizer.check()
        self.out = out
        self.check_gallery()
        with opened_models(spec.models, source, spec.seed) as self.models:
            names = self.items.classes if isinstance(self.items, DatasetItems) else None
            for model in self.models:
                model.classes = model.classes or names
            self.names = names or self.models[0].classes
            self.items = labeled(self.items, self.names)
            self.batches: Batches[AnyItem, _Embedded, _Embedded] = Batches(
                self.read, self.explain, self.kept, spec.execution.batch_size, spec.execution.workers
            )
            order = self.select()
            visualizer.keep(self.items[index].path for index in order)
            spec.analysis.check_samples(len(order))
            hint_at_gpu(spec.models.device, len(order))
            self.total = len(order)
            self.callbacks.progress(0, self.total)
            self.batches.run(self.items, self.done, self.failed, [order])
            result = self.laid_out()
        paths = self.write(result, visualizer)
        if spec.output.gallery is not None:
            paths += self.write_gallery(result)
        self.callbacks.written(paths)
        log.info('%s', throughput([self.batches.clock]))
        log_failures(self.failures, len(order))
        seconds = time.perf_counter() - started
        return result, RunSummary(out, len(self.embedded), 0, tuple(self.failures), tuple(paths), seconds, False)

    def images(self, config: Config | None) -> Images:
        """The images as the caller names them, or the config's test set, else its validation set."""
        if self.spec.images is not None:
            return self.spec.images
        return '@test' if config is not None and config.get('test_dataloader') else '@val'

    def select(self) -> list[int]:
        """Positions of the samples: a bounded number of them, unless the caller says otherwise."""
        selection, spec = self.spec.selection, self.spec
        amount = selection.per_class or selection.max_samples or selection.indices
        if isinstance(self.items, (DatasetItems, LabeledFiles)):
            selection = self.of_classes(selection, not amount)
        elif not amount and len(self.items) > MOST_FILES:
            log.info('%d of %d images; %s takes more', MOST_FILES, len(self.items), param('max_samples'))
            selection = replace(selection, max_samples=MOST_FILES)

        def predictions(pool: Sequence[int]) -> list[Prediction]:
            amp = spec.execution.amp
            walk = self.batches.walk(self.items, [pool])
            return [each for views in walk for each in predict(self.models[0], views[0], amp)]

        return select(selection, self.items, predictions, spec.seed)

    def of_classes(self, selection: Selection, bounded: bool) -> Selection:
        """A selection of a dataset with what it leaves open: which classes, and how many samples of each."""
        assert isinstance(self.items, (DatasetItems, LabeledFiles))
        found = sorted({each for index in range(len(self.items)) for each in class_ids(self.items.label(index))[:1]})
        if not found:
            return replace(selection, max_samples=MOST_FILES) if bounded and len(self.items) > MOST_FILES else selection
        if not selection.classes and not selection.indices and len(found) > self.spec.max_classes:
            told = len(found), param('classes'), param('max_classes')
            log.info('the first %d of %d classes; %s takes others, %s more', self.spec.max_classes, *told)
            selection = replace(selection, classes=found[: self.spec.max_classes])
        if bounded and len(self.items) > MOST_PER_CLASS:
            selection = replace(selection, per_class=MOST_PER_CLASS)
        return selection

    def read(self, index: int, item: AnyItem) -> tuple[Sample, ...]:
        """A sample as each model reads it; runs in a pool."""
        with naming('images'):
            return read_views(self.models, item, self.spec.seed, index)

    def explain(self, views: list[list[Sample]]) -> list[_Embedded]:
        """Features and predictions of a batch."""
        analysis = self.spec.analysis
        found = []
        for place, (model, samples) in enumerate(zip(self.models, views, strict=True)):
            with model.precision(self.spec.execution.amp):
                # Another model may keep layers elsewhere: its own features stand beside the named layer's.
                found.append((analysis if not place else self.follow(model)).features(model, samples))
        self.layers = [name for name, _, _ in found]
        return [
            _Embedded(
                self.described(sample, tuple(predictions[number] for _, _, predictions in found)),
                tuple(features[number] for _, features, _ in found),
            )
            for number, sample in enumerate(views[0])
        ]

    def follow(self, model: Model) -> DatasetEmbedding:
        """The analysis for another model: the same layer if it has one of that name."""
        layer = self.spec.analysis.layer
        known = not layer or layer.partition('[')[0].partition('#')[0] in dict(model.module.named_modules())
        if not known:
            log.warning('%s has no layer %r: the features that it decides by are taken', model.name, layer)
        return self.spec.analysis if known else replace(self.spec.analysis, layer='')

    def described(self, sample: Sample, predictions: tuple[Target | None, ...]) -> EmbeddedSample:
        """What is kept of a sample."""
        label = None if sample.label is None else Target(class_name(sample.label, self.names), sample.label)
        path = None if sample.path is None else as_typed(sample.path)
        small = thumbnail(sample.image) if self.spec.thumbnails else None
        return EmbeddedSample(sample.index or 0, sample.name, path, label, predictions, small)

    def check_gallery(self) -> None:
        """Raises where the output cannot hold a page: it is a file, or holds another command's run."""
        if self.spec.output.gallery is None:
            return
        if is_file(self.out):
            raise InputError('is for a folder', hint='give the output as a folder', parameter='gallery')
        check_others(self.out, [Path(folder) for folder in self.spec.output.gallery])
        if (self.out / RUN).exists():
            before = read_json(self.out / RUN, Facts, 'out').get('tool')
            if before != _TOOL:
                raise InputError(
                    f'{str(self.out)!r} holds a run of {before}', accepted='another folder', parameter='out'
                )

    def kept(self, embedded: _Embedded, sample: Sample, seconds: float) -> _Embedded:
        """The same sample, with its picture for the gallery written where there is one; runs in a pool."""
        if self.spec.output.gallery is None:
            return embedded
        return replace(embedded, tile=write_photo(sample.image, self.out, embedded.sample.name), number=sample.label)

    def write_gallery(self, result: EmbeddingMap) -> list[Path]:
        """The run as other commands write it, a manifest with an entry per sample, and the page over it."""
        spec, model = self.spec, self.models[0]
        classes = self.items.classes if isinstance(self.items, DatasetItems) else None
        notes = [_note(result, each) for each in result.embeddings]
        maps = [
            {'name': name, 'note': note}
            for name, note in zip(labels(self.models, spec.models.names), notes, strict=True)
        ]
        settings = {**vars(spec.analysis), 'seed': spec.seed, 'layer': self.layers[0]}
        record = shareable({'format': FORMAT, 'tool': _TOOL, 'command': spec.command, **model.provenance()})
        again = again_of(spec.again, self.images(model.config), self.out, False)
        record |= {'settings': plain(settings), 'versions': versions(), 'embeddings': maps, **again}
        manifest = Manifest.open(self.out, record, DistInfo(), overwrite=True)
        manifest.start()
        for number, one in enumerate(self.embedded):
            sample = one.sample
            predictions = [each and each.entry() for each in sample.predictions]
            manifest.add({
                **fingerprint(self.items[sample.index], sample.index),
                'index': sample.index,
                'label': label_entry(one.number, model.classes, classes),
                'prediction': predictions[0],
                'compared': [
                    {'name': name, 'prediction': each}
                    for name, each in zip(labels(self.models, self.spec.models.names)[1:], predictions[1:], strict=True)
                ],
                'points': [each.points[number].tolist() for each in result.embeddings],
                'files': [],
                'tiles': [one.tile],
                'error': None,
            })  # fmt: skip
        manifest.finish()
        return build_gallery(self.out, [Path(folder) for folder in spec.output.gallery or ()])

    def done(self, embedded: _Embedded | None) -> None:
        """Keeps one sample."""
        if embedded is not None:
            self.embedded.append(embedded)
            self.callbacks.progress(len(self.embedded) + len(self.failures), self.total)

    def failed(self, index: int, item: AnyItem, error: InputError) -> None:
        """Notes a sample that cannot be read."""
        self.failures.append(Failure(str(item.path or item.name), error))
        self.callbacks.progress(len(self.embedded) + len(self.failures), self.total)

    def laid_out(self) -> EmbeddingMap:
        """The map."""
        features = [np.stack(each) for each in zip(*(one.features for one in self.embedded), strict=True)]
        told = list(zip(labels(self.models, self.spec.models.names), self.layers, strict=True))
        spec = self.spec
        result = replace(spec.analysis, seed=spec.seed)(features, [each.sample for each in self.embedded], told)
        for embedding in result.embeddings:
            numbers = {'silhouette': embedding.silhouette, f'{result.neighbors}-NN accuracy': embedding.accuracy}
            known = ', '.join(f'{name} {value:.3f}' for name, value in numbers.items() if value is not None)
            where = f'{embedding.features.shape[1]} dimensions ({embedding.layer})'
            log.info('%s: %s in %s', embedding.model, known or 'no classes to judge', where)
        own = self.models[0].classes
        result = replace(result, judged=own is None or self.names is None or len(own) == len(self.names))
        return result.with_provenance(**self.models[0].provenance(), seed=spec.seed, layer=self.layers[0])

    def write(self, result: EmbeddingMap, visualizer: Visualizer) -> list[Path]:
        """The picture with its table, the confusion matrices, and the features where they are wanted."""
        analysis = self.spec.analysis
        name = '_'.join(filter(None, (analysis.reducer, analysis.layer)))
        paths = visualizer.write(result, name)
        picture = next(path for path in paths if path.suffix != '.csv')
        for place in range(len(result.embeddings)):
            if rows := result.confusion(place):
                paths.append(picture.with_name(f'{picture.stem}_confusion{f"_{place + 1}" if place else ""}.csv'))
                write_file(paths[-1], table(rows))
        if self.spec.output.save_raw:
            arrays: dict[str, NDArray[Any]] = {}
            for number, each in enumerate(result.embeddings):
                arrays |= {f'features_{number}': each.features, f'points_{number}': each.points}
            content = io.BytesIO()
            np.savez(content, **arrays)  # type: ignore[arg-type]
            write_file(picture.with_suffix('.npz'), content.getvalue())
            paths.append(picture.with_suffix('.npz'))
        return paths


def _note(result: EmbeddingMap, embedding: Embedding) -> str:
    """How points were laid out and how well classes part, for the page."""
    numbers = {'silhouette': embedding.silhouette, f'{result.neighbors}-NN accuracy': embedding.accuracy}
    told = [f'{name} {value:.2f}' for name, value in numbers.items() if value is not None]
    return ' · '.join([result.settings, *told])


def thumbnail(image: NDArray[np.uint8], side: int = _THUMBNAIL) -> NDArray[np.uint8]:
    """A picture made so small that its longer side has ``side`` pixels."""
    factor = side / max(image.shape[:2])
    size = max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor))
    resize = partial(cv2.resize, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    return np.asarray(resize(image, size), np.uint8)

"""A config's own datasets: opening them, through any wrappers, their annotations, and choosing among their samples.

No image is opened here.
"""

from __future__ import annotations

import codecs
import copy
import inspect
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from vistool import ranges
from vistool.data.dataloaders import PHASES, phases_with_data, read_loader
from vistool.data.samples import Item
from vistool.errors import InputError, close_matches, counted, message_of, naming, param

if TYPE_CHECKING:
    from mmengine.config import Config

log = logging.getLogger('vistool')

Label = int | tuple[int, ...] | np.ndarray | dict[str, Any] | None
"""A class id, several ids, a score for each class, one label per task, or None."""


def info_of(dataset: Any, index: int) -> dict[str, Any]:
    """A copy of the annotations of one sample, through any wrappers; the pipeline does not run."""
    if hasattr(dataset, 'get_data_info'):
        return dict(dataset.get_data_info(index))
    if hasattr(dataset, 'data_list'):
        return {**copy.deepcopy(dataset.data_list[index]), 'sample_idx': index}
    inner, place = step_into(dataset, index)
    return _plain_info(dataset, index) if inner is None else info_of(inner, place)


def _plain_info(dataset: Any, index: int) -> dict[str, Any]:
    """What a dataset of torchvision's kind says of a sample: its file in ``samples``, its class in ``targets``.

    A target that is not a whole number is the value of a regression.
    """
    info: dict[str, Any] = {}
    for name in ('targets', 'labels'):
        listed: Any = getattr(dataset, name, ())
        if hasattr(listed, '__len__') and len(listed) == len(dataset):
            info |= _target(listed[index])
    listed = getattr(dataset, 'samples', ())
    if isinstance(listed, (list, tuple)) and len(listed) == len(dataset) and isinstance(listed[index], (list, tuple)):
        path, *rest = listed[index]
        info |= {'img_path': str(path)} if isinstance(path, (str, Path)) else {}
        if rest:
            info = {**_target(rest[0]), **info}
    return info


def _target(value: Any) -> dict[str, Any]:
    if _is_class(value):
        return {'gt_label': int(value)}
    return {'gt_value': value} if _numbers(value) else {}


def _is_class(value: Any) -> bool:
    scalar = getattr(value, 'ndim', 1) == 0 and 'int' in str(getattr(value, 'dtype', ''))  # of NumPy or PyTorch
    return scalar or (isinstance(value, int) and not isinstance(value, bool))


def step_into(dataset: Any, index: int) -> tuple[Any, int]:
    """The dataset in a wrapper that holds a sample, and the sample's index there; ``(None, index)`` if none does."""
    if getattr(dataset, 'datasets', None):
        which, place = 0, index
        while place >= len(dataset.datasets[which]):
            place -= len(dataset.datasets[which])
            which += 1
        return dataset.datasets[which], place
    inner = getattr(dataset, 'dataset', None)
    if inner is None:
        return None, index
    if hasattr(dataset, 'indices'):  # torch's Subset
        return inner, int(dataset.indices[index])
    if hasattr(dataset, 'repeat_indices'):  # ClassBalancedDataset
        return inner, int(dataset.repeat_indices[index])
    return inner, index % len(inner)  # RepeatDataset; KFoldDataset keeps the subset itself


def base_of(dataset: Any, index: int) -> tuple[Any, int]:
    """The innermost dataset that holds a sample, and the sample's index there."""
    while True:
        inner, place = step_into(dataset, index)
        if inner is None:
            return dataset, index
        dataset, index = inner, place


def _held(dataset: Any) -> list[Any]:
    """The datasets that a wrapper holds; none for one that is not a wrapper."""
    return list(getattr(dataset, 'datasets', None) or filter(None, [getattr(dataset, 'dataset', None)]))


def bases(dataset: Any) -> Iterator[Any]:
    """The innermost datasets, each once."""
    inner = _held(dataset)
    if not inner:
        yield dataset
        return
    seen: set[int] = set()
    for each in inner:
        for base in bases(each):
            if id(base) not in seen:
                seen.add(id(base))
                yield base


def wrappers(dataset: Any) -> Iterator[Any]:
    """The datasets around the innermost ones, from the outside in."""
    inner = _held(dataset)
    if inner:
        yield dataset
        for each in inner:
            yield from wrappers(each)


def class_names(dataset: Any) -> tuple[str, ...] | None:
    """Names of the classes by id, or None if the dataset has none."""
    meta = getattr(dataset, 'metainfo', None) or {}
    names = meta.get('classes') or meta.get('CLASSES') or getattr(dataset, 'classes', None)
    names = names or _category_names(getattr(getattr(dataset, 'coco', None), 'cats', None))
    if not names and (inner := getattr(dataset, 'dataset', None)) is not None:
        return class_names(inner)
    return tuple(map(str, names)) if isinstance(names, (list, tuple)) and names else None


def _category_names(categories: Any) -> list[str]:
    """COCO's names by category id, as torchvision's CocoDetection keeps them; ids that are not used have none."""
    if not isinstance(categories, Mapping) or not categories or not all(isinstance(each, int) for each in categories):
        return []
    listed = (categories.get(number) for number in range(min(max(categories), 99_999) + 1))
    return [str(each['name']) if isinstance(each, Mapping) and 'name' in each else '' for each in listed]


def palette_of(dataset: Any) -> tuple[tuple[int, int, int], ...]:
    """The colors of the classes by id; ``()`` where the dataset has none of its own."""
    meta = getattr(dataset, 'metainfo', None) or {}
    palette = meta.get('palette') or meta.get('PALETTE') or ()
    if not palette and (inner := getattr(dataset, 'dataset', None)) is not None:
        return palette_of(inner)
    if not isinstance(palette, (list, tuple)) or len(palette) != len(class_names(dataset) or ()):
        return ()  # of other classes
    return tuple((int(red), int(green), int(blue)) for red, green, blue in palette)


def skeleton_of(dataset: Any) -> tuple[tuple[int, int], ...]:
    """Which keypoints are joined by a line, from 0; ``()`` where the dataset does not say so, or not in a known form.

    Read are ``skeleton_links`` and ``skeleton_info`` of the meta info, as MMPose has them, and ``skeleton`` of COCO's
    categories (from 1), where those that have one agree.
    """
    meta = getattr(dataset, 'metainfo', None) or {}
    known = getattr(getattr(dataset, 'coco', None), 'cats', None)
    try:
        links = meta.get('skeleton_links') or _named_links(meta) or _links_of_categories(known)
        found = tuple((int(first), int(second)) for first, second in links)
    except (TypeError, ValueError, KeyError):
        return ()
    inner = getattr(dataset, 'dataset', None)
    return found or (() if inner is None else skeleton_of(inner))


def _links_of_categories(categories: Any) -> list[tuple[int, int]]:
    """COCO's skeleton, where all categories that have one have the same."""
    every = categories.values() if isinstance(categories, Mapping) else ()
    drawn = {json.dumps(each['skeleton']) for each in every if isinstance(each, Mapping) and each.get('skeleton')}
    return [(first - 1, second - 1) for first, second in json.loads(drawn.pop())] if len(drawn) == 1 else []


def _named_links(meta: Mapping[str, Any]) -> list[tuple[int, int]]:
    """MMPose's ``skeleton_info``, whose links name keypoints of ``keypoint_info``."""
    points, bones = meta.get('keypoint_info'), meta.get('skeleton_info')
    if not isinstance(points, Mapping) or not isinstance(bones, Mapping):
        return []
    numbers = {each['name']: each.get('id', number) for number, each in points.items()}
    return [(numbers[first], numbers[second]) for first, second in (each['link'] for each in bones.values())]


def label_of(info: Mapping[str, Any]) -> Label:
    """A sample's label, of any kind."""
    if (score := info.get('gt_score')) is not None:
        scores = np.asarray(score, np.float64)
        return scores if ((scores >= 0) & (scores <= 1)).all() else None  # else the values of a regression
    label = info.get('gt_label')
    if label is None and info.get('instances'):  # detection: the classes of its instances
        found = {int(each['bbox_label']) for each in info['instances'] if 'bbox_label' in each}
        return tuple(sorted(found))
    return _label(label)


def _label(label: Any) -> Label:
    if label is None or isinstance(label, str):
        return None
    if isinstance(label, Mapping):
        return dict(label)
    values = np.asarray(label)
    if values.dtype.kind not in 'iub':
        return values.astype(np.float64) if values.dtype.kind == 'f' and values.ndim == 1 else None
    return int(values) if values.ndim == 0 else tuple(int(each) for each in values.reshape(-1))


def values_of(info: Mapping[str, Any]) -> tuple[float, ...]:
    """The numbers that a sample is annotated with, for regressions: ``gt_value``, ``gt_score`` or ``gt_label``."""
    keys = (key for key in ('gt_value', 'gt_score', 'gt_label') if info.get(key) is not None)
    return next((_numbers(info[key]) for key in keys), ())


def _numbers(value: Any) -> tuple[float, ...]:
    """A number or a row of numbers; ``()`` for anything else."""
    if isinstance(value, (str, bytes, Mapping)):
        return ()
    try:
        values = np.asarray(value)
    except (TypeError, ValueError, RuntimeError):  # ragged, or on another device
        return ()
    return tuple(map(float, values.reshape(-1))) if values.dtype.kind in 'iuf' and values.ndim < 2 else ()


def class_ids(label: Label) -> tuple[int, ...]:
    """The class ids of a label; of scores, those above zero."""
    if isinstance(label, int):
        return (label,)
    if isinstance(label, np.ndarray):
        return tuple(int(each) for each in np.flatnonzero(label > 0))
    if isinstance(label, dict):
        return ()
    return label or ()


def label_text(label: Label, names: tuple[str, ...] | None, most: int = 4) -> str:
    """A label as text: ``'tabby'``, ``'cat · dog'``, ``'0.70 tabby + 0.30 espresso'``; ``''`` for None."""
    lines = label_lines(label, names, most)
    return ' + '.join(lines) if isinstance(label, np.ndarray) else ' · '.join(lines)


def label_lines(label: Label, names: tuple[str, ...] | None, most: int = 4) -> list[str]:
    """A label in lines: one for each score and each task; one for all classes of a plain label."""
    if label is None:
        return []
    if isinstance(label, dict):
        return [f'{task} {_task_text(value)}' for task, value in label.items()]
    ids = class_ids(label)
    if isinstance(label, np.ndarray):
        ranked = sorted(ids, key=lambda index: -label[index])
        if len(ranked) == 1 and label[ranked[0]] == 1:
            return [class_name(ranked[0], names)]
        parts = [f'{label[index]:.2f} {class_name(index, names)}' for index in ranked[:most]]
        return [*parts, '…'] if len(ranked) > most else parts
    parts = [class_name(index, names) for index in ids[:most]]
    parts += [f'{len(ids) - most} more'] if len(ids) > most else []
    return [' · '.join(parts)] if parts else []


def class_name(index: int, names: tuple[str, ...] | None) -> str:
    """The first synonym of a class, or ``'class 7'`` if it has no name."""
    if names is None or not 0 <= index < len(names) or not names[index]:
        return f'class {index}'
    return names[index].split(',')[0].strip()


def classes_called(name: str, names: Sequence[str]) -> list[int]:
    """Ids of the classes with ``name`` as one of their synonyms or as their whole name; case and ``_`` are ignored."""
    wanted = _normalized(name)
    return [
        index
        for index, entry in enumerate(names)
        if wanted in (_normalized(entry), *(_normalized(part) for part in entry.split(',')))
    ]


def read_class(word: str, names: Sequence[str] | None, parameter: str) -> int | str:
    """A class as a user writes it: an id as an int, a name as text.

    ``'10'`` is an id, unless another class is called ``10``: folders named by numbers are sorted as text, so ids and
    names differ. ``'id:10'`` and ``'name:10'`` say which is meant.

    Args:
        word: What the user wrote.
        names: Class names by id, or None.
        parameter: The parameter it was written for.

    Raises:
        InputError: It may be an id as well as the name of another class.
    """
    kind, colon, rest = word.partition(':')
    if colon and kind.lower() in ('id', 'name') and not classes_called(word, names or ()):
        rest = rest.strip()
        if kind.lower() == 'name':
            return rest
        if re.fullmatch(r'\d{1,18}', rest):
            return int(rest)
        raise InputError(f'{word!r} is not an id', accepted='id:NUMBER, name:NAME', parameter=parameter)
    if not re.fullmatch(r'[+-]?\d{1,18}', word):
        return word
    number = int(word)
    named = [index for index in classes_called(word, names or ()) if index != number]
    if not named or names is None:
        return number
    known = 0 <= number < len(names)
    own = f'id:{number} (the class called {names[number]!r})' if known else f'id:{number} (there is no such id)'
    readings = [f'id:{index} or name:{word} (the class called {names[index]!r})' for index in named]
    raise InputError(
        f'{word!r} is ambiguous: it is the name of a class and may be an id',
        accepted=f'{", ".join(readings)}; {own}',
        parameter=parameter,
    )


def _normalized(name: str) -> str:
    return ' '.join(name.lower().replace('_', ' ').split())


def _task_text(value: Any) -> str:
    return ','.join(map(str, value)) if isinstance(value, (list, tuple, np.ndarray)) else str(value)


def open_dataset(config: Config, phase: str, with_pipeline: bool = True) -> Any:
    """Builds the dataset of a config for a phase and reads its annotations; no image is opened.

    Args:
        config: An mmengine Config; its ``default_scope`` says which package's datasets are meant.
        phase: ``train``, ``val`` or ``test``.
        with_pipeline: Whether its transforms are built; not needed by callers that read images themselves.

    Raises:
        InputError: The config has no such phase, or the dataset or its files are missing.
    """
    described = dataset_config(config, phase)
    if not with_pipeline:
        described = _without_pipelines(described)
    from mmengine.registry import DATASETS

    from vistool.registry import in_scope, scope_of

    with in_scope(config, 'mmpretrain'):
        try:
            _register(scope_of(config, 'mmpretrain'))
            with DATASETS.switch_scope_and_registry(None) as registry:
                offline = _offline(described, registry)
            dataset = DATASETS.build(offline)
            if hasattr(dataset, 'full_init'):
                dataset.full_init()
        except Exception as error:
            raise _unopened(described, phase, error) from error
    for path in annotation_files(described):
        _warn_of_mark(path)
    return dataset


OLD_DATA = {
    'data': 'train_dataloader=dict(batch_size=…, dataset=dict(…)), val_dataloader=…',
    'img_norm_cfg': 'data_preprocessor',
}
"""Keys about data in configs from before MMEngine → what they are now."""


def refuse_old_form(config: Config, keys: Mapping[str, str], accepted: str, name: str = 'the config') -> None:
    """Refuses a config in the form that OpenMMLab's packages had before MMEngine, such as MMCls 0.x.

    Args:
        config: A config that lacks what is needed.
        keys: Old keys → new ones.
        accepted: The new keys that are needed.
        name: How the message calls the config.

    Raises:
        InputError: It has one of the old keys.
    """
    old = {key: new for key, new in keys.items() if key in config}
    if old:
        raise InputError(
            f'{name} has the form used before MMEngine ({", ".join(old)})',
            accepted=accepted,
            hint=f'rewrite {", ".join(f"{key} → {new}" for key, new in old.items())}',
            parameter='config',
        )


def dataset_config(config: Config, phase: str) -> dict[str, Any]:
    """The config of a phase's dataset, as plain dictionaries.

    Raises:
        InputError: The config has none.
    """
    if phase not in PHASES:
        raise InputError(f'unknown phase {phase!r}', accepted=', '.join(PHASES), parameter='phase')
    dataset = read_loader(config, phase).get('dataset')
    if not dataset:
        refuse_old_form(config, OLD_DATA, 'train_dataloader, val_dataloader and test_dataloader')
        there = phases_with_data(config)
        hint = '' if there else 'give a config with a train_dataloader, val_dataloader or test_dataloader'
        raise InputError(
            f'the config has no {phase} dataset ({phase}_dataloader.dataset)',
            accepted=', '.join(there),
            hint=hint,
            parameter='phase',
        )
    return _plain(dataset)


def _register(scope: str) -> None:
    """Imports a package's datasets and transforms, as its own tools do before they build any."""
    if scope == 'mmengine':
        return
    import importlib

    try:
        importlib.import_module(f'{scope}.datasets')
    except ModuleNotFoundError as error:
        if error.name != scope:
            raise
        raise InputError(
            f'the config is for the package {scope}, which is not installed',
            hint=f'install {scope}',
            parameter='config',
        ) from error


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return type(value)(_plain(each) for each in value) if type(value) in (list, tuple) else value


def _without_pipelines(value: Any) -> Any:
    """A dataset's config with all pipelines empty, also inside wrappers."""
    if isinstance(value, dict):
        return {key: [] if key == 'pipeline' else _without_pipelines(each) for key, each in value.items()}
    return [_without_pipelines(each) for each in value] if isinstance(value, list) else value


def _offline(described: Any, registry: Any) -> Any:
    """Switches off the automatic download that some datasets do; ``download=True`` in a config is kept."""
    if isinstance(described, list):
        return [_offline(each, registry) for each in described]
    if not isinstance(described, dict):
        return described
    changed = {key: _offline(each, registry) if key in _INNER else each for key, each in described.items()}
    kind = described.get('type')
    cls = registry.get(kind) if isinstance(kind, str) else kind
    if inspect.isclass(cls) and any('download' in _parameters(base) for base in cls.__mro__):
        changed.setdefault('download', False)
    return changed


def _parameters(cls: type) -> tuple[str, ...]:
    own = vars(cls).get('__init__')
    return tuple(inspect.signature(own).parameters) if own is not None and cls is not object else ()


_INNER = ('dataset', 'datasets')


def _unopened(described: dict[str, Any], phase: str, error: Exception) -> InputError:
    """Why a dataset could not be opened: the missing file, else the message of its class."""
    if isinstance(error, InputError):
        return error
    names = ', '.join(_types(described))
    missing = getattr(error, 'filename', None) or next(_missing(described), None)
    inner = '' if 'data_root' in described else 'dataset.'
    option = f'{param("options")} {phase}_dataloader.dataset.{inner}data_root=FOLDER'
    if missing:
        here = os.path.dirname(str(missing))
        near = close_matches(os.path.basename(str(missing)), os.listdir(here)) if os.path.isdir(here) else ''
        return InputError(
            f'the {phase} dataset {names} needs {str(missing)!r}, which does not exist',
            hint=near or f'put the data there, or use {option}',
            parameter='config',
        )
    from vistool.registry import near_names

    problem = f'the {phase} dataset {names} cannot be opened: {message_of(error)}'
    hint = near_names(message_of(error)) or annotation_hint(described)
    if not hint and _is_flat(described):
        hint = (
            f'its folder has no subfolders to name the classes; without labels: {param("options")} '
            f'{phase}_dataloader.dataset.{inner}with_label=False'
        )
    return InputError(problem, hint=hint, parameter='config')


def _is_flat(described: dict[str, Any]) -> bool:
    """Whether a dataset's folder holds files and no folders, while the dataset looks for a folder for each class."""
    prefix = described.get('data_prefix') or ''
    prefix = prefix.get('img_path', '') if isinstance(prefix, dict) else prefix
    folder = Path(str(described.get('data_root') or ''), str(prefix)).expanduser()
    if described.get('ann_file') or not described.get('with_label', True) or not folder.is_dir():
        return False
    entries = list(folder.iterdir())
    return bool(entries) and all(entry.is_file() for entry in entries)


def annotation_hint(described: Any) -> str:
    """What may be wrong with the annotations of a dataset that cannot be opened; ``''`` where it has no such file."""
    files = annotation_files(described)
    faults = [fault for path in files if (fault := annotation_fault(path))]
    return '; '.join(faults) or (f'its annotations are in {", ".join(map(str, files))}' if files else '')


def annotation_files(described: Any) -> list[Path]:
    """The annotation files that a dataset's config names and that exist, wrapped datasets included."""
    if isinstance(described, list):
        return [path for each in described for path in annotation_files(each)]
    if not isinstance(described, dict):
        return []
    root, name = str(described.get('data_root') or ''), described.get('ann_file')
    own = [Path(os.path.join(root, name)).expanduser()] if isinstance(name, str) and name else []
    return [path for path in own if path.is_file()] + [
        path for key in _INNER for path in annotation_files(described.get(key))
    ]


def annotation_fault(path: Path) -> str:
    """What is wrong with an annotation file, with its line; ``''`` where nothing is seen.

    Checked are the encoding, the syntax of JSON, and in lists of one sample a line: empty lines, a number of fields
    unlike the first line's, and a last field that is not a number where the first line's is.
    """
    data = path.read_bytes()
    try:
        text = data.decode('utf-8')
    except UnicodeDecodeError as error:
        line = data.count(b'\n', 0, error.start) + 1
        wrong = f'holds the byte 0x{data[error.start]:02x}, which is not UTF-8'
        return '' if path.suffix in _BINARY else f'{path}, line {line} {wrong}: save the file as UTF-8'
    if path.suffix == '.json':
        try:
            json.loads(text)
        except json.JSONDecodeError as error:
            return f'{path}, line {error.lineno}, column {error.colno}: {error.msg}'
        return ''
    return _fault_in_lines(path, text.splitlines()) if path.suffix in _LISTS else ''


def _warn_of_mark(path: Path) -> None:
    """A byte order mark is invisible; readers that keep it look for an image of another name."""
    with path.open('rb') as file:
        marked = file.read(3) == codecs.BOM_UTF8
    if marked and path.suffix in _LISTS:
        log.warning(
            '%s begins with a byte order mark, which may count as part of its first name: save it without', path
        )


_BINARY = ('.pkl', '.pickle', '.npy', '.npz', '.mat', '.h5', '.lmdb')
_LISTS = ('.txt', '.csv', '.lst', '')


def _fault_in_lines(path: Path, lines: Sequence[str]) -> str:
    if not lines:
        return f'{path} is empty'
    first = lines[0].split()
    for number, line in enumerate(lines, 1):
        fields = line.split()
        if not fields:
            return f'{path}, line {number} is empty: remove it'
        if len(fields) != len(first):
            counts = f'{counted(len(fields), "field")}, the first line {len(first)}'
            return f'{path}, line {number} ({line.strip()!r}) has {counts}'
        if len(first) > 1 and _is_number(first[-1]) and not _is_number(fields[-1]):
            return f'{path}, line {number} ({line.strip()!r}) ends in {fields[-1]!r}, the first line in a number'
    return f'{path}, line 1 is {lines[0]!r}'


def _is_number(text: str) -> bool:
    return re.fullmatch(r'[+-]?\d+(\.\d+)?', text) is not None


def _types(described: Any) -> Iterator[str]:
    """The class names of a dataset, from the outermost wrapper inwards."""
    if isinstance(described, list):
        for each in described:
            yield from _types(each)
    elif isinstance(described, dict):
        kind = described.get('type', 'dataset')
        yield kind if isinstance(kind, str) else getattr(kind, '__name__', str(kind))
        for key in _INNER:
            yield from _types(described.get(key))


def _missing(described: Any) -> Iterator[str]:
    """Folders and files that a dataset's config names and that do not exist."""
    if isinstance(described, list):
        for each in described:
            yield from _missing(each)
    if not isinstance(described, dict):
        return
    root = str(described.get('data_root') or '')
    if '://' in root:
        return
    prefix = described.get('data_prefix')
    named = [described.get('ann_file'), *(prefix.values() if isinstance(prefix, dict) else [prefix])]
    for path in [root, *(os.path.join(root, name) for name in named if isinstance(name, str) and name)]:
        if path and '://' not in path and not os.path.exists(os.path.expanduser(path)):
            yield path
    for key in _INNER:
        yield from _missing(described.get(key))


@dataclass(frozen=True, eq=False)
class DatasetItem:
    """One sample, not yet read.

    ``pipeline.read(item.source, index=item.index, name=item.name, info=item.info)`` reads it.

    Attributes:
        source: The image file, or an array if the dataset holds arrays: uint8 RGB ``(H, W, 3)``, or of another type.
        name: Output stem: index, class and file; unique in the dataset.
        index: Position in the dataset, wrappers included.
        label: The ground truth: a class id, several ids, a score for each class, one label per task, or None.
        info: What the dataset knows about the sample, without the image.
    """

    source: Path | NDArray[Any]
    name: str
    index: int
    label: Label
    info: dict[str, Any]

    @property
    def path(self) -> Path | None:
        """The image file, if there is one."""
        return self.source if isinstance(self.source, Path) else None


class DatasetItems(Sequence[DatasetItem]):
    """The samples of a dataset, created one at a time from its annotations.

    Attributes:
        dataset: The dataset, wrappers included.
        classes: Names of the classes by id, or None.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.classes = class_names(dataset)

    def __len__(self) -> int:
        return len(self.dataset)

    def label(self, index: int) -> Label:
        """The ground truth of one sample."""
        return label_of(info_of(self.dataset, index))

    @overload
    def __getitem__(self, index: int) -> DatasetItem: ...
    @overload
    def __getitem__(self, index: slice) -> list[DatasetItem]: ...
    def __getitem__(self, index: int | slice) -> DatasetItem | list[DatasetItem]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f'sample {index} of {len(self)}')
        info = info_of(self.dataset, place)
        label, source = label_of(info), source_of(info)
        path = source if isinstance(source, Path) else None
        if source is None:
            raise InputError(f'sample {place} of the dataset has no image', accepted='img_path or img')
        known = {key: value for key, value in info.items() if key != 'img'}
        return DatasetItem(source, sample_name(place, label, path, self.classes), place, label, known)


def dataset_items(config: Config, phase: str) -> DatasetItems:
    """The samples of a config's dataset; its own pipeline is not built.

    Args:
        config: An mmengine Config.
        phase: ``train``, ``val`` or ``test``.

    Raises:
        InputError: The config has no such phase, or the dataset or its files are missing.
    """
    return DatasetItems(open_dataset(config, phase, with_pipeline=False))


class LabeledFiles(Sequence[Item]):
    """The files of a list that says their classes.

    Attributes:
        classes: Names of the classes by id, or None.
    """

    def __init__(self, items: Sequence[Item], classes: tuple[str, ...] | None) -> None:
        """Looks the classes up.

        Args:
            items: The files, with their classes as the list writes them.
            classes: Names of the model's classes by id, or None.

        Raises:
            InputError: The model has no such class.
        """
        self.classes = classes
        with naming('images', 'classes'):
            self._items = [
                item if item.label is None else replace(item, label=_class_id(str(item.label), classes))
                for item in items
            ]

    def __len__(self) -> int:
        return len(self._items)

    def label(self, index: int) -> Label:
        """The class of one file; None where the list does not say it."""
        label = self._items[index].label
        return label if isinstance(label, int) else None

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        return self._items[index]


def path_of(info: Mapping[str, Any]) -> Path | None:
    """A sample's image file, the first if there are several; None if it has none."""
    path = info.get('img_path')
    path = path[0] if isinstance(path, (list, tuple)) and path else path
    return None if path is None else Path(str(path))


def source_of(info: dict[str, Any]) -> Path | NDArray[Any] | None:
    """A sample's image: its file, the first of several files, or an array in memory in the dataset's channel order."""
    path = path_of(info)
    if path is not None:
        return path
    image = info.get('img')
    if image is None:
        return None
    image = np.asarray(image)
    return np.repeat(image[:, :, None], 3, axis=2) if image.ndim == 2 and image.dtype == np.uint8 else image


def sample_name(index: int, label: Label, path: Path | None, names: tuple[str, ...] | None) -> str:
    """``000012_tabby_photo``: index, class and the file's stem, without characters that file systems reject."""
    ids = class_ids(label)
    parts = [f'{index:06d}', class_name(ids[0], names) if len(ids) == 1 else '', path.stem if path else '']
    return '_'.join(re.sub(r'[^\w.+=-]+', '-', part).strip('-')[:60] for part in parts if part)


Mode = Literal['original', 'transformed', 'concat', 'pipeline', 'batch']


class LabeledSamples(Protocol):
    """Samples whose labels can be read without their images.

    Attributes:
        classes: Names of the classes by id, or None.
    """

    classes: tuple[str, ...] | None

    def label(self, index: int) -> Label:
        """The label of one sample."""
        ...


class SeededSamples(LabeledSamples, Protocol):
    """A dataset of such samples, with a seed for a random order."""

    seed: int

    def __len__(self) -> int: ...


def choose(
    samples: SeededSamples,
    indices: Sequence[str] = (),
    classes: Sequence[str] = (),
    per_class: int | None = None,
    shuffle: bool = False,
    number: int | None = None,
) -> list[int]:
    """Indices of the samples to show, in order.

    Args:
        samples: The samples; labels are read only as needed.
        indices: ``7``, ``-1``, ``10-19``, ``1,2,5``; empty means all.
        classes: Ids or names (one whole synonym); a sample of any of them is taken.
        per_class: At most this many of each class.
        shuffle: Whether the order is random, drawn from the seed.
        number: At most this many in all; None: no limit.

    Raises:
        InputError: An index is out of range, a class does not exist, or nothing is left.
    """
    for name, value in (('per_class', per_class), ('show_number', number)):
        if value is not None and value < 1:
            raise InputError(f'{value} is not a number of images', accepted='1 or more', parameter=name)
    pool = at_indices(indices, len(samples)) if indices else list(range(len(samples)))
    if shuffle:
        pool = np.random.default_rng(abs(samples.seed)).permutation(pool).tolist()
    if classes or per_class is not None:
        pool = of_classes(samples, pool, classes, per_class, number)
    if not pool:
        problem, parameter = 'the dataset is empty', 'config'
        if classes:
            problem, parameter = f'no sample of {" ".join(classes)!r}', 'classes'
        raise InputError(problem, parameter=parameter)
    return pool if number is None else pool[:number]


def at_indices(texts: Sequence[str], length: int) -> list[int]:
    """The indices that numbers and ranges (:mod:`vistool.ranges`) stand for among ``length``, in the order given.

    Raises:
        InputError: A word is something else, a sample does not exist, or a range is empty.
    """

    def absent(index: int) -> InputError:
        problem = f'no sample {index} in a dataset of {length}'
        return InputError(problem, accepted=f'0 to {length - 1}', parameter='indices')

    found: list[int] = []
    for word in ranges.words_of(texts):
        chosen = ranges.places(word, length, absent)
        if not chosen:
            problem = f'{word!r} is not an index' if chosen is None else f'{word!r} is an empty range of {length}'
            raise InputError(problem, accepted=ranges.FORMS, parameter='indices')
        found += chosen
    return found


def of_classes(
    samples: LabeledSamples, pool: Sequence[int], classes: Sequence[str], per_class: int | None, number: int | None
) -> list[int]:
    """The samples of ``pool`` in any of the ``classes``, at most ``per_class`` of each and ``number`` in all.

    Raises:
        InputError: A class does not exist, or no sample has a label.
    """
    wanted = {_class_id(text, samples.classes) for text in classes}
    counts: Counter[int] = Counter()
    kept: list[int] = []
    labeled = not (wanted or per_class)  # nothing is asked of labels
    for index in pool:
        label = samples.label(index)
        labeled = labeled or label is not None
        ids = set(class_ids(label))
        counted = (ids & wanted) if wanted else ids
        if (wanted and not counted) or (per_class and counted and all(counts[each] >= per_class for each in counted)):
            continue
        counts.update(counted)
        kept.append(index)
        full = per_class and wanted and all(counts[each] >= per_class for each in wanted)
        if full or len(kept) == number:
            break  # reading the labels of a large dataset takes long, so it stops here
    if pool and not labeled:
        raise InputError('the dataset has no labels', parameter='classes' if wanted else 'per_class')
    return kept


def _class_id(word: str, names: Sequence[str] | None) -> int:
    text = read_class(word, names, 'classes')
    if isinstance(text, int):
        if text < 0 or (names is not None and text >= len(names)):
            limit = f'0 to {len(names) - 1}' if names else 'ids from 0'
            raise InputError(f'no class {text}', accepted=limit, parameter='classes')
        return text
    if names is None:
        raise InputError(f'class {text!r}: the dataset has no class names', accepted='ids', parameter='classes')
    hits = classes_called(text, names)
    if len(hits) > 1:
        listed = ', '.join(f'{index} ({names[index]})' for index in hits)
        raise InputError(f'class {text!r} is ambiguous: {listed}', hint='give the id', parameter='classes')
    if not hits:
        pool = [part.strip() for entry in names for part in entry.split(',')]
        hint = close_matches(text, pool) or f'the first are {", ".join(entry.split(",")[0] for entry in names[:5])}'
        raise InputError(f'no class {text!r}', accepted='an id or a whole class name', hint=hint, parameter='classes')
    return hits[0]

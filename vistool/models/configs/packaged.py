"""Configs and model names that installed OpenMMLab packages bring along, read without importing the packages."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import NamedTuple

from vistool.errors import InputError, close_matches

PACKAGES = {
    'mmpretrain': 'onedl-mmpretrain',
    'mmdet': 'onedl-mmdetection',
    'mmseg': 'onedl-mmsegmentation',
    'mmrotate': 'onedl-mmrotate',
    'mmpose': 'mmpose',
    'mmaction': 'mmaction2',
    'mmdet3d': 'mmdet3d',
    'mmocr': 'mmocr',
    'mmyolo': 'mmyolo',
}
"""OpenMMLab packages that ship their configs, and what to ``pip install`` for each."""


class PackagedModel(NamedTuple):
    """An entry of a package's model index: a name, its config file, and the URL of its weights if there are any."""

    name: str
    config: Path
    weights: str | None


def package_folder(package: str) -> Path | None:
    """The folder of an installed package with its configs and metafiles, or None if it has none or is not installed."""
    if not package.isidentifier():
        return None
    spec = importlib.util.find_spec(package)
    places = list(spec.submodule_search_locations or []) if spec else []
    return next((folder for place in places if (folder := Path(place) / '.mim').is_dir()), None)


@functools.cache
def model_index(package: str = 'mmpretrain') -> dict[str, PackagedModel]:
    """The models that a package's metafiles name, by lower-case name: what ``mmpretrain.list_models()`` lists.

    Read from the files themselves: 0.1 s, where importing mmpretrain takes seconds.
    """
    folder = package_folder(package)
    if folder is None or not (folder / 'model-index.yml').is_file():
        return {}
    import yaml

    loader = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)
    models: dict[str, PackagedModel] = {}
    for relative in _load(folder / 'model-index.yml', loader).get('Import') or []:
        for entry in _load(folder / relative, loader).get('Models') or []:
            if entry.get('Config'):
                weights = entry.get('Weights')
                model = PackagedModel(
                    entry['Name'], folder / entry['Config'], weights if isinstance(weights, str) else None
                )
                models[model.name.lower()] = model
    return models


def _load(path: Path, loader: type) -> dict:
    import yaml

    if not path.is_file():
        return {}
    found = yaml.load(path.read_text(encoding='utf-8'), Loader=loader)
    return found if isinstance(found, dict) else {}  # some packages' metafiles are bare lists of models


def packaged_configs(package: str = 'mmpretrain') -> list[str]:
    """Every config of an installed package as one types it, ``'mmpretrain::resnet/resnet50_8xb32_in1k.py'``."""
    folder = package_folder(package)
    if folder is None:
        return []
    root = folder / 'configs'
    files = (path.relative_to(root) for path in sorted(root.rglob('*.py')))
    return [f'{package}::{file.as_posix()}' for file in files if file.parts[0] != '_base_']


def find_packaged(package: str, relative: str) -> tuple[Path, str | None]:
    """The file that ``package::relative`` stands for and, if a metafile names one, its weights' URL.

    Raises:
        InputError: If the package is not installed or has no such config.
    """
    folder = package_folder(package)
    if folder is None:
        raise InputError(
            f'{package}::{relative} needs the package {package}, which is not installed',
            hint=f'pip install {PACKAGES.get(package, package)}',
            parameter='config',
        )
    path = folder / 'configs' / relative
    path = path if path.suffix == '.py' else path.with_name(f'{path.name}.py')
    if not path.is_file():
        spec = f'{package}::{relative}'
        hint = close_matches(spec, packaged_configs(package)) or f'look below {folder / "configs"}'
        raise InputError(f'{package} has no config {relative}', hint=hint, parameter='config')
    models = [model for model in model_index(package).values() if model.config == path]
    own = [model for model in models if model.name == path.stem]  # before weights that were converted from elsewhere
    return path, next((model.weights for model in own + models if model.weights), None)

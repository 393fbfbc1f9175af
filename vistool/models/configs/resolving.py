"""What a user calls a config → an mmengine ``Config``, a name for the output folder, and its checkpoint.

Understood are a file, ``mmpretrain::resnet/resnet50_8xb32_in1k.py`` (any installed OpenMMLab package), a model name
that mmpretrain knows, a run's folder, and the config-free forms of :data:`SCHEMES`.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vistool.errors import InputError, close_matches
from vistool.models.configs.diagnosis import explain, missing, one_line
from vistool.models.configs.packaged import PACKAGES, find_packaged, model_index, package_folder
from vistool.models.configs.run_folders import SUFFIXES, find_run

if TYPE_CHECKING:
    from mmengine.config import Config, ConfigDict

log = logging.getLogger('vistool')

FORMS = (
    'a config file, mmpretrain::FOLDER/FILE.py, a model name of mmpretrain, a run folder, '
    'timm::NAME, torchvision::NAME, hf::FOLDER'
)


@dataclass(frozen=True)
class Source:
    """A resolved config.

    Attributes:
        config: The config, with options merged and custom imports done.
        name: Stem for output folders and captions: the config file's, or the run folder's or the model's name.
        checkpoint: The run folder's, else the config's ``load_from``, else the weights its metafile names, else None.
    """

    config: Config
    name: str
    checkpoint: str | None = None


def resolve(spec: str | os.PathLike[str], options: Mapping[str, Any] | None = None) -> Source:
    """Finds and reads the config that ``spec`` stands for.

    The current folder becomes importable first, so that ``custom_imports`` finds a user's own modules.

    Args:
        spec: A file, ``PACKAGE::FILE``, a model name, a run's folder, or ``SCHEME::NAME`` with a key of
            :data:`SCHEMES`.
        options: Changes as ``--cfg-options`` makes them, ``{'model.backbone.depth': 18}``. A ``load_from`` among them
            goes before the run folder's checkpoint.

    Raises:
        InputError: If nothing is found (close matches are told), or the config cannot be read or changed.
    """
    make_current_folder_importable()
    source = _find(str(spec).strip())
    return _change(source, options) if options else source


def require_model(source: Source) -> ConfigDict:
    """The config's ``model``.

    Raises:
        InputError: If the config has none, or one that is no dict with a ``type``.
    """
    model = source.config.get('model')
    if not model:
        raise InputError(f'{source.name} has no «model»', hint='give the config of a model', parameter='config')
    if not isinstance(model, Mapping) or 'type' not in model:
        kind = 'has no type' if isinstance(model, Mapping) else f'is a {type(model).__name__}'
        raise InputError(f'the «model» of {source.name} {kind}', accepted="dict(type='…', …)", parameter='config')
    return model


def read_config(path: str | os.PathLike[str]) -> Config:
    """Reads one config file of any kind that mmengine knows.

    Raises:
        InputError: For whatever goes wrong in it, naming the file and, where it is known, the line.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(
            f'{path} is not a config file',
            accepted=', '.join(SUFFIXES),
            hint='mind the order of the arguments: a config comes before its checkpoint',
            parameter='config',
        )
    from mmengine.config import Config

    try:
        return Config.fromfile(str(path))
    except Exception as error:  # a config is code: anything can come out of it
        raise explain(error, path) from error


def make_current_folder_importable() -> None:
    """Puts the current folder on ``sys.path``: after the standard library, before installed packages."""
    here = os.getcwd()
    if here not in sys.path and '' not in sys.path:
        packages = (at for at, entry in enumerate(sys.path) if entry.endswith(('site-packages', 'dist-packages')))
        sys.path.insert(next(packages, len(sys.path)), here)


def _find(spec: str) -> Source:
    path = Path(spec).expanduser()
    if '::' in spec:
        scheme, rest = spec.split('::', 1)
        return SCHEMES[scheme](rest) if scheme in SCHEMES else _from_package(scheme, rest)
    if spec and path.is_dir():
        return _from_run(path)
    if path.is_file():
        return _from_file(path)
    models = model_index()
    if spec.lower() in models:
        model = models[spec.lower()]
        source = _from_file(model.config)
        return replace(source, name=model.name, checkpoint=source.checkpoint or model.weights)
    raise missing(spec, FORMS, models)


def _from_file(path: Path) -> Source:
    config = read_config(path)
    return Source(config, path.stem, config.get('load_from') or None)


def _from_run(folder: Path) -> Source:
    path, checkpoint = find_run(folder)
    source = _from_file(path)
    if checkpoint is None and source.checkpoint:
        log.warning('%s has no checkpoint yet; using what its run started from: %s', folder, source.checkpoint)
    return replace(source, name=folder.resolve().name, checkpoint=checkpoint or source.checkpoint)


def _from_package(package: str, relative: str) -> Source:
    if package not in PACKAGES and package_folder(package) is None:
        known = [*PACKAGES, *SCHEMES]
        accepted = ', '.join(f'{name}::' for name in known)
        hint = close_matches(package, known)
        raise InputError(f'{package}:: is not known', accepted=accepted, hint=hint, parameter='config')
    path, weights = find_packaged(package, relative)
    source = _from_file(path)
    return replace(source, checkpoint=source.checkpoint or weights)


def _from_timm(name: str) -> Source:
    from vistool.models.configs.configfree import timm_config

    return Source(timm_config(name), name)


def _from_torchvision(name: str) -> Source:
    from vistool.models.configs.configfree import torchvision_config

    return Source(torchvision_config(name), name)


def _from_huggingface(folder: str) -> Source:
    from vistool.models.configs.configfree import huggingface_config

    path = Path(folder).expanduser()
    config, weights = huggingface_config(path)
    return Source(config, path.resolve().name, weights)


SCHEMES: dict[str, Callable[[str], Source]] = {
    'timm': _from_timm,
    'torchvision': _from_torchvision,
    'hf': _from_huggingface,
}
"""The config-free forms: what stands before ``::`` → a function from what stands behind it to a :class:`Source`."""


def _change(source: Source, options: Mapping[str, Any]) -> Source:
    for key, value in options.items():
        try:
            source.config.merge_from_dict({key: value})
        except Exception as error:  # KeyError, TypeError, AttributeError: whatever the path runs into
            reason = f'{type(error).__name__}: {one_line(error)[:160]}'
            raise InputError(f'{key}={value} does not fit the config: {reason}', parameter='options') from error
    return replace(source, checkpoint=options.get('load_from') or source.checkpoint)

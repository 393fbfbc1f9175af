"""What a user calls a config → an mmengine ``Config``, a name for the output folder, and its checkpoint.

Accepted are a file, ``mmpretrain::resnet/resnet50_8xb32_in1k.py`` (any installed OpenMMLab package), a model name
that mmpretrain knows, a run directory, and the models without a config of :data:`SCHEMES`.
"""

from __future__ import annotations

import ast
import contextlib
import dis
import errno
import functools
import importlib.util
import logging
import os
import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vistool.data.dataloaders import LOADERS, choose_loaders, options_by_stage
from vistool.environment import warn_of_environment
from vistool.errors import InputError, cause_of, close_matches, counted, message_of
from vistool.models.own_modules import bases_of, import_custom, make_importable, named_modules, static_imports
from vistool.records import find_path, read_text, shown

if TYPE_CHECKING:
    from mmengine.config import Config, ConfigDict

log = logging.getLogger('vistool')

PACKAGES = {
    'vistool': 'mmvistool',
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
"""Packages that contain their configs → what to ``pip install`` for each."""

DATA_SUFFIXES = ('.json', '.yaml', '.yml')
"""Suffixes of config files that are data."""

SUFFIXES = ('.py', *DATA_SUFFIXES)
"""Suffixes of config files."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)

SHOWN = 8
"""The number of configs or runs that an error lists."""

FORMS = (
    'a config file, mmpretrain::FOLDER/FILE.py, vistool::FOLDER/FILE.py, a model name of mmpretrain, a run directory, '
    'timm::NAME, torchvision::NAME, hf::FOLDER'
)


@dataclass(frozen=True)
class Source:
    """A resolved config.

    Attributes:
        config: The config, with options merged, custom imports done, and one dataloader for each phase.
        name: Stem of output folders and captions: of the config file, the run directory or the model.
        checkpoint: The run directory's, else the config's ``load_from``, else the weights in its metafile, else None.
    """

    config: Config
    name: str
    checkpoint: str | None = None


def resolve(spec: str | os.PathLike[str], options: Mapping[str, Any] | None = None) -> Source:
    """Finds and reads the config that ``spec`` stands for.

    A Python config is run. The working folder becomes importable, after everything else, if the config imports a module
    that is only there. A YAML or JSON config is data, and runs nothing: see :mod:`vistool.models.data_configs`.

    Args:
        spec: A file, ``PACKAGE::FILE``, a model name, a run directory, or ``SCHEME::NAME`` with a key of
            :data:`SCHEMES`.
        options: Changes as ``--cfg-options`` makes them, ``{'model.backbone.depth': 18}``. A ``load_from`` among them
            takes precedence over the run directory's checkpoint.

    Raises:
        InputError: Nothing is found (the error lists close matches), or the config cannot be read or changed.
    """
    warn_of_environment()
    source = _find(str(spec).strip())
    _check_fields(source, {})
    places, of_lists, others = options_by_stage(source.config, options or {})
    source = _with_options(source, of_lists)
    choose_loaders(source.config, source.name, places)
    source = _with_options(source, others)
    _check_fields(source, options or {})
    return source


_FIELDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(('model', 'data_preprocessor', 'train_cfg', 'val_cfg', 'test_cfg'), (Mapping,)),
    **dict.fromkeys(('optim_wrapper', 'optim_wrapper.optimizer', 'auto_scale_lr', 'env_cfg'), (Mapping,)),
    **dict.fromkeys(('default_hooks', 'visualizer', 'inputs'), (Mapping,)),
    'param_scheduler': (Mapping, list, tuple),
    'vis_backends': (list, tuple),
    'custom_hooks': (list, tuple),
    'default_scope': (str,),
    'load_from': (str,),
    **dict.fromkeys(LOADERS, (Mapping, list, tuple)),
    **dict.fromkeys((f'{loader}.dataset' for loader in LOADERS), (Mapping,)),
    **dict.fromkeys((f'{loader}.dataset.pipeline' for loader in LOADERS), (list, tuple)),
    **dict.fromkeys((f'{loader}.sampler' for loader in LOADERS), (Mapping,)),
    **dict.fromkeys((f'{loader}.batch_sampler' for loader in LOADERS), (Mapping,)),
    **dict.fromkeys((f'{loader}.batch_size' for loader in LOADERS), (int,)),
}
"""Fields that mmengine reads, and their types; each may also be None."""

_SAID = {Mapping: 'a dict', list: 'a list', str: 'a string', int: 'a whole number'}


def _check_fields(source: Source, options: Mapping[str, Any]) -> None:
    """Refuses a config whose fields have other types than mmengine reads them with.

    Args:
        source: The config.
        options: The changes that were made to it; the error names them where they are the cause.

    Raises:
        InputError: A field has another type.
    """
    for name, kinds in _FIELDS.items():
        value: Any = source.config._cfg_dict
        for part in name.split('.'):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is None or (isinstance(value, kinds) and not (kinds == (int,) and isinstance(value, bool))):
            continue
        changed = any(name == key or name.startswith(f'{key}.') or key.startswith(f'{name}.') for key in options)
        raise InputError(
            f'{name} of {source.name} is {shown(value)}',
            accepted=' or '.join(said for kind, said in _SAID.items() if kind in kinds),
            parameter='options' if changed else 'config',
        )


def require_model(source: Source) -> ConfigDict:
    """The config's ``model``.

    Raises:
        InputError: The config has no model, or its model is not a dict with a ``type``.
    """
    model = source.config.get('model')
    if not model:
        raise InputError(f"{source.name} has no 'model'", hint='give the config of a model', parameter='config')
    if not isinstance(model, Mapping) or 'type' not in model:
        kind = 'has no type' if isinstance(model, Mapping) else f'is a {type(model).__name__}'
        raise InputError(f"the 'model' of {source.name} {kind}", accepted="dict(type='…', …)", parameter='config')
    return model


def read_config(path: str | os.PathLike[str]) -> Config:
    """Reads one config file of any kind that mmengine supports.

    Raises:
        InputError: Anything goes wrong; the error names the file and, if it is known, the line.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(
            f'{path} is not a config file',
            accepted=', '.join(SUFFIXES),
            hint='check the order of the arguments: the config comes before its checkpoint',
            parameter='config',
        )
    _refuse_backslashes(path)
    try:
        return _read_data(path) if path.suffix.lower() in DATA_SUFFIXES else _read_python(path)
    except InputError:
        raise
    except KeyboardInterrupt as error:
        if not _raised_by_code(error):
            raise
        raise _explain(error, path) from error
    except BaseException as error:  # a config is code, which can raise anything, SystemExit too
        raise _explain(error, path) from error


def _read_data(path: Path) -> Config:
    from mmengine.config import Config

    from vistool.models.data_configs import check_data_config, check_entries

    check_data_config(path)
    config = Config.fromfile(str(path), import_custom_modules=False)
    check_entries(config, str(path), 'config')  # with what its bases and the environment put in
    return config


def _read_python(path: Path) -> Config:
    from mmengine.config import Config
    from mmengine.config.utils import MODULE2PACKAGE

    MODULE2PACKAGE.setdefault('vistool', 'vistool')  # lets _base_ name vistool:: too
    make_importable(static_imports(path))
    config = Config.fromfile(str(path), import_custom_modules=False)
    _drop_own_scope(config._cfg_dict)
    if config.get('custom_imports'):
        try:
            import_custom(config.custom_imports, path)
        except ImportError as error:
            raise InputError(
                f'{path}: custom_imports failed: {_root_cause(error)}',
                hint='run from the folder that holds the module, or put that folder on PYTHONPATH',
                parameter='config',
            ) from error
    make_importable(named_modules(config._cfg_dict))
    return config


def _drop_own_scope(settings: Any) -> None:
    """Removes what mmengine notes of a base in ``vistool::``: those configs say themselves whose names they use."""
    if isinstance(settings, dict):
        if settings.get('_scope_') == 'vistool':
            del settings['_scope_']
        settings = settings.values()
    elif not isinstance(settings, (list, tuple)):
        return
    for each in settings:
        _drop_own_scope(each)


def _raised_by_code(error: BaseException) -> bool:
    """Whether a ``raise`` statement raised it, rather than a signal."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    code, place = trace.tb_frame.f_code, trace.tb_lasti
    return any(each.offset == place and each.opname == 'RAISE_VARARGS' for each in dis.get_instructions(code))


def _find(spec: str) -> Source:
    if '::' in spec:
        scheme, rest = spec.split('::', 1)
        find_path(rest, 'config')
        return SCHEMES[scheme](rest) if scheme in SCHEMES else _from_package(scheme, rest)
    path = find_path(spec, 'config')
    if spec and path.is_dir():
        return _from_run(path)
    if path.is_file():
        return _from_file(path)
    model = model_index(mentioned=spec).get(spec.lower())
    if model is None:
        raise _not_found(spec, FORMS, model_index())
    source = _from_file(model.config)
    return replace(source, name=model.name, checkpoint=source.checkpoint or model.weights)


def _from_file(path: Path) -> Source:
    config = read_config(path)
    package = _package_of(path)
    if package and not config.get('default_scope'):
        config.default_scope = package
    return Source(config, path.stem, config.get('load_from') or None)


def _package_of(path: Path) -> str | None:
    """The OpenMMLab package whose own config a file is; some of those name no scope, since its tools imply it."""
    parts = path.resolve().parts
    package = parts[parts.index('.mim') - 1] if '.mim' in parts[1:] else None
    return None if package == 'vistool' else package


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


def images_of(spec: str, options: Mapping[str, Any] | None = None) -> Source | None:
    """A folder of images as a dataset without a config; None for all else, also for the folder of a run."""
    folder = Path(spec)
    if '::' in spec or not folder.is_dir() or any(path.suffix in (*SUFFIXES, '.pth') for path in folder.iterdir()):
        return None
    if any(folder.glob('*/vis_data')):
        return None
    from vistool.models.generated_configs import folder_config

    config = folder_config(folder)
    if config is None:
        return None
    config.merge_from_dict(dict(options or {}))
    return Source(config, folder.resolve().name)


def _from_timm(name: str) -> Source:
    from vistool.models.generated_configs import timm_config

    return Source(timm_config(name), name)


def _from_torchvision(name: str) -> Source:
    from vistool.models.generated_configs import torchvision_config

    return Source(torchvision_config(name), name)


def _from_huggingface(folder: str) -> Source:
    from vistool.models.generated_configs import huggingface_config

    path = find_path(folder, 'config')
    config, weights = huggingface_config(path)
    return Source(config, path.resolve().name, weights)


SCHEMES: dict[str, Callable[[str], Source]] = {
    'timm': _from_timm,
    'torchvision': _from_torchvision,
    'hf': _from_huggingface,
}
"""Models without a config: the text before ``::`` → a function from the text after it to a :class:`Source`."""


_READ = (
    'model', 'work_dir', 'train_dataloader', 'val_dataloader', 'test_dataloader', 'train_cfg', 'val_cfg', 'test_cfg',
    'auto_scale_lr', 'optim_wrapper', 'param_scheduler', 'val_evaluator', 'test_evaluator', 'default_hooks',
    'custom_hooks', 'data_preprocessor', 'load_from', 'resume', 'launcher', 'env_cfg', 'log_processor', 'log_level',
    'visualizer', 'default_scope', 'randomness', 'experiment_name', 'cfg',
    'train_pipeline', 'val_pipeline', 'test_pipeline', 'tta_model', 'tta_pipeline', 'vis_backends', 'custom_imports',
    'inputs', 'output', 'activation', 'display', 'cam_target',
)  # fmt: skip
"""Top-level fields that something reads: the parameters of mmengine's Runner, and what OpenMMLab's tools and vistool
read besides."""


def _check_is_read(key: str, source: Source) -> None:
    """Refuses a change to a top-level field that nothing reads: it would change nothing.

    Raises:
        InputError: The config has no such field, and no tool reads one of this name.
    """
    name = key.partition('.')[0]
    if name in source.config or name in _READ:
        return
    inner = [path for path in _paths(source.config._cfg_dict) if path.rpartition('.')[2] == name]
    hint = f'did you mean {", ".join(inner[:3])}?' if inner else close_matches(name, [*source.config, *_READ])
    accepted = f"fields of {source.name} ({', '.join(sorted(source.config))}), or those that OpenMMLab's tools read"
    raise InputError(f'nothing reads {name!r}', accepted=accepted, hint=hint, parameter='options')


def _paths(fields: Mapping[str, Any], before: str = '') -> Iterator[str]:
    """The dotted names of all fields within ``fields``."""
    for name, value in fields.items():
        yield f'{before}{name}'
        if isinstance(value, Mapping):
            yield from _paths(value, f'{before}{name}.')


def _with_options(source: Source, options: Mapping[str, Any]) -> Source:
    if not options:
        return source
    for key, value in options.items():
        _check_is_read(key, source)
        try:
            source.config.merge_from_dict({key: value})
        except Exception as error:  # KeyError, TypeError or AttributeError, depending on what the path meets
            raise InputError(
                f'{key}={value} does not fit the config: {cause_of(error)}', parameter='options'
            ) from error
    if Path(getattr(source.config, 'filename', None) or '').suffix.lower() in DATA_SUFFIXES:
        from vistool.models.data_configs import check_entries

        check_entries(source.config, source.name, 'options')
    else:
        make_importable(named_modules(source.config._cfg_dict))
    return replace(source, checkpoint=options.get('load_from') or source.checkpoint)


class PackagedModel(NamedTuple):
    """An entry of a package's model index: its name, its config file, and the URL of its weights or None."""

    name: str
    config: Path
    weights: str | None


def package_folder(package: str) -> Path | None:
    """The folder with an installed package's configs and metafiles; None if there is none."""
    if not package.isidentifier():
        return None
    spec = importlib.util.find_spec(package)
    places = list(spec.submodule_search_locations or []) if spec else []
    return next((folder for place in places if (folder := Path(place) / '.mim').is_dir()), None)


@functools.lru_cache(maxsize=64)
def model_index(package: str = 'mmpretrain', mentioned: str = '') -> dict[str, PackagedModel]:
    """The models of a package's metafiles, by lower-case name: those that ``mmpretrain.list_models()`` lists.

    They are read from the files in 0.1 s; importing mmpretrain takes seconds.

    Args:
        package: The package.
        mentioned: Only metafiles that contain this text are parsed, which takes a twentieth of the time: the name of a
            model or of a config.
    """
    folder = package_folder(package)
    if folder is None or not (folder / 'model-index.yml').is_file():
        return {}
    import yaml

    loader = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)
    models: dict[str, PackagedModel] = {}
    for relative in _read_yaml(folder / 'model-index.yml', loader).get('Import') or []:
        for entry in _read_yaml(folder / relative, loader, mentioned).get('Models') or []:
            if entry.get('Config'):
                weights = entry.get('Weights')
                model = PackagedModel(
                    entry['Name'], folder / entry['Config'], weights if isinstance(weights, str) else None
                )
                models[model.name.lower()] = model
    return models


def _read_yaml(path: Path, loader: type, mentioned: str = '') -> dict:
    import yaml

    text = path.read_text(encoding='utf-8') if path.is_file() else ''
    if mentioned.lower() not in text.lower():
        return {}
    found = yaml.load(text, Loader=loader)
    return found if isinstance(found, dict) else {}  # some packages' metafiles are plain lists of models


def packaged_configs(package: str = 'mmpretrain') -> list[str]:
    """Every config of an installed package as users type it, ``'mmpretrain::resnet/resnet50_8xb32_in1k.py'``."""
    folder = package_folder(package)
    if folder is None:
        return []
    root = folder / 'configs'
    files = (path.relative_to(root) for path in sorted(root.rglob('*.py')))
    return [f'{package}::{file.as_posix()}' for file in files if file.parts[0] != '_base_']


def find_packaged(package: str, relative: str) -> tuple[Path, str | None]:
    """The file that ``package::relative`` stands for and, if a metafile has one, the URL of its weights.

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
    models = [model for model in model_index(package, path.name).values() if model.config == path]
    own = [model for model in models if model.name == path.stem]  # preferred over weights converted from other projects
    return path, next((model.weights for model in own + models if model.weights), None)


def find_run(folder: Path) -> tuple[Path, str | None]:
    """The config file of a run and its checkpoint; None before the first is written.

    The config is the one that mmengine wrote into the folder, else into the newest ``<time>/vis_data``.

    Raises:
        InputError: ``folder`` is not a run; the error lists the configs or runs in it.
    """
    configs = [path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file() and _is_config(path)]
    dumped = sorted(folder.glob('vis_data/config.py')) + sorted(folder.glob('*/vis_data/config.py'))
    checkpoint = find_checkpoint(folder)
    if not (checkpoint or dumped):
        raise _no_run(folder)
    if not configs and not dumped:
        raise InputError(
            f'{folder} has checkpoints but no config', hint='give the config file itself', parameter='config'
        )
    if not configs:
        return dumped[-1], checkpoint
    name = folder.resolve().name
    config = max(configs, key=lambda path: (path.stem == name, path.stat().st_mtime, path.name))
    if len(configs) > 1:
        log.warning('%s contains %s; using %s', folder, counted(len(configs), 'config'), config.name)
    return config, checkpoint


def _is_config(path: Path) -> bool:
    """Whether a file is a config; the scripts beside a run are not to be run as one.

    A config has bases; or it assigns data to a field that is read from configs, as dumps of mmengine do, or imports all
    of another one, and calls nothing for its effect, as scripts do.
    """
    if path.suffix in DATA_SUFFIXES:
        return True
    try:
        tree = ast.parse(read_text(path, 'config'))
    except (InputError, SyntaxError, ValueError):
        return True  # the error of reading it says more
    statements = list(_statements(tree.body))
    fields = [pair for each in statements for pair in _assigned(each)]
    reads_base = (
        isinstance(each, ast.With) and any(_called(item.context_expr) == 'read_base' for item in each.items)
        for each in statements
    )
    if any(reads_base) or any(name == '_base_' for name, _ in fields):
        return True
    calls = (_called(each.value) for each in statements if isinstance(each, ast.Expr))
    if any(name not in (None, *_CHANGES) for name in calls):
        return False
    imports_all = (isinstance(each, ast.ImportFrom) and each.names[0].name == '*' for each in statements)
    return any(imports_all) or any(name in _READ and _is_data(value) for name, value in fields)


_CHANGES = ('update', 'append', 'extend', 'insert', 'pop', 'setdefault')
"""Methods of dicts and lists that configs call to change a field."""

_MAKERS = ('dict', 'list', 'tuple', 'Config', 'ConfigDict', 'copy', 'deepcopy')
"""Functions that configs call for the value of a field."""


def _statements(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Statements and those within their branches, loops and ``with``, which are run; not those of functions."""
    for each in body:
        yield each
        if not isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            inner = ast.iter_child_nodes(each)
            yield from _statements(node for node in inner if isinstance(node, (ast.stmt, ast.excepthandler)))


def _assigned(statement: ast.AST) -> list[tuple[str, ast.expr]]:
    """The names that a statement assigns, and the value."""
    if not isinstance(statement, (ast.Assign, ast.AnnAssign)) or statement.value is None:
        return []
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    return [(target.id, statement.value) for target in targets if isinstance(target, ast.Name)]


def _called(value: ast.expr) -> str | None:
    """The last part of the name of what a call calls, ``''`` if it has none; None for all else."""
    if not isinstance(value, ast.Call):
        return None
    return getattr(value.func, 'attr', None) or getattr(value.func, 'id', '')


def _is_data(value: ast.expr) -> bool:
    """Whether a field of a config may have such a value: a dict, a list, or another name for one."""
    if isinstance(value, ast.IfExp):
        return _is_data(value.body) or _is_data(value.orelse)
    kinds = (ast.Dict, ast.List, ast.Tuple, ast.Set, ast.ListComp, ast.DictComp, ast.BinOp, ast.Name)
    return isinstance(value, kinds) or _called(value) in _MAKERS


def find_checkpoint(folder: Path) -> str | None:
    """A run's checkpoint: its best, else the one named by ``last_checkpoint``, else its last; None if it has none."""
    weights = [path for path in folder.glob('*.pth') if path.is_file()]  # a link may lead nowhere
    best = [path for path in weights if path.name.startswith('best_')]
    if best:
        return str(max(best, key=_age))
    pointer = folder / 'last_checkpoint'
    if pointer.is_file():
        target = find_path(read_text(pointer, 'config', 1 << 16).strip(), 'config')
        for path in (target, folder / target.name):  # the folder may have been moved since the run
            if path.is_file():
                return str(path)
    return str(max(weights, key=_age)) if weights else None


def _age(path: Path) -> tuple[int, float]:
    """Epoch or iteration, then time, since copying a folder changes the times."""
    number = re.search(r'(?:epoch|iter)_(\d+)', path.stem)
    return int(number[1]) if number else -1, path.stat().st_mtime


def _no_run(folder: Path) -> InputError:
    runs = sorted({path.parent for path in folder.glob('*/*.pth')})
    runs = runs or sorted({path.parents[2] for path in folder.glob('*/*/vis_data/config.py')})
    if runs:
        return InputError(f'{folder} is not a run', accepted=f'one run: {_listed(runs)}', parameter='config')
    configs = sorted(path for path in folder.rglob('*') if path.suffix in SUFFIXES)
    if configs:
        return InputError(
            f'{folder} is a folder of configs, not a run',
            accepted=f'one of them: {_listed(configs)}',
            parameter='config',
        )
    from vistool.data.samples import images_below

    return InputError(
        f'{folder} holds no run',
        accepted='a folder with a config and checkpoints',
        hint='browse_dataset also takes a folder of images' if images_below(folder) else '',
        parameter='config',
    )


def _listed(paths: list[Path]) -> str:
    more = f' … ({len(paths)} in all)' if len(paths) > SHOWN else ''
    return ', '.join(map(str, paths[:SHOWN])) + more


def _explain(error: BaseException, path: Path) -> InputError:
    """The error of reading ``path``, as an :class:`InputError` that names the file and, if it is known, the line."""
    if isinstance(error, SyntaxError):
        return _syntax(error, path)
    message = message_of(error)
    line = _faulty_line(error)
    if code := _is_code(error, path, line):
        return code
    if reason := _no_room(error):
        return InputError(
            f'{path} cannot be read: temporary files cannot be written ({reason})',
            hint='make room, or set TMPDIR to a folder with some',
            parameter='config',
        )
    if (
        isinstance(error, ModuleNotFoundError)
        and (package := message.split()[0]) in message.partition('not installed')[0]
    ):
        module = next((name for name in PACKAGES if f"'{name}::" in _text(path) or name == package), package)
        return InputError(
            f'{path}: its _base_ needs the package {module}, which is not installed',
            hint=f'pip install {PACKAGES.get(module, package)}',
            parameter='config',
        )
    if isinstance(error, FileNotFoundError) and line is None:
        quoted = re.search(r'file "(.+)" does not exist', message)
        absent = error.filename or (quoted[1] if quoted else message)
        return InputError(
            f'{path}: its _base_ {absent} does not exist',
            accepted="a path relative to the config's folder, or mmpretrain::FOLDER/FILE.py",
            parameter='config',
        )
    if missing := _missing_base(error, path):
        return missing
    if isinstance(error, RecursionError):
        return InputError(
            f'{path} has no end: its _base_ names the file itself, or files name each other', parameter='config'
        )
    if isinstance(error, UnicodeDecodeError):
        return InputError(f'{path} is not UTF-8 text', accepted='a config', parameter='config')
    return InputError(f'{line or path}: {cause_of(error)}', parameter='config')


def _is_code(error: BaseException, path: Path, line: str | None) -> InputError | None:
    """The error of reading a file that is not a config: it defines a network, or calls what it imports.

    mmengine imports nothing of what a config imports at its top: a name stands for what ``dict(type=NAME)`` builds
    later, and whoever calls it, or inherits from it, gets a RuntimeError without words.
    """
    if line is None or not line.startswith(f'{path}, '):
        return None
    try:
        classes = [node for node in ast.parse(_text(path)).body if isinstance(node, ast.ClassDef)]
    except (SyntaxError, ValueError):
        return None
    if classes:
        modules = [each.name for each in classes if any(ast.unparse(base).endswith('Module') for base in each.bases)]
        names = modules or [each.name for each in classes]
        return InputError(
            f'{path} is code that defines {", ".join(names[:5])}, not a config',
            accepted="a config, which names the class: model = dict(type='"
            + (f'{path.stem}.{names[-1]}' if path.stem.isidentifier() else f'MODULE.{names[-1]}')
            + "')",
            parameter='config',
        )
    if isinstance(error, RuntimeError) and not error.args:
        return InputError(
            f'{line}: a config cannot call what it imports',
            accepted='model = dict(type=NAME, …) with its arguments; torchvision::NAME and timm::NAME need no config',
            parameter='config',
        )
    return None


def _missing_base(error: BaseException, path: Path) -> InputError | None:
    """The error of an import under ``read_base()`` whose file, or a name in whose file, does not exist."""
    absent = re.match(r'(\S+) not found!.*= from (\S+) import', message_of(error))
    name = str(error.args[0]) if isinstance(error, KeyError) and error.args else ''
    for number, line in enumerate(_text(path).splitlines(), 1):
        found = re.match(r'\s+from\s+(\S+)\s+import\s+(.*)', line)
        if found and absent and found[1] == absent[2]:
            file = Path(absent[1])
            near = sorted(each.stem for each in file.parent.glob('*.py')) if file.parent.is_dir() else []
            return InputError(
                f'{path}, line {number}: its base {found[1]} does not exist ({file} not found)',
                hint=close_matches(file.stem, near),
                parameter='config',
            )
        if found and name and re.search(rf'\b{re.escape(name)}\b', found[2]):
            return InputError(f'{path}, line {number}: its base {found[1]} has no {name!r}', parameter='config')
    return None


_VARIABLE = re.compile(r'\{\{[\'"]?\s*\$(\w+)\s*:\s*(\S*?)\s*[\'"]?\}\}')


def _refuse_backslashes(path: Path, seen: frozenset[Path] = frozenset()) -> None:
    """Refuses backslashes in the values of ``{{$VARIABLE:default}}``, which mmengine reads as escapes, in bases too.

    Raises:
        InputError: There is one. A Windows path would become something else, or fail.
    """
    text = _text(path)
    for number, line in enumerate(text.splitlines(), 1):
        for name, default in _VARIABLE.findall(line):
            value = os.environ.get(name, default)
            if '\\' in value:
                raise InputError(
                    f'{path}, line {number}: the value {value!r} of {name} has backslashes, which are read as escapes',
                    accepted=f'slashes: {value.replace(chr(92), "/")}',
                    parameter='config',
                )
    bases: list[str] = []
    if '_base_' in text and path.suffix == '.py':
        with contextlib.suppress(SyntaxError, ValueError):  # reading the file says what is wrong
            bases = bases_of(ast.parse(text))
    for base in bases:
        if '::' not in base and (inner := path.parent / base) not in seen:
            _refuse_backslashes(inner, seen | {path})


def _not_found(spec: str, forms: str, model_names: Iterable[str]) -> InputError:
    """The error for a ``spec`` that is not a file, folder or model name, with the nearest of each."""
    from vistool.models.generated_configs import named

    path = Path(spec).expanduser()
    folder = next((parent for parent in path.parents if parent.is_dir()), Path())
    near = [str(file) for file in _configs_near(folder)]
    packaged = packaged_configs('mmpretrain')
    same_name = [name for name in packaged if name.endswith(f'/{path.stem}.py')]
    hint = close_matches(spec, [*near, *same_name, *model_names, *packaged])
    if elsewhere := named(spec):
        hint = f'did you mean {" or ".join(elsewhere)}?'
    elif same_name and same_name[0] not in hint:
        hint = f'did you mean {same_name[0]}?'
    return InputError(f'{spec} not found', accepted=forms, hint=hint, parameter='config')


def _configs_near(folder: Path, most: int = 500) -> list[Path]:
    """Config files in ``folder`` and one level below; not deeper, since it may be a home directory."""
    found = [path for pattern in ('*', '*/*') for path in folder.glob(pattern) if path.suffix in SUFFIXES]
    return sorted(found)[:most]


def _syntax(error: SyntaxError, path: Path) -> InputError:
    """Finds the faulty file, which may be a ``_base_``: mmengine parses a copy that has no name.

    A file may be well formed until its ``{{…}}`` variables are filled in.
    """
    found = _faulty_file(path, set())
    culprit, fault = found if found else (Path(error.filename or path), error)
    filled = ''
    if fault.lineno is None and isinstance(inner := error.__cause__ or error.__context__, SyntaxError):
        fault, filled = inner, ', with its {{…}} variables filled in'
    shown = f': {fault.text.strip()}' if fault.text and fault.text.strip() else ''
    return InputError(f'{culprit}, line {fault.lineno}{filled}: {fault.msg}{shown}', parameter='config')


def _faulty_file(path: Path, seen: set[Path]) -> tuple[Path, SyntaxError] | None:
    if path.suffix != '.py' or not path.is_file() or path in seen:
        return None
    seen.add(path)
    try:
        tree = ast.parse(path.read_text(encoding='utf-8'), str(path))
    except SyntaxError as error:
        return path, error
    bases = (path.parent / name for name in bases_of(tree) if '::' not in name)
    return next((found for base in bases if (found := _faulty_file(base, seen))), None)


def _no_room(error: BaseException | None) -> str:
    """Why mmengine could not write its temporary copy of a config, or ``''``; it may have failed again after that."""
    while error is not None:
        full = isinstance(error, OSError) and error.errno in _NO_ROOM
        nowhere = isinstance(error, FileNotFoundError) and 'temporary directory' in str(error)
        if (full or nowhere) and _faulty_line(error) is None:
            return getattr(error, 'strerror', None) or str(error)
        error = error.__cause__ or error.__context__
    return ''


def _faulty_line(error: BaseException) -> str | None:
    """``file, line n`` of the user's code that raised, or None if mmengine itself raised."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.name == '<module>']
    own = [frame for frame in frames if Path(frame.filename).is_file() and 'site-packages' not in frame.filename]
    return f'{own[-1].filename}, line {own[-1].lineno}' if own else None


def _root_cause(error: BaseException) -> str:
    """The innermost message of a chain of import errors."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return message_of(error)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError):
        return ''

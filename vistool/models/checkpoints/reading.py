"""Finds, reads and unwraps checkpoints without running their code; see ``unpickling``."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote, urlparse

import torch
from annotated_types import MinLen
from torch import Tensor, nn
from typing_extensions import TypedDict

from vistool.errors import InputError, close_matches
from vistool.models.checkpoints import unpickling
from vistool.models.checkpoints.unpickling import Array, plain
from vistool.records import find_path, read_json, shown

log = logging.getLogger('vistool')

INDEX = '.index.json'
"""Suffix of an index: ``model.safetensors.index.json``, ``pytorch_model.bin.index.json``."""


def is_index(file: Path) -> bool:
    """Whether a file is, by its name, an index of other files."""
    return file.name.endswith(INDEX)


def shards(index: Path) -> list[Path]:
    """The files of an index, in order; they are in the same folder.

    Raises:
        InputError: It cannot be read, or names a file in another folder or one that does not exist.
    """
    names = sorted(set(_weight_map(index).values()))
    for name in names:
        if is_index(Path(name)):
            raise InputError(
                f'{index} names an index, {shown(name)}', accepted='files of weights', parameter='checkpoint'
            )
        if Path(name).name != name or '\0' in name:
            raise InputError(f'{index} names a file in another folder, {shown(name)}', parameter='checkpoint')
    missing = [shown(name)[1:-1] for name in names if not os.path.isfile(index.parent / name)]
    if missing:
        problem = f'{index}: {len(missing)} of {len(names)} files are missing: {", ".join(missing[:3])}'
        raise InputError(problem, hint='download the folder again', parameter='checkpoint')
    return [index.parent / name for name in names]


def read_shards(index: Path, read: Callable[[Path], Any]) -> dict[str, Any]:
    """All tensors by name, from files read with ``read``.

    Raises:
        InputError: A tensor of the index is in none of the files.
    """
    found: dict[str, Any] = {}
    for file in shards(index):
        content = read(file)
        found.update(content if isinstance(content, dict) else {})
    absent = sorted(_weight_map(index).keys() - found.keys())
    if absent:
        problem = f'{index}: the files hold no {", ".join(absent[:3])}' + (' …' if len(absent) > 3 else '')
        raise InputError(problem, hint='download the folder again', parameter='checkpoint')
    return found


class Index(TypedDict):
    """An index: tensor → file."""

    weight_map: Annotated[dict[str, str], MinLen(1)]


def _weight_map(index: Path) -> dict[str, str]:
    return read_json(index, Index, 'checkpoint', 'download the folder again')['weight_map']


SUFFIXES = ('.pth', '.pt', '.bin', '.ckpt', '.safetensors')
_LONGEST_NAME = 255  # bytes, on the usual file systems; the cache folder may not exist yet, so it cannot be asked
_ACCEPTED = f'a file ({" ".join(SUFFIXES)}), http(s)://…, demo://NAME or none'
# In order of preference. After an EMAHook, mmengine's `state_dict` already holds the averaged weights.
_WRAPPERS = ('state_dict', 'model', 'module', 'model_state', 'model_state_dict', 'net', 'network', 'teacher', 'student')
_AVERAGED = ('state_dict_ema', 'model_ema', 'ema', 'ema_state_dict', 'ema_model')
_COUNTERS = ('steps', 'n_averaged')  # of averaged models; not weights


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The weights in a file, unwrapped but not yet matched to a model.

    Attributes:
        state_dict: Tensors on the CPU by name, without the prefixes of wrappers (``module.``, ``_orig_mod.``).
        meta: What mmengine stores with them (``dataset_meta``, ``epoch``, …); plain values only.
        source: The path, URL or ``demo://`` name, as given.
        file: The file itself, or None.
        metadata: Versions of modules (``state_dict._metadata``), by module name.
        names: The names in the file, by name, of tensors that lost a wrapper's prefix.
    """

    state_dict: dict[str, Tensor] = field(repr=False)
    meta: dict[str, Any] = field(default_factory=dict, repr=False)
    source: str = ''
    file: Path | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)
    names: Mapping[str, str] = field(default_factory=dict, repr=False)

    def as_in_file(self, name: str) -> str:
        """A tensor's name as the file has it."""
        return self.names.get(name, name)

    @cached_property
    def sha256(self) -> str:
        """Digest of the file in hex, or of all files of an index; ``''`` if there is no file."""
        if self.file is None:
            return ''
        digest = hashlib.sha256()
        for path in shards(self.file) if is_index(self.file) else [self.file]:
            with open(path, 'rb') as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the classes the weights were trained on, or None if the file does not contain them."""
        for holder in (self.meta.get('dataset_meta'), self.meta):
            for key in ('classes', 'CLASSES'):
                names = holder.get(key) if isinstance(holder, Mapping) else None
                if isinstance(names, list | tuple) and names:
                    return tuple(str(name) for name in names)
        return None


def read_checkpoint(source: str | os.PathLike[str], trust: bool = False) -> Checkpoint:
    """Reads a checkpoint onto the CPU without running code from it.

    Args:
        source: A path (of the index, ``….index.json``, if the weights are in several files), an ``http(s)://`` URL
            (kept in torch hub's cache) or ``demo://NAME``.
        trust: Whether pickles are read with Python's own reader, which runs any code in the file.

    Returns:
        The weights and what the file states about them.

    Raises:
        InputError: There is no such file, it cannot be read safely, or it contains no tensors.
    """
    source = os.fspath(source)
    scheme = source.split('://')[0].lower() if '://' in source else ''
    if scheme == 'demo':
        from vistool.models.checkpoints import demo_weights

        content, file = demo_weights.load(source)
    elif scheme in ('', 'http', 'https'):
        file = _download(source) if scheme else _find(source)
        content = _read_download(source, file, trust) if scheme else _read(file, trust)
    else:
        problem = f'{source} has an unknown scheme {scheme}://'
        raise InputError(problem, accepted=_ACCEPTED, hint='download the file first', parameter='checkpoint')
    return _unwrap(content, source, file)


def _read(file: Path, trust: bool) -> Any:
    if is_index(file):
        return read_shards(file, lambda shard: _read(shard, trust))
    if file.suffix.lower() != '.safetensors':
        return unpickling.read_pickle(file, trust)
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise InputError(f'{file} needs safetensors', hint='pip install safetensors', parameter='checkpoint') from error
    try:
        return load_file(file)
    except Exception as error:  # SafetensorError shares no public base class with what older versions raise
        problem = f'{file} is not a safetensors file, or it is truncated ({error})'
        raise InputError(problem, hint='download or copy it again', parameter='checkpoint') from error


def _read_download(url: str, file: Path, trust: bool) -> Any:
    try:
        return _read(file, trust)
    except InputError as error:
        if unpickling.TRUST_HINT in error.hint:
            raise
        hint = f'delete {file} and try again'  # else the broken download would stay in the cache forever
        raise InputError(f'{url}: {error.problem}', hint=hint, parameter='checkpoint') from error


def _find(source: str) -> Path:
    """The file at a path, or an error that lists the checkpoints beside it."""
    path = find_path(source, 'checkpoint')
    if path.is_file():
        return path
    if path.exists() and not path.is_dir():
        raise InputError(f'{path} is a pipe or a device', accepted=_ACCEPTED, parameter='checkpoint')
    folder = path if path.is_dir() else path.parent
    if not folder.is_dir():
        raise InputError(f'{path} and its folder do not exist', accepted=_ACCEPTED, parameter='checkpoint')
    there = sorted(entry.name for entry in folder.iterdir() if entry.suffix.lower() in SUFFIXES)
    if path.is_dir():
        hint = f'it holds {", ".join(there[:5])}' if there else 'it holds no checkpoint'
        raise InputError(f'{path} is a folder', accepted=_ACCEPTED, hint=hint, parameter='checkpoint')
    hint = close_matches(path.name, there) or (f'its folder holds {", ".join(there[:5])}' if there else '')
    raise InputError(f'{path} does not exist', accepted=_ACCEPTED, hint=hint, parameter='checkpoint')


def _download(url: str) -> Path:
    """The file in torch hub's cache, which mmengine uses for downloads too; it is fetched once."""
    try:
        name = os.path.basename(unquote(urlparse(url).path))
    except ValueError as error:  # an IPv6 address without its end
        raise InputError(f'{url} is not a URL: {error}', accepted=_ACCEPTED, parameter='checkpoint') from error
    if not name or name in ('.', '..') or '\0' in name or len(os.fsencode(name)) > _LONGEST_NAME:
        raise InputError(f'{url} does not name a file', accepted=_ACCEPTED, parameter='checkpoint')
    folder = Path(torch.hub.get_dir()) / 'checkpoints'
    file = find_path(folder / name, 'checkpoint')
    if file.is_file():
        return file
    log.info('downloading %s to %s', url, file)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(file), progress=sys.stderr.isatty())
    except Exception as error:  # URLError, HTTPError, IncompleteRead, OSError of a full disk, ValueError of a bad URL
        hint = f'check the URL and the network, or download it to {file} by other means'
        raise InputError(f'{url} cannot be fetched ({error})', hint=hint, parameter='checkpoint') from error
    return file


def _unwrap(content: Any, source: str, file: Path | None) -> Checkpoint:
    found = _weights(content, ())
    if found is None:
        found = _only_one(content, source)
    weights, trail = found
    # an EMAHook of mmengine puts the averaged weights into `state_dict` and the others into `ema_state_dict`
    averaged = [key for key in _AVERAGED if isinstance(content, dict) and isinstance(dict.get(content, key), dict)]
    if averaged and trail and not {*trail} & {*_AVERAGED} and averaged != ['ema_state_dict']:
        taken, other = '.'.join(trail), averaged[0]
        log.info('%s: took the weights under %r and not %r; %s', source, taken, other, _apart(other))
    elif trail and trail != ('state_dict',):
        log.info('%s: took the weights under %r', source, '.'.join(trail))
    tensors: dict[str, Tensor] = {}
    for name, value in dict.items(weights):
        if isinstance(name, str) and (tensor := _tensor(value)) is not None:
            tensors[name] = tensor
    rename = _unprefixed(tensors)
    versions = vars(weights).get('_metadata') if hasattr(weights, '__dict__') else None
    versions = plain(versions) if isinstance(versions, dict) else {}
    meta = plain(dict.get(content, 'meta')) if isinstance(content, dict) else None
    return Checkpoint(
        state_dict={rename(name): tensor for name, tensor in tensors.items() if rename(name) not in _COUNTERS},
        meta=meta if isinstance(meta, dict) else {},
        source=source,
        file=file,
        names={rename(name): name for name in tensors if rename(name) != name},
        metadata={
            rename(f'{name}.' if name else '')[:-1]: value
            for name, value in versions.items()
            if isinstance(value, dict)
        },
    )


def _weights(content: Any, trail: tuple[str, ...]) -> tuple[dict[str, Any], tuple[str, ...]] | None:
    """The mapping that holds tensors, and the keys that lead to it; wrappers are searched first, then averages."""
    if isinstance(content, nn.Module):
        return content.state_dict(), trail
    if not isinstance(content, dict) or len(trail) > 4:
        return None
    known = [key for key in (*_WRAPPERS, *_AVERAGED) if isinstance(dict.get(content, key), dict | nn.Module)]
    for key in known:
        if found := _weights(dict.get(content, key), (*trail, key)):
            return found
    if any(_tensor(value) is not None for value in dict.values(content)):
        return content, trail
    return None


def _only_one(content: Any, source: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The one entry of a file that holds tensors, where it is called as no trainer calls it.

    Raises:
        InputError: None does, or several do.
    """
    entries = dict.items(content) if isinstance(content, dict) else ()
    named = [(key, found) for key, value in entries if isinstance(key, str) and (found := _weights(value, (key,)))]
    if len(named) == 1:
        return named[0][1]
    if named:
        problem = f'{source} holds several sets of weights: {", ".join(key for key, _ in named[:5])}'
        raise InputError(problem, accepted='one state_dict', hint=_apart(named[0][0]), parameter='checkpoint')
    held = [key for key, _ in entries if isinstance(key, str)]
    problem = f'{source} holds no weights' + (f', only {", ".join(held[:5])}' if held else '')
    raise InputError(problem, accepted='a state_dict, or a file that wraps one', parameter='checkpoint')


def _apart(key: str) -> str:
    """How to choose one set of weights of a file."""
    return f"to explain those of one, save them apart: torch.save(torch.load(FILE)['{key}'], 'one.pth')"


def _tensor(value: Any) -> Tensor | None:
    if isinstance(value, Array) and value.value is not None and value.value.dtype.kind in 'biufc':
        return torch.from_numpy(value.value.astype(value.value.dtype.newbyteorder('='), copy=False))
    # Called on the class: a file can give a tensor attributes that hide its methods. The result has none.
    return Tensor.detach(value) if isinstance(value, Tensor) else None


def _unprefixed(names: Iterable[str]) -> Callable[[str], str]:
    """Removes from keys the prefixes of DataParallel, DDP, averaging and torch.compile."""
    cores = [name.replace('_orig_mod.', '') for name in names if name not in _COUNTERS]
    depth = 0
    while cores and all(name.startswith('module.') for name in cores):
        cores = [name.removeprefix('module.') for name in cores]
        depth += 1

    def rename(name: str) -> str:
        name = name.replace('_orig_mod.', '')
        for _ in range(depth):
            name = name.removeprefix('module.')
        return name

    return rename

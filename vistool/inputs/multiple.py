"""Networks that take several inputs: each has a pipeline of its own, on the main image or on a file of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vistool.errors import InputError
from vistool.inputs.imread import SUFFIXES
from vistool.inputs.reader import Pipeline, network_input
from vistool.inputs.samples import Sample


@dataclass
class MultiPipeline:
    """Several inputs from one main image and, where given, files of their own.

    Attributes:
        pipelines: Input name → pipeline; the order is that of positional arguments.
        positional: Whether the network takes its inputs by position; else by name.
        files: Input name → a file, or a folder with a file of the main image's name.
        drawn: The input on which maps are drawn; default: the first that keeps the photo's places.
    """

    pipelines: Mapping[str, Pipeline]
    positional: bool = False
    files: Mapping[str, Path] = field(default_factory=dict)
    drawn: str | None = None

    def with_files(self, files: Mapping[str, Path], drawn: str | None = None) -> MultiPipeline:
        """The same with these files, and maps drawn on this input.

        Raises:
            InputError: If there is no such input.
        """
        for argument, names in (('--input', list(files)), ('--draw-on', [drawn] if drawn else [])):
            for name in names:
                if name not in self.pipelines:
                    known = ', '.join(self.pipelines)
                    raise InputError(f'the network has no input {name!r}', accepted=known, argument=argument)
        return replace(self, files=files, drawn=drawn)

    def read(self, source: Any, seed: int = 0, index: int = 0, name: str | None = None, **more: Any) -> Sample:
        """Reads the main image and whatever other files there are; see :meth:`Pipeline.read`.

        All pipelines draw from the same ``(seed, index)``, so equal random transforms do the same to every input.
        """
        samples = {
            key: pipeline.read(self._file(key, source), seed, index, name, **more)
            for key, pipeline in self.pipelines.items()
        }
        tensors = {key: network_input(sample.data) for key, sample in samples.items()}
        data = tuple(tensors.values()) if self.positional else tensors
        main = next(iter(samples.values()))
        path = source if isinstance(source, (str, Path)) else None
        return replace(
            samples[self.drawn or self._default(samples)],
            data=data,
            name=name or (Path(path).stem if path else main.name),
            path=Path(path) if path else None,
        )

    def _default(self, samples: Mapping[str, Sample]) -> str:
        own = (key for key, sample in samples.items() if key not in self.files and _in_place(sample))
        return next(own, next(iter(samples)))

    def _file(self, key: str, source: Any) -> Any:
        given = self.files.get(key)
        if given is None or not given.is_dir():
            return given or source
        if not isinstance(source, (str, Path)):
            raise InputError(f'{key}={given} is a folder, but the main image is no file', argument='--input')
        stem = Path(source).stem
        found = [path for path in sorted(given.iterdir()) if path.stem == stem and path.suffix.lower() in SUFFIXES]
        if not found:
            raise InputError(f'{key}: no image called {stem!r} in {given}', argument='--input')
        return found[0]


def _in_place(sample: Sample) -> bool:
    return sample.geometry is not None and sample.geometry.exact


def parse_files(pairs: list[str]) -> dict[str, Path]:
    """``NAME=PATH`` pairs of ``--input``.

    Raises:
        InputError: If one is no pair, or the file does not exist.
    """
    files = {}
    for pair in pairs:
        key, equals, path = pair.partition('=')
        if not (key and equals and path):
            raise InputError(f'{pair!r} is no NAME=PATH', argument='--input')
        if not Path(path).exists():
            raise InputError(f'no file or folder {path!r} for {key!r}', argument='--input')
        files[key] = Path(path)
    return files

"""A report on the environment, for fault reports: ``python -m vistool.env``.

It says what a maintainer asks first: versions, devices, fonts, and what is known to break. It holds no paths, no names
of users or machines. Nothing is needed for it: a package that is missing or cannot be imported is a line of the report.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from vistool.environment import __version__, installed_version, known_clashes, shareable, without_import_notices
from vistool.errors import cause_of

_NEEDED = ('numpy', 'matplotlib', 'pillow', 'timm', 'transformers', 'grad-cam')
_OPENMMLAB = ('mmengine', 'mmcv', 'mmpretrain', 'mmdet', 'mmsegmentation', 'mmpose')
_MAINTAINED = {'mmdet': 'onedl-mmdetection'}
"""Builds of OneDL that are not called ``onedl-`` and the name."""
_OPENCV = ('opencv-python', 'opencv-python-headless', 'opencv-contrib-python', 'opencv-contrib-python-headless')
_OPTIONAL = ('pycocotools', 'lightning', 'imagehash', 'onnx', 'ipywidgets')
_DISTRIBUTION = 'mmvistool'


def report() -> str:
    """The environment in which vistool runs, a line for each fact; for people, not for programs."""
    facts = list(_facts())
    column = max(len(name) for name, _ in facts) + 2
    return shareable('\n'.join(f'{name:<{column}}{value}' for name, value in facts))


def _facts() -> Iterator[tuple[str, str]]:
    """The lines of the report: what, and which."""
    yield 'vistool', __version__
    yield 'Python', f'{platform.python_version()}, {platform.python_implementation()}, {_kind_of_environment()}'
    yield 'platform', f'{platform.system()} {platform.release()}, {platform.machine()}, {os.cpu_count()} processors'
    yield 'torch', _tried(_torch)
    yield 'torchvision', _tried(_torchvision)
    yield 'OpenCV', _tried(_opencv)
    for name in _OPENMMLAB:
        builds = [name, _MAINTAINED.get(name, f'onedl-{name}')]
        found = [f'{build} {version}' for build in builds if (version := installed_version(build))]
        operators = f', {_compiled_operators()}' if name == 'mmcv' and found else ''
        yield name, (' and '.join(found) or 'not installed') + operators
    for name in _NEEDED:
        yield name, installed_version(name) or 'not installed'
    optional = [f'{name} {version}' for name in _OPTIONAL if (version := installed_version(name))]
    yield 'optional', ', '.join(optional) or 'none'
    yield 'fonts', _tried(_fonts)
    yield 'devices', _tried(_devices)
    known = [*known_clashes(), *_unmet_requirements()]
    for number, clash in enumerate(known or ['none known']):
        yield '' if number else 'clashes', clash


def _tried(fact: Callable[[], str]) -> str:
    """A fact, or why it cannot be told."""
    try:
        return fact()
    except Exception as error:  # a broken package is what the report is asked for
        return f'cannot be imported ({cause_of(error)})'


def _kind_of_environment() -> str:
    if os.path.isdir(os.path.join(sys.prefix, 'conda-meta')):
        return 'conda'
    return 'virtual environment' if sys.prefix != sys.base_prefix else "the system's own environment"


def _torch() -> str:
    import torch

    versions = {'CUDA': torch.version.cuda, 'ROCm': getattr(torch.version, 'hip', None)}
    built = ', '.join(f'{name} {version}' for name, version in versions.items() if version)
    return f'{torch.__version__}, built for {built or "the CPU alone"}'


def _torchvision() -> str:
    import torch
    import torchvision

    def operators() -> str:
        torchvision.ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5)
        return 'compiled operators'

    return f'{torchvision.__version__}, {_tried(operators)}'


def _opencv() -> str:
    import cv2

    builds = [f'{name} {version}' for name in _OPENCV if (version := installed_version(name))]
    return f'{cv2.__version__} ({", ".join(builds) or "not from a package"})'


def _compiled_operators() -> str:
    """Whether mmcv's own operators are there; looked up without importing it, which may fail."""
    spec = importlib.util.find_spec('mmcv')
    folders = [Path(each) for each in (spec.submodule_search_locations if spec else None) or ()]
    if not any(any(folder.glob('_ext*')) for folder in folders):
        return 'without compiled operators'

    def loaded() -> str:
        with without_import_notices():
            importlib.import_module('mmcv._ext')
        return 'compiled operators'

    return _tried(loaded)


def _fonts() -> str:
    from vistool.visualization.text import fallback_faces, main_face

    fallbacks = [Path(face.path).stem for face in fallback_faces()]
    return f'{Path(main_face().path).stem}; for other scripts: {", ".join(fallbacks) or "none"}'


def _devices() -> str:
    import torch

    found = [f'cpu ({torch.get_num_threads()} threads)']
    for index in range(torch.cuda.device_count()):
        each = torch.cuda.get_device_properties(index)
        found.append(f'cuda:{index} {each.name} ({each.total_memory / 2**30:.0f} GiB)')
    if torch.backends.mps.is_available():
        found.append('mps')
    return ', '.join(found)


def _unmet_requirements() -> Iterator[str]:
    """What vistool asks for and the environment has not, as pip would say it."""
    from packaging.requirements import Requirement

    try:
        needed = importlib.metadata.requires(_DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        yield f'{_DISTRIBUTION} is not installed: its sources are used as they are'
        return
    for requirement in map(Requirement, needed):
        if requirement.marker is not None and not requirement.marker.evaluate({'extra': ''}):
            continue
        version = installed_version(requirement.name)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            remedy = f"pip install '{requirement.name}{requirement.specifier}'"
            yield f'{requirement.name} {version or "is not installed"}: {_DISTRIBUTION} needs {requirement}; {remedy}'


if __name__ == '__main__':
    print(report())

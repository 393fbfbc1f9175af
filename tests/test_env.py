"""The report on the environment: it says what is asked for, holds nothing private, and survives broken packages."""

import getpass
import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from vistool import env, environment


def lines(text: str) -> dict[str, str]:
    """Name → value of a report."""
    return {line.split('  ')[0]: line.split('  ')[-1].strip() for line in text.splitlines()}


def test_the_report_as_a_module():
    done = subprocess.run([sys.executable, '-m', 'vistool.env'], capture_output=True, text=True, check=True)
    said = lines(done.stdout)
    assert done.stderr == ''
    assert said['vistool'] == environment.__version__
    assert said['Python'].startswith(platform.python_version())
    for name in ('numpy', 'timm', 'transformers', 'matplotlib'):
        assert said[name] == importlib.metadata.version(name)
    assert said['mmengine'] == f'onedl-mmengine {importlib.metadata.version("onedl-mmengine")}'
    assert 'compiled operators' in said['mmcv'] and 'compiled operators' in said['torchvision']
    assert said['torch'].startswith(importlib.metadata.version('torch').partition('+')[0])
    assert said['fonts'].startswith('DejaVuSans') and said['devices'].startswith('cpu (')
    private = {getpass.getuser(), platform.node(), str(Path.home()), sys.prefix, str(Path.cwd())} - {'', '/', 'root'}
    assert [word for word in private if word in done.stdout] == []


def test_clashes_are_lines_of_the_report(monkeypatch):
    versions = {'mmcv': '2.1', 'onedl-mmcv': '2.3.6', 'transformers': '5.1.0', 'torch': '2.4.0'}
    monkeypatch.setattr(environment, 'installed_version', versions.get)
    monkeypatch.setattr(env, 'installed_version', versions.get)
    monkeypatch.setattr(
        'importlib.metadata.requires', lambda name: ['torch>=2.6', 'transformers<5', 'ruff>=1; extra == "dev"']
    )
    report = env.report()
    said = lines(report)
    assert said['clashes'].startswith('mmcv and onedl-mmcv are both installed')
    assert said['mmcv'].startswith('mmcv 2.1 and onedl-mmcv 2.3.6')
    assert 'transformers 5.1.0 is installed, with which models of mmpretrain fail' in report
    assert "torch 2.4.0: mmvistool needs torch>=2.6; pip install 'torch>=2.6'" in report
    assert 'ruff' not in report


def test_without_clashes_the_report_says_so(monkeypatch):
    monkeypatch.setattr('importlib.metadata.requires', lambda name: ['numpy>=1'])
    monkeypatch.setattr(env, 'known_clashes', list)
    assert lines(env.report())['clashes'] == 'none known'


@pytest.mark.parametrize(
    ('name', 'line', 'kept'), [('cv2', 'OpenCV', 'torchvision'), ('torch', 'torch', 'OpenCV')], ids=['cv2', 'torch']
)
def test_a_package_that_cannot_be_imported_is_a_line(name, line, kept, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    said = lines(env.report())
    assert said[line].startswith('cannot be imported (ModuleNotFoundError: ')
    assert said[kept].strip()


def test_paths_in_messages_of_broken_packages_are_shortened(monkeypatch):
    def broken():
        raise ImportError(f'{Path.home()}/lib/python/site-packages/torch/lib/libtorch.so: undefined symbol')

    monkeypatch.setattr(env, '_torch', broken)
    said = lines(env.report())['torch']
    assert str(Path.home()) + '/' not in said and 'libtorch.so: undefined symbol' in said

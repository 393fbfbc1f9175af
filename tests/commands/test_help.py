"""``--help`` of every command answers at once: nothing heavy is imported before arguments are parsed."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from vistool.commands.vis_cam import main
from vistool.commands.vistool_demo import main as demo
from vistool.environment import __version__
from vistool.errors import InputError
from vistool.models.configs import resolve

TOOLS = [
    'browse_dataset', 'vis_attention', 'vis_cam', 'vis_check', 'vis_diff', 'vis_explore', 'vis_featmap', 'vis_lr',
    'vis_patches', 'vis_tsne',
]  # fmt: skip


@pytest.mark.parametrize('tool', TOOLS)
def test_help_imports_nothing_heavy(tool):
    code = (
        'import sys, runpy\n'
        f"sys.argv = ['{tool}', '--help']\n"
        f'try: runpy.run_path("tools/{tool}.py", run_name="__main__")\n'
        'except SystemExit as done: assert done.code == 0\n'
        'heavy = {"argcomplete", "torch", "numpy", "matplotlib", "cv2", "mmengine", "PIL"} & set(sys.modules)\n'
        'assert not heavy, heavy'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 'example:' in done.stdout


def test_version_names_the_packages_that_numbers_depend_on(capsys):
    with pytest.raises(SystemExit) as done:
        main(['--version'])
    told = dict(line.split(' ') for line in capsys.readouterr().out.splitlines())
    assert done.value.code == 0 and told['vistool'] == __version__
    assert told['torch'] == version('torch') and told['onedl-mmpretrain'] == version('onedl-mmpretrain')


def test_the_demo_is_copied_whole_and_nothing_is_overwritten(tmp_path, capsys):
    assert demo([str(tmp_path / 'demo')]) == 0
    copied = {Path(line).relative_to(tmp_path) for line in capsys.readouterr().out.splitlines()}
    assert {Path('demo/coffee.png'), Path('demo/dataset/val.txt'), Path('demo/attention.ipynb')} <= copied
    assert demo([str(tmp_path / 'demo')]) == 2
    assert 'not empty' in capsys.readouterr().err


def test_the_demo_is_copied_into_the_current_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert demo(['.']) == 0 and 'coffee.png' in capsys.readouterr().out.split()
    assert not list(tmp_path.parent.glob('.*.partial'))


def test_configs_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('own.py').write_text("_base_ = 'vistool::efficientnet_lite/efficientnet-lite0_in1k.py'\nmine = 3\n")
    assert resolve('own.py').config.model == resolve('vistool::efficientnet_lite/efficientnet-lite0_in1k').config.model
    with pytest.raises(InputError, match='did you mean vistool::efficientnet_lite/efficientnet-lite0_in1k.py'):
        resolve('vistool::efficientnet_lite/efficientnet-lite0')

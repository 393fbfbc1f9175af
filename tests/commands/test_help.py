"""``--help`` of every command answers at once: nothing heavy is imported before arguments are parsed."""

import subprocess
import sys
from importlib.metadata import version

import pytest

from vistool.commands.vis_cam import main
from vistool.environment import __version__

TOOLS = [
    'browse_dataset', 'vis_attention', 'vis_cam', 'vis_check', 'vis_diff', 'vis_featmap', 'vis_lr', 'vis_patches',
    'vis_tsne',
]  # fmt: skip


@pytest.mark.parametrize('tool', TOOLS)
def test_help_imports_nothing_heavy(tool):
    code = (
        'import sys, runpy\n'
        f"sys.argv = ['{tool}', '--help']\n"
        f'try: runpy.run_path("tools/{tool}.py", run_name="__main__")\n'
        'except SystemExit as done: assert done.code == 0\n'
        'heavy = {"torch", "numpy", "matplotlib", "cv2", "mmengine", "PIL"} & set(sys.modules)\n'
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

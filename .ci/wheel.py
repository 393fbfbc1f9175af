"""The wheel alone: built, installed beside the packages of this environment, and every command run outside the clone.

What a wheel lacks (configs, the demo, style sheets) is not missed in a clone, where everything lies beside the package.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
NETWORK = 'vistool::efficientnet_lite/efficientnet-lite0_in1k.py'
LABELED = 'vistool::efficientnet_lite/efficientnet-lite0_demo.py'
WHERE = 'import pathlib, sys, vistool; assert pathlib.Path(sys.prefix) in pathlib.Path(vistool.__file__).parents'
COMMANDS = (
    'vistool-demo demo',
    f'vis_cam demo/coffee.png {NETWORK} -o cam.png',
    f'vis_cam @val {LABELED} --save-raw --gallery -o before',
    f'vis_cam @val {LABELED} --save-raw -o after',
    'vis_diff before after -o difference',
    'vis_attention demo/astronaut.png timm::vit_tiny_patch16_224 none -o attention.png',
    f'vis_featmap demo/coffee.png {NETWORK} -o features.png',
    'vis_patches demo/coffee.png --patch-size 50 -o patches.png',
    f'vis_tsne {LABELED} -o embedding',
    'browse_dataset vistool::demo_dataset/plain.py -n 2 -o browse',
    'vis_lr vistool::resnet/resnet50_8xb32_in1k.py --dataset-size 1281167 -o lr.png',
    f'vis_check demo/coffee.png {NETWORK} --method gradcam -o check.png',
    'vis_cam demo/scenes/scene_3.jpg vistool::scenes/detector.py -o scene.png',
)


def main() -> int:
    """Returns 0 where everything runs."""
    with tempfile.TemporaryDirectory() as folder:
        environment, work = Path(folder, 'environment'), Path(folder, 'work')
        work.mkdir()
        venv.create(environment, with_pip=False)
        python = str(environment / 'bin' / 'python')
        packages = sysconfig.get_path('purelib', vars={'base': str(environment), 'platbase': str(environment)})
        first = sysconfig.get_path('purelib')
        Path(packages, 'first.pth').write_text(f'import site; site.addsitedir({first!r})\n')
        outside = {**os.environ, 'PATH': f'{environment / "bin"}:{os.environ["PATH"]}'}
        outside.pop('PYTHONPATH', None)

        def run(*command: str) -> None:
            subprocess.run(command, check=True, cwd=work, env=outside)

        run(python, '-m', 'pip', 'install', '-q', 'build', 'twine')
        run(python, '-m', 'build', '-q', '--outdir', f'{folder}/dist', str(ROOT))
        files = sorted(map(str, Path(folder, 'dist').iterdir()))
        run(python, '-m', 'twine', 'check', '--strict', *files)
        wheel = next(file for file in files if file.endswith('.whl'))
        run(python, '-m', 'pip', 'install', '-q', '--no-deps', '--force-reinstall', wheel)
        run(python, '-m', 'pip', 'check')
        run(python, '-c', WHERE)
        for command in COMMANDS:
            print(command, flush=True)
            run(*shlex.split(command))
    return 0


if __name__ == '__main__':
    sys.exit(main())

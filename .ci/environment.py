"""Beside vistool: an environment that holds MMDetection, MMSegmentation, pycocotools and Lightning, as many users' do.

Makes a virtual environment on top of the one that runs this script, whose packages it reuses, installs those packages
into it, runs ``pip check``, loads one model of every package, compares the maps of their detectors and segmenters with
an oracle (tools/checks/detectors.py), and trains with Lightning. pycocotools alone once broke every model: with it,
mmpretrain imports parts of transformers that transformers 5 has not.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

PACKAGES = ('onedl-mmdetection', 'onedl-mmsegmentation', 'pycocotools', 'lightning')
MODELS = (
    'mmpretrain::resnet/resnet18_8xb32_in1k.py',
    'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py',
    'mmseg::fcn/fcn_r18-d8_4xb2-80k_cityscapes-512x1024.py',
    'timm::resnet18',
    'torchvision::resnet18',
    'configs/timm/vit_tiny_patch16_224.py',
)
LIGHTNING = 'tests/integrations/lightning_callback.py'
# mmcv installs without its compiled operators. Models are built without them here, and none is called.
LOAD = """
import sys, types
from importlib.machinery import ModuleSpec

class Operators(types.ModuleType):
    def __getattr__(self, name):
        if name.startswith('__'):
            raise AttributeError(name)
        return lambda *args: None

sys.modules['mmcv._ext'] = Operators('mmcv._ext')
sys.modules['mmcv._ext'].__spec__ = ModuleSpec('mmcv._ext', None)
import vistool as vt
model = vt.load(sys.argv[1], 'none')
print(f'{sys.argv[1]}: {type(model.module).__name__}')
"""


def main() -> int:
    """Returns 0 where everything loads."""
    with tempfile.TemporaryDirectory() as folder:
        # --without-pip: pip and setuptools of the first environment serve both
        venv.create(folder, with_pip=False)
        python = str(Path(folder, 'bin', 'python'))
        packages = sysconfig.get_path('purelib', vars={'base': folder, 'platbase': folder})
        first = sysconfig.get_path('purelib')
        Path(packages, 'first.pth').write_text(f'import site; site.addsitedir({first!r})\n')
        run = [[python, '-m', 'pip', 'install', '-q', *PACKAGES], [python, '-m', 'pip', 'check']]
        run += [[python, '-c', LOAD, model] for model in MODELS]
        run += [[python, 'tools/checks/detectors.py', '--only', 'mmdet', 'mmseg']]
        run += [[python, '-m', 'pytest', '-q', '-n0', LIGHTNING]]
        return max(subprocess.run(command, check=False).returncode for command in run)


if __name__ == '__main__':
    sys.exit(main())

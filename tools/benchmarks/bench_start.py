"""What a command costs from its start to its end, for one photo: CPU seconds of whole processes, side by side.

mmpretrain's ``vis_cam.py`` and vistool's explain the same photo with the same network, weights and layer. Before
anything is timed, vistool's map is compared with the one that pytorch-grad-cam gives, which mmpretrain's tool draws.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from processes import Cost, alternate, cpu_ratio, middle, run
from timing import machine

from vistool.models.configs import package_folder

TOOLS = Path(__file__).resolve().parents[1]
PHOTO = str(TOOLS.parent / 'demo' / 'coffee.png')
CONFIG = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'
VIT = 'mmpretrain::vision_transformer/vit-base-p16_64xb64_in1k.py'
TIMM = 'timm::resnet50'
IMPORTS = 'torch and timm imported'
BESIDE = {'vis_featmap': 'vis_cam', 'vis_attention': 'vis_cam, ViT', 'vis_patches': 'vis_cam, ViT'}
"""Each other command → ``vis_cam`` on the same network."""


def contenders(folder: Path, weights: str) -> dict[str, Callable[[], Cost]]:
    """The processes by name."""
    upstream = package_folder('mmpretrain')
    assert upstream is not None, 'mmpretrain is not installed'
    config = str(upstream / 'configs' / CONFIG.partition('::')[2])
    theirs = [str(upstream / 'tools/visualization/vis_cam.py'), PHOTO, config, weights]
    theirs += ['--target-layers', 'backbone.layer4', '--save-path', f'{folder}/theirs.png']

    def tool(name: str, *words: str) -> Callable[[], Cost]:
        return lambda: run([str(TOOLS / f'{name}.py'), PHOTO, *words, '-o', f'{folder}/{name}.png'])

    return {
        'mmpretrain vis_cam': lambda: run(theirs),
        'vis_cam': tool('vis_cam', CONFIG, weights),
        'vis_featmap': tool('vis_featmap', CONFIG, weights),
        'vis_cam, ViT': tool('vis_cam', VIT, 'none'),
        'vis_attention': tool('vis_attention', VIT, 'none'),
        'vis_patches': tool('vis_patches', VIT),
        IMPORTS: lambda: run(['-c', 'import torch, timm']),
        'vis_cam, timm': tool('vis_cam', TIMM, 'none'),
        'torch imported': lambda: run(['-c', 'import torch']),
    }


def check(folder: Path, weights: str) -> float:
    """The largest difference between vistool's map and the one that mmpretrain's tool draws.

    Raises:
        SystemExit: They differ.
    """
    from mmpretrain import get_model
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    import vistool as vt

    run([str(TOOLS / 'vis_cam.py'), PHOTO, CONFIG, weights, '--save-raw', '-o', f'{folder}/raw.png'])
    ours = np.load(f'{folder}/raw.npz')['maps_0'][0]
    model = get_model(str(folder / 'config.py'), pretrained=weights, device='cpu').eval()
    loaded = vt.load(CONFIG, weights)
    inputs = loaded.batch([loaded.read(PHOTO)])
    assert isinstance(inputs, torch.Tensor)
    with GradCAM(model=model, target_layers=[model.backbone.layer4]) as cam:
        label = int(model(inputs).argmax())
        other = cam(inputs, [ClassifierOutputTarget(label)])[0]
    apart = float(np.abs(ours - other).max())
    if apart > 1e-4:
        raise SystemExit(f'the maps differ by {apart:.1e}')
    return apart


def prepare(folder: Path) -> dict[str, Callable[[], Cost]]:
    """The processes by name, after their results were compared.

    Args:
        folder: Where their files go.
    """
    from mmengine.hub import get_config

    from vistool.models.configs import resolve
    from vistool.models.model import build_module

    get_config(CONFIG).dump(folder / 'config.py')
    weights = str(folder / 'weights.pth')
    torch.save(build_module(resolve(CONFIG)).state_dict(), weights)
    print(f'vistool and pytorch-grad-cam differ by {check(folder, weights):.1e}', flush=True)
    return contenders(folder, weights)


def main() -> None:
    """Prints a table: a row for each process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--only', nargs='+', default=[], help='names of processes')
    args = parser.parse_args()
    print(f'one photo, ResNet-50 and ViT-B/16; {machine()}')
    with tempfile.TemporaryDirectory() as name:
        chosen = {key: run for key, run in prepare(Path(name)).items() if not args.only or key in args.only}
        found = alternate(chosen, args.rounds)
    print('\n| process | CPU s | wall s | peak MiB |\n| --- | ---: | ---: | ---: |')
    for key, costs in found.items():
        cost = middle(costs)
        print(f'| {key} | {cost.cpu:.2f} | {cost.wall:.2f} | {cost.memory:.0f} |')
    if {'vis_cam', 'mmpretrain vis_cam'} <= found.keys():
        print(f'\nvis_cam takes {cpu_ratio(found, "vis_cam", "mmpretrain vis_cam"):.2f} × the CPU time of mmpretrain')
    if {'vis_cam, timm', IMPORTS} <= found.keys():
        more = middle(found['vis_cam, timm']).cpu - middle(found[IMPORTS]).cpu
        print(f'vis_cam on a network of timm takes {more:.2f} s more than importing torch and timm')
    for key, base in BESIDE.items():
        if {key, base} <= found.keys():
            print(f'{key} takes {middle(found[key]).cpu - middle(found[base]).cpu:+.2f} s against {base}')


if __name__ == '__main__':
    main()

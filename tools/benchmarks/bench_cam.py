"""What class activation maps cost beyond a plain forward: vistool, pytorch-grad-cam and torchcam on the same input."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable

import pytorch_grad_cam
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from timing import machine, measure, ratio, table
from torch import Tensor, nn
from torchvision.models import resnet50

from vistool import CAM

SIX = {
    'gradcam': pytorch_grad_cam.GradCAM,
    'gradcam++': pytorch_grad_cam.GradCAMPlusPlus,
    'xgradcam': pytorch_grad_cam.XGradCAM,
    'eigencam': pytorch_grad_cam.EigenCAM,
    'eigengradcam': pytorch_grad_cam.EigenGradCAM,
    'layercam': pytorch_grad_cam.LayerCAM,
}
CLASS = 281


def ours(model: nn.Module, inputs: Tensor, methods: list[str]) -> Callable[[], object]:
    """Vistool with these methods, from the network input to finished maps."""
    cam = CAM(methods, targets=[CLASS], layers=['layer4'])
    return lambda: cam(model, inputs)


def theirs(model: nn.Module, inputs: Tensor, methods: list[str]) -> Callable[[], object]:
    """pytorch-grad-cam, one object per method as its documentation does it."""
    targets = [ClassifierOutputTarget(CLASS)] * len(inputs)

    def run() -> None:
        for name in methods:
            with SIX[name](model=model, target_layers=[model.layer4]) as cam:
                cam(inputs, targets)

    return run


def torchcam(model: nn.Module, inputs: Tensor) -> Callable[[], object]:
    """Torchcam's Grad-CAM, its maps brought to the input's size as the others'."""
    from torchcam.methods import GradCAM

    def run() -> None:
        with GradCAM(model, target_layer='layer4') as cam:
            scores = model(inputs)
            maps = cam([CLASS] * len(inputs), scores)
            nn.functional.interpolate(maps[0][:, None], inputs.shape[2:], mode='bilinear')

    return run


def forward(model: nn.Module, inputs: Tensor) -> Callable[[], object]:
    """The plain forward, without gradients."""

    def run() -> None:
        with torch.no_grad():
            model(inputs)

    return run


def main() -> None:
    """Prints one table per batch size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--batch-sizes', type=int, nargs='+', default=[1, 4])
    parser.add_argument('--device', default='cpu')
    args = parser.parse_args()
    warnings.filterwarnings('ignore')
    torch.manual_seed(0)
    model = resnet50().eval().to(args.device)
    print(f'ResNet-50, 224×224, layer4; {machine()}')
    for batch in args.batch_sizes:
        inputs = torch.randn(batch, 3, 224, 224, device=args.device)
        contenders = {
            'forward': forward(model, inputs),
            'vistool, 1 method': ours(model, inputs, ['gradcam']),
            'vistool, 6 methods': ours(model, inputs, list(SIX)),
            'grad-cam, 1 method': theirs(model, inputs, ['gradcam']),
            'grad-cam, 6 methods': theirs(model, inputs, list(SIX)),
            'torchcam, 1 method': torchcam(model, inputs),
        }
        seconds = measure(contenders, args.rounds)
        table(f'batch {batch}', seconds, 'forward')
        one = ratio(seconds, 'grad-cam, 1 method', 'vistool, 1 method')
        six = ratio(seconds, 'grad-cam, 6 methods', 'vistool, 6 methods')
        print(f'\nagainst grad-cam: {one:.1f} × faster for one method, {six:.1f} × for six')


if __name__ == '__main__':
    main()

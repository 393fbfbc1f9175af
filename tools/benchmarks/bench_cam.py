"""What class activation maps cost beyond a plain forward: vistool, pytorch-grad-cam and torchcam on the same input."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Sequence

import pytorch_grad_cam
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from timing import in_float32, machine, measure, ratio, table
from torch import Tensor, nn
from torchvision.models import resnet18, resnet50

from vistool import CAM

EIGHT = {
    'gradcam': pytorch_grad_cam.GradCAM,
    'gradcam++': pytorch_grad_cam.GradCAMPlusPlus,
    'xgradcam': pytorch_grad_cam.XGradCAM,
    'layercam': pytorch_grad_cam.LayerCAM,
    'hirescam': pytorch_grad_cam.HiResCAM,
    'gradcamelementwise': pytorch_grad_cam.GradCAMElementWise,
    'eigencam': pytorch_grad_cam.EigenCAM,
    'eigengradcam': pytorch_grad_cam.EigenGradCAM,
}
SIX = ['gradcam', 'gradcam++', 'xgradcam', 'eigencam', 'eigengradcam', 'layercam']
CLASSES = [281, 967, 7]


def ours(model: nn.Module, inputs: Tensor, methods: Sequence[str], classes: int = 1) -> Callable[[], object]:
    """Vistool with these methods, from the network input to finished maps."""
    cam = CAM(methods, targets=CLASSES[:classes], layers=['layer4'])
    return lambda: cam(model, inputs)


def theirs(model: nn.Module, inputs: Tensor, kinds: Sequence[type]) -> Callable[[], object]:
    """pytorch-grad-cam, one object per method as its documentation does it."""
    targets = [ClassifierOutputTarget(CLASSES[0])] * len(inputs)

    def run() -> None:
        for kind in kinds:
            with kind(model=model, target_layers=[model.layer4]) as cam:
                cam(inputs, targets)

    return run


def torchcam(model: nn.Module, inputs: Tensor) -> Callable[[], object]:
    """Torchcam's Grad-CAM, its maps brought to the input's size as the others'."""
    from torchcam.methods import GradCAM

    def run() -> None:
        with GradCAM(model, target_layer='layer4') as cam:
            scores = model(inputs)
            maps = cam([CLASSES[0]] * len(inputs), scores)
            nn.functional.interpolate(maps[0][:, None], inputs.shape[2:], mode='bilinear')

    return run


def forward(model: nn.Module, inputs: Tensor) -> Callable[[], object]:
    """The plain forward, without gradients."""

    def run() -> None:
        with torch.no_grad():
            model(inputs)

    return run


def bench_gradients(model: nn.Module, inputs: Tensor, rounds: int) -> None:
    """Prints what methods and classes cost that share one forward."""
    contenders = {
        'forward': forward(model, inputs),
        'vistool, 1 method': ours(model, inputs, ['gradcam']),
        'vistool, 6 methods': ours(model, inputs, SIX),
        'vistool, 8 methods': ours(model, inputs, list(EIGHT)),
        'vistool, 8 methods, 3 classes': ours(model, inputs, list(EIGHT), classes=3),
        'grad-cam, 1 method': theirs(model, inputs, [EIGHT['gradcam']]),
        'grad-cam, 6 methods': theirs(model, inputs, [EIGHT[name] for name in SIX]),
        'grad-cam, 8 methods': theirs(model, inputs, list(EIGHT.values())),
        'torchcam, 1 method': torchcam(model, inputs),
    }
    seconds = measure(contenders, rounds)
    table(f'batch {len(inputs)}', seconds, 'forward')
    one = ratio(seconds, 'grad-cam, 1 method', 'vistool, 1 method')
    six = ratio(seconds, 'grad-cam, 6 methods', 'vistool, 6 methods')
    print(f'\nagainst grad-cam: {one:.1f} × faster for one method, {six:.1f} × for six')


def bench_ablation(model: nn.Module, inputs: Tensor, rounds: int) -> None:
    """Prints what AblationCAM costs, which runs the network's tail once for each channel (512 of a ResNet-18's)."""
    contenders = {
        'forward': forward(model, inputs),
        'vistool, AblationCAM': ours(model, inputs, ['ablationcam']),
        'grad-cam, AblationCAM': theirs(model, inputs, [pytorch_grad_cam.AblationCAM]),
    }
    quick = ['forward', 'vistool, AblationCAM']
    measure({name: contenders[name] for name in quick}, 1)
    seconds = measure(contenders, rounds, warm_up=False)
    table(f'ResNet-18, AblationCAM, batch {len(inputs)}', seconds, 'forward')
    faster = ratio(seconds, 'grad-cam, AblationCAM', 'vistool, AblationCAM')
    print(f'\nagainst grad-cam: {faster:.0f} × faster')


def main() -> None:
    """Prints one table per batch size, and one for AblationCAM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--ablation-rounds', type=int, default=2)
    parser.add_argument('--batch-sizes', type=int, nargs='*', default=[1, 4])
    parser.add_argument('--device', default='cpu')
    args = parser.parse_args()
    warnings.filterwarnings('ignore')
    in_float32()
    torch.manual_seed(0)
    model = resnet50().eval().to(args.device)
    print(f'ResNet-50, 224×224, layer4; {machine()}')
    for batch in args.batch_sizes:
        bench_gradients(model, torch.randn(batch, 3, 224, 224, device=args.device), args.rounds)
    if args.ablation_rounds:
        small = resnet18().eval().to(args.device)
        bench_ablation(small, torch.randn(1, 3, 224, 224, device=args.device), args.ablation_rounds)


if __name__ == '__main__':
    main()

"""The methods against pytorch-grad-cam, and the identities that hold for a pooled linear classifier."""

import naive_cam
import numpy as np
import pytest
import pytorch_grad_cam as reference
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from vistool import CAM
from vistool.analyses.cam import maps
from vistool.analyses.cam.methods import METHODS
from vistool.network import forward as engine

CLASSES = {
    'gradcam': reference.GradCAM,
    'gradcam++': reference.GradCAMPlusPlus,
    'xgradcam': reference.XGradCAM,
    'eigencam': reference.EigenCAM,
    'eigengradcam': reference.EigenGradCAM,
    'layercam': reference.LayerCAM,
    'hirescam': reference.HiResCAM,
    'gradcamelementwise': reference.GradCAMElementWise,
    'segeigencam': reference.SegEigenCAM,
    'kpcacam': reference.KPCA_CAM,
    'fem': reference.FEM,
}
TARGETS = [281, 7]


def vit_reshape(tensor):
    return tensor[:, 1:].unflatten(1, (6, 6)).permute(0, 3, 1, 2)


def resnet50():
    from torchvision.models import resnet50

    return resnet50(), 'layer4', None, (96, 128)


def vit():
    import timm

    return timm.create_model('vit_tiny_patch16_224', img_size=96), 'blocks.11.norm1', vit_reshape, (96, 96)


def swin():
    import timm

    model = timm.create_model('swin_tiny_patch4_window7_224', img_size=(96, 128))
    return model, 'norm', lambda tensor: tensor.permute(0, 3, 1, 2), (96, 128)


def efficientnet_lite0():
    from vistool import load

    model = load('configs/efficientnet_lite/efficientnet-lite0_in1k.py')
    return model.module, 'model.bn2', None, (96, 128)


@pytest.fixture(scope='module', params=[efficientnet_lite0, resnet50, vit, swin], ids=lambda make: make.__name__)
def case(request):
    torch.manual_seed(0)
    model, layer, reshape, size = request.param()
    model.eval()
    model.requires_grad_(False).get_submodule(layer).requires_grad_(True)  # the reference's backward ends at the layer
    return model, layer, reshape, torch.randn(2, 3, *size)


@pytest.fixture(autouse=True)
def _thin_svd(monkeypatch):
    """The reference asks for all K right vectors and uses the first: the others cost seconds a map."""
    svd = np.linalg.svd
    monkeypatch.setattr(np.linalg, 'svd', lambda x, full_matrices=False: svd(x, full_matrices=False))


def expected(model, layer, reshape, inputs):
    """The reference's signed maps, before its ReLU, and its finished ones: all of its methods listen to one forward."""
    layers = [model.get_submodule(layer)]
    cams = {name: kind(model=model, target_layers=layers, reshape_transform=reshape) for name, kind in CLASSES.items()}
    targets = [ClassifierOutputTarget(target) for target in TARGETS]
    output = model(inputs)
    sum(target(scores) for target, scores in zip(targets, output, strict=True)).backward()
    found = {}
    for name, cam in cams.items():
        seen = cam.activations_and_grads
        a, g = (values[0].cpu().numpy() for values in (seen.activations, seen.gradients))
        signed = cam.get_cam_image(inputs, layers[0], targets, a, g, False)
        cam.get_cam_image = lambda *args, signed=signed: signed
        found[name] = signed, cam.aggregate_multi_layers(cam.compute_cam_per_layer(inputs, targets, False))
        seen.release()
    return found


@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float64, 1e-6), (torch.float32, 1e-4)])
def test_equals_pytorch_grad_cam(case, dtype, tolerance):
    model, layer, reshape, inputs = case
    model.to(dtype)
    inputs = inputs.to(dtype)
    ours = {}
    with engine.forward(model, inputs, {layer: model.get_submodule(layer)}, gradients=True) as run:
        picked = run.scores.gather(1, torch.tensor(TARGETS)[:, None]).sum()
        gradients = run.gradients(picked, last=True)
        values = run.layers[0].map(run.layers[0].value), run.layers[0].map(gradients[0])
        for name in CLASSES:
            ours[name] = METHODS[name](values[0], values[1] if METHODS[name].gradients else None).detach()
    theirs = expected(model, layer, reshape, inputs)
    for name, signed in ours.items():
        reference_signed, reference_map = theirs[name]
        allowed = 1e-3 if name == 'kpcacam' else tolerance
        if METHODS[name].project:
            scale = np.abs(reference_signed).max((1, 2), keepdims=True)
            for a, b in zip(signed.numpy() / scale, reference_signed / scale, strict=True):
                assert min(np.abs(a - b).max(), np.abs(a + b).max()) < allowed, name
        else:
            finished = maps.finish([signed], tuple(inputs.shape[2:]))[0].numpy()
            assert np.abs(finished - reference_map).max() < allowed, name


def test_finercam_equals_pytorch_grad_cam(case):
    model, layer, reshape, inputs = case
    model.float()
    ours = np.stack([result.maps[0].values for result in CAM(['finercam'], layers=[layer])(model, inputs)])
    with reference.FinerCAM(model, [model.get_submodule(layer)], reshape) as cam:
        assert np.abs(ours - cam(inputs)).max() < 1e-4


def test_ablationcam_equals_pytorch_grad_cam_where_the_activations_reach_zero():
    torch.manual_seed(5)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 12, 3), nn.ReLU(), nn.Conv2d(12, 9, 3)
    )
    model = nn.Sequential(model, nn.AdaptiveMaxPool2d(1), nn.Flatten()).eval()
    inputs = torch.randn(1, 3, 20, 24)
    ours = CAM(['ablationcam'], targets=[4], layers=['0.4'])(model, inputs)[0].maps[0].values
    with reference.AblationCAM(model, [model[0][4]]) as cam:
        theirs = cam(inputs, [ClassifierOutputTarget(4)])[0]
    assert np.abs(ours - theirs).max() < 1e-4


class PooledLinear(nn.Module):
    """Global average pooling and a linear layer: the network for which the CAM of Zhou et al. is exact."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU())
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        return self.fc(self.features(x).mean((2, 3)))


@pytest.fixture
def pooled():
    torch.manual_seed(3)
    model = PooledLinear().double()
    inputs = torch.randn(1, 3, 8, 10, dtype=torch.float64)
    with engine.forward(model, inputs, {'features': model.features}, gradients=True) as run:
        gradient = run.gradients(run.scores[0, 2], last=True)[0]
        layer = run.layers[0]
        return model, layer.map(layer.value), layer.map(gradient), run.scores.detach()


@pytest.mark.parametrize('name', ['gradcam', 'xgradcam', 'hirescam'])
def test_gradcam_xgradcam_and_hirescam_are_cam_up_to_scale(pooled, name):
    model, a, g, _ = pooled
    cam = torch.einsum('k,bkhw->bhw', model.fc.weight[2], a)
    ours = METHODS[name](a, g)
    torch.testing.assert_close(ours / ours.abs().max(), cam / cam.abs().max(), atol=1e-6, rtol=0)


def test_hirescam_sums_to_the_score_without_its_bias(pooled):
    model, a, g, scores = pooled
    torch.testing.assert_close(METHODS['hirescam'](a, g).sum(), scores[0, 2] - model.fc.bias[2])


def test_ablation_weights_are_those_of_the_linear_layer_over_the_score(pooled):
    model, a, _, scores = pooled
    torch.manual_seed(3)
    _, inputs = PooledLinear(), torch.randn(1, 3, 8, 10, dtype=torch.float64)
    weights = model.fc.weight[2] * a[0].mean((1, 2)) / scores[0, 2]
    expected = naive_cam.finish([torch.einsum('k,khw->hw', weights, a[0]).detach().numpy()], (8, 10))
    ours = CAM(['ablationcam'], targets=[2], layers=['features'])(model, inputs)[0].maps[0].values
    np.testing.assert_allclose(ours, expected, atol=1e-6)

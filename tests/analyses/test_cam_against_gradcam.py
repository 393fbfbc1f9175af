"""The six methods against pytorch-grad-cam, and the identities that hold for a pooled linear classifier."""

import numpy as np
import pytest
import pytorch_grad_cam as reference
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from vistool.analyses.cam import engine, maps
from vistool.analyses.cam.methods import METHODS

CLASSES = {
    'gradcam': reference.GradCAM,
    'gradcam++': reference.GradCAMPlusPlus,
    'xgradcam': reference.XGradCAM,
    'eigencam': reference.EigenCAM,
    'eigengradcam': reference.EigenGradCAM,
    'layercam': reference.LayerCAM,
}


def vit_reshape(tensor):
    return tensor[:, 1:].unflatten(1, (14, 14)).permute(0, 3, 1, 2)


def resnet50():
    from torchvision.models import resnet50

    return resnet50(), 'layer4', None


def vit():
    import timm

    return timm.create_model('vit_tiny_patch16_224'), 'blocks.11.norm1', vit_reshape


def swin():
    import timm

    return timm.create_model('swin_tiny_patch4_window7_224'), 'norm', lambda tensor: tensor.permute(0, 3, 1, 2)


def efficientnet_lite0():
    from vistool import load

    model = load('configs/efficientnet_lite/efficientnet-lite0_in1k.py')
    return model.module, 'model.bn2', None


@pytest.fixture(scope='module', params=[efficientnet_lite0, resnet50, vit, swin], ids=lambda make: make.__name__)
def case(request):
    torch.manual_seed(0)
    model, layer, reshape = request.param()
    model.eval()
    return model, layer, reshape, torch.randn(2, 3, 224, 224)


def expected(model, layer, reshape, inputs, name):
    """The reference's signed map, before its ReLU, and its finished one."""
    cam = CLASSES[name](model=model, target_layers=[model.get_submodule(layer)], reshape_transform=reshape)
    signed = {}
    original = cam.get_cam_image

    def keep(*args, **kwargs):
        signed['map'] = original(*args, **kwargs)
        return signed['map']

    cam.get_cam_image = keep
    finished = cam(inputs, [ClassifierOutputTarget(281), ClassifierOutputTarget(7)])
    cam.activations_and_grads.release()
    return signed['map'], finished


@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float64, 1e-6), (torch.float32, 1e-4)])
def test_equals_pytorch_grad_cam(case, dtype, tolerance):
    model, layer, reshape, inputs = case
    model.to(dtype)
    inputs = inputs.to(dtype)
    ours = {}
    with engine.forward(model, inputs, {layer: model.get_submodule(layer)}, gradients=True) as run:
        picked = run.scores.gather(1, torch.tensor([[281], [7]])).sum()
        gradients = run.gradients(picked, last=True)
        values = run.layers[0].map(run.layers[0].value), run.layers[0].map(gradients[0])
        for name, method in METHODS.items():
            if name in CLASSES:
                ours[name] = method(values[0], values[1] if method.gradients else None).detach()
    for name, signed in ours.items():
        reference_signed, reference_map = expected(model, layer, reshape, inputs, name)
        if METHODS[name].project:
            scale = np.abs(reference_signed).max((1, 2), keepdims=True)
            for a, b in zip(signed.numpy() / scale, reference_signed / scale, strict=True):
                assert min(np.abs(a - b).max(), np.abs(a + b).max()) < tolerance, name
        else:
            finished = maps.finish([signed], (224, 224))[0].numpy()
            assert np.abs(finished - reference_map).max() < tolerance, name


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


@pytest.mark.parametrize('name', ['gradcam', 'xgradcam'])
def test_gradcam_and_xgradcam_are_cam_up_to_scale(pooled, name):
    model, a, g, _ = pooled
    cam = torch.einsum('k,bkhw->bhw', model.fc.weight[2], a)
    ours = METHODS[name](a, g)
    torch.testing.assert_close(ours / ours.abs().max(), cam / cam.abs().max(), atol=1e-6, rtol=0)


def test_gradient_times_activation_sums_to_the_score_without_its_bias(pooled):
    model, a, g, scores = pooled
    torch.testing.assert_close((g * a).sum(), scores[0, 2] - model.fc.bias[2])

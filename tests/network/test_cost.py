"""What the checks cost: known families pay nothing, unknown networks two small forwards once."""

import pytest
import timm
import torch
import torchvision
from torch import nn

import vistool as vt

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def mmpretrain(**backbone):
    from mmpretrain.registry import MODELS

    head = {'type': 'LinearClsHead', 'num_classes': 5, 'in_channels': 96}
    neck = {'type': 'GlobalAveragePooling'}
    if backbone['type'] == 'DeiT3':
        head, neck = {'type': 'VisionTransformerClsHead', 'num_classes': 5, 'in_channels': 24}, None
    return MODELS.build({'type': 'mmpretrain.ImageClassifier', 'backbone': backbone, 'neck': neck, 'head': head})


def swin():
    arch = {'embed_dims': 12, 'depths': [1, 1, 2, 1], 'num_heads': [1, 2, 2, 2]}
    return mmpretrain(type='SwinTransformer', arch=arch, img_size=64, window_size=2)


def deit3():
    arch = {'embed_dims': 24, 'num_layers': 4, 'num_heads': 2, 'feedforward_channels': 48}
    return mmpretrain(type='DeiT3', arch=arch, img_size=64, patch_size=16)


KNOWN = {
    'timm ResNet-18': lambda: timm.create_model('resnet18', num_classes=5),
    'timm ViT': lambda: timm.create_model('vit_tiny_patch16_224', img_size=64, depth=4, num_classes=5),
    'torchvision ResNet-18': lambda: torchvision.models.resnet18(num_classes=5),
    'mmpretrain Swin': swin,
    'mmpretrain DeiT3': deit3,  # its default layer runs twice
}


class Tokens(nn.Module):
    """A network that no table knows, with tokens."""

    def __init__(self):
        super().__init__()
        self.patches, self.mix = nn.Conv2d(3, 16, 8, 8), nn.Linear(16, 16)
        self.blocks = nn.ModuleList(nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 16), nn.GELU()) for _ in range(4))
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = self.mix(self.patches(x).flatten(2).transpose(1, 2))
        for block in self.blocks:
            x = x + block(x)
        return self.head(x.mean(1))


class Repeated(nn.Module):
    """One convolution three times."""

    def __init__(self):
        super().__init__()
        self.stem, self.f, self.head = nn.Conv2d(3, 8, 3, 2), nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x)
        for _ in range(3):
            x = self.f(x).tanh()
        return self.head(x.mean((2, 3)))


class Siamese(nn.Module):
    """One backbone for two photos."""

    def __init__(self):
        super().__init__()
        self.f, self.head = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 8, 3, 2)), nn.Linear(8, 5)

    def forward(self, x, y=None):
        return self.head((self.f(x) - self.f(x.flip(-1) if y is None else y)).abs().mean((2, 3)))


def forwards(network, analysis, inputs=IMAGES):
    """The batch size of each forward of one call of an analysis."""
    sizes = []
    handle = network.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    try:
        analysis(network, inputs)
    finally:
        handle.remove()
    return sizes


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ('name', 'kind'),
    [
        (name, kind)
        for name in KNOWN
        for kind in (vt.CAM, vt.FeatureMaps, vt.Attention)
        if kind is not vt.Attention or 'ResNet' not in name
    ],
)
def test_known_families_pay_nothing(name, kind):
    network = KNOWN[name]().eval()
    assert [forwards(network, kind()) for _ in range(2)] == [[2], [2]]


@pytest.mark.parametrize('analysis', [vt.CAM(layers='layer3'), vt.FeatureMaps(layers=['layer2', 'layer3.1'])])
def test_named_layers_are_counted_in_the_run_itself(analysis):
    network = timm.create_model('resnet18', num_classes=5).eval()
    assert [forwards(network, analysis) for _ in range(2)] == [[2], [2]]


@pytest.mark.parametrize('kind', [Tokens, Repeated, Siamese])
@pytest.mark.parametrize('analysis', [vt.CAM(), vt.FeatureMaps(), vt.CAM('eigencam')])
def test_an_unknown_network_pays_two_small_forwards_once(kind, analysis):
    network = kind().eval()
    first, second = forwards(network, analysis), forwards(network, analysis)
    assert len(first) <= 3 and second == [2]
    other = vt.FeatureMaps() if isinstance(analysis, vt.CAM) else vt.CAM()
    assert len(first) + len(forwards(network, other)) <= 2 + 2  # both share what was found out
    small = IMAGES[..., :48]
    forwards(network, analysis, small)
    assert forwards(network, analysis) == forwards(network, analysis, small) == [2]  # sizes in turn


@pytest.mark.parametrize('analysis', [vt.CAM(), vt.FeatureMaps()])
def test_two_photos_of_a_siamese_network(analysis):
    network = Siamese().eval()
    pair = vt.NamedInputs({'x': IMAGES[:1], 'y': IMAGES[1:]}, drawn='x', shared=())
    runs = []
    network.register_forward_pre_hook(lambda module, args: runs.append(1))
    for _ in range(2):
        analysis(network, pair)
    assert len(runs) <= 1 + 2 + 1


def test_a_large_batch_is_not_kept_whole():
    network = timm.create_model('resnet18', num_classes=5).eval()
    assert forwards(network, vt.FeatureMaps(), torch.randn(5, 3, 224, 224)) == [1, 5]

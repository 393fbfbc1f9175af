"""Networks without gradients or shapes: int8, lazy and frozen ones; and scores that a default does not suit."""

import logging
import warnings

import pytest
import torch
from torch import nn

import vistool as vt

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Quantized(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.quant, self.dequant = torch.ao.quantization.QuantStub(), torch.ao.quantization.DeQuantStub()
        self.a, self.b, self.fc = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1), nn.Linear(8, 4)
        self.relu, self.pool = nn.ReLU(), nn.AdaptiveAvgPool2d(1)

    def forward(self, x):
        x = self.b(self.relu(self.a(self.quant(x))))
        return self.dequant(self.fc(self.pool(x).flatten(1)))


@pytest.fixture(scope='module')
def int8():
    engines = torch.backends.quantized.supported_engines
    torch.backends.quantized.engine = 'x86' if 'x86' in engines else engines[-1]
    network = Quantized().eval()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        network.qconfig = torch.ao.quantization.get_default_qconfig(torch.backends.quantized.engine)
        torch.ao.quantization.prepare(network, inplace=True)
        network(IMAGES)
        return torch.ao.quantization.convert(network, inplace=True)


def test_the_last_map_of_an_int8_network_is_found(int8, caplog):
    found = vt.CAM('eigencam')(int8, IMAGES)
    assert found[0].layers == ('b',) and found[0].maps[0].values.max() > 0.5
    assert 'it has no gradient' in caplog.text


@pytest.mark.parametrize(
    ('method', 'message'), [('gradcam', 'no gradient.*EigenCAM'), ('ablationcam', 'int8 numbers.*EigenCAM')]
)
def test_an_int8_network_has_one_true_message(int8, method, message):
    with pytest.raises(vt.InputError, match=message):
        vt.CAM(method)(int8, IMAGES)


def test_stages_of_an_int8_network(int8):
    assert vt.FeatureMaps()(int8, IMAGES)[0].layers == ('relu', 'b')


@pytest.mark.parametrize('analysis', [vt.CAM(), vt.FeatureMaps(), vt.Attention()])
@pytest.mark.parametrize('last', [nn.LazyLinear(4), nn.Linear(8, 4)])
def test_lazy_modules_have_to_run_first(analysis, last):
    network = nn.Sequential(nn.LazyConv2d(8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last)
    with pytest.raises(vt.InputError, match=r'no shape yet \(0.weight.*run one batch'):
        analysis(network, IMAGES)


class Frozen(nn.Module):
    """A backbone under no_grad, as in linear probing."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.f = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        with torch.no_grad():
            x = self.f(x)
        return self.head(x.mean((2, 3)))


def test_the_default_layer_of_a_frozen_backbone():
    found = vt.CAM(targets=[1])(Frozen(), IMAGES)
    assert found[0].layers == ('f',)
    named = vt.CAM(targets=[1], layers='f')(Frozen(), IMAGES)
    assert (found[0].maps[0].values == named[0].maps[0].values).all()


def headless(kind, **options):
    import transformers

    torch.manual_seed(0)
    sizes = {'hidden_size': 32, 'num_hidden_layers': 3, 'num_attention_heads': 2, 'intermediate_size': 64}
    config = getattr(transformers, f'{kind}Config')(image_size=32, patch_size=8, **sizes, **options)
    return getattr(transformers, f'{kind}Model')(config).eval()


SCORES = {
    'pooled': {'score': lambda output, samples: output['pooler_output'].square().sum(1)},
    'token': {'score': lambda output, samples: output['last_hidden_state'][:, 0].square().sum(1)},
    'reference': {'reference': IMAGES[1]},
}


@pytest.mark.parametrize('score', SCORES)
@pytest.mark.parametrize(
    ('kind', 'layer'),
    [('CLIPVision', 'vision_model.encoder.layers.2.layer_norm1'), ('Dinov2', 'encoder.layer.2.norm1')],
)
def test_the_default_layer_suits_the_score(kind, layer, score, caplog):
    caplog.set_level(logging.INFO, 'vistool')
    network = headless(kind)
    for _ in range(2):
        found = vt.CAM(**SCORES[score])(network, IMAGES)
        assert found[0].layers == (layer,) and found[0].maps[0].values.max() > 0.5
    assert caplog.text.count('found by layer search') == 1


def test_a_layer_that_the_user_names_stays():
    with pytest.raises(vt.InputError, match='outside the grid only.*take encoder.layer.2.norm1'):
        vt.CAM(layers='layernorm', **SCORES['token'])(headless('Dinov2'), IMAGES)

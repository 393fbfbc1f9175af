"""A layer that runs several times in one forward: the call that sees the drawn image and that the score depends on."""

import logging

import numpy as np
import pytest
import torch
from torch import nn

import vistool as vt

PAIR = torch.randn(2, 2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Siamese(nn.Module):
    """Scores the difference of two photos, whose features come from one backbone."""

    def __init__(self, way='difference', first='before'):
        super().__init__()
        torch.manual_seed(0)
        self.f = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
        self.fc, self.way, self.first = nn.Linear(8, 2), way, first

    def forward(self, before, after):
        if self.first == 'before':
            one, other = self.f(before), self.f(after)
        else:
            other, one = self.f(after), self.f(before)
        if self.way == 'detached':
            other = other.detach()
        return self.fc((one - other).abs().mean((2, 3)))


class Alone(nn.Module):
    """The network with the other photo fixed: the oracle."""

    def __init__(self, network, place, other):
        super().__init__()
        self.network, self.place, self.other = network, place, other
        self.f = Passing(network.f)

    def forward(self, x):
        with torch.no_grad():
            other = self.network.f(self.other)
        pair = [self.f(x), other]
        one, other = pair if self.place == 0 else reversed(pair)
        return self.network.fc((one - other).abs().mean((2, 3)))


class Passing(nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, x):
        return self.f(x)


def drawn_on(place, form=vt.NamedInputs):
    if form is vt.PositionalInputs:
        return vt.PositionalInputs([PAIR[0], PAIR[1]], drawn=place, shared=())
    return vt.NamedInputs({'before': PAIR[0], 'after': PAIR[1]}, drawn=('before', 'after')[place], shared=())


@pytest.mark.parametrize('place', [0, 1])
@pytest.mark.parametrize('first', ['before', 'after'])
@pytest.mark.parametrize('methods', [['gradcam', 'eigencam', 'ablationcam'], ['eigencam']])
def test_the_map_is_of_the_photo_that_it_is_drawn_on(place, first, methods):
    network = Siamese(first=first)
    found = vt.CAM(methods, layers='f', targets=[1])(network, drawn_on(place))
    cam = vt.CAM(methods, layers='f', targets=[1])
    expected = [cam(Alone(network, place, PAIR[1 - place][i : i + 1]), PAIR[place][i]) for i in range(2)]
    call = 1 + (place if first == 'before' else 1 - place)
    assert found[0].layers == (f'f#{call}',)
    for a, b in zip(found, expected, strict=True):
        for one, other in zip(a.maps, b.maps, strict=True):
            assert one.coordinates['layer'] == f'f#{call}'
            np.testing.assert_allclose(one.values, other.values, atol=1e-5)


@pytest.mark.parametrize('form', [vt.NamedInputs, vt.PositionalInputs])
@pytest.mark.parametrize('place', [0, 1])
def test_cam_and_feature_maps_take_the_same_call(place, form):
    network = Siamese()
    with torch.no_grad():
        expected = network.f(PAIR[place])
    found = vt.FeatureMaps(layers='f', channels=[0])(network, drawn_on(place, form))
    assert found[0].maps[0].coordinates['layer'] == f'f#{place + 1}'
    np.testing.assert_allclose(found[0].maps[0].values, expected[0, 0], atol=1e-6)
    assert vt.CAM(layers='f')(network, drawn_on(place, form))[0].layers == (f'f#{place + 1}',)


@pytest.mark.parametrize('place', [0, 1])
def test_the_default_layer_of_a_siamese_network_is_found_for_the_drawn_photo(place):
    found = vt.CAM()(Siamese(), drawn_on(place))
    assert found[0].layers == (f'f#{place + 1}',)
    stages = vt.FeatureMaps()(Siamese(), drawn_on(place))
    assert all(entry.coordinates['layer'].endswith(f'#{place + 1}') for entry in stages[0].maps)


@pytest.mark.parametrize('sign', ['#', '@'])
@pytest.mark.parametrize('call', [1, 2])
def test_the_user_chooses_the_call(sign, call):
    network = Siamese()
    with torch.no_grad():
        expected = network.f(PAIR[call - 1])
    found = vt.FeatureMaps(layers=f'f{sign}{call}', channels=[0])(network, drawn_on(0))
    np.testing.assert_allclose(found[0].maps[0].values, expected[0, 0], atol=1e-6)
    cam = vt.CAM(layers=f'f{sign}{call}', targets=[1])(network, drawn_on(0))
    assert cam[0].layers == found[0].layers == (f'f#{call}',)
    same = vt.CAM(layers='f', targets=[1])(network, drawn_on(call - 1))
    np.testing.assert_array_equal(cam[0].maps[0].values, same[0].maps[0].values)


def test_two_calls_of_one_layer_side_by_side():
    found = vt.CAM(layers=['f#1', 'f#2'], layer_fusion='none', targets=[1])(Siamese(), drawn_on(0))
    assert [entry.coordinates['layer'] for entry in found[0].maps] == ['f#1', 'f#2']
    every = vt.FeatureMaps(layers='f#all', channels=[0])(Siamese(), drawn_on(0))
    assert [entry.coordinates['layer'] for entry in every[0].maps] == ['f#1', 'f#2']


@pytest.mark.parametrize(
    ('layer', 'message'),
    [('f#3', 'runs 2 times'), ('f#0', "no call '0'.*#1, #2"), ('f@x', "no call 'x'"), ('f#all', 'of one call')],
)
def test_calls_that_there_are_not(layer, message):
    with pytest.raises(vt.InputError, match=message):
        vt.CAM(layers=layer)(Siamese(), drawn_on(0))


def test_the_choice_is_logged_once(caplog):
    caplog.set_level(logging.INFO, 'vistool')
    network = Siamese()
    for analysis in (vt.CAM(layers='f'), vt.FeatureMaps(layers='f'), vt.CAM('layercam', layers='f')):
        analysis(network, drawn_on(1))
    said = [text for record in caplog.records if 'runs' in (text := record.getMessage())]
    assert len(said) == 1 and "f runs 2 times: call #2 is drawn on input 'after'" in said[0]


class Prototypes(nn.Module):
    """Compares the photo with prototypes that run through the same backbone, after the photo."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.f = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.register_buffer('prototypes', torch.randn(1, 3, 16, 16))

    def forward(self, x):
        one, other = self.f(x).mean((2, 3)), self.f(self.prototypes).mean((2, 3))
        return torch.cat([one * other, one + other], 1)


class Recurrent(nn.Module):
    """Runs one block three times."""

    def __init__(self, heard):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.f, self.fc = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 3)
        self.heard = heard

    def forward(self, x):
        outputs = [self.stem(x)]
        for _ in range(3):
            outputs.append(self.f(outputs[-1]).tanh())
        return self.fc(outputs[self.heard].mean((2, 3)))


@pytest.mark.parametrize(
    ('network', 'call'), [(Prototypes(), 1), (Recurrent(3), 3), (Recurrent(2), 2), (Recurrent(1), 1)]
)
def test_one_rule_for_networks_with_one_input(network, call):
    for analysis in (vt.CAM(layers='f'), vt.CAM('eigencam', layers='f'), vt.FeatureMaps(layers='f')):
        assert analysis(network, PAIR[0][:1])[0].layers == (f'f#{call}',)


class Branches(nn.Module):
    """A backbone for each of two inputs."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, before, after):
        return self.fc((self.a(before) * self.b(after)).mean((2, 3)))


def test_a_layer_of_another_input_than_the_drawn_one_is_said(caplog):
    caplog.set_level(logging.WARNING, 'vistool')
    network = Branches()
    vt.CAM(layers='a')(network, drawn_on(0))
    assert not caplog.records
    vt.CAM(layers='b')(network, drawn_on(0))
    vt.CAM(layers='b')(network, drawn_on(0))
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["layer b does not depend on input 'before', on which maps are drawn"]

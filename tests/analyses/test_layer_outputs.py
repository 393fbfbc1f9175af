"""Layers that return several tensors, and functions that a network applies to what a layer returns."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vistool import CAM, FeatureMaps
from vistool.errors import InputError
from vistool.visualization.facets import facets

METHODS = ['gradcam', 'layercam', 'eigencam', 'ablationcam']


class Pyramid(nn.Module):
    """Returns ``{'out': coarse, 'aux': [fine, (coarse, pooled)]}``."""

    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(8, 8, 3, 2, 1)
        self.side = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        coarse = self.down(x)
        return {'out': coarse, 'aux': [self.side(x), (coarse.neg(), coarse.mean((2, 3)))]}


class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1)), nn.ReLU())
        self.body = nn.Sequential(nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1)), nn.ReLU())
        self.neck = Pyramid()
        self.fc = nn.Linear(20, 3)

    def forward(self, x):
        return self.tail(self.neck(self.body(self.stem(x))))

    def tail(self, found):
        fine, (other, _) = found['aux']
        parts = (found['out'].square(), fine.relu(), other.relu())
        return self.fc(torch.cat([part.mean((2, 3)) for part in parts], 1))


@pytest.fixture
def several():
    torch.manual_seed(0)
    return Several().eval(), torch.randn(2, 3, 32, 48)


def by_hand(network, inputs, choose):
    """Grad-CAM before ReLU at a tensor of the neck, with everything else that the neck returns held fixed."""
    with torch.no_grad():
        kept = network.neck(network.body(network.stem(inputs)))
    tensor = choose(kept).requires_grad_()
    scores = network.tail(kept)
    (gradient,) = torch.autograd.grad(scores.amax(1).sum(), tensor)
    return (gradient.mean((2, 3), keepdim=True) * tensor).sum(1).detach()


@pytest.mark.parametrize(
    ('layer', 'choose'),
    [
        ('neck[out]', lambda found: found['out']),
        ("neck['aux'][0]", lambda found: found['aux'][0]),
        ('neck["aux"][-1][0]', lambda found: found['aux'][1][0]),
    ],
)
def test_a_tensor_of_several_is_explained_by_name(several, layer, choose):
    network, inputs = several
    expected = by_hand(network, inputs, choose)
    for index, result in enumerate(CAM(METHODS, layers=[layer])(network, inputs)):
        alone = result['gradcam'].signed
        assert np.allclose(alone, expected[index].numpy(), atol=1e-6)


def test_an_ablated_tensor_of_several_is_that_tensor(several):
    network, inputs = several
    (result,) = CAM(['ablationcam'], layers=['neck[aux][0]'])(network, inputs[:1])
    with torch.no_grad():
        found = network.neck(network.body(network.stem(inputs[:1])))
        whole = network(inputs[:1])
        best = int(whole.argmax())
        maps = torch.zeros(found['aux'][0].shape[2:])
        for channel, values in enumerate(found['aux'][0][0]):
            part = network.fc.weight[best, 8 + channel] * values.relu().mean()
            maps += (part / whole[0, best]) * values
    assert np.allclose(result['ablationcam'].signed, maps.numpy(), atol=1e-5)


def test_several_maps_without_a_choice_are_listed_with_their_shapes(several):
    network, inputs = several
    with pytest.raises(InputError) as error:
        CAM(layers=['neck'])(network, inputs)
    assert str(error.value).startswith("layers: layer 'neck' returns 3 maps")
    assert 'neck[out] 8×4×6, neck[aux][0] 4×8×12, neck[aux][1][0] 8×4×6' in str(error.value)
    with pytest.raises(InputError, match=r"'neck' returns nothing at \[auxx\].*neck\[aux\]\[1\]\[1\] 8"):
        CAM(layers=['neck[auxx]'])(network, inputs)
    with pytest.raises(InputError, match=r"layer 'neck\[aux\]' returns 2 maps"):
        CAM(layers=['neck[aux]'])(network, inputs)
    with pytest.raises(InputError, match='no layer'):
        CAM(layers=['body[7]'])(network, inputs)  # a Sequential holds layers, whatever it returns


def test_one_map_among_several_tensors_is_taken(several):
    class WithSize(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            y = self.inner(x)
            return {'pooled': y.mean((2, 3)), 'map': y, 'size': (4, 6)}

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = WithSize(nn.Conv2d(3, 8, 8, 8))
            self.fc = nn.Linear(8, 3)

        def forward(self, x):
            found = self.body(x)
            return self.fc(found['map'].relu().mean((2, 3)) + 0 * found['pooled'])

    torch.manual_seed(0)
    network, (_, inputs) = Net().eval(), several
    one, same = (CAM(METHODS, layers=[layer])(network, inputs)[0] for layer in ('body', 'body.inner'))
    assert all(np.allclose(one[method].values, same[method].values, atol=1e-6) for method in METHODS)


def test_feature_maps_of_each_tensor_or_of_the_one_that_is_named(several):
    network, inputs = several
    with torch.no_grad():
        found = network.neck(network.body(network.stem(inputs)))
    result = FeatureMaps(layers=['neck'], reduction='mean')(network, inputs)[0]
    assert [item.coordinates['layer'] for item in result.maps] == ['neck[out]', 'neck[aux][0]', 'neck[aux][1][0]']
    for layer, tensor in (('neck[out]', found['out']), ("neck['aux'][1][0]", found['aux'][1][0])):
        (item,) = FeatureMaps(layers=[layer], reduction='mean')(network, inputs)[0].maps
        assert np.allclose(item.values, tensor[0].mean(0).numpy(), atol=1e-6)


def test_stage_titles_follow_the_stage_that_a_map_came_from(several):
    network, inputs = several
    result = FeatureMaps()(network, inputs)[0]
    assert [tile.column for tile in facets(result).tiles if tile.column != 'input'] == [
        'stage 1 · 16×24×8',
        'stage 2 · 8×12×8',
        'stage 3 [out] · 4×6×8',
        'stage 3 [aux][0] · 8×12×4',
        'stage 3 [aux][1][0] · 4×6×8',
    ]


class Functional(nn.Module):
    """Ends, as DenseNet does, with a ReLU that no module applies."""

    def __init__(self, inplace):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6))
        self.fc = nn.Linear(6, 3)
        self.inplace = inplace

    def forward(self, x):
        return self.fc(F.relu(self.features(x), inplace=self.inplace).mean((2, 3)))


class Modular(Functional):
    def __init__(self):
        super().__init__(False)
        self.act = nn.ReLU()

    def forward(self, x):
        return self.fc(self.act(self.features(x)).mean((2, 3)))


@pytest.mark.parametrize('inplace', [False, True])
def test_what_a_function_makes_of_a_layer_is_explained_as_a_modules_output(inplace):
    torch.manual_seed(0)
    network, same = Functional(inplace).eval(), Modular().eval()
    same.load_state_dict(network.state_dict())
    inputs = torch.randn(2, 3, 32, 32)
    methods = [*METHODS, 'hirescam', 'shapleycam']
    results = zip(
        CAM(methods, layers=['features+relu'])(network, inputs), CAM(methods, layers=['act'])(same, inputs), strict=True
    )
    for result, expected in results:
        for method in methods:
            assert np.allclose(result[method].values, expected[method].values, atol=1e-5), method
    (drawn,) = FeatureMaps(layers=['features+relu'], reduction='mean')(network, inputs[:1])[0].maps
    with torch.no_grad():
        assert np.array_equal(drawn.values, network.features(inputs[:1]).relu().mean(1)[0].numpy())


def test_a_function_that_the_network_does_not_apply_is_an_error():
    network = Functional(False).eval()
    for analysis in (CAM, FeatureMaps):
        with pytest.raises(InputError, match=r"applies no relu to what 'features\.0' returns"):
            analysis(layers=['features.0+relu'])(network, torch.randn(1, 3, 32, 32))
    with pytest.raises(InputError, match=r"no function 'gelu' is watched.*relu"):
        CAM(layers=['features+gelu'])(network, torch.randn(1, 3, 32, 32))

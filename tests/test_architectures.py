"""Default layers and layouts on many families, without a flag: the layer, its grid, gradient and place."""

import pytest
import torch
from architectures import CASES
from torch import nn

from vistool.capture import activations, frozen
from vistool.layers import default_layers, find_layer
from vistool.measuring import measure_default_layer
from vistool.models import class_scores
from vistool.tokens import find_layout

CORNERS = {'top left': (0, 0), 'top right': (0, 1), 'bottom left': (1, 0), 'bottom right': (1, 1)}


@pytest.fixture(scope='module', params=CASES, ids=lambda case: case.name)
def network(request):
    case = request.param
    torch.manual_seed(0)
    module = case.make()
    wake(module, case.size)
    return case, module, photo(case.size)[:1]


def wake(module, size):
    """Makes random weights behave as trained ones: nothing starts at zero, and BatchNorm knows its inputs."""
    for name, parameter in module.named_parameters():
        if parameter.detach().abs().max() < 0.01 and not name.endswith('bias'):
            torch.nn.init.normal_(parameter, 1 if parameter.ndim == 1 else 0, 0.05)
    norms = [child for child in module.modules() if isinstance(child, nn.modules.batchnorm._BatchNorm)]
    module.eval()
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    with torch.no_grad():
        module(photo(size))
    for norm in norms:
        norm.eval()


def photo(size):
    """Two images of smooth noise, in which no patch equals the next or its mirror image."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(2, 3, size[0] // 8, size[1] // 8, generator=generator)
    return nn.functional.interpolate(coarse, size=size, mode='bilinear')


def look(module, name, inputs):
    """The layer's map ``(B, C, h, w)``, its layout, and the gradient of the best score, laid out likewise."""
    name, layer = find_layer(module, name)
    with frozen(module), activations(module, {name: layer}) as found:
        scores = class_scores(module(inputs))
        call = found[name][-1]
        layout = find_layout(call.value, inputs.shape[2:], call.grids, batch=len(inputs), layer=layer)
        gradient = torch.autograd.grad(scores.amax(1).sum(), call.value)[0]
    return layout.to_map(call.value.detach()), layout, layout.to_map(gradient)


def test_the_default_layer_is_the_named_one(network):
    case, module, _ = network
    assert default_layers(module) == [case.layer]


def test_its_map_has_the_inputs_grid_and_the_score_depends_on_it(network):
    case, module, image = network
    maps, layout, gradient = look(module, case.layer, image)
    assert layout.grid == case.grid and maps.shape[2:] == case.grid
    assert gradient.shape == maps.shape and gradient.abs().sum() > 0


def test_a_change_in_a_corner_of_the_image_shows_in_that_corner_of_the_map(network):
    case, module, image = network
    height, width = case.size
    tall, wide = height // 4, width // 4
    batch = image.repeat(1 + len(CORNERS), 1, 1, 1)
    for index, (down, across) in enumerate(CORNERS.values(), start=1):
        top, left = down * (height - tall), across * (width - wide)
        noise = torch.randn(3, tall, wide, generator=torch.Generator().manual_seed(0))
        batch[index, :, top : top + tall, left : left + wide] += 2 * noise
    maps, layout, _ = look(module, case.layer, batch)
    change = (maps[1:] - maps[:1]).pow(2).sum(1)
    share = change / change.sum((1, 2), keepdim=True)
    excess = share - share.mean(0)  # attention and wide receptive fields let every change show a little everywhere
    for found, (name, corner) in zip(excess, CORNERS.items(), strict=True):
        quarters = {place: float(quarter(found, *at).sum()) for place, at in CORNERS.items()}
        assert max(quarters, key=lambda place: quarters[place]) == name, f'{corner}: {quarters}\n{found}'


def quarter(found, down, across):
    """A corner of a map; an odd map's middle row and column belong to none."""
    rows, columns = found.shape[0] // 2, found.shape[1] // 2
    return (found[-rows:] if down else found[:rows])[:, -columns if across else 0 : None if across else columns]


def test_measuring_finds_a_layer_where_the_table_knows_none(network):
    case, module, image = network
    name = measure_default_layer(module, image)
    assert name is not None
    _, layout, gradient = look(module, name, image)
    assert gradient.abs().sum() > 0
    if layout.grid != case.grid:
        print('DIFF', case.name, case.layer, case.grid, name, layout.grid)
    print('MEAS', case.name, case.layer, name)

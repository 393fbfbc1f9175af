"""Film strips: which moments, one scale, what stands under a tile, any analysis, files that were damaged."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import vistool as vt
from vistool.errors import InputError
from vistool.results import Heatmap, Heatmaps, Target, over_training
from vistool.training.probes import Probes, build_analysis, find_probes, undisturbed
from vistool.training.strips import MOST_COLUMNS, Strips, shown
from vistool.visualization.facets import facets
from vistool.visualization.style import Style
from vistool.visualization.views import map_colors

PHOTO = np.zeros((8, 8, 3), np.uint8)


def moment(name, score, high, **more):
    target = Target(name, len(name), score)
    place = {'method': 'gradcam', 'layer': 'conv', 'target': name}
    values = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    item = Heatmap(values, place, range=(0.0, high), score=score)
    given = {'model': 'net', 'targets': (target,), 'prediction': target, 'titles': {'gradcam': 'GradCAM'}, **more}
    return Heatmaps('cam', PHOTO, (item,), layers=('conv',), **given)


def test_every_second_moment_then_every_fourth_and_always_the_latest():
    assert shown([]) == [] and shown([0]) == [0] and shown(list(range(11))) == list(range(11))
    assert shown(list(range(12))) == [0, 2, 4, 6, 8, 10, 11]
    before = set()
    for count in range(1, 400):
        now = shown(list(range(count)))
        assert now[0] == 0 and now[-1] == count - 1 and len(now) <= MOST_COLUMNS
        assert set(now) <= before | {count - 1}  # what was dropped is never needed again
        before = set(now)


def test_a_strip_is_one_row_on_one_scale_with_the_score_of_each_epoch():
    results = {0: moment('cat', 0.4, 0.5), 1: moment('dog', 0.6, 2.0), 2: moment('dog', 0.9, 4.0)}
    strip = over_training(results, 'epoch', [(0.0, 4.0)])
    found = facets(strip)
    assert found.columns == ('epoch 0', 'epoch 1', 'epoch 2') and found.rows == ('predicted class · GradCAM',)
    assert [tile.footer for tile in found.tiles] == ['cat 0.40', 'dog 0.60', 'dog 0.90']
    assert len({tile.name for tile in found.tiles}) == 3
    colors = map_colors(strip, Style())
    assert [round(float(each.values.max()), 3) for each in colors] == [0.125, 0.5, 1.0]
    assert {(each.bar.low, each.bar.high) for each in colors} == {(0.0, 4.0)}
    alone = map_colors(strip, Style(scale='each'))
    assert [float(each.values.max()) for each in alone] == [1.0, 1.0, 1.0] and alone[0].bar is None
    same = over_training({1: results[1], 2: results[2]}, 'iteration', [None])
    assert facets(same).rows == ('dog · GradCAM',) and facets(same).columns == ('iteration 1', 'iteration 2')
    assert [float(each.values.max()) for each in map_colors(same, Style())] == [1.0, 1.0]


def test_a_map_of_no_class_has_the_prediction_under_it():
    results = {}
    for when, high in ((0, 1.0), (3, 5.0)):
        values = np.full((4, 4), high, np.float32)
        values[0] = 0
        item = Heatmap(values, {'layer': 'conv', 'reduction': 'mean'})
        results[when] = Heatmaps('feature', PHOTO, (item,), prediction=Target('cat', 0, 0.1 * when))
    strip = over_training(results, 'epoch', [(0.0, 5.0)])
    assert [tile.footer for tile in facets(strip).tiles] == ['cat 0.00', 'cat 0.30']
    assert [float(each.values.max()) for each in map_colors(strip, Style())] == [pytest.approx(0.2), 1.0]


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm, self.fc = nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(self.norm(self.stem(x)).relu().mean((2, 3)))


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch, self.attn, self.fc = (
            nn.Conv2d(3, 8, 8, 8),
            nn.MultiheadAttention(8, 2, batch_first=True),
            nn.Linear(8, 3),
        )

    def forward(self, x):
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        return self.fc(self.attn(tokens, tokens, tokens, need_weights=False)[0].mean(1))


def transform(image):
    return torch.tensor(np.array(image.resize((32, 32)))).permute(2, 0, 1) / 255


@pytest.fixture
def photos(tmp_path):
    generator = np.random.default_rng(0)
    for number in range(5):
        path = tmp_path / 'photos' / f'{number}.png'
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (40, 40, 3), np.uint8)).save(path)
    return path.parent


def probes(network, photos, kind, **settings):
    torch.manual_seed(0)
    model = vt.load(network().train(), transform=transform)
    return Probes(model, find_probes(photos, 3), build_analysis({'type': f'vistool.{kind}', **settings}))


@pytest.mark.parametrize(
    ('network', 'kind', 'settings'),
    [
        (Small, 'CAM', {'methods': ['gradcam', 'layercam']}),
        (Attending, 'Attention', {}),
        (Small, 'FeatureMaps', {'layers': ['stem', 'norm'], 'reduction': 'mean'}),
    ],
)
def test_any_analysis_gives_strips_and_leaves_the_network_alone(tmp_path, photos, network, kind, settings):
    found = probes(network, photos, kind, **settings)
    module = found.model.module
    sum(each.sum() for each in module.parameters()).backward()  # gradients in flight
    frozen = next(module.parameters()).requires_grad_(False)
    before = {name: each.clone() for name, each in module.state_dict().items()}
    gradients = [each.grad for each in module.parameters()]
    generators = torch.get_rng_state(), np.random.get_state()[1].copy()
    strips = Strips(tmp_path / 'out', 'epoch', kind, Style())
    strips.start(0, found.explain(), found.names)
    with torch.no_grad():
        module.fc.weight.mul_(3)
    strips.add(1, found.explain())
    module.fc.weight.data = before['fc.weight']
    assert module.training and all(each.training for each in module.modules()) and not frozen.requires_grad
    assert all(torch.equal(each, before[name]) for name, each in module.state_dict().items())
    assert all(one is each.grad for one, each in zip(gradients, module.parameters(), strict=True))
    assert torch.equal(generators[0], torch.get_rng_state()) and (generators[1] == np.random.get_state()[1]).all()
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in module.modules())
    assert found.names == ['0', '1', '3'] and sorted(path.name for path in (tmp_path / 'out').iterdir()) == [
        '0.png', '1.png', '3.png', 'epoch_0.npz', 'epoch_1.npz',
    ]  # fmt: skip
    strip = strips.strip(0)
    rows = len(strip.maps) // 2
    assert facets(strip).columns == ('epoch 0', 'epoch 1') and len(facets(strip).rows) == rows
    assert all(tile.footer for tile in facets(strip).tiles)
    assert set(strips.latest()) == {'explain_0', 'explain_1', 'explain_3'}


def test_random_generators_come_back_after_an_error():
    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), undisturbed():
        torch.rand(3), np.random.rand(3)
        raise ZeroDivisionError
    assert torch.equal(before, torch.get_rng_state())


def test_a_resumed_run_reads_what_was_recorded(tmp_path, photos):
    found = probes(Small, photos, 'CAM')
    first = Strips(tmp_path, 'epoch', 'cam', Style())
    first.start(0, found.explain(), found.names)
    first.add(1, found.explain())
    again = Strips(tmp_path, 'epoch', 'cam', Style())
    again.start(1, found.explain(), found.names)
    one, other = first.strip(2), again.strip(2)
    assert facets(one) == facets(other) and [item.limits for item in one] == [item.limits for item in other]
    assert all((a.values == b.values).all() and a.range == b.range for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize('fault', ['cut', 'json', 'other', 'maps'])
def test_strips_that_cannot_be_read_begin_anew(tmp_path, photos, caplog, fault):
    found = probes(Small, photos, 'CAM')
    results = found.explain()
    first = Strips(tmp_path, 'epoch', 'another' if fault == 'other' else 'cam', Style())
    first.start(0, results, found.names)
    path = tmp_path / 'epoch_0.npz'
    arrays = dict(np.load(path))
    if fault == 'cut':
        path.write_bytes(path.read_bytes()[:200])
    elif fault == 'json':
        np.savez(path, **{**arrays, 'moment': np.array(json.dumps({'analysis': 'cam'}))})
    elif fault == 'maps':
        np.savez(path, **{name: each for name, each in arrays.items() if name != 'maps_0_0'})
    again = Strips(tmp_path, 'epoch', 'cam', Style())
    again.start(4, results, found.names)
    assert list(again.moments) == [4] and caplog.text.count('the film strips begin anew: ') == 1


def test_maps_of_another_number_are_refused(tmp_path):
    strips = Strips(tmp_path, 'epoch', 'cam', Style())
    strips.start(0, [moment('cat', 0.5, 1.0)], ['photo'])
    result = moment('cat', 0.5, 1.0)
    with pytest.raises(InputError, match='2'):
        strips.add(1, [replace(result, maps=result.maps * 2)])
    assert list(strips.moments) == [0]

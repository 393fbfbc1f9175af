import copy
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import vistool as vt
from vistool.commands.vis_cam import main
from vistool.errors import InputError
from vistool.models.model import Model, as_samples
from vistool.results import Heatmap, Heatmaps, Layer, Target, side_by_side
from vistool.runs.spec import Models, ModelSpec, labels, told_apart
from vistool.visualization.facets import facets
from vistool.visualization.style import Style
from vistool.visualization.views import map_colors

CONFIG = 'configs/efficientnet_lite/efficientnet-lite0_in1k.py'


def result(score, size=8, columns=('GradCAM',)):
    maps = tuple(
        Heatmap(np.full((size, size), score, np.float32), {'method': column, 'layer': 'l', 'target': row}, score=score)
        for row in ('cat', 'cup')
        for column in columns
    )
    targets = tuple(Target(name, number, score) for number, name in enumerate(('cat', 'cup')))
    return Heatmaps('cam', np.zeros((size, size, 3), np.uint8), maps, targets=targets, provenance={'model': score})


def test_models_stand_beside_each_other_with_their_own_scores():
    both = side_by_side([result(0.9), result(0.2)], ['base', 'ours'])
    shown = facets(both)
    assert shown.rows == ('cat', 'cup') and shown.columns == ('base', 'ours')
    assert [tile.footer for tile in shown.tiles] == ['0.90', '0.20', '0.90', '0.20']  # the rows say the class
    assert both['ours', 'cup'].score == 0.2 and both.coordinates['model'] == ('base', 'ours')
    assert both.maps[0].view is None and both.maps[1].view is not None
    assert both.provenance['compare'] == [{'model': 0.2}]


def test_several_methods_keep_their_models_together():
    both = side_by_side([result(0.9, columns=('A', 'B')), result(0.2, columns=('A', 'B'))], ['base', 'ours'])
    assert facets(both).columns == ('A · base', 'A · ours', 'B · base', 'B · ours')


def test_what_each_model_predicts_itself_stands_beside_what_the_others_do():
    def predicted(name, number, score):
        heat = Heatmap(np.ones((8, 8), np.float32), {'method': 'A', 'layer': 'l', 'target': name}, score=score)
        image = np.zeros((8, 8, 3), np.uint8)
        return Heatmaps('cam', image, (heat,), targets=(Target(name, number, score),), provenance={})

    both = side_by_side([predicted('cat', 0, 0.9), predicted('cup', 1, 0.6)], ['base', 'ours'])
    assert [tile.footer for tile in facets(both).tiles] == ['cat 0.90', 'cup 0.60']
    assert both.coordinates['target'] == ('own prediction',) and [item.target.id for item in both.maps] == [0, 1]
    same = side_by_side([predicted('cat', 0, 0.9), predicted('cat', 0, 0.6)], ['base', 'ours'])
    assert same.coordinates['target'] == ('cat',) and same.maps[1].target is None


def test_maps_of_another_size_have_a_group_of_their_own():
    both = side_by_side([result(0.9, 8), result(0.2, 4)], ['base', 'ours'])
    groups = {tile.group for tile in facets(both).tiles}
    assert len(groups) == 2


def heads(size, level, count=2, queries=None):
    maps = tuple(
        Heatmap(
            np.full((size, size), level, np.float32),
            {'layer': f'blocks.{number}', 'query': '(1, 2)', 'head': head},
            Layer(f'blocks.{number}', number),
        )
        for number in (3, 9)
        for head in ('mean', *range(count))
    )
    return Heatmaps('attention', np.zeros((8, 8, 3), np.uint8), maps, queries=queries or {})


def test_heads_stay_in_columns_and_models_stand_below_each_other():
    both = side_by_side([heads(4, 0.1, 2, {'(1, 2)': (1, 2)}), heads(4, 0.2, 3)], ['base', 'ours'])
    shown = facets(both)
    assert shown.rows == ('layer 3 · base', 'layer 3 · ours', 'layer 9 · base', 'layer 9 · ours')
    assert shown.columns == ('mean', 'head 0', 'head 1', 'head 2')  # of which base has none
    assert shown.points == dict.fromkeys(shown.rows, (1, 2))
    assert all(tile.footer == '' for tile in shown.tiles)
    names = [(tile.group, tile.name) for tile in shown.tiles]
    assert len(set(names)) == len(names) == 14


@pytest.mark.parametrize(('size', 'brightest'), [(4, [0.5, 1]), (2, [1, 1])])
def test_attention_of_two_models_shares_a_scale_where_the_grids_are_equal(size, brightest):
    both = side_by_side([heads(4, 0.1), heads(size, 0.2)], ['base', 'ours'])
    mappings = map_colors(both, Style())
    rows = [tile.row for tile in facets(both).tiles]
    shown = {row: mapping.values.max() for row, mapping in zip(rows, mappings, strict=True)}
    assert [shown['layer 9 · base'], shown['layer 9 · ours']] == pytest.approx(brightest)
    each = map_colors(both, Style(scale='each'))
    assert all(mapping.values.max() == 1 for mapping in each)


def test_layers_of_different_names_are_compared_by_position():
    other = heads(4, 0.2)
    moved = [replace(item.at(layer=f'layers.{item.layer.number}'), layer=Layer('layers.0', 0)) for item in other]
    both = side_by_side([heads(4, 0.1), replace(other, maps=tuple(moved))], ['base', 'ours'])
    assert both.coordinates['layer'] == ('blocks.3', 'blocks.9')
    assert both['ours', 'blocks.3', 'mean'].layer.name == 'layers.0'
    assert facets(both).rows[1] == 'layer 3 · ours'  # as the first model counts


def test_models_of_one_name_stay_apart():
    both = side_by_side([result(0.9), result(0.2)], ['none', 'none'])
    assert both.coordinates['model'] == ('none', 'none (2)')


def test_labels_tell_checkpoints_apart_where_names_do_not():
    first, second = Model(None, 'swin'), Model(None, 'vit')
    assert labels([first, second]) == ['swin', 'vit']
    assert labels([first, first]) == ['random', 'random']
    assert labels([first, second], ['theirs', 'ours']) == ['theirs', 'ours']


@pytest.mark.parametrize(
    ('paths', 'told'),
    [
        (['runs/a/best.pth', 'runs/b/best.pth'], ['a', 'b']),
        (['runs/a/epoch_1.pth', 'runs/a/epoch_2.pth'], ['epoch_1', 'epoch_2']),
        (['a/x/best.pth', 'b/x/best.pth'], ['a', 'b']),
        (['a/x.pth', 'a/y.pth', 'b/x.pth'], ['a/x', 'a/y', 'b/x']),
        (['best.pth', 'b/best.pth'], ['best', 'b/best']),
        (['none', 'demo://dinov2'], ['none', 'dinov2']),
        (['a/best.pth', 'a/best.pth'], ['best', 'best']),
    ],
)
def test_checkpoints_are_told_apart_by_what_differs_in_their_paths(paths, told):
    assert told_apart(paths) == told


@pytest.mark.parametrize(('others', 'names'), [(0, ['a']), (1, ['a']), (1, ['a', 'b', 'c']), (1, ['a', 'a'])])
def test_names_are_given_to_every_compared_model_or_to_none(others, names):
    with pytest.raises(vt.InputError) as raised:
        Models(ModelSpec('x'), (ModelSpec('y'),) * others, names=tuple(names))
    assert raised.value.parameter == 'names'


class Counted(nn.Module):
    """A small network that counts its forward passes."""

    def __init__(self, seed, width=8):
        super().__init__()
        torch.manual_seed(seed)
        self.features = nn.Sequential(
            nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 2 * width, 3, 2, 1)
        )
        self.head = nn.Linear(2 * width, 6)
        self.sizes = []

    def forward(self, x):
        self.sizes.append(len(x))
        return self.head(self.features(x).mean((2, 3)))


def loaded(seed, name, size=32):
    def transform(image):
        assert threading.current_thread() is not threading.main_thread()
        return torch.from_numpy(np.asarray(image.convert('RGB').resize((size, size)), np.float32) / 255).permute(
            2, 0, 1
        )

    model = vt.load(Counted(seed), transform=transform)
    model.name = name
    return model


@pytest.fixture(scope='module')
def forty(tmp_path_factory):
    folder = tmp_path_factory.mktemp('forty')
    rng = np.random.default_rng(0)
    for number in range(40):
        Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8)).save(folder / f'{number:02d}.png')
    return folder


def maps_of(path):
    with np.load(path) as raw:
        return [each for group in range(len(raw['groups'])) for each in raw[f'maps_{group}']]


def read(model, photo):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(model.read, photo).result()


def test_three_models_are_batched_and_give_the_maps_of_single_runs(forty, tmp_path):
    """Every image of every model is read in the reading pool; ``transform`` checks that."""
    cam = vt.CAM(['gradcam', 'layercam'], layers=['features.3'], targets=['top2'])
    models = [loaded(0, 'a'), loaded(1, 'b'), loaded(2, 'c', 48)]
    summary = vt.run(models[0], forty, cam, compare=models[1:], out=tmp_path, batch_size=8, save_raw=True)
    assert summary.done == 40 and not summary.failures
    assert [model.module.sizes for model in models] == [[8] * 5] * 3
    for name in ('07', '39'):
        found = maps_of(tmp_path / f'{name}_gradcam-layercam_top2_features.3_vs-b-c.npz')
        photo = forty / f'{name}.png'
        first = cam(models[0], read(models[0], photo))
        same = vt.CAM(cam.methods, layers=cam.layers, targets=[target.id for target in first.targets])
        expected = [*first.maps, *(each for model in models[1:] for each in same(model, read(model, photo)).maps)]
        assert len(found) == len(expected) == 3 * 2 * 2
        for each in expected:
            near = [np.abs(each.values - other).max() for other in found if other.shape == each.values.shape]
            assert min(near) < 1e-5


def test_images_of_another_size_in_the_other_model_are_batched_by_size(forty, tmp_path):
    first, other = loaded(0, 'a'), loaded(1, 'b')
    transform = other.transform

    def sized(image):
        return nn.functional.interpolate(transform(image)[None], 48 if image.getpixel((0, 0))[0] < 128 else 32)[0]

    other.transform = sized
    summary = vt.run(
        first, forty, vt.CAM(layers=['features.3']), compare=[other], out=tmp_path, batch_size=40, workers=1
    )
    assert summary.done == 40
    assert first.module.sizes == [40]
    assert len(other.module.sizes) == 2 and sum(other.module.sizes) == 40


@pytest.mark.parametrize('extra', [[], ['--method', 'gradcam', 'layercam', '--target-category', '281', 'espresso']])
def test_the_command_line(tmp_path, extra):
    argv = ['demo/coffee.png', CONFIG, '--compare', CONFIG, 'none', '--save-raw', *extra]
    assert main([*argv, '-o', str(tmp_path / 'x.png')]) == 0
    recipe = json.loads(str(np.load(tmp_path / 'x.npz')['recipe']))
    assert recipe['checkpoint'] == 'demo://efficientnet-lite0' and recipe['compare'][0]['checkpoint'] is None
    ids = [target['id'] for target in recipe['targets']]
    assert [target['id'] for target in recipe['compare'][0]['targets']] == ids  # the same classes, not the other's own


def test_three_words_after_compare_are_too_many(capsys):
    assert main(['demo/coffee.png', CONFIG, '--compare', CONFIG, 'none', 'more']) == 2
    assert '--compare' in capsys.readouterr().err


def test_a_dataset_of_the_config_tells_ground_truth(tmp_path, capsys):
    config = 'configs/efficientnet_lite/efficientnet-lite0_demo.py'
    assert main(['@val', config, '-o', str(tmp_path), '--save-raw']) == 0
    recipes = [json.loads(str(np.load(path)['recipe'])) for path in sorted(tmp_path.rglob('*.npz'))]
    assert [recipe['label'] for recipe in recipes] == [281, 281, 657, 657, 967, 967]
    assert main(['@vall', config]) == 2
    assert '@val' in capsys.readouterr().err


def test_each_image_of_a_batch_keeps_its_own_classes():
    model = vt.load(CONFIG)
    samples = [model.read(f'demo/{name}') for name in ('coffee.png', 'chelsea.png')]
    cam = vt.CAM()
    first = cam(model, samples)
    again = cam.follow(first, model)(model, samples[::-1])
    assert [result.targets[0].id for result in first] == [967, 282]
    assert [result.targets[0].id for result in again] == [967, 282]  # held to the first's, whatever is shown


@pytest.fixture
def reordered():
    """A network, and the same with its classes in another order."""
    torch.manual_seed(0)
    own = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    other, order = copy.deepcopy(own), [2, 0, 1]
    other[4].weight.data, other[4].bias.data = own[4].weight[order], own[4].bias[order]
    names = ['tabby, tabby cat', 'cup', 'missile']
    return vt.load(own, classes=names), vt.load(other, classes=[names[each] for each in order])


@pytest.mark.parametrize('targets', [['tabby', 'missile'], [1], ()])
@pytest.mark.parametrize('sign', ['+', '-'])
def test_models_that_order_their_classes_otherwise_are_compared_by_name(reordered, targets, sign):
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    cam = vt.CAM(targets=targets, layers='0', score_sign=sign)
    views = [as_samples(images)[0] for _ in reordered]
    for both in cam.compare(reordered, views, ['own', 'other']):
        own, other = (both.sel(model=name).maps for name in ('own', 'other'))
        assert len(own) == len(other) == max(1, len(targets))
        for one, another in zip(own, other, strict=True):
            assert np.allclose(one.values, another.values, atol=1e-6)
            assert one.score == pytest.approx(another.score, abs=1e-6)
            assert one.coordinates.get('target') == another.coordinates.get('target')
        shown = both.provenance['compare'][0]['targets']
        assert [each['name'] for each in shown] == [each.name for each in both.targets]


def test_a_class_that_the_other_model_does_not_have(reordered, caplog):
    model, _ = reordered
    image = torch.zeros(1, 3, 8, 8)
    first = vt.CAM(targets=['missile'], layers='0')(model, image)
    fewer = vt.load(nn.Sequential(*list(model.module)[:4], nn.Linear(4, 2)), classes=['tabby', 'cup'])
    with pytest.raises(InputError, match="no class 'missile', which the first model explains.*'own'"):
        vt.CAM().follow(first, fewer)
    assert vt.CAM(targets='own', layers='0').follow(first, fewer).targets == 'own'  # the first's class is not needed
    assert 'missile' not in caplog.text
    renamed = vt.load(model.module, classes=['tabby', 'cup', 'projectile'])
    assert vt.CAM(layers='0').follow(first, renamed).targets == [[2]]
    assert "no class 'missile'; its class 2 (projectile) is explained instead" in caplog.text
    assert vt.CAM(layers='0').follow(first, vt.load(model.module)).targets == [[2]]  # it has no names


def test_a_list_with_classes_says_which_predictions_are_wrong(tmp_path, capsys):
    names = [
        f'{Path("demo", name).absolute()}, {word}' for name, word in (('coffee.png', 'espresso'), ('rocket.jpg', 1))
    ]
    (tmp_path / 'list.txt').write_text('\n'.join(names))
    argv = [str(tmp_path / 'list.txt'), CONFIG, '--only']
    assert main([*argv, 'wrong', '-o', str(tmp_path / 'wrong')]) == 0
    assert [Path(line).stem for line in capsys.readouterr().out.splitlines()] == ['rocket_gradcam']
    (tmp_path / 'list.txt').write_text(names[0])
    assert main([*argv, 'wrong', '-o', str(tmp_path / 'none')]) == 0  # an answer, not a mistake
    assert 'no wrong image' in capsys.readouterr().err and not (tmp_path / 'none').exists()

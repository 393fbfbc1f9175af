"""Maps of a page are those of the commands that it names, and figures are their files byte for byte."""

import importlib
import io
import logging
import shlex
import zipfile

import numpy as np
import pytest
import timm
from explorer import explored, png
from PIL import Image
from torchvision.transforms.functional import to_tensor

import vistool as vt
from vistool.explore.forward import run_once

VIEWS = {
    'a head of attention': {'view': 'attention', 'x': 40, 'y': 30, 'head': 1, 'layer': 0},
    'the mean of the last layer': {'view': 'attention', 'x': 60, 'y': 50},
    'attention of the class token': {'view': 'attention', 'query': 'cls', 'head': 'max'},
    'rollout': {'view': 'attention', 'method': 'rollout', 'x': 50, 'y': 40},
    'LeGrad of a class': {'view': 'attention', 'method': 'legrad', 'target': 3},
    'gradient rollout': {'view': 'attention', 'method': 'grad-rollout', 'target': 2, 'x': 50, 'y': 40},
    'similarity': {'view': 'similarity', 'x': 40, 'y': 30, 'layer': 1},
    'PCA': {'view': 'pca', 'layer': 2},
    'CAM of the predicted class': {'view': 'cam'},
    'CAM of a class at another layer': {'view': 'cam', 'method': 'layercam', 'target': 5, 'layer': 1},
    'a CAM without gradients': {'view': 'cam', 'method': 'eigencam'},
    'a CAM that knows nothing': {'view': 'cam', 'method': 'center', 'target': 1},
    'channels at a point': {'view': 'features', 'x': 40, 'y': 30, 'count': 3},
    'channels of a layer': {'view': 'features', 'count': 2, 'layer': 0},
    'one channel': {'view': 'features', 'channel': 7},
}


def run_line(line, folder, monkeypatch):
    """Runs a shown command line where its photo lies; the files that it writes."""
    tool, *words = shlex.split(line)
    monkeypatch.chdir(folder)
    before = {path.name for path in folder.iterdir()}
    assert importlib.import_module(f'vistool.commands.{tool}').main(words) == 0
    written = {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in before}
    for name in written:
        (folder / name).unlink()
    return written


def arrays(data):
    with np.load(io.BytesIO(data), allow_pickle=False) as raw:
        return {name: raw[name] for name in raw.files}


@pytest.fixture(scope='module')
def photo(client, home):
    data = png()
    (home / 'my photo.png').write_bytes(data)
    return client.upload(data, 'my photo.png')


@pytest.mark.parametrize('asked', VIEWS.values(), ids=VIEWS)
def test_a_map_is_what_its_command_writes(asked, client, home, photo, monkeypatch):
    header, maps = client.map(photo=photo, **asked)
    written = run_line(header['command'], home, monkeypatch)
    (raw,) = (data for name, data in written.items() if name.endswith('.npz'))
    expected = arrays(raw)
    found = np.stack(maps)
    assert expected['groups'].size == 1
    np.testing.assert_allclose(found, expected['maps_0'], rtol=0, atol=1e-5 * max(1, np.abs(found).max()))
    assert client.figure(photo=photo, format='npz', **asked) == raw
    (picture,) = (data for name, data in written.items() if name.endswith('.png'))
    assert client.figure(photo=photo, format='png', **asked) == picture


def test_an_archive_holds_picture_page_and_numbers(client, home, photo, monkeypatch):
    asked = {'view': 'similarity', 'x': 40, 'y': 30}
    header, _ = client.map(photo=photo, **asked)
    monkeypatch.chdir(home)  # paths of the command line are recorded relative to the current folder
    with zipfile.ZipFile(io.BytesIO(client.figure(photo=photo, format='zip', **asked))) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    line = header['command']
    written = run_line(line.replace('featmap.png', 'featmap.pdf'), home, monkeypatch)
    written |= run_line(line, home, monkeypatch)  # whose numbers name it
    assert files == written and len(files) == 3


def test_the_python_lines_draw_the_same(client, home, photo, monkeypatch):
    header, maps = client.map(photo=photo, view='cam', method='hirescam', target=4)
    monkeypatch.chdir(home)
    exec(header['python'], {})
    (file,) = home.glob('my*.npz')
    np.testing.assert_allclose(arrays(file.read_bytes())['maps_0'], np.stack(maps), atol=1e-5)
    for each in home.glob('my photo_*'):
        each.unlink()


def test_patches_have_the_numbers_of_the_command(client, home, photo, monkeypatch):
    header, maps = client.map(photo=photo, view='patches', x=40, y=30)
    token = header['token']
    assert maps == [] and token['inside'] and header['note'].startswith('8×8 = 64 tokens of 8×8 pixels')
    told = client.describe(photo)['views']['patches']
    a, b, c, d, e, f = told['matrix']
    column, row = (40.5 - e) / a, (30.5 - f) / d
    assert (b, c) == (0, 0) and (int(row), int(column)) == (token['row'], token['column'])
    assert f'--highlight {token["number"]} ' in header['command']
    written = run_line(header['command'], home, monkeypatch)
    picture = written['my photo_patches.png']
    assert client.figure(photo=photo, format='png', view='patches', x=40, y=30) == picture
    exec(header['python'], {})
    assert (home / 'my photo_patches.png').read_bytes() == picture
    for each in home.glob('my photo_*'):
        each.unlink()


def test_positions_lie_where_the_map_says(client, photo):
    told = client.describe(photo)
    assert told['picture'] == 'original' and (told['width'], told['height']) == (100, 80)
    header, (values,) = client.map(photo=photo, view='similarity', x=40, y=30, layer=2)
    (entry,) = header['maps']
    a, _, _, d, e, f = entry['matrix']
    row, column = int((30.5 - f) / d), int((40.5 - e) / a)
    assert values[row, column] == pytest.approx(1, abs=1e-6)
    assert (header['token']['row'], header['token']['column']) == (row, column)
    assert entry['limits'] == [-1, 1] and entry['diverging']


def test_scores_are_listed_from_the_surest(client, photo):
    scores = client.describe(photo)['scores']
    assert len(scores) == 7 and sum(each['score'] for each in scores) == pytest.approx(1, abs=1e-5)
    assert [each['score'] for each in scores] == sorted((each['score'] for each in scores), reverse=True)


def test_what_is_found_out_about_a_network_is_not_a_call_of_its_layers(caplog):
    network = timm.create_model('test_efficientnet', num_classes=4).eval()
    model = vt.load(network, transform=to_tensor)
    caplog.set_level(logging.INFO, 'vistool')
    found = run_once(model, model.read(Image.open(io.BytesIO(png((64, 64))))))
    assert 'times: call' not in caplog.text
    assert found.explained is not None and len(found.features) > 1


def test_a_second_photo_takes_one_forward_and_clicks_take_none(client, photo):
    client.describe(photo)
    network = client.server.session.models[0].module
    calls = []
    handle = network.register_forward_hook(lambda *args: calls.append(1))
    try:
        other = client.upload(png(seed=1))
        client.describe(other)
        assert len(calls) == 1
        for x in (30, 40, 50):
            for view in ('attention', 'similarity', 'features', 'patches'):
                client.map(view, other, x=x, y=40)
            client.map('attention', other, x=x, y=40, layer=0, head=2)
        client.map('pca', other)
        client.map('attention', other, method='rollout', x=50, y=40)
        client.map('attention', other, method='rollout', x=50, y=40)
        for target in range(5):
            client.map('cam', other, target=target, method='gradcam')
            client.map('cam', other, target=target, method='hirescam')
        assert len(calls) == 1
        client.map('cam', other, layer=1)
        assert len(calls) == 2  # another target layer has a graph of its own
    finally:
        handle.remove()


def test_compared_models_stand_beside_each_other(home, tmp_path, monkeypatch):
    config = str(home / 'tiny.py')
    data = png(seed=3)
    (home / 'both.png').write_bytes(data)
    with explored(tmp_path, config, 'none', '--names', 'ours', 'theirs', '--compare', config, 'none') as client:
        photo = client.upload(data, 'both.png')
        assert [model['name'] for model in client.get('state').json()['models']] == ['ours', 'theirs']
        asked = {'view': 'attention', 'x': 50, 'y': 40, 'beside': 1}
        header, (first,) = client.map(photo=photo, **asked)
        _, (second,) = client.map(photo=photo, model=1, **asked)
        written = run_line(header['command'], home, monkeypatch)
        (raw,) = (value for name, value in written.items() if name.endswith('.npz'))
        expected = arrays(raw)
        maps = np.concatenate([expected[f'maps_{n}'] for n in range(expected['groups'].size)])
        np.testing.assert_allclose(maps[:2], [first, second], atol=1e-6)
        assert client.figure(photo=photo, format='npz', **asked) == raw


def test_one_config_beside_itself_is_told_apart_as_the_command_does(home, tmp_path, monkeypatch):
    config = str(home / 'tiny.py')
    (home / 'same.png').write_bytes(png(seed=4))
    monkeypatch.chdir(home)
    with explored(tmp_path, config, 'none', '--compare', config, 'none') as client:
        photo = client.upload(png(seed=4), 'same.png')
        asked = {'view': 'cam', 'beside': 1, 'target': 2}
        header, _ = client.map(photo=photo, **asked)
        written = run_line(header['command'], home, monkeypatch)
        assert client.figure(photo=photo, format='png', **asked) == written['same_cam.png']


def test_a_box_of_a_detector_has_its_own_map(tmp_path):
    with explored(tmp_path, 'configs/scenes/detector.py', '--img', 'demo/astronaut.png') as client:
        told = client.describe('p1')
        assert [one['number'] for one in told['instances']] == list(range(len(told['instances'])))
        assert all(one['score'] >= 0.3 and len(one['box']) == 4 for one in told['instances'])
        last = told['instances'][-1]['number']
        assert not told['views']['attention']['available'] and told['scores'] == []
        header, (values,) = client.map('cam', 'p1', instance=last)
        (entry,) = header['maps']
        assert entry['coordinates']['instance'] == last and f'--instances {last} ' in header['command']
        raw = client.figure('cam', 'p1', instance=last, format='npz')
        np.testing.assert_allclose(arrays(raw)['maps_0'], values[None], atol=1e-6)
        refused = client.get('map', view='cam', photo='p1', method='eigencam')
        assert refused.status_code == 400 and 'prediction' in refused.json()['error']


@pytest.mark.slow
def test_a_sample_of_a_dataset_is_named_by_its_place(tmp_path):
    config = 'configs/efficientnet_lite/efficientnet-lite0_demo.py'
    with explored(tmp_path, config, 'demo://efficientnet-lite0', '--img', '@val') as client:
        assert [each['id'] for each in client.get('state').json()['photos']] == [f'p{n}' for n in range(1, 7)]
        header, maps = client.map('cam', 'p3', target=3)
        assert ' @val ' in header['command'] and ' --indices 2 ' in header['command']
        raw = arrays(client.figure('cam', 'p3', target=3, format='npz'))
        np.testing.assert_allclose(raw['maps_0'], np.stack(maps), atol=1e-6)

"""``vt.run``: everything that the commands do, in this process and from Python."""

import inspect
import json
import threading
from dataclasses import MISSING, fields
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import vistool as vt
from vistool.errors import InputError
from vistool.runs.spec import Execution, Models, Output, Selection

CAM = vt.CAM(['gradcam', 'layercam'])
SMALL = ('mmpretrain::resnet/resnet18_8xb16_cifar10.py', 'none')


@pytest.fixture(scope='module')
def model():
    return vt.load(*SMALL)


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp('photos')
    rng = np.random.default_rng(0)
    for number in range(12):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(folder / f'{number:02d}.png')
    return folder


def entries(folder):
    return [json.loads(text) for text in (folder / 'manifest.jsonl').read_text().splitlines()]


def pixels(folder):
    return {path.name: np.asarray(Image.open(path)) for path in sorted(folder.glob('*.png'))}


@pytest.fixture
def shapes(tmp_path):
    """Photos of three shapes after a file that is not one."""
    folder = tmp_path / 'shapes'
    folder.mkdir()
    (folder / 'a.png').write_bytes(b'no photo')
    for name, size in {'b': (50, 40), 'c': (30, 60), 'd': (90, 20)}.items():
        Image.new('RGB', size, (200, 30, 90)).save(folder / f'{name}.png')
    return folder


def panel_sizes(model, images, out, **more):
    more = {'out': out / 'out', 'panels': out / 'panels', **more}
    vt.run(model, images, vt.CAM(['gradcam']), **more)
    found = {}
    for path in sorted(more['panels'].rglob('*.png')):
        found.setdefault(path.parent.name.partition('_')[0], set()).add(Image.open(path).size)
    return found


def test_panels_of_several_photos_have_the_height_of_the_first(model, shapes, tmp_path):
    expected = {'b': {(50, 40)}, 'c': {(20, 40)}, 'd': {(180, 40)}}
    assert panel_sizes(model, shapes, tmp_path / 'whole') == expected
    # The height does not depend on which image an interrupted run still has to do.
    assert panel_sizes(model, shapes, tmp_path / 'one', indices=[1, 3], batch_size=1) == {
        name: expected[name] for name in 'bd'
    }
    (tmp_path / 'one/panels').rename(tmp_path / 'before')
    next((tmp_path / 'one/out').glob('d_*.png')).unlink()
    again = panel_sizes(model, shapes, tmp_path / 'one', indices=[1, 3], batch_size=1, resume=True)
    assert again['d'] == expected['d']


def test_panels_of_a_given_size_and_those_of_one_photo(model, shapes, tmp_path):
    sizes = panel_sizes(model, shapes, tmp_path, style=vt.Style(panel_size=(64, 32)))
    assert set(sizes) == {'b', 'c', 'd'} and set().union(*sizes.values()) == {(64, 32)}
    alone = panel_sizes(model, shapes / 'c.png', tmp_path / 'alone')
    assert alone == {'c': {(30, 60)}}


def test_a_run_is_resumed_and_gets_a_gallery(model, photos, tmp_path):
    announced, steps = [], []
    out = tmp_path / 'out'
    summary = vt.run(
        model, photos, CAM, out=out, batch_size=5, save_raw=True,
        written=announced.extend, progress=lambda finished, total: steps.append((finished, total)),
    )  # fmt: skip
    assert (summary.done, summary.skipped, summary.failures, summary.canceled) == (12, 0, (), False)
    assert list(summary.files) == announced and len(announced) == 24 and all(path.is_file() for path in announced)
    assert steps == [(finished, 12) for finished in range(13)]
    assert repr(summary).startswith('RunSummary(12 done in ') and summary.images_per_second > 0
    raw = next(path for path in announced if path.suffix == '.npz')
    before = np.load(raw)['maps_0']
    raw.unlink()
    again = vt.run(model, photos, CAM, out=out, save_raw=True, resume=True)
    assert (again.done, again.skipped) == (1, 11) and raw in again.files
    np.testing.assert_allclose(np.load(raw)['maps_0'], before, atol=1e-5)
    page = vt.run(model, photos, CAM, out=out, save_raw=True, resume=True, gallery=True)
    assert (page.done, page.skipped) == (12, 0)  # tiles were missing
    assert out / 'gallery' / 'index.html' in page.files
    assert vt.run(model, photos, CAM, out=out, save_raw=True, resume=True, gallery=True).skipped == 12
    beside = vt.run(*SMALL[:1], photos, CAM, checkpoint='none', seed=1, out=tmp_path / 'other', gallery=[out])
    assert beside.done == 12 and (tmp_path / 'other' / 'gallery' / 'compared').is_dir()


def test_other_settings_are_named_in_the_error(model, photos, tmp_path):
    vt.run(model, photos, CAM, out=tmp_path, max_samples=2)
    with pytest.raises(InputError, match=r"resume: .*layer_fusion: 'mean' → 'max'.*methods: .*overwrite"):
        vt.run(model, photos, vt.CAM(layer_fusion='max'), out=tmp_path, max_samples=2, resume=True)
    with torch.no_grad():
        weight = next(model.module.parameters())
        weight.add_(1)
        with pytest.raises(InputError, match='checkpoint contents'):
            vt.run(model, photos, CAM, out=tmp_path, max_samples=2, resume=True)
        weight.sub_(1)


def test_a_canceled_run_is_resumed(model, photos, tmp_path):
    cancel = threading.Event()

    def progress(finished, total):
        if finished >= 4:
            cancel.set()

    whole, out = tmp_path / 'whole', tmp_path / 'out'
    options = {'batch_size': 2, 'deterministic': True}
    vt.run(model, photos, CAM, out=whole, **options)
    summary = vt.run(model, photos, CAM, out=out, progress=progress, cancel=cancel, **options)
    assert summary.canceled and 4 <= summary.done < 12 and 'canceled' in repr(summary)
    with pytest.raises(InputError, match='unfinished run'):
        vt.run(model, photos, CAM, out=out, **options)
    rest = vt.run(model, photos, CAM, out=out, resume=True, **options)
    assert rest.done == 12 - summary.done and rest.skipped == summary.done
    assert all((each == pixels(whole)[name]).all() for name, each in pixels(out).items())
    assert (out / 'manifest.jsonl').read_bytes() == (whole / 'manifest.jsonl').read_bytes()


def test_failures_have_reasons_and_the_others_are_written(model, photos, tmp_path):
    broken = tmp_path / 'broken.png'
    broken.write_bytes(b'not an image')
    summary = vt.run(model, [photos / '00.png', broken, photos / '03.png'], CAM, out=tmp_path / 'out')
    (failure,) = summary.failures
    assert summary.done == 2 and failure.item == str(broken) and 'broken.png' in failure.reason
    assert [entry['name'] for entry in entries(tmp_path / 'out') if entry['error']] == [f'{tmp_path.name}/broken']


def test_one_file_has_no_manifest(model, photos, tmp_path):
    summary = vt.run(model, photos / '00.png', CAM, out=tmp_path / 'x.pdf')
    assert summary.files == (tmp_path / 'x.pdf',) and sorted(tmp_path.iterdir()) == [tmp_path / 'x.pdf']
    with pytest.raises(InputError, match='resume: is for many images'):
        vt.run(model, photos / '00.png', CAM, out=tmp_path / 'x.pdf', resume=True)


def test_a_plain_module_comes_back_as_it_was(photos, tmp_path):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, 3))
    network.train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    def transform(image):
        return torch.from_numpy(np.asarray(image, np.float32) / 255).permute(2, 0, 1)

    summary = vt.run(network, photos, vt.FeatureMaps(stats=True), transform=transform, out=tmp_path, gallery=True)
    assert summary.done == 12 and {'stats.csv', 'stats.png'} < {path.name for path in summary.files}
    assert network.training and all(torch.equal(each, before[name]) for name, each in network.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    again = vt.run(network, photos, vt.FeatureMaps(), transform=transform, out=tmp_path / 'again')
    with pytest.raises(InputError, match='stats: needs every image; resume processes only the remaining ones'):
        vt.run(network, photos, vt.FeatureMaps(stats=True), transform=transform, out=tmp_path, resume=True)
    assert again.out == tmp_path / 'again'


def test_what_is_fitted_over_all_images_is_passed_on(model, photos, tmp_path):
    fitted = []
    pca = vt.FeatureMaps(['backbone.layer4'], reduction='pca')
    vt.run(model, photos, pca, out=tmp_path, fitted=fitted.append, max_samples=3)
    assert pca.basis is None and list(fitted[0].basis.layers) == ['backbone.layer4']


def test_every_channel_goes_to_a_folder_and_belongs_to_what_is_resumed(model, photos, tmp_path):
    analysis = vt.FeatureMaps(['backbone.layer1'], all_channels=True)
    options = {'out': tmp_path / 'out', 'all_channels': tmp_path / 'channels', 'indices': [0, 1]}
    summary = vt.run(model, photos, analysis, **options)
    assert len(summary.files) == 2 * (1 + 64 + 1)
    summary.files[-1].unlink()
    assert vt.run(model, photos, analysis, resume=True, **options).done == 1


class Silent(vt.MapAnalysis):
    """An analysis of a user's own: the network's input itself, and its mean over the whole run."""

    def __call__(self, model, samples):
        return [
            vt.Heatmaps(
                'feature',
                each.image,
                (vt.Heatmap(each.image.mean(2).astype(np.float32), vt.Coordinates(reduction='gray')),),
            )
            for each in samples
        ]

    def reduce(self, before, results):
        values = [result.maps[0].values.mean() for result in results]
        known = before['means'].curves[0].values if before else []
        means = np.array([*known, *values])
        curve = vt.Curve(np.arange(len(means)), means, 'run', 'images', 'mean')
        return {'means': vt.Curves((curve,))}

    def follow(self, results, model):
        return self


def test_an_analysis_of_ones_own_runs_and_reduces(model, photos, tmp_path):
    summary = vt.run(model, photos, Silent(), out=tmp_path, batch_size=5)
    assert summary.done == 12
    means = np.genfromtxt(tmp_path / 'means.csv', delimiter=',', names=True)
    assert len(means) == 12 and [path.name for path in summary.files[-2:]] == ['means.png', 'means.csv']


def test_a_run_takes_whatever_its_parts_hold_with_the_same_defaults():
    """Parameters fill the fields of their names, so one that is missing or has another default would be lost."""
    parameters = inspect.signature(vt.run).parameters
    own = {'first', 'gallery'}  # the model itself; True or folders
    for part in (Models, Selection, Execution, Output):
        for each in fields(part):
            if each.name not in own:
                default = parameters[each.name].default
                assert default == each.default or (each.default is MISSING and default is None), each.name


def test_names_of_outputs_come_from_a_file(model, photos, tmp_path):
    (tmp_path / 'names.txt').write_text('\n'.join(f'name {number}' for number in range(10)))
    vt.run(model, photos, CAM, out=tmp_path / 'out', classes_file=tmp_path / 'names.txt', max_samples=1)
    (entry,) = map(json.loads, (tmp_path / 'out/manifest.jsonl').read_text().splitlines())
    assert entry['prediction']['name'].startswith('name ')


def test_the_exports_are_what_signatures_mention():
    assert {*vt.__all__} <= {*dir(vt)} and all(getattr(vt, name) is not None for name in vt.__all__)
    assert Path(vt.__file__).with_name('py.typed').is_file()

"""What is drawn is what the dataset returns, whoever made it: pipelines, wrappers of any kind, or plain code."""

import copy

import numpy as np
import pytest
import torch
from fake_dataset import Mixing
from mmengine.registry import DefaultScope
from mmpretrain.datasets import CustomDataset
from PIL import Image
from torch.utils.data import ConcatDataset
from torchvision import transforms as T
from torchvision.datasets import ImageFolder

from vistool.analyses.dataset import BrowseDataset, DatasetReport
from vistool.data.batching import Batcher
from vistool.data.recording import Samples
from vistool.data.transforms import seeded
from vistool.errors import InputError


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp('photos')
    rng = np.random.default_rng(3)
    for label in ('cat', 'dog'):
        (folder / label).mkdir()
        for name in 'ab':
            blocks = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)
            Image.fromarray(blocks.repeat(8, 0).repeat(8, 1)).save(folder / label / f'{name}.png')
    return folder


LOAD = {'type': 'LoadImageFromFile'}
PACK = {'type': 'PackInputs'}
FLIP = {'type': 'RandomFlip', 'prob': 0.5, 'direction': 'horizontal'}


def dataset_of(photos, *steps):
    return CustomDataset(data_root=str(photos), data_prefix='', pipeline=list(steps))


class Mosaic:
    """Four samples as quarters of one image."""

    def get_indices(self, dataset):
        return [int(np.random.randint(len(dataset))) for _ in range(3)]

    def __call__(self, results):
        parts = [results['img'], *(each['img'] for each in results['mix_results'])]
        top, bottom = np.concatenate(parts[:2], 1), np.concatenate(parts[2:], 1)
        return {**results, 'img': np.concatenate([top, bottom], 0)}


class Invert:
    """Turns an image into its negative."""

    def __call__(self, results):
        return {**results, 'img': 255 - results['img']}


class Pack:
    """The image as a tensor."""

    def __call__(self, results):
        return {'inputs': torch.from_numpy(np.ascontiguousarray(results['img'].transpose(2, 0, 1)))}


class ByHand:
    """A wrapper whose own code changes what it returns, in place."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        data = self.dataset[index]
        data['inputs'][:, :, :10] = 0
        return data


def returned(make, index, seed=0):
    """What a fresh dataset returns for a sample, RGB ``(H, W, 3)``; the loader gives BGR."""
    with seeded(seed, index):
        data = make()[index]
    return data['inputs'].numpy()[::-1].transpose(1, 2, 0)


@pytest.mark.parametrize('index', [0, 3])
@pytest.mark.parametrize('nested', [False, True])
def test_the_transforms_of_a_wrapper_are_steps(photos, index, nested):
    def make():
        inner = dataset_of(photos, LOAD, FLIP)
        return (
            Mixing(Mixing(inner, [Mosaic()]), [Mosaic(), Invert(), Pack()])
            if nested
            else Mixing(inner, [Mosaic(), Invert(), Pack()])
        )

    record = Samples(make()).read(index)
    steps = ['original', 'RandomFlip', 'Mosaic', *(['Mosaic'] * nested), 'Invert']
    assert [image.step for image in record.images] == steps + (['Pack'] if record.images[-1].step == 'Pack' else [])
    np.testing.assert_array_equal(record.images[-1].pixels, returned(make, index))
    assert record.images[-1].pixels.shape[0] == 32 * 2 ** (1 + nested)


def test_both_ends_of_a_mixing_dataset(photos, caplog):
    make = lambda: Mixing(dataset_of(photos, LOAD), [Mosaic(), Pack()])  # noqa: E731
    record = Samples(make()).read(1, detail='ends')
    assert [image.step for image in record.images] == ['original', 'transformed'] and not caplog.text
    np.testing.assert_array_equal(record.images[-1].pixels, returned(make, 1))
    np.testing.assert_array_equal(record.original, np.asarray(Image.open(photos / 'cat/b.png')))
    assert Samples(make()).read(1, detail='original').images[0].pixels.shape == (32, 48, 3)


def test_mmdet_asks_the_transform_itself_for_indices(photos):
    samples = Samples(Mixing(dataset_of(photos, LOAD), [Mosaic(), Pack()]))
    watched = samples.dataset.pipeline[0]
    assert hasattr(watched, 'get_indices') and not hasattr(samples.dataset.pipeline[1], 'get_indices')
    assert hasattr(copy.deepcopy(watched), 'get_indices')


@pytest.mark.parametrize('wrap', [ByHand, lambda each: ConcatDataset([ByHand(each)])])
def test_what_no_step_made_is_drawn_and_said(photos, caplog, wrap):
    make = lambda: wrap(dataset_of(photos, LOAD, PACK))  # noqa: E731
    samples = Samples(make())
    records = [samples.read(index) for index in (0, 1)]
    for record, index in zip(records, (0, 1), strict=True):
        last = record.images[-1]
        assert last.step.startswith('returned by') and last.parameters == ('steps before it are not recorded',)
        np.testing.assert_array_equal(last.pixels, returned(make, index))
        assert not last.pixels[:, :10].any() and record.original[:, :10].any()
    assert caplog.text.count('no recorded step made') == 1
    np.testing.assert_array_equal(samples.read(1, detail='ends').images[-1].pixels, returned(make, 1))


class Tensors(torch.utils.data.Dataset):
    """Samples in PyTorch's own form."""

    classes = ('even', 'odd')

    def __init__(self, form='tuple', low=0.0, high=1.0):
        generator = torch.Generator().manual_seed(0)
        self.images = low + (high - low) * torch.rand(5, 3, 12, 16, generator=generator)
        self.targets, self.form = [0, 1, 0, 1, 0], form

    def __len__(self):
        return 5

    def __getitem__(self, index):
        image, label = self.images[index], self.targets[index]
        return {'tuple': (image, label), 'dict': {'label': label, 'image': image}, 'bare': image}[self.form]


@pytest.mark.parametrize('form', ['tuple', 'dict', 'bare'])
def test_a_plain_dataset_shows_what_it_returns(form, caplog):
    samples = Samples(Tensors(form))
    record = samples.read(1)
    assert [image.step for image in record.images] == ['returned by Tensors'] and record.original is None
    expected = np.rint(255 * samples.dataset.images[1].numpy().transpose(1, 2, 0))
    np.testing.assert_array_equal(record.images[0].pixels, expected)
    assert samples.classes == ('even', 'odd') and record.label == 1 and 'ready made' in caplog.text
    grid = BrowseDataset('transformed')(samples, [0, 1])
    assert [tile.label for row in grid.rows for tile in row] == [('even',), ('odd',)]
    with pytest.raises(InputError, match='original images are unknown; accepted: transformed, pipeline or batch'):
        BrowseDataset('original')(samples, [0])
    both = BrowseDataset('concat')(samples, [0])
    assert [tile.coordinates['step'] for row in both.rows for tile in row] == ['transformed']


def test_values_that_were_normalized_somewhere_are_stretched_and_said():
    record = Samples(Tensors(low=-2.0, high=2.0)).read(0)
    assert record.images[0].pixels.min() == 0 and record.images[0].pixels.max() == 255
    assert record.shown.describe().startswith('shown −1.9')


@pytest.mark.parametrize('form', ['tuple', 'dict', 'bare'])
@pytest.mark.parametrize('collate', [None, {'type': 'default_collate'}])
def test_a_batch_of_a_plain_dataset(form, collate):
    from mmengine.config import Config

    config = Config({'train_dataloader': {'batch_size': 3, 'collate_fn': collate}})
    samples = Samples(Tensors(form))
    records = [samples.read(index, detail='ends') for index in range(3)]
    fed = Batcher(config, 'train')(records)
    assert len(fed) == 3
    for each, record in zip(fed, records, strict=True):
        np.testing.assert_array_equal(each.views[0], record.images[-1].pixels)


@pytest.mark.parametrize('form', ['tuple', 'dict', 'bare'])
def test_a_report_of_a_plain_dataset(form):
    summary = DatasetReport()(Samples(Tensors(form)), range(5))
    assert summary.counts == {'even': 3, 'odd': 2} and summary.sizes.tolist() == [[12, 16]] * 5
    expected = 255 * Tensors().images.numpy().mean((0, 2, 3))
    np.testing.assert_allclose(summary.found[:, 0], expected, atol=0.6)


def test_the_transform_of_a_torchvision_dataset_is_recorded(photos, caplog):
    steps = T.Compose([T.Resize((16, 24)), T.ToTensor(), T.Normalize([0.5] * 3, [0.2] * 3)])
    samples = Samples(ImageFolder(str(photos), steps))
    record = samples.read(2)
    assert [image.step for image in record.images] == ['original', 'Resize', 'Normalize']
    np.testing.assert_array_equal(record.original, np.asarray(Image.open(photos / 'dog/a.png')))
    resized = np.asarray(T.Resize((16, 24))(Image.open(photos / 'dog/a.png').convert('RGB')))
    np.testing.assert_array_equal(record.images[-1].pixels, resized)
    assert (record.label, record.path, samples.classes) == (1, photos / 'dog/a.png', ('cat', 'dog')) and not caplog.text


def test_every_view_of_test_time_augmentation_has_a_row(photos):
    views = [
        [{'type': 'Resize', 'scale': (24, 16)}, {'type': 'Resize', 'scale': (48, 32)}],
        [{**FLIP, 'prob': 0.0}, {**FLIP, 'prob': 1.0}],
        [PACK],
    ]
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        samples = Samples(dataset_of(photos, LOAD, {'type': 'TestTimeAug', 'transforms': views}))
    grid = BrowseDataset('pipeline')(samples, [0])
    steps = [[tile.coordinates['step'] for tile in row] for row in grid.rows]
    assert steps == [['original', 'Resize', 'RandomFlip']] * 4
    assert [row[-1].pixels.shape[:2] for row in grid.rows] == [(16, 24), (16, 24), (32, 48), (32, 48)]
    np.testing.assert_array_equal(grid.rows[1][-1].pixels, grid.rows[0][-1].pixels[:, ::-1])
    ends = samples.read(0, detail='ends')
    assert [image.view for image in ends.images] == [None, 0, 1, 2, 3]


class Broken(Tensors):
    """Fails before anything is known of the sample."""

    def __getitem__(self, index):
        raise OSError('the disk is on fire')


def test_a_sample_that_fails_is_named_once():
    samples = Samples(Broken())
    with pytest.raises(InputError, match='^sample 3: the disk is on fire$'):
        samples.read(3)
    ((index, error),) = BrowseDataset('transformed')(samples, [3]).failed
    assert (index, str(error)) == (3, 'the disk is on fire')

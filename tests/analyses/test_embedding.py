"""Features of a dataset in a plane: which features, layouts and measures against scikit-learn, files, bad input."""

import csv
import gc
import json
import logging
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import runner
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.offsetbox import AnnotationBbox
from mmpretrain.evaluation import ConfusionMatrix
from sklearn.datasets import make_blobs
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score
from sklearn.model_selection import LeaveOneOut, cross_val_score
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from torch import nn

import vistool as vt
from vistool.analyses.embedding import DatasetEmbedding, aligned
from vistool.commands import vis_cam
from vistool.commands.vis_tsne import main
from vistool.errors import InputError
from vistool.network.outputs import default_scores
from vistool.network.penultimate import layer_features, score_features
from vistool.results import EmbeddedSample, Target
from vistool.visualization.kinds import figure
from vistool.visualization.style import Style

tsne = runner(main)
cam = runner(vis_cam.main)
DEMO = 'configs/efficientnet_lite/efficientnet-lite0_demo.py'


def blobs(count=60, classes=3, dimensions=12, seed=0):
    features, labels = make_blobs(count, dimensions, centers=classes, cluster_std=4.0, random_state=seed)
    return features.astype(np.float32), labels


def samples(labels):
    names = [None if label is None else Target(f'kind {label}', int(label)) for label in labels]
    return [EmbeddedSample(place, f's{place}', None, name, (None, None)) for place, name in enumerate(names)]


def lay_out(*features, labels, **settings):
    told = [(f'net {place}', 'fc') for place in range(len(features))]
    return DatasetEmbedding(**settings)(features, samples(labels), told)


def naive_neighbors(features, count):
    distance = np.linalg.norm(features[:, None].astype(np.float64) - features[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    return [set(np.argsort(row, kind='stable')[:count].tolist()) for row in distance]


def test_points_and_measures_equal_scikit_learns():
    features, labels = blobs()
    found = lay_out(features, labels=labels, perplexity=12, seed=3, iterations=300)
    expected = TSNE(perplexity=12, max_iter=300, init='pca', random_state=3).fit_transform(features)
    (embedding,) = found.embeddings
    np.testing.assert_array_equal(embedding.points, expected)
    assert embedding.silhouette == pytest.approx(silhouette_score(features, labels), abs=1e-6)
    votes = cross_val_score(KNeighborsClassifier(10), features, labels, cv=LeaveOneOut())
    assert found.neighbors == 10 and embedding.accuracy == pytest.approx(votes.mean())
    again = lay_out(features, labels=labels, perplexity=12, seed=3, iterations=300)
    np.testing.assert_array_equal(again.embeddings[0].points, embedding.points)


def test_principal_components_equal_scikit_learns():
    features, labels = blobs()
    (embedding,) = lay_out(features, labels=labels, reducer='pca').embeddings
    expected = PCA(2, svd_solver='full').fit(features.astype(np.float64))
    np.testing.assert_allclose(embedding.points, expected.transform(features.astype(np.float64)), atol=1e-9)
    assert embedding.variance == pytest.approx(tuple(expected.explained_variance_ratio_))


def test_alignment_undoes_a_rotation_a_mirror_and_a_scale():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(30, 2)) * (5, 2)
    turn = np.array([[np.cos(2), -np.sin(2)], [np.sin(2), np.cos(2)]]) @ np.diag([1, -1])
    np.testing.assert_allclose(aligned(points @ turn * 0.1 + 7, points), points, atol=1e-9)
    unrelated = aligned(rng.normal(size=(30, 2)), points)
    spread = [np.linalg.norm(each - each.mean(0)) for each in (unrelated, points)]
    assert spread[0] == pytest.approx(spread[1])  # not shrunk to the middle


def test_kept_neighbors_of_two_models_equal_naive_ones():
    features, labels = blobs()
    other = features.copy()
    other[:5] = features[20:25] + 0.01  # five samples move elsewhere
    found = lay_out(features, other, labels=labels, reducer='pca', neighbors=6)
    near = naive_neighbors(features, 6), naive_neighbors(other, 6)
    expected = [len(one & two) / 6 for one, two in zip(*near, strict=True)]
    np.testing.assert_allclose(found.kept[0], expected)
    assert found.kept[0][:5].mean() < found.kept[0][30:].mean()


def test_neighbors_are_fewer_where_classes_are_small():
    labels = [0, 0, 0, 1, 1, 1, 2, 2, 2]
    features = np.repeat(np.eye(3, dtype=np.float32) * 9, 3, axis=0) + blobs(9)[0][:, :3] * 0.01
    found = lay_out(features, labels=labels, reducer='pca')
    assert found.neighbors == 2 and found.embeddings[0].accuracy == 1


@pytest.mark.parametrize('labels', [[1] * 20, [None] * 20, list(range(20))])
def test_measures_that_are_not_defined_are_left_out(labels):
    (embedding,) = lay_out(blobs(20)[0], labels=labels, reducer='pca').embeddings
    assert embedding.silhouette is None


def test_a_few_samples_get_a_perplexity_that_fits():
    features, labels = blobs(7)
    assert 'perplexity 2' in lay_out(features, labels=labels, iterations=250).settings


@pytest.mark.parametrize(
    ('settings', 'count', 'said'),
    [
        ({'perplexity': 60}, 60, 'perplexity: 60 with 60 samples; accepted: below 60'),
        ({'perplexity': 0}, 60, 'perplexity: 0 is not positive'),
        ({'perplexity': float('nan')}, 60, 'perplexity: nan'),
        ({}, 1, 'images: 1 sample cannot be laid out; accepted: at least 3'),
        ({'reducer': 'pca'}, 2, 'images: 2 samples'),
        ({'reducer': 'mds'}, 60, "reducer: unknown reducer 'mds'; accepted: tsne, pca, umap"),
        ({'init': 'zeros'}, 60, 'init: unknown start'),
        ({'iterations': 100}, 60, 'iterations: must be at least 250'),
        ({'neighbors': 0}, 60, 'neighbors: must be at least 1'),
    ],
)
def test_parameters_that_do_not_fit(settings, count, said):
    features, labels = blobs(60)
    with pytest.raises(InputError, match='^' + said):
        lay_out(features[:count], labels=labels[:count], **settings)


def test_the_confusion_matrix_equals_mmpretrains():
    generator = np.random.default_rng(0)
    truth, predicted = generator.integers(0, 7, (2, 200))
    expected = ConfusionMatrix.calculate(torch.tensor(predicted), torch.tensor(truth), num_classes=9)
    np.testing.assert_array_equal(vt.confusion_matrix(truth, predicted, 9), expected)
    np.testing.assert_array_equal(vt.confusion_matrix([], [], 2), np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r'not in range\(3\)'):
        vt.confusion_matrix([0, 3], [0, 0], 3)
    with pytest.raises(ValueError, match='1 label and 2 predictions'):
        vt.confusion_matrix([0], [0, 1], 2)


def test_a_table_of_confusions_leaves_out_what_is_not_known_and_tells_equal_names_apart():
    ids = [(0, 0), (0, 5), (5, 5), (5, 9), (None, 5), (0, None)]
    names = {0: 'crane', 5: 'crane', 9: 'cup', None: None}
    targets = [[None if each is None else Target(names[each], each) for each in pair] for pair in ids]
    shown = [EmbeddedSample(place, '', None, label, (guess,)) for place, (label, guess) in enumerate(targets)]
    features = blobs(6)[0]
    result = DatasetEmbedding(reducer='pca')([features], shown, [('net', 'fc')])
    assert result.confusion() == [
        {'label': 'crane', 'crane': 1, 'crane (2)': 1, 'cup': 0},
        {'label': 'crane (2)', 'crane': 0, 'crane (2)': 1, 'cup': 1},
        {'label': 'cup', 'crane': 0, 'crane (2)': 0, 'cup': 0},
    ]
    assert replace(result, judged=False).confusion() == []
    assert result.classes == ('crane', 'crane (2)')
    assert [each and each.name for each in result.colored_by] == [
        'crane',
        'crane',
        'crane (2)',
        'crane (2)',
        None,
        'crane',
    ]


def test_umap_says_which_package_is_missing(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'umap', None)
    with pytest.raises(InputError, match='reducer: .*pip install umap-learn'):
        DatasetEmbedding(reducer='umap').check()


class Probabilities(nn.Module):
    """A network that applies softmax itself, after a dropout, and whose head has a hidden layer."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.head = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 4), nn.Dropout(0.5))

    def forward(self, x):
        return self.head(self.stem(x).relu().mean((2, 3))).softmax(1)


def read(output):
    return default_scores(output, 2)


def images(size=64):
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_features_of_a_classifier_enter_the_layer_that_gives_the_scores():
    import timm
    import torchvision

    torch.manual_seed(0)
    with torch.no_grad():
        for name in ('resnet10t', 'vit_tiny_patch16_224', 'mobilenetv3_small_050', 'convnext_atto'):
            size = {'img_size': 64} if 'vit' in name else {}
            network = timm.create_model(name, num_classes=5, **size).eval()
            _, found, _ = score_features(network, images(), read)
            expected = network.forward_head(network.forward_features(images()), pre_logits=True)
            torch.testing.assert_close(found, expected)
        network = torchvision.models.resnet18(num_classes=7).eval()
        name, found, _ = score_features(network, images(), read)
        kept = nn.Sequential(*list(network.children())[:-1])(images()).flatten(1)
        assert name == 'input of fc'
        torch.testing.assert_close(found, kept)
        network = Probabilities().eval()
        name, found, _ = score_features(network, images(), read)
        assert name == 'input of head.2'
        torch.testing.assert_close(found, network.head[:2](network.stem(images()).relu().mean((2, 3))))


def test_maps_are_not_kept_while_the_layer_that_gives_the_scores_is_searched_for():
    network = nn.Sequential(nn.Conv2d(3, 64, 1), nn.ReLU(), nn.Conv2d(64, 8, 1), nn.Flatten(), nn.Linear(8 * 64**2, 3))
    count = len(images())

    def scores_of(output):
        gc.collect()
        maps = [each for each in gc.get_objects() if type(each) is torch.Tensor and each.shape[:2] == (count, 64)]
        assert not maps
        return output

    with torch.no_grad():
        name, found, _ = score_features(network, images(), scores_of)
    assert name == 'input of 4' and found.shape == (count, 8 * 64**2)


def test_later_batches_watch_the_layer_of_the_scores_alone_and_compare_it():
    class Either(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.one, self.two = nn.Conv2d(3, 8, 3), nn.Linear(8, 4), nn.Linear(8, 4)

        def forward(self, x):
            pooled = self.stem(x).relu().mean((2, 3))
            one, two = self.one(pooled), self.two(2 * pooled)
            return one if x.mean() < 1 else two

    network = Either().eval()
    runs = []
    network.register_forward_pre_hook(
        lambda *_: runs.append(sum(len(each._forward_hooks) for each in network.modules()))
    )
    with torch.no_grad():
        names = [score_features(network, batch, read)[0] for batch in (images(), images(), images() + 9, images() + 9)]
    assert names == ['input of one', 'input of one', 'input of two', 'input of two']
    assert runs == [3, 1, 1, 3, 1]


def test_features_of_mmpretrains_networks_equal_its_own():
    for config in ('mmpretrain::resnet/resnet18_8xb16_cifar10.py', 'configs/deit/deit-tiny_4xb256_in1k.py'):
        model = vt.load(config, 'none')
        size = 224 if 'deit' in config else 32
        with torch.no_grad():
            _, found, _ = score_features(model.module, images(size), partial(model.scores, count=2))
            expected = model.module.extract_feat(images(size), stage='pre_logits')
        expected = expected[-1] if isinstance(expected, tuple) else expected
        torch.testing.assert_close(found, expected)


class Averaged(nn.Module):
    """Two heads whose mean is the score: no single layer gives it."""

    def __init__(self):
        super().__init__()
        self.stem, self.one, self.two = nn.Conv2d(3, 8, 3), nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x):
        x = self.stem(x).relu().mean((2, 3))
        return (self.one(x) + self.two(x)) / 2


def test_scores_that_no_layer_gives_are_asked_for():
    network = Averaged().eval()
    with torch.no_grad(), pytest.raises(InputError, match='no layer of Averaged gives the scores'):
        score_features(network, images(), read)
    with torch.no_grad():
        found, _ = layer_features(network, images(), 'stem')
        torch.testing.assert_close(found, network.stem(images()).mean((2, 3)))


def test_features_of_a_layer_that_runs_twice_are_those_of_the_last_call_and_that_is_said(caplog):
    network = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU())
    network.append(network[0]).eval()
    with torch.no_grad(), caplog.at_level(logging.INFO, 'vistool'):
        found = [layer_features(network, images(), '0')[0] for _ in range(2)][1]
        torch.testing.assert_close(found, network(images()).mean((2, 3)))
    assert caplog.messages == ['layer 0 runs 2 times and returns 1 tensor: the last is taken']


@pytest.mark.parametrize('call', [1, 2])
def test_features_of_one_call_of_a_layer_are_those_of_that_call(call, caplog):
    first, between = nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()
    network = nn.Sequential(first, between, first).eval()
    with torch.no_grad(), caplog.at_level(logging.INFO, 'vistool'):
        found, _ = layer_features(network, images(), f'0#{call}')
        calls = [first(images()), network(images())]
        torch.testing.assert_close(found, calls[call - 1].mean((2, 3)))
    assert not caplog.messages
    with torch.no_grad(), pytest.raises(InputError, match="'0#3' runs 2 times"):
        layer_features(network, images(), '0#3')
    with torch.no_grad(), pytest.raises(InputError, match='names every call'):
        layer_features(network, images(), '0#all')


class Tokens(nn.Module):
    def __init__(self, extra):
        super().__init__()
        self.patch_embed = nn.Conv2d(3, 4, 8, stride=8)
        self.extra = nn.Parameter(torch.randn(1, extra, 4))

    def forward(self, image):
        tokens = self.patch_embed(image).flatten(2).transpose(1, 2)
        return torch.cat([self.extra.expand(len(image), -1, -1), tokens], 1)


@pytest.mark.parametrize(
    ('extra', 'told'),
    [
        (0, 'the mean of 8×8 positions'),
        (1, 'the first token before 8×8 positions, taken for a class token'),
        (5, 'the first of 5 tokens before 8×8 positions, taken for a class token'),
    ],
)
def test_what_is_made_of_tokens_is_said_once(extra, told, caplog):
    network, batch = Tokens(extra).eval(), torch.randn(2, 3, 64, 64)
    with torch.no_grad(), caplog.at_level(logging.INFO, 'vistool'):
        for _ in range(2):
            _, found, output = score_features(network, batch, lambda output: None)
    torch.testing.assert_close(found, output[:, 0] if extra else output.mean(1))
    assert caplog.messages == [f'features: {told} of the output']


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    config = tmp_path_factory.mktemp('config') / 'small.py'
    folder = vt.__file__.replace('vistool/__init__.py', 'demo/dataset')
    config.write_text(f"""
from mmengine.registry import MODELS
model = dict(type='ImageClassifier', backbone=dict(type='ResNet', depth=18, base_channels=4, stem_channels=4),
    neck=dict(type='GlobalAveragePooling'), head=dict(type='LinearClsHead', num_classes=3, in_channels=32),
    data_preprocessor=dict(mean=[120, 120, 120], std=[60, 60, 60], to_rgb=True))
pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 64)), dict(type='PackInputs')]
train_dataloader = dict(batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='CustomDataset', data_root={folder!r}, pipeline=pipeline,
        classes=['espresso', 'missile', 'tabby']))
val_dataloader = train_dataloader
default_scope = 'mmpretrain'
""")
    return str(config)


def test_a_dataset_from_the_command_line(capsys, small, tmp_path):
    words = [small, 'none', '-o', tmp_path, '--n-iter', 250, '--thumbnails', '--save-raw', '--compare', small, 'none']
    code, stdout, stderr = tsne(capsys, *words)
    endings = '.csv', '.png', '_confusion.csv', '_confusion_2.csv', '.npz'
    assert code == 0 and stdout.split() == [str(tmp_path / f'tsne{end}') for end in endings]
    assert 'silhouette' in stderr and 'in 32 dimensions (input of head.fc)' in stderr
    rows = list(csv.DictReader((tmp_path / 'tsne.csv').open()))
    assert Path(rows[0]['path']).is_file() and not Path(rows[0]['path']).is_absolute()  # tests run in the root
    assert len(rows) == 15 and {row['label'] for row in rows} == {'espresso', 'missile', 'tabby'}
    pairs = Counter((row['label'], row['prediction']) for row in rows)
    confusions = list(csv.DictReader((tmp_path / 'tsne_confusion.csv').open()))
    assert {
        (row['label'], name): int(row[name]) for row in confusions for name in list(row)[1:] if row[name] != '0'
    } == pairs
    raw = np.load(tmp_path / 'tsne.npz')
    assert raw['features_0'].shape == (15, 32)
    np.testing.assert_allclose(raw['points_0'], [[float(row['x']), float(row['y'])] for row in rows])
    assert all(float(row['kept_2']) == 1 for row in rows)  # the same weights


def data_of(folder):
    text = (folder / 'gallery' / 'data.js').read_text('ascii')
    return json.loads(text.removeprefix('window.VISTOOL_GALLERY=')[:-2])


def test_a_gallery_of_the_samples_and_of_another_run_on_their_map(capsys, small, tmp_path):
    words = [small, 'none', '-o', tmp_path / 'map', '--reducer', 'pca', '--gallery', '--compare', small, 'none']
    assert tsne(capsys, *words)[0] == 0
    rows = list(csv.DictReader((tmp_path / 'map' / 'pca.csv').open()))
    data = data_of(tmp_path / 'map')
    points = [[float(f'{float(row[name]):.5g}') for name in ('x', 'y')] for row in rows]
    assert [image['points'][0] for image in data['images']] == points
    assert len(data['runs']) == len(data['embeddings']) == 2 and 'silhouette' in data['embeddings'][0]['note']
    classes = [name for _, name in data['classes']]
    assert [classes[image['label']] for image in data['images']] == [row['label'] for row in rows]
    assert [classes[image['runs'][-1]['prediction'][0]] for image in data['images']] == [
        row['prediction'] for row in rows
    ]
    assert all((tmp_path / 'map' / 'gallery' / image['runs'][-1]['photo']).is_file() for image in data['images'])

    words = ['@train', small, 'none', '--method', 'EigenCAM', '-o', tmp_path / 'cam', '--embedding', tmp_path / 'map']
    code, _, stderr = cam(capsys, *words)
    assert code == 2 and stderr == 'error: --embedding: is for a gallery; add --gallery\n'
    assert cam(capsys, *words, '--gallery')[0] == 0
    assert [image['points'][0] for image in data_of(tmp_path / 'cam')['images']] == points
    words = ['@train', small, 'none', '--method', 'EigenCAM', '--seed', 1, '--compare', small, 'none']
    assert cam(capsys, *words, '-o', tmp_path / 'two', '--gallery')[0] == 0
    lines = [json.loads(text) for text in (tmp_path / 'two' / 'manifest.jsonl').read_text().splitlines()]
    assert all(each['compared'][0]['prediction'] == each['prediction'] for each in lines)  # the same weights
    assert [run.get('pictures') for run in data_of(tmp_path / 'two')['runs']] == [False, None]
    code, _, stderr = tsne(capsys, small, 'none', '-o', tmp_path / 'cam', '--gallery')
    assert code == 2 and "'out'" not in stderr and 'holds a run of vis_cam; accepted: another folder' in stderr
    code, _, stderr = tsne(capsys, small, 'none', '-o', tmp_path / 'a.png', '--gallery')
    assert code == 2 and stderr == 'error: --gallery: is for a folder; give the output as a folder\n'


def test_features_are_those_of_each_sample_whatever_the_batch(capsys, small, tmp_path):
    found = []
    for size in (1, 4):
        words = [small, 'none', '-o', tmp_path / f'{size}.png', '--reducer', 'pca', '--save-raw', '--batch-size', size]
        assert tsne(capsys, *words)[0] == 0
        found.append(np.load(tmp_path / f'{size}.npz')['features_0'])
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)


def test_files_have_no_labels_and_are_colored_by_predictions(capsys, small, tmp_path):
    words = [small, 'none', '--img', 'demo/dataset/tabby', '-o', tmp_path, '--reducer', 'pca', '--vis-stage', 'neck']
    code, _, stderr = tsne(capsys, *words)
    assert code == 0 and 'no classes to judge in 32 dimensions (neck)' in stderr
    rows = list(csv.DictReader((tmp_path / 'pca_neck.csv').open()))
    assert len(rows) == 5 and not any(row['label'] for row in rows) and all(row['prediction'] for row in rows)


def test_one_class_and_the_first_classes(capsys, small, tmp_path):
    words = [small, 'none', '-o', tmp_path, '--reducer', 'pca']
    code, _, stderr = tsne(capsys, *words, '--classes', 'tabby')
    assert code == 0 and 'no classes to judge' in stderr
    code, _, stderr = tsne(capsys, *words, '--max-num-class', 2, '--per-class', 3)
    assert code == 0 and 'the first 2 of 3 classes; --classes takes others, --max-num-class more' in stderr
    assert len(list(csv.DictReader((tmp_path / 'pca.csv').open()))) == 6


@pytest.mark.parametrize(
    ('words', 'said'),
    [
        (['--indices', '0'], '--img: 1 sample cannot be laid out'),
        (['--perplexity', '15'], '--perplexity: 15 with 15 samples'),
        (['--perplexity', 'many'], '--perplexity: '),
        (['--reducer', 'som'], '--reducer: unknown reducer'),
        (['--target-layers', 'backbone.layer9'], '--target-layers: '),
        (['--vis-stage', 'head'], "--vis-stage: unknown stage 'head'"),
        (['--vis-stage', 'neck', '--target-layers', 'neck'], '--vis-stage: both a stage and a layer'),
        (['--phase', 'all'], '--phase: unknown phase'),
        (['--phase', 'test'], '--phase: '),
        (['--img', 'nowhere'], '--img: '),
        (['--n-components', '3'], '--n-components: 3 dimensions cannot be drawn'),
        (['-o', 'picture.bmp'], '--out: cannot write .bmp files'),
        (['--checkpoint', 'none'], '--checkpoint: two checkpoints'),
    ],
)
def test_bad_input_is_one_line(capsys, small, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    code, stdout, stderr = tsne(capsys, small, 'none', *words)
    lines = [line for line in stderr.splitlines() if line.startswith('error')]
    assert (code, stdout) == (2, '') and len(lines) == 1 and lines[0].startswith(f'error: {said}')
    assert not list(tmp_path.iterdir())


def test_a_legend_of_a_hundred_classes_stays_within_the_figure():
    labels = np.arange(300) % 100
    names = [Target(f'class of a long name {label}', int(label)) for label in labels]
    shown = [EmbeddedSample(place, str(place), None, name, (None,)) for place, name in enumerate(names)]
    result = DatasetEmbedding(reducer='pca')([blobs(300)[0]], shown, [('net', 'fc')])
    for style in (Style(), Style(width='column')):
        made = figure(result, style)
        canvas = FigureCanvasAgg(made)
        canvas.draw()
        renderer = canvas.get_renderer()
        page = made.bbox
        (legend,) = made.legends
        texts = [text.get_window_extent(renderer) for text in legend.get_texts()]
        assert len(texts) == 100
        assert all(page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 for box in texts)
        assert sum(one.overlaps(other) for one in texts for other in texts) == 100  # each with itself alone
        top = made.axes[0].title.get_window_extent(renderer)
        assert top.y1 <= page.y1 + 1 and legend.get_window_extent(renderer).y1 <= made.axes[0].bbox.y0
    assert len({(str(handle.get_color()), handle.get_marker()) for handle in legend.legend_handles}) == 100


@pytest.mark.parametrize('models', [1, 2])
@pytest.mark.parametrize('style', [Style(), Style(width=760), Style(width='column')])
def test_thumbnails_of_the_outermost_samples_stay_within_their_panel(models, style):
    photo = np.zeros((64, 48, 3), np.uint8)
    shown = [
        EmbeddedSample(place, str(place), None, Target('cat', 0), (None,) * models, thumbnail=photo)
        for place in range(9)
    ]
    features = [blobs(9, seed=seed)[0] for seed in range(models)]
    told = [(f'net {place}', 'fc') for place in range(models)]
    made = figure(DatasetEmbedding(reducer='pca')(features, shown, told), style)
    canvas = FigureCanvasAgg(made)
    canvas.draw()
    for axes in made.axes:
        pictures = [each for each in axes.artists if isinstance(each, AnnotationBbox)]
        assert pictures
        for picture in pictures:
            box = picture.get_window_extent(canvas.get_renderer())
            assert (
                axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 and axes.bbox.y0 <= box.y0 and box.y1 <= axes.bbox.y1
            )


def test_nearest_neighbors_leave_the_sample_itself_out():
    features = np.zeros((6, 2), np.float32)
    features[3:] = 5
    near = NearestNeighbors(n_neighbors=2).fit(features).kneighbors(return_distance=False)
    assert all(place not in row for place, row in enumerate(near))
    (embedding,) = lay_out(features, labels=[0, 0, 0, 1, 1, 1], reducer='pca', neighbors=2).embeddings
    assert embedding.accuracy == 1


def test_scores_that_are_not_finite_are_said_to_be():
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    with torch.no_grad():
        network[1].weight.fill_(torch.nan)
    with pytest.raises(InputError, match='no score of Sequential is finite; look for NaN or infinity in the weights'):
        score_features(network, torch.ones(2, 3, 4, 4), lambda output: output)

"""Checks of CAM methods: what is planted is caught by the check meant for it, what is honest passes."""

import copy
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fitted_networks import NETWORKS, PATCH, SIZE, Block, accuracy, fitted, one_thread, textures
from torch import nn

import vistool as vt
from vistool.analyses.cam.methods import METHODS, Needs, register_cam, register_perturbation_cam
from vistool.analyses.check.criteria import CHECKS, Criteria
from vistool.analyses.check.diagnosis import border_share
from vistool.analyses.check.grids import arrangements, grid_sample, share_inside
from vistool.analyses.check.randomization import find_blocks, grouped, randomized, shuffled
from vistool.analyses.check.similarity import pointing_cell, rank_correlation, ssim
from vistool.errors import InputError
from vistool.visualization.checks import table

HONEST = ['gradcam', 'layercam', 'hirescam']
UPPER = tuple(check for check in CHECKS if check != 'layers')


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


@pytest.fixture(scope='module')
def images():
    return textures(6, 7)[0]


@pytest.fixture(scope='module')
def network():
    return fitted(NETWORKS['plain'])


@pytest.fixture(scope='module')
def planted():
    """Methods that do not work, each in its own way."""
    before = dict(METHODS)

    @register_perturbation_cam('edges', 'Edges', 'planted', needs=Needs.RUNS)
    def edges(probe):
        return METHODS['sobel'].run(probe)

    @register_perturbation_cam('fixed', 'Fixed', 'planted', needs=Needs.RUNS)
    def fixed(probe):
        return METHODS['random'].run(probe)

    @register_cam('classless', 'Classless', 'planted')
    def classless(a, g):
        return a

    @register_cam('inverted', 'Inverted', 'planted')
    def inverted(a, g):
        return -g.mean((2, 3), keepdim=True) * a

    @register_cam('upsidedown', 'UpsideDown', 'planted')
    def upsidedown(a, g):
        drawn = (g.relu() * a).sum(1, keepdim=True)
        return drawn.amax((2, 3), keepdim=True) - drawn

    @register_cam('border', 'Border', 'planted')
    def border(a, g):
        ring = torch.ones(a.shape[2:]).to(a)
        ring[1:-1, 1:-1] = 0
        return (g.mean((2, 3), keepdim=True) * a).abs() * ring

    @register_cam('leaking', 'Leaking', 'planted')
    def leaking(a, g):
        drawn = (g.relu() * a).sum(1, keepdim=True)
        return drawn + 4 * drawn.roll(drawn.shape[3] // 2, 3)

    @register_cam('full', 'Full', 'planted')
    def full(a, g):
        drawn = (g.relu() * a).sum(1, keepdim=True)
        return (drawn >= drawn.flatten(2).quantile(0.2, 2)[..., None]).to(a)

    @register_perturbation_cam('nervous', 'Nervous', 'planted', needs=Needs.RUNS)
    def nervous(probe):
        bits = abs(hash(tuple(probe.inputs.flatten()[:64].tolist()))) % 2**31
        noise = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(bits))
        return [noise.expand(len(probe.inputs), 8, 8) ** 4]

    yield
    METHODS.clear()
    METHODS.update(before)


def checked(network, images, methods, checks=UPPER, **more):
    return vt.Check(vt.CAM(methods, **more), checks)(network, images)


def verdicts(report, method):
    return {each.check for each in report.findings if each.method == method and each.verdict == 'fail'}


@pytest.mark.parametrize(
    ('method', 'check', 'words'),
    [
        ('edges', 'randomization', 'survive random weights'),
        ('fixed', 'randomization', 'survive random weights'),
        ('sobel', 'randomization', 'survive random weights'),
        ('classless', 'classes', 'says nothing about the class'),
        ('edges', 'classes', 'says nothing about the class'),
        ('inverted', 'direction', 'inverted map'),
        ('upsidedown', 'direction', 'inverted map'),
        ('border', 'maps', 'border only'),
        ('leaking', 'gridpg', 'of the map lies in the right cell'),
        ('leaking', 'difull', 'of the map lies in the right cell'),
        ('full', 'maps', 'saturated'),
        ('nervous', 'stability', 'noise of 2% changes the map'),
    ],
)
def test_a_planted_method_is_caught_by_the_check_meant_for_it(network, images, planted, method, check, words):
    found = checked(network, images, [method], check)[method, check]
    assert found.verdict == 'fail' and words in found.text, found


def test_honest_methods_raise_no_alarm(network, images):
    report = checked(network, images, HONEST)
    assert report.passes, table(report)
    assert {(each.method, each.check) for each in report.findings} == {(m, c) for m in HONEST for c in UPPER}
    assert all(each.verdict == 'pass' for each in report.findings)


def test_layercam_leaks_less_than_gradcam_in_disconnected_cells(network, images):
    report = checked(network, images, HONEST, 'difull')
    assert report['layercam', 'difull'].value > 0.95 > report['gradcam', 'difull'].value


def test_a_network_of_one_input_size_raises_no_alarm(images):
    report = checked(fitted(NETWORKS['flattened']), images, HONEST)
    assert report.passes, table(report)


@pytest.mark.slow
def test_honest_methods_raise_no_alarm_on_twenty_architectures(images):
    for name, build in NETWORKS.items():
        network = fitted(build)
        assert accuracy(network) > 0.6, name
        report = checked(network, images, HONEST)
        assert report.passes, f'{name}\n{table(report)}'


@pytest.mark.slow
def test_honest_methods_raise_no_alarm_with_real_weights():
    model = vt.load('configs/efficientnet_lite/efficientnet-lite0_in1k.py')
    photos = [f'demo/{name}' for name in ('coffee.png', 'chelsea.png', 'astronaut.png', 'rocket.jpg')]
    photos += ['demo/dataset/missile/val_0.jpg']
    checks = [check for check in UPPER if check not in ('gridpg', 'stability')]
    report = checked(model, [model.read(photo) for photo in photos], ['gradcam', 'layercam', 'sobel'], checks)
    assert {each.method for each in report.failed} == {'sobel'}, table(report)
    assert report['layercam', 'difull'].value > report['gradcam', 'difull'].value


# --- random weights ---------------------------------------------------------------------------------------------------


class Everything(nn.Module):
    """One of each: class token, position embedding, bias table, layer scale, norm statistics, and what is constant."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 4, 4), nn.BatchNorm2d(8)
        self.cls_token, self.pos_embed = nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(1, 65, 8))
        self.bias_table, self.gamma = nn.Parameter(torch.randn(15, 2)), nn.Parameter(torch.rand(8))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.blocks = nn.ModuleList([Block(8, heads=2) for _ in range(3)])
        self.head = nn.Linear(8, 3)
        self.register_buffer('index', torch.arange(65))
        self.register_buffer('mask', torch.rand(65))
        with torch.no_grad():
            for weight in self.parameters():
                weight.normal_()
            self.norm.running_mean.normal_()
            self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        x = self.norm(self.conv(x)).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed[:, self.index]
        x = x + self.gamma * self.attention(x, x, x)[0] + self.bias_table.sum() * self.mask[:, None]
        for block in self.blocks:
            x = block(x)
        return self.head(x[:, 1:].mean(1))


LEARNED = {'norm.running_mean', 'norm.running_var'}


def test_every_parameter_and_every_learned_buffer_becomes_random_and_comes_back():
    network = Everything().eval()
    before, versions = copy.deepcopy(network.state_dict()), [weight._version for weight in network.parameters()]
    places = [weight.data_ptr() for weight in (*network.parameters(), *network.buffers())]
    blocks = find_blocks(network, torch.zeros(1, 3, 32, 32))
    with randomized(blocks, 0):
        changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
        for name, tensor in network.state_dict().items():
            assert torch.equal(tensor.flatten().sort().values, before[name].flatten().sort().values)
    assert changed == {name for name, _ in network.named_parameters()} | LEARNED
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert [weight._version for weight in network.parameters()] == versions
    assert [weight.data_ptr() for weight in (*network.parameters(), *network.buffers())] == places


def test_blocks_go_from_the_head_down():
    blocks = find_blocks(Everything().eval(), torch.zeros(1, 3, 32, 32))
    names = [block.name for block in blocks]
    assert names == ['head', 'blocks.2', 'blocks.1', 'blocks.0', 'attention', 'norm', 'conv', '']
    assert set(blocks[-1].parameters) == {'cls_token', 'pos_embed', 'bias_table', 'gamma'}
    assert {'attention.in_proj_weight', 'attention.out_proj.weight'} <= {
        name for block in blocks for name in block.parameters
    }
    groups = grouped(blocks, 4)
    assert [block.name for group in groups for block in group] == names and len(groups[0]) == 1
    assert len(groups) == 4 and grouped(blocks, 99) == [[block] for block in blocks]


def test_weights_come_back_after_a_failure(network):
    before = copy.deepcopy(network.state_dict())
    blocks = find_blocks(network, torch.zeros(1, 3, SIZE, SIZE))
    with pytest.raises(ZeroDivisionError), randomized(blocks, 3):
        raise ZeroDivisionError
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_a_check_leaves_the_network_as_it_was(images):
    network = fitted(NETWORKS['plain'], steps=2).train()
    before = copy.deepcopy(network.state_dict())
    checked(network, images[:2], ['gradcam'])
    assert network.training and all(weight.grad is None for weight in network.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_shuffled_weights_are_never_the_old_ones():
    for seed in range(20):
        assert shuffled(torch.tensor([1.0, 2.0]), 'weight', seed).tolist() == [2.0, 1.0]
    assert shuffled(torch.ones(3), 'weight', 0).tolist() == [1, 1, 1]
    assert torch.equal(shuffled(torch.arange(9.0), 'a', 0), shuffled(torch.arange(9.0), 'a', 0))
    assert not torch.equal(shuffled(torch.arange(9.0), 'a', 0), shuffled(torch.arange(9.0), 'b', 0))


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_rank_correlation_is_spearmans():
    from scipy.stats import spearmanr

    draw = np.random.default_rng(0)
    one, other = draw.random((9, 14)).astype(np.float32), draw.integers(0, 4, (9, 14)).astype(np.float32)
    assert rank_correlation(one, other) == pytest.approx(spearmanr(one.ravel(), other.ravel())[0])
    assert rank_correlation(one, one) == pytest.approx(1) and rank_correlation(one, -one) == pytest.approx(-1)
    blank = np.zeros_like(one)
    assert rank_correlation(blank, one) == 0 and rank_correlation(blank, blank) == 1


def naive_ssim(x, y):
    bell = np.exp(-((np.arange(11) - 5.0) ** 2) / (2 * 1.5**2))
    window = np.outer(bell, bell) / np.outer(bell, bell).sum()
    x, y = (np.pad(each.astype(np.float64), 5, mode='edge') for each in (x, y))
    found = []
    for row in range(x.shape[0] - 10):
        for column in range(x.shape[1] - 10):
            a, b = (each[row : row + 11, column : column + 11] for each in (x, y))
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            var_a, var_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
            both = (window * (a - mean_a) * (b - mean_b)).sum()
            found.append(
                (2 * mean_a * mean_b + 1e-4) * (2 * both + 9e-4)
                / ((mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4))
            )  # fmt: skip
    return np.mean(found)


def test_ssim_is_that_of_the_paper():
    draw = np.random.default_rng(1)
    one, other = draw.random((8, 12)).astype(np.float32), draw.random((8, 12)).astype(np.float32)
    assert ssim(one, other) == pytest.approx(naive_ssim(one, other), abs=1e-9)
    assert ssim(one, one) == pytest.approx(1)


def test_shares_of_cells_and_borders_by_hand():
    values = np.zeros((8, 8), np.float32)
    values[1, 6], values[5, 2], values[0, 0] = 3, 1, np.nan
    assert share_inside(values, (0, 1)) == 0.75 and share_inside(values, (1, 0)) == 0.25
    assert np.isnan(share_inside(np.zeros((8, 8), np.float32), (0, 0)))
    ring = np.zeros((7, 7), np.float32)
    ring[0, :], ring[3, 3] = 1, 1
    assert border_share(ring, 1 / 7) == 7 / 8
    assert pointing_cell(values) == (0, 5) and pointing_cell(np.ones((7, 7), np.float32)) is None


def test_a_grid_of_four_photos():
    def sample(value):
        return vt.Sample(torch.full((3, 4, 6), float(value)), np.full((4, 6, 3), value, np.uint8))

    whole = grid_sample([sample(value) for value in range(4)])
    assert whole.data.shape == (3, 8, 12) and whole.image.shape == (8, 12, 3)
    assert whole.data[0, [0, 0, 7, 7], [0, 11, 0, 11]].tolist() == whole.image[[0, 0, 7, 7], [0, 11, 0, 11], 0].tolist()
    assert whole.data[0, [0, 0, 7, 7], [0, 11, 0, 11]].tolist() == [0, 1, 2, 3]
    assert grid_sample([sample(value) for value in range(4)], half=True).data.shape == (3, 4, 6)


# --- reasons ----------------------------------------------------------------------------------------------------------


def test_why_a_map_is_blank(images):
    network = fitted(NETWORKS['plain'], steps=2)
    with torch.no_grad():
        network.features[2][0].weight.zero_()
        network.features[2][1].bias.fill_(-1.0)
    found = checked(network, images, ['gradcam'], 'maps', layers='features')['gradcam', 'maps']
    assert found.verdict == 'fail' and 'blank (features is zero everywhere: its ReLU is dead)' in found.text
    network = fitted(NETWORKS['plain'], steps=2)
    nn.init.zeros_(network.head.weight)
    found = checked(network, images, ['gradcam'], 'maps', layers='features')['gradcam', 'maps']
    assert 'the gradient of the score is zero at features: the weights of head are all zero' in found.text
    network = fitted(NETWORKS['plain'], steps=2)
    nn.init.constant_(network.head.weight, -1.0)
    found = checked(network, images, ['gradcam'], 'maps', layers='features')['gradcam', 'maps']
    assert 'no positive evidence' in found.text


def test_why_a_map_is_of_the_border(images):
    class Padded(nn.Module):
        """What it sees is where the zeros of its padding begin."""

        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 1, 3, padding=1), nn.Linear(1, 2)
            with torch.no_grad():
                self.conv.weight.fill_(-1.0)
                self.conv.bias.fill_(21.0)
                self.head.weight.copy_(torch.tensor([[1.0], [-1.0]]))

        def forward(self, x):
            return self.head(self.conv(x).relu().mean((2, 3)))

    even = 1 + 0.01 * images
    found = checked(Padded().eval(), even, ['gradcam'], 'maps', layers='conv+relu', targets=[0])['gradcam', 'maps']
    assert found.verdict == 'fail' and 'border only (padding: an image of one color gives such a map too)' in found.text


# --- what does not apply ----------------------------------------------------------------------------------------------


def test_class_agnostic_methods_are_told_so(network, images):
    report = checked(network, images, ['eigencam', 'fem'], ['classes', 'gridpg', 'difull', 'direction', 'stability'])
    assert report.passes and 'class-agnostic' in report['fem', 'classes'].text
    assert {each.verdict for each in report.findings if each.check != 'stability'} == {'open'}


def test_one_image_plays_no_grid_game(network, images):
    report = checked(network, images[0], ['gradcam'])
    assert report.count == 1 and report.passes
    told = report['gradcam', 'gridpg'].text
    assert 'needs four different photos' in told and 'of 1 photo, 1 is predicted so clearly, as 1 class' in told
    assert report['gradcam', 'randomization'].verdict == 'pass'


def clear(labels, photos):
    """What arrangements() reads of images that a network is sure about."""
    numbers = [torch.eye(10)[label] for label in labels]
    return SimpleNamespace(
        numbers=numbers, samples=[SimpleNamespace(data=torch.from_numpy(photo).permute(2, 0, 1)) for photo in photos]
    )


def photos_of(seeds, size=(24, 32)):
    return [np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8) for seed in seeds]


def test_photos_of_a_grid_are_four_different_ones():
    labels = [0, 1, 2, 3, 0, 1, 2, 3]
    photos = photos_of(range(8))
    for game in arrangements(clear(labels, photos), 0.5, 8, 0):
        assert len(set(game.photos)) == 4
        assert [labels[each] == game.target for each in game.photos].count(True) == 1
        assert labels[game.photos[game.place]] == game.target


def test_the_other_photos_of_a_grid_need_not_be_certain():
    explained = clear([0, 1, 2, 3, 4], photos_of(range(5)))
    explained.numbers[1:4] = [torch.full((10,), 0.1).index_fill(0, torch.tensor([0]), 0.04) for _ in range(3)]
    explained.numbers[4] = torch.full((10,), 0.1)  # it may be a 0 as well as anything else
    (game,) = arrangements(explained, 0.5, 8, 0)
    assert game.target == 0 and sorted(game.photos) == [0, 1, 2, 3]


def test_a_photo_that_was_saved_twice_is_one_photo():
    first, second, third, fourth = photos_of(range(4))
    noisy = np.clip(second.astype(int) + np.random.default_rng(9).integers(-3, 4, second.shape), 0, 255)
    photos = [first, second, noisy.astype(np.uint8), second.copy(), third, fourth]
    games = arrangements(clear([0, 1, 2, 3, 4, 5], photos), 0.5, 6, 0)
    assert len(games) == 6
    assert all(len({1, 2, 3}.intersection(game.photos)) <= 1 for game in games)


@pytest.mark.parametrize(
    ('labels', 'photos', 'words'),
    [
        ([0, 1, 2], photos_of(range(3)), 'of 3 photos, 3 are predicted so clearly, as 3 classes'),
        ([0, 0, 1, 1], photos_of(range(4)), '4 are predicted so clearly, as 2 classes'),
        ([0, 1, 2, 3], photos_of([0, 1, 2, 2]), '4 are predicted so clearly, as 4 classes'),
        ([0, 1, 2, 3], [*photos_of(range(3)), *photos_of([3], (24, 30))], 'of one size'),
        ([], [], 'of 0 photos, none is predicted so clearly'),
    ],
)
def test_too_few_photos_for_a_grid_are_told_with_their_number(labels, photos, words):
    with pytest.raises(InputError, match='needs four different photos') as raised:
        arrangements(clear(labels, photos), 0.5, 4, 0)
    assert words in raised.value.problem


def test_a_value_has_no_other_classes(images):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1))
    model = vt.load(network.eval(), activation='none')
    report = checked(model, images[:2], ['gradcam'], ['classes', 'gridpg', 'difull', 'randomization'])
    assert [report['gradcam', check].verdict for check in ('classes', 'gridpg', 'difull')] == ['open'] * 3


def test_a_network_without_classes_or_with_two_inputs(images):
    torch.manual_seed(3)
    headless = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1)).eval()
    report = checked(headless, images[:2], ['eigencam'])
    assert report.passes and 'EigenCAM, open (other classes, GridPG, DiFull): no class is explained' in table(report)

    class Difference(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Linear(8, 3)

        def forward(self, before, after):
            return self.head((self.conv(before) - self.conv(after)).abs().mean((2, 3)))

    report = checked(Difference().eval(), (images[:3], images[3:]), ['gradcam'])
    assert report['gradcam', 'randomization'].verdict == 'pass' and report['gradcam', 'gridpg'].verdict == 'open'


def test_two_classes_by_one_number(images):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1))
    report = checked(vt.load(network.eval(), activation='sigmoid'), images, ['gradcam'], ['classes', 'direction'])
    assert report['gradcam', 'classes'].verdict == 'pass'


def test_methods_that_run_the_network_play_no_disconnected_grid(network, images):
    report = checked(network, images[:2], ['ablationcam'], 'difull')
    assert report['ablationcam', 'difull'].verdict == 'open'


def test_the_advice_names_the_layer_with_the_largest_insertion(network, images):
    criteria = Criteria(better=-1.0)
    report = vt.Check(vt.CAM(layers='features.0'), 'layers', criteria)(network, images[:3])
    frame = report.to_frame().groupby('name').value.mean()
    best = frame.idxmax().removeprefix('insertion at ')
    assert len(frame) > 2 and report['gradcam', 'layers'].text.startswith(f'use {best}, insertion {frame.max():.2f}')
    direct = vt.CAM(layers='features.0', metrics=['insertion'])(network, images[:3])
    assert (
        abs(np.mean([each['gradcam'].metrics['insertion'] for each in direct]) - frame['insertion at features.0']) < 0.2
    )
    assert report.passes


def test_nothing_is_said_of_random_networks(network, images, caplog):
    with caplog.at_level(logging.INFO, 'vistool'):
        checked(network, images[:2], ['gradcam', 'hirescam'], ['randomization'])
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING and 'search' not in record.msg]


def test_where_the_texture_is_the_honest_maps_are(network):
    images, _, corners = textures(6, 7)
    for index, result in enumerate(vt.CAM()(network, images)):
        row, column = corners[index].tolist()
        inside = result['gradcam'].values[row : row + PATCH, column : column + PATCH].sum()
        assert inside / result['gradcam'].values.sum() > 2 * (PATCH / SIZE) ** 2


def test_unknown_checks_are_refused(network, images):
    with pytest.raises(InputError, match='unknown check'):
        vt.Check(checks='sanity')(network, images)


def test_pictures_and_numbers(network, images, tmp_path):
    report = checked(network, images[:4], ['gradcam', 'sobel'])
    vt.save(report, tmp_path / 'column.png', width='column')
    paths = vt.save(report, tmp_path / 'report.pdf', save_raw=True)
    assert paths[0].read_bytes().startswith(b'%PDF') and paths[1].suffix == '.npz'
    raw = np.load(paths[1], allow_pickle=False)
    assert raw['verdicts'].shape == (2, len(UPPER)) and raw['verdicts'][1, 0] == 'fail'
    assert raw['cascade_0'].shape[0] == len(raw['stages']) + 1 == len(raw['similarity_0'])
    assert len(raw['row_value']) == len(report.rows) == len(report.to_frame())
    assert 'GradCAM' in table(report) and 'FAIL 1.00' in table(report)


@pytest.mark.parametrize('config', ['detector', 'segmenter'])
def test_networks_that_find_objects_or_regions_are_refused(config, images):
    model = vt.load(f'configs/scenes/{config}.py')
    with pytest.raises(InputError, match='model: .* the checks are for networks that score whole images'):
        vt.Check()(model, model.read('demo/scenes/scene_3.jpg'))


def test_weights_that_are_not_finite_are_the_reason_and_not_a_verdict(network, images):
    broken = copy.deepcopy(network)
    with torch.no_grad():
        next(broken.parameters()).fill_(torch.nan)
    with pytest.raises(InputError, match='no value of the map is finite.*look for NaN or infinity in the weights'):
        vt.Check(vt.CAM('gradcam'))(broken, images[:2])

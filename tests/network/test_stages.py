"""The stages of networks whose modules work side by side, hold others in a ModuleDict, or end in a head with maps."""

import itertools

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from vistool import FeatureMaps
from vistool.network import positions
from vistool.network.layer_search import searched
from vistool.network.stages import find_stages, stage_features


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def grids(network, size):
    result = FeatureMaps()(network, torch.randn(1, 3, *size))[0]
    return [item.values.shape for item in result.maps]


def conv(channels, width, stride=1):
    return nn.Sequential(nn.Conv2d(channels, width, 3, stride, 1), nn.ReLU())


class Mixed(nn.Module):
    """Branches of several depths on one input, as in GoogLeNet."""

    def __init__(self, channels, stride=1):
        super().__init__()
        self.branch_1 = conv(channels, 4, stride)
        self.branch_2a, self.branch_2b = conv(channels, 6), conv(6, 4, stride)
        self.branch_3a, self.branch_3b, self.branch_3c = conv(channels, 6), conv(6, 6, stride), conv(6, 4)

    def forward(self, x):
        deep = self.branch_3c(self.branch_3b(self.branch_3a(x)))
        return torch.cat([self.branch_1(x), self.branch_2b(self.branch_2a(x)), deep], 1)


class Cell(nn.Module):
    """A reduction cell, as in NASNet: operations on the input that is adjusted first."""

    def __init__(self, channels):
        super().__init__()
        self.adjust_1 = conv(channels, 6)
        self.left_1, self.left_2, self.left_3 = conv(6, 4, 2), conv(6, 4, 2), conv(6, 4, 2)

    def forward(self, x):
        x = self.adjust_1(x)
        return torch.cat([self.left_1(x), self.left_2(x), self.left_3(x)], 1)


class Bag(nn.ModuleDict):
    """A ModuleDict that is called, as torchvision's dense blocks are."""

    def forward(self, x):
        for child in self.values():
            x = torch.cat([x, child(x)], 1)
        return x


@pytest.mark.parametrize('reduce', [Mixed, Cell])
def test_branches_of_a_block_are_not_stages(reduce):
    def down(channels):
        return Mixed(channels, 2) if reduce is Mixed else Cell(channels)

    names = ['stem', 'mixed_a', 'mixed_b', 'mixed_c', 'mixed_d', 'mixed_e']
    blocks = [conv(3, 8, 2), Mixed(8), down(12), Mixed(12), down(12), Mixed(12)]
    network = nn.Sequential()
    for name, block in zip(names, blocks, strict=True):
        network.add_module(name, block)
    assert find_stages(network, torch.randn(1, 3, 64, 64)) == ['mixed_a', 'mixed_c', 'mixed_e']


def test_modules_that_hold_others_and_are_called_are_stages():
    network = nn.Sequential(conv(3, 8, 2))
    for channels in (8, 12, 16):
        network.append(Bag({'one': conv(channels, 2), 'two': conv(channels + 2, 2)}))
        network.append(nn.AvgPool2d(2))
    network[-1] = nn.Identity()
    assert find_stages(network, torch.randn(1, 3, 64, 96)) == ['1', '3', '5']
    assert grids(network, (64, 96)) == [(32, 48), (16, 24), (8, 12)]


def test_a_head_that_holds_maps_is_not_a_stage():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Sequential(conv(3, 8, 2), conv(8, 8)), nn.Sequential(conv(8, 8, 2), conv(8, 8))
            self.three = nn.Sequential(conv(8, 8, 2), conv(8, 8))
            self.head = nn.Sequential(nn.Conv2d(8, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

        def forward(self, x):
            return self.head(self.three(self.two(self.one(x))))

    assert find_stages(Net(), torch.randn(1, 3, 64, 64)) == ['one', 'two', 'three']


def test_residual_stages_with_functions_between_their_blocks_stay_whole():
    class Stage(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.down, self.block = conv(channels, 8, 2), nn.Sequential(conv(8, 8), conv(8, 8))

        def forward(self, x):
            x = self.down(x)
            return F.relu(x + self.block(x))

    network = nn.Sequential(Stage(3), Stage(8), Stage(8))
    assert find_stages(network, torch.randn(1, 3, 64, 64)) == ['0', '1', '2']


@pytest.mark.parametrize(
    ('make', 'size', 'stages', 'shapes'),
    [
        pytest.param(
            lambda: torchvision.models.inception_v3(weights=None, init_weights=False),
            (139, 139),
            ['Mixed_5d', 'Mixed_6e', 'Mixed_7c'],
            [(15, 15), (7, 7), (3, 3)],
            marks=pytest.mark.slow,
        ),
        (
            lambda: torchvision.models.googlenet(weights=None, init_weights=False),
            (64, 96),
            ['inception3b', 'inception4e', 'inception5b'],
            [(8, 12), (4, 6), (2, 3)],
        ),
        (
            lambda: torchvision.models.DenseNet(block_config=(1, 1, 1, 2)),
            (64, 96),
            ['features.denseblock1', 'features.denseblock2', 'features.denseblock3', 'features.norm5'],
            [(16, 24), (8, 12), (4, 6), (2, 3)],
        ),
        (
            lambda: torchvision.models.squeezenet1_1(weights=None),
            (64, 64),
            ['features.1', 'features.4', 'features.7', 'features.12'],
            [(31, 31), (15, 15), (7, 7), (3, 3)],
        ),
        pytest.param(
            lambda: timm.create_model('xception41'),
            (64, 64),
            ['stem', 'blocks.0', 'blocks.1', 'blocks.10', 'blocks.12'],
            [(32, 32), (16, 16), (8, 8), (4, 4), (2, 2)],
            marks=pytest.mark.slow,
        ),
    ],
    ids=['Inception-v3', 'GoogLeNet', 'DenseNet', 'SqueezeNet', 'Xception'],
)
def test_stages_of_published_networks(make, size, stages, shapes):
    network = make().eval()
    assert find_stages(network, torch.randn(1, 3, *size)) == stages
    assert grids(network, size) == shapes


class Paired(nn.Module):
    """A block that returns a map and tokens, as Conformer's do."""

    def __init__(self, stride):
        super().__init__()
        self.map, self.tokens = conv(8, 8, stride), nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8))

    def forward(self, x, tokens):
        return self.map(x), tokens + self.tokens(tokens)


class TwoBranches(nn.Module):
    """Convolutions at three sizes beside tokens at a fourth one."""

    def __init__(self, strides=(1, 1, 2, 1, 2, 1)):
        super().__init__()
        self.stem, self.patches = conv(3, 8, 4), nn.Conv2d(8, 8, 4, 4)
        for number, stride in enumerate(strides):
            self.add_module(f'block_{number}', Paired(stride))

    def forward(self, x):
        x = self.stem(x)
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        for name, block in self.named_children():
            if name.startswith('block'):
                x, tokens = block(x, tokens)
        return x.mean((2, 3)) + tokens.mean(1)


def test_two_branches_of_many_blocks_have_one_stage_for_each_size():
    network = TwoBranches()
    stages = ['block_1[0]', 'block_3[0]', 'block_5']  # where both branches have one size in the end
    assert find_stages(network, torch.randn(1, 3, 128, 192)) == stages
    assert len(grids(network, (128, 192))) == 4
    network = TwoBranches((1, 2, 2, 2))
    assert find_stages(network, torch.randn(1, 3, 128, 192)) == ['block_0[0]', 'block_1[0]', 'block_3[0]', 'block_3[1]']


class Shared(nn.Module):
    """A part that blocks share, registered beside them and run inside them, as CoaT's position encodings."""

    def __init__(self):
        super().__init__()
        self.encode = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU())
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU()), Using(self.encode)) for _ in range(3)
        )

    def forward(self, x):
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return x.mean((2, 3))


class Using(nn.Module):
    def __init__(self, part):
        super().__init__()
        self.__dict__['part'] = part

    def forward(self, x):
        return x + self.part(x)


def test_a_part_that_runs_inside_other_modules_is_not_a_stage():
    assert find_stages(Shared(), torch.randn(1, 3, 64, 64)) == ['stages.0', 'stages.1', 'stages.2']


class Pooling(nn.Module):
    """Convolutional stages, then a class token with what the last one returned, in a norm of its own."""

    def __init__(self, arrange=lambda tokens: tokens):
        super().__init__()
        torch.manual_seed(0)
        widths = (3, 8, 16, 24)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Sequential(nn.Conv2d(a, b, 4, 4 if a == 3 else 2, 1), nn.ReLU()))
            for a, b in itertools.pairwise(widths)
        )
        self.shuffled, self.head = nn.Sequential(nn.Sequential(nn.Linear(24, 24), nn.ReLU())), nn.Linear(24, 5)
        self.arrange = arrange

    def forward(self, x):
        for stage in self.stages:
            x = stage(x)
        return self.head(self.shuffled(self.arrange(x.flatten(2).mT)).mean(1))


def kept_strongest(tokens):
    kept = tokens.norm(dim=2).topk(30, 1).indices
    return tokens.gather(1, kept[..., None].expand(-1, -1, tokens.shape[2]))


def shuffled(tokens):
    return tokens[:, torch.randperm(tokens.shape[1], generator=torch.Generator().manual_seed(5))]


@pytest.mark.parametrize('arrange', [kept_strongest, shuffled])
def test_tokens_that_are_not_places_are_not_a_stage(arrange):
    """30 of 48 tokens pass for a grid of 5 × 6 by their number alone."""
    module, image = Pooling(arrange).eval(), torch.randn(1, 3, 96, 128)
    assert find_stages(module, image) == ['stages.0', 'stages.1', 'stages.2']
    assert searched(module, image).name == 'stages.2'
    assert searched(Pooling().eval(), image).name.startswith('shuffled')


def twice(channels, width):
    layers = [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(width, width, 3, padding=1), nn.ReLU())


class Up(nn.Module):
    """A step up, joined with what was there on the way down."""

    def __init__(self, channels):
        super().__init__()
        self.grow, self.join = nn.ConvTranspose2d(channels, channels // 2, 2, 2), twice(channels, channels // 2)

    def forward(self, x, beside):
        return self.join(torch.cat([beside, self.grow(x)], 1))


class UNet(nn.Module):
    """U-Net (Ronneberger et al., MICCAI 2015), its parts by names or in lists."""

    def __init__(self, steps, classes=2):
        super().__init__()
        widths = [4 * 2**step for step in range(steps + 1)]
        self.inc, self.outc = nn.Sequential(twice(3, 4)), nn.Sequential(nn.Conv2d(4, classes, 1))
        self.down = nn.ModuleList(nn.Sequential(nn.MaxPool2d(2), twice(w, 2 * w)) for w in widths[:-1])
        self.up = nn.ModuleList(Up(w) for w in reversed(widths[1:]))

    def forward(self, x):
        kept = [self.inc(x)]
        for step in self.down:
            kept.append(step(kept[-1]))
        x = kept.pop()
        for step in self.up:
            x = step(x, kept.pop())
        return self.outc(x)


@pytest.mark.parametrize('steps', [2, 4])
def test_both_ways_of_a_u_net_are_stages_and_what_it_predicts_is_not(steps):
    names = find_stages(UNet(steps).eval(), torch.randn(1, 3, 64, 64))
    assert names == ['inc', *(f'down.{step}' for step in range(steps)), *(f'up.{step}' for step in range(steps))]


def test_the_last_block_of_a_headless_network_stays_a_stage():
    blocks = nn.Sequential(twice(3, 4), nn.MaxPool2d(2), twice(4, 8), nn.MaxPool2d(2), twice(8, 8), twice(8, 8))
    assert find_stages(blocks.eval(), torch.randn(1, 3, 32, 32))[-1] == '5'


class Shuffling(nn.Module):
    """A 1×1 convolution behind a step that moves places."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 12, 1)

    def forward(self, x):
        return self.conv(x.flip(3))


@pytest.mark.parametrize('last, asked', [(nn.Conv2d(8, 12, 1), False), (Shuffling(), True)], ids=['kept', 'moved'])
def test_a_last_stage_of_single_pixels_is_probed_only_where_its_places_may_have_moved(monkeypatch, last, asked):
    probed = []
    monkeypatch.setattr(positions, '_positions', lambda *args, own=positions._positions: probed.append(1) or own(*args))
    layers = conv(3, 8, 2), conv(8, 8, 2), conv(8, 8, 2), nn.Sequential(last, nn.BatchNorm2d(12), nn.ReLU())
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    assert grids(network, (64, 64))[-1] == (8, 8)
    assert bool(probed) == asked


def test_stages_that_the_network_writes_to_are_drawn_as_they_were():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.last = conv(3, 4, 2), conv(4, 4, 2), conv(4, 4, 2)

        def forward(self, x):
            x = self.second(self.first(x))
            x.mul_(3)
            return self.last(x).neg_()

    network, image = Network().eval(), torch.randn(1, 3, 64, 64)
    (names, first), (_, later) = (stage_features(network, image) for _ in range(2))
    assert names == ['first', 'second', 'last']
    with torch.no_grad():
        expected = network.second(network.first(image))
    for one, other in zip(first, later, strict=True):
        assert torch.equal(one.maps, other.maps)
    assert torch.equal(first[1].maps, expected)


def test_parametrized_weights_change_no_stage():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.l1, self.l2 = conv(3, 6, 2), conv(6, 8, 2), conv(8, 8, 1)
            self.l3, self.fc = conv(8, 8, 2), nn.Linear(8, 5)

        def forward(self, x):
            return self.fc(self.l3(self.l2(self.l1(self.stem(x)))).mean((2, 3)))

    network = Network().eval()
    photo = torch.randn(1, 3, 64, 96)
    plain = find_stages(network, photo)
    nn.utils.parametrizations.spectral_norm(network.l2[0])
    nn.utils.parametrizations.weight_norm(network.l3[0])
    assert find_stages(network, photo) == plain == ['stem', 'l2', 'l3']


class Remembering(nn.Module):
    """Returns its map, that at half the size, and the state ``(B, C, N)`` of a recurrence, as EfficientViM's stages."""

    def __init__(self, channels, width, states):
        super().__init__()
        self.conv, self.down = conv(channels, width, 2), conv(width, width, 2)
        self.mix, self.norm = nn.Linear(width, states), nn.BatchNorm2d(width)

    def forward(self, x):
        x = self.conv(x)
        tokens = x.flatten(2)
        state = tokens @ self.mix(tokens.mT).softmax(1)
        x = self.norm(x + state.mean(2)[..., None, None])
        return x, self.down(x), state


def test_the_state_of_a_recurrence_is_not_a_map():
    """32 and 15 states would be grids of 4 × 8 and 3 × 5 positions."""

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.stages = nn.ModuleList([Remembering(3, 6, 32), Remembering(6, 8, 15)])
            self.head = nn.Linear(8, 5)

        def forward(self, x):
            for stage in self.stages:
                _, x, _ = stage(x)
            return self.head(x.mean((2, 3)))

    network = Network().eval()
    assert grids(network, (96, 160)) == [(48, 80), (24, 40), (12, 20), (6, 10)]

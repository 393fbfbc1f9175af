"""The layer that is explained by default: by table for known networks, by search for all others."""

import gc
import logging
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import vistool as vt
from vistool.network.forward import layers_to_explain, search_layer
from vistool.network.layers import DEFAULT_LAYERS, default_layers, find_layer

PHOTO = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


class ResNet(nn.Module):
    """Of the name of a known network, with other layers: residual blocks that add and rectify in place."""

    class Block(nn.Module):
        def __init__(self, width, shortcut_last):
            super().__init__()
            self.conv = nn.Conv2d(width, 2 * width, 3, 2, 1)
            self.norm = nn.BatchNorm2d(2 * width)
            self.shortcut = nn.Sequential(nn.Conv2d(width, 2 * width, 1, 2), nn.BatchNorm2d(2 * width))
            self.shortcut_last = shortcut_last

        def forward(self, x):
            residual = None if self.shortcut_last else self.shortcut(x)
            y = self.norm(self.conv(x))
            y += self.shortcut(x) if residual is None else residual
            return F.relu_(y)

    def __init__(self, shortcut_last=True):
        super().__init__()
        self.layer4 = nn.Conv2d(3, 8, 3, 2, 1)  # the stem here, the last stage elsewhere
        self.body = nn.ModuleList([self.Block(8, shortcut_last), self.Block(16, shortcut_last)])
        self.fc = nn.Linear(32, 4)

    def forward(self, x):
        x = self.layer4(x)
        for block in self.body:
            x = block(x)
        return self.fc(x.mean((2, 3)))


class Attention(nn.Module):
    def __init__(self, width=16, split=True):
        super().__init__()
        if split:
            self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        else:
            self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = nn.LayerNorm(width // 2)
        self.split, self.proj = split, nn.Linear(width, width)

    def forward(self, x):
        parts = (self.q(x), self.k(x), self.v(x)) if self.split else self.qkv(x).chunk(3, -1)
        q, k, v = (part.unflatten(2, (2, -1)).transpose(1, 2) for part in parts)
        return self.proj(F.scaled_dot_product_attention(self.q_norm(q), k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, width=16, split=True):
        super().__init__()
        self.first, self.attn = nn.LayerNorm(width), Attention(width, split)
        self.second, self.mlp = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, x):
        x = x + self.attn(self.first(x))
        return x + self.mlp(self.second(x))


class VisionTransformer(nn.Module):
    """Of the name of a known network, with layers of other names."""

    def __init__(self, pool='token', split=True, head=True):
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 16, 16)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.parts = nn.Sequential(*(Block(split=split) for _ in range(3)))
        self.final = nn.LayerNorm(16)
        self.pool, self.head = pool, nn.Linear(16, 4) if head else nn.Identity()

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        if self.pool == 'token':
            x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        x = self.final(self.parts(x))
        return self.head(x[:, 0] if self.pool == 'token' else x.mean(1))


class Overwrites(nn.Module):
    """Writes to what a backward would need, as networks may that are only run."""

    def __init__(self):
        super().__init__()
        self.stem, self.gate, self.last = nn.Conv2d(3, 8, 3, 2, 1), nn.Sigmoid(), nn.Conv2d(8, 8, 3, 2, 1)
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        x = self.gate(self.stem(x))
        x.mul_(2)
        return self.fc(self.last(x).mean((2, 3)))


def test_a_network_that_cannot_be_trained_is_searched_all_the_same():
    network = Overwrites().eval()
    with pytest.raises(RuntimeError, match='inplace operation'):
        network(PHOTO).sum().backward()
    assert search_layer(network, PHOTO) == 'last'


def test_the_first_maps_of_a_searched_layer_equal_the_later_ones():
    for network in (ResNet().eval(), Overwrites().eval()):
        cam = vt.CAM(['gradcam'], targets=1)
        first, later = (cam(network, PHOTO)[0] for _ in range(2))
        assert first.layers == later.layers
        assert (first.maps[0].values == later.maps[0].values).all()


@pytest.mark.parametrize('shortcut_last', [True, False])
def test_a_block_that_adds_and_rectifies_in_place_is_explained_by_its_output(shortcut_last):
    network = ResNet(shortcut_last).eval()
    assert search_layer(network, PHOTO) == 'body.1'
    result = vt.CAM(['gradcam'])(network, PHOTO)[0]
    with torch.no_grad():
        last = network.body[1](network.body[0](network.layer4(PHOTO)))
    weights = network.fc.weight[network(PHOTO).argmax()] / last[0, 0].numel()
    assert torch.allclose(torch.tensor(result['gradcam'].signed), (weights[:, None, None] * last[0]).sum(0), atol=1e-5)


def test_timms_convit_is_explained_at_its_last_blocks_first_norm():
    import timm

    network = timm.create_model('convit_tiny', depth=3, embed_dim=24, img_size=64, local_up_to_layer=1).eval()
    assert search_layer(network, PHOTO[..., :64]) == 'blocks.2.norm1'


@pytest.mark.parametrize('split', [True, False])
def test_an_unknown_transformer_with_a_class_token_is_explained_at_its_last_blocks_first_norm(split):
    network = VisionTransformer(split=split).eval()
    assert default_layers(network) == []
    assert search_layer(network, PHOTO) == 'parts.2.first'


def test_one_that_averages_its_tokens_is_explained_at_its_final_norm():
    assert search_layer(VisionTransformer('mean').eval(), PHOTO) == 'final'


def test_tokens_that_a_query_pools_are_explained_before_its_projections():
    class Pooled(VisionTransformer):
        def __init__(self):
            super().__init__('query')
            self.query, self.kv = nn.Parameter(torch.randn(1, 1, 16)), nn.Linear(16, 32)

        def forward(self, x):
            x = self.final(self.parts(self.patches(x).flatten(2).transpose(1, 2)))
            k, v = self.kv(x).chunk(2, -1)
            return self.head(F.scaled_dot_product_attention(self.query.expand(len(x), -1, -1), k, v)[:, 0])

    assert search_layer(Pooled().eval(), PHOTO) == 'final'


def test_a_last_relu_that_no_module_applies_belongs_to_the_layer():
    class PreActivated(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.BatchNorm2d(8))
            self.head = nn.Linear(8, 4)

        def forward(self, x):
            return self.head(F.adaptive_avg_pool2d(F.relu(self.features(x), inplace=True), 1).flatten(1))

    network = PreActivated().eval()
    assert search_layer(network, PHOTO) == 'features+relu'
    (result,) = vt.CAM(['gradcam', 'ablationcam'])(network, PHOTO)
    assert result.provenance['layers'] == ['features+relu']


def test_the_map_before_pooling_is_explained_not_the_pooled_one():
    layers = [nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU()]
    pooled = nn.Sequential(nn.Sequential(*layers, nn.MaxPool2d(2)), nn.AdaptiveAvgPool2d((4, 6)), nn.Flatten())
    network = nn.Sequential(pooled, nn.Linear(8 * 24, 4)).eval()
    assert search_layer(network, PHOTO) == '0.0.4'


@pytest.mark.parametrize('kind', [ResNet, VisionTransformer])
def test_a_network_of_a_known_name_with_other_layers_is_searched(kind, caplog):
    network = kind().eval()
    assert any(key.endswith(f'.{kind.__name__}') for key in DEFAULT_LAYERS)
    assert default_layers(network) == []
    (name,) = layers_to_explain(network, PHOTO)
    assert 'found by layer search' in caplog.text and find_layer(network, name)


def test_a_known_backbone_inside_a_users_own_network_is_searched():
    import torchvision

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = torchvision.models.resnet18(weights=None)
            self.neck, self.head = nn.Conv2d(512, 8, 1), nn.Linear(8, 4)

        def forward(self, x):
            net = self.net
            x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
            x = net.layer4(net.layer3(net.layer2(net.layer1(x))))
            return self.head(self.neck(x).relu().mean((2, 3)))

    network = Own().eval()
    assert default_layers(network) == [] and default_layers(network.net) == ['layer4']
    assert search_layer(network, PHOTO) == 'neck+relu'

    class Subclass(torchvision.models.ResNet):
        pass

    changed = torchvision.models.resnet18(weights=None)
    changed.forward = lambda x: changed.fc(x.mean((2, 3)))
    blocks = torchvision.models.resnet.BasicBlock, [1, 1, 1, 1]
    assert default_layers(Subclass(*blocks)) == default_layers(changed) == []


def test_a_head_of_zeros_is_named_and_a_layer_found_all_the_same(caplog):
    network = VisionTransformer('mean').eval()
    nn.init.zeros_(network.head.weight)
    for _ in range(2):
        assert layers_to_explain(network, PHOTO) == ['final']
    told = [record.getMessage() for record in caplog.records if 'all zero' in record.getMessage()]
    assert told == [
        'the weights of head are all zero, so no score depends on the image and gradients are zero everywhere: load a '
        'checkpoint, or use a method without gradients (EigenCAM)'
    ]
    (result,) = vt.CAM(['eigencam'])(network, PHOTO)
    assert result['eigencam'].values.any()


def test_timms_hiera_with_random_weights_is_explained_at_its_last_block(caplog):
    import timm

    network = timm.create_model('hiera_tiny_224', embed_dim=16, stages=(1, 1, 1, 1), img_size=64).eval()
    nn.init.zeros_(network.head.fc.weight)
    assert layers_to_explain(network, PHOTO[..., :64]) == ['blocks.3'] and 'head.fc are all zero' in caplog.text


def test_attention_weights_and_heads_are_not_maps():
    """With 12 × 18 = 216 tokens and as many channels, (B, heads, tokens, channels) is nearly square."""

    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches = nn.Conv2d(3, 48, 8, 8)
            self.norm = nn.LayerNorm(48)
            self.head_norm = nn.LayerNorm(48)
            self.out, self.head = nn.Linear(96, 48), nn.Linear(48, 4)
            self.token = nn.Parameter(torch.randn(1, 1, 48))

        def forward(self, x):
            x = self.norm(self.patches(x).flatten(2).transpose(1, 2))
            k = self.head_norm(x[:, None].expand(-1, 2, -1, -1))  # (B, 2, 96, 48)
            q = self.token[:, None].expand(len(x), 2, -1, -1)
            return self.head(self.out(F.scaled_dot_product_attention(q, k, k).transpose(1, 2).flatten(2))[:, 0])

    assert search_layer(Heads().eval(), PHOTO) == 'norm'


def test_the_search_runs_once_for_a_network_its_weights_and_an_input_size():
    network, runs = ResNet().eval(), []
    network.register_forward_pre_hook(lambda *call: runs.append(1))
    cam, featmap = vt.CAM(['eigencam']), vt.FeatureMaps()

    def forwards(analysis, size=64):
        runs.clear()
        analysis(network, torch.randn(1, 3, size, size))
        return len(runs)

    assert [forwards(cam) for _ in range(3)] == [2, 1, 1]
    assert [forwards(featmap) for _ in range(3)][1:] == [1, 1]
    assert [forwards(cam, 96) for _ in range(2)] == [2, 1]
    with torch.no_grad():
        network.fc.weight.mul_(2)
    assert [forwards(cam) for _ in range(2)] == [2, 1]


def test_a_searched_network_is_freed_with_what_was_found():
    network = ResNet().eval()
    vt.CAM(['gradcam'])(network, PHOTO)
    vt.FeatureMaps()(network, PHOTO)
    kept = weakref.ref(network)
    del network
    gc.collect()
    assert kept() is None


def test_what_was_chosen_is_logged_once(caplog):
    caplog.set_level(logging.INFO)
    network = ResNet().eval()
    for _ in range(3):
        vt.CAM(['eigencam'])(network, PHOTO)
    assert caplog.text.count('target layer: body.1') == 1


class Small(nn.Module):
    """A body whose input and output ``way`` changes."""

    def __init__(self, way):
        super().__init__()
        self.way, self.body, self.fc = way, nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.ReLU()), nn.Linear(6, 5)

    def scores(self, x):
        return self.fc(self.body(x).mean((2, 3)))

    def forward(self, x):
        return self.way(self.scores, x)


def mirrored(scores, x):
    return sum(scores(torch.cat([x, x.flip(-1)])).chunk(2))


def tiled(scores, x):
    tiles = x.unflatten(2, (2, 32)).unflatten(4, (3, 32)).permute(0, 2, 4, 1, 3, 5)
    return scores(tiles.flatten(0, 2)).unflatten(0, (len(x), 6)).mean(1)


@pytest.mark.parametrize(('way', 'rows'), [(mirrored, 2), (tiled, 6)])
@pytest.mark.parametrize('analysis', [vt.CAM(), vt.FeatureMaps()], ids=repr)
def test_copies_and_tiles_of_an_image_are_named_as_the_reason(way, rows, analysis):
    with pytest.raises(vt.InputError, match=f'runs on {rows} rows for each image: copies, crops or tiles'):
        analysis(Small(way).eval(), PHOTO.repeat(2, 1, 1, 1))


@pytest.mark.parametrize(
    ('way', 'said'),
    [
        (lambda scores, x: scores(x).argmax(1), r'int64 \(1,\)'),
        (lambda scores, x: (scores(x), None)[1], 'NoneType'),
        (lambda scores, x: scores(x).detach().numpy(), 'ndarray'),
    ],
    ids=['classes', 'nothing', 'NumPy'],
)
def test_an_output_without_numbers_to_differentiate_is_named(way, said):
    network = Small(way).eval()
    with pytest.raises(vt.InputError, match=f'its output holds no floating-point tensor: {said}'):
        vt.CAM()(network, PHOTO)
    assert vt.CAM('eigencam')(network, PHOTO)[0].layers == ('body',)


@pytest.mark.parametrize('analysis', [vt.CAM(), vt.FeatureMaps()], ids=repr)
def test_modules_in_a_plain_list_are_named_as_the_reason(analysis):
    class Forgotten(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers, self.fc = [nn.Conv2d(3, 6, 3, 2), nn.ReLU()], nn.Linear(6, 5)

        def forward(self, x):
            for layer in self.layers:
                x = layer(x)
            return self.fc(x.mean((2, 3)))

    with pytest.raises(vt.InputError, match='layers is a plain list, whose modules are not part of the network'):
        analysis(Forgotten().eval(), PHOTO)


@pytest.mark.slow
def test_conformers_last_block_is_explained_by_its_output():
    from mmpretrain import get_model

    network = get_model('conformer-tiny-p16_3rdparty_in1k').eval()
    outputs = []
    network.backbone.conv_trans_12.register_forward_hook(lambda module, args, output: outputs.append(output[0]))
    photo = torch.randn(1, 3, 224, 224)
    (name,) = layers_to_explain(network, photo)
    with torch.no_grad():
        network(photo)
    (result,) = vt.FeatureMaps(layers=[name], reduction='none')(network, photo)
    assert torch.equal(torch.tensor(result.maps[3].values), outputs[-1][0, 3])

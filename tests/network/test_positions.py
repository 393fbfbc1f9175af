"""Where a layer's values lie, found by changing the image: orders, extra tokens, grids, and what has no order."""

import logging
import math
from dataclasses import replace

import pytest
import timm
import torch
from torch import nn

from vistool.analyses.cam import CAM
from vistool.analyses.featmap import FeatureMaps
from vistool.errors import InputError
from vistool.network.forward import forward
from vistool.network.positions import Reading, known_positions, positions, token_orders
from vistool.network.tensors import Layout, TokenHints, TokenOrder, WindowOrder, token_hints
from vistool.visualization.facets import facets


class Tokens(nn.Module):
    """A transformer over patches whose tokens may be reordered, dropped, and joined by others."""

    def __init__(self, patch=(8, 8), arrange=None, before=1, middle=0, after=0, width=16, depth=2):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Conv2d(3, width, patch, patch)
        self.extra = nn.Parameter(torch.randn(3, 8, width))
        self.counts = before, middle, after
        self.arrange = arrange
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 2, 2 * width, 0.0, batch_first=True) for _ in range(depth)
        )
        self.head = nn.Linear(width, 5)

    def forward(self, x):
        tokens = self.embed(x).flatten(2).transpose(1, 2)
        if self.arrange is not None:
            tokens = self.arrange(tokens)
        half = tokens.shape[1] // 2
        first, inside, last = (
            extra[:count].expand(len(x), -1, -1) for extra, count in zip(self.extra, self.counts, strict=True)
        )
        tokens = torch.cat([first, tokens[:, :half], inside, tokens[:, half:], last], 1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(tokens.mean(1))


def laid_out(module, size, layer='blocks.1', **options):
    torch.manual_seed(1)
    with forward(
        module.eval(), torch.randn(1, 3, *size), {layer: module.get_submodule(layer)}, gradients=True, **options
    ) as run:
        return run.layers[0].layout


@pytest.mark.parametrize(
    ('before', 'middle', 'after'),
    [(0, 0, 1), (0, 1, 0), (1, 0, 0), (1, 0, 4), (0, 0, 0), (4, 0, 1)],
    ids=['at the end', 'in the middle', 'before', 'registers after', 'none', 'registers before'],
)
@pytest.mark.parametrize('size', [(96, 96), (64, 112)])
def test_extra_tokens_are_found_wherever_they_are(before, middle, after, size):
    layout = laid_out(Tokens(before=before, middle=middle, after=after), size)
    assert layout == Layout('BLC', (size[0] // 8, size[1] // 8), before, after, middle)


@pytest.mark.parametrize(
    ('patch', 'size', 'grid'),
    [
        ((16, 8), (64, 96), (4, 12)),
        ((4, 8), (32, 128), (8, 16)),
        ((32, 4), (64, 64), (2, 16)),
        ((8, 8), (32, 96), (4, 12)),
    ],
)
@pytest.mark.parametrize('before', [0, 1])
def test_the_grid_that_the_patches_make_is_used_whatever_its_shape(patch, size, grid, before):
    assert laid_out(Tokens(patch, before=before), size).grid == grid


class Unfolding(Tokens):
    """The same without a convolution: nothing tells the grid but the answers."""

    def __init__(self, patch, **options):
        super().__init__(patch, **options)
        self.sides = patch
        self.embed = nn.Linear(3 * math.prod(patch), 16)

    def forward(self, x):
        (h, w), (b, c, height, width) = self.sides, x.shape
        patches = x.reshape(b, c, height // h, h, width // w, w).permute(0, 2, 4, 1, 3, 5).flatten(3)
        embed, self.embed = self.embed, nn.Identity()
        try:
            tokens = embed(patches.flatten(1, 2)).transpose(1, 2)
            self.embed = _Given(tokens)
            return super().forward(x)
        finally:
            self.embed = embed


class _Given(nn.Module):
    def __init__(self, tokens):
        super().__init__()
        self.tokens = tokens

    def forward(self, x):
        return self.tokens.unsqueeze(3)


@pytest.mark.parametrize(('patch', 'size', 'grid'), [((16, 8), (64, 96), (4, 12)), ((8, 8), (64, 96), (8, 12))])
def test_without_a_convolution_the_answers_tell_the_grid(patch, size, grid):
    assert laid_out(Unfolding(patch), size).grid == grid


def _by(order):
    place = order.index()
    inverse = torch.empty_like(place)
    inverse[place] = torch.arange(len(place))
    return lambda tokens: tokens[:, inverse]


@pytest.mark.parametrize('order', token_orders((8, 8)), ids=lambda order: order.name)
def test_every_order_is_recognized_and_undone(order):
    layout = laid_out(Tokens(arrange=_by(order), before=0), (64, 64))
    assert torch.equal(layout.index(), order.index())


def test_an_order_is_as_its_factors_say():
    blocks = TokenOrder((2, 2), (2, 2), (0, 2, 1, 3), 'blocks of 2×2')
    assert blocks.index().view(4, 4).tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


def _shuffled(tokens):
    return tokens[:, torch.randperm(tokens.shape[1], generator=torch.Generator().manual_seed(5))]


def _strongest(tokens):
    kept = tokens.norm(dim=2).topk(49, 1).indices
    return tokens.gather(1, kept[..., None].expand(-1, -1, tokens.shape[2]))


def _strongest_in_order(tokens):
    kept = tokens.norm(dim=2).topk(49, 1).indices.sort(1).values
    return tokens.gather(1, kept[..., None].expand(-1, -1, tokens.shape[2]))


def test_a_class_token_of_a_small_grid_comes_first_unless_it_certainly_does_not():
    """Hugging Face's PVT: 4 × 4 tokens and a class token before them, in a deep layer that sees much of the image."""
    from transformers import PvtConfig, PvtForImageClassification

    for seed in range(3):
        torch.manual_seed(seed)
        config = PvtConfig(
            image_size=64, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 1, 1]
        )
        module = PvtForImageClassification(config)
        for name, weight in module.named_parameters():
            if weight.ndim > 1 and 'embeddings' not in name:
                nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
        layout = laid_out(module, (64, 64), 'pvt.encoder.block.3.0.layer_norm_1')
        assert (layout.prefix, layout.middle, layout.suffix, layout.order) == (1, 0, 0, None)


@pytest.mark.parametrize('arrange', [_shuffled, _strongest, _strongest_in_order])
def test_tokens_without_an_order_are_refused_with_the_reason(arrange):
    """Pruned tokens, 49 of 64, pass for a grid of 7 × 7."""
    module = Tokens(arrange=arrange)
    with pytest.raises(InputError, match='pruned, shuffled or mixed'):
        laid_out(module, (64, 64))
    with pytest.raises(InputError, match='pruned, shuffled or mixed'):
        FeatureMaps(layers='blocks.1')(module, torch.randn(3, 64, 64))
    assert laid_out(module, (64, 64), 'embed').axes == 'BCHW'


class Mixing(nn.Module):
    """Mixes all places of the image, convolves what it gets, and goes on with tokens: they answer to no single patch.

    Args:
        arrange: What becomes of the tokens.
        size: Rows and columns to which the map is enlarged before.
    """

    def __init__(self, arrange=lambda tokens: tokens, size=None):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Conv2d(3, 16, 8, 8)
        self.mix = nn.Linear(72, 72)
        self.conv = nn.Conv2d(16, 16, 3, padding=1)
        self.proj = nn.Linear(16, 16)
        self.head = nn.Linear(16, 5)
        self.arrange, self.size = arrange, size

    def forward(self, x):
        maps = self.embed(x)
        maps = self.mix(maps.flatten(2)).view_as(maps)
        maps = self.conv(maps)
        if self.size is not None:
            maps = nn.functional.interpolate(maps, self.size, mode='bilinear')
        return self.head(self.proj(self.arrange(maps.flatten(2).transpose(1, 2))).mean(1)).unflatten(0, (len(x), -1))[
            :, 0
        ]


@pytest.mark.parametrize('order', [None, *token_orders((8, 9))], ids=lambda order: getattr(order, 'name', 'rows'))
def test_where_places_were_mixed_before_a_convolution_its_output_is_changed(order):
    module = Mixing() if order is None else Mixing(_by(order))
    layout = laid_out(module, (64, 72), 'proj')
    assert layout.grid == (8, 9) and not layout.unchecked
    assert torch.equal(layout.index(), torch.arange(72) if order is None else order.index())
    answers = positions(module, torch.randn(1, 3, 64, 72))
    assert answers.shown(answers.answer(module.proj), None, (64, 72), TokenHints()) is None  # the image does not tell


@pytest.mark.parametrize('arrange', [_shuffled, _strongest, _strongest_in_order])
def test_tokens_that_were_shuffled_after_a_convolution_are_refused(arrange):
    with pytest.raises(InputError, match='pruned, shuffled or mixed'):
        laid_out(Mixing(arrange), (64, 72), 'proj')


def _folded(tokens):
    """MobileViT's patches of 2 × 2 over 8 × 10 positions, their pixels along the batch as in Hugging Face's."""
    patches = tokens.unflatten(1, (4, 2, 5, 2)).permute(0, 2, 4, 1, 3, 5)
    return patches.reshape(-1, 20, tokens.shape[2])


def test_a_map_that_was_enlarged_to_whole_patches_is_not_a_padded_one():
    """8 × 9 positions, enlarged to 8 × 10: not 9 columns and one of padding."""
    module = Mixing(_folded, size=(8, 10))
    layout = laid_out(module, (64, 72), 'proj')
    assert layout.grid == (8, 10)
    assert torch.equal(layout.to_map(_folded(torch.arange(80.0).view(1, 80, 1))).flatten(), torch.arange(80.0))


def test_class_tokens_alone_are_not_a_map():
    class Split(Tokens):
        def __init__(self):
            super().__init__(before=2)
            self.special = nn.Identity()

        def forward(self, x):
            tokens = self.embed(x).flatten(2).transpose(1, 2)
            tokens = self.blocks[0](torch.cat([self.extra[0, :2].expand(len(x), -1, -1), tokens], 1))
            return self.head(self.special(tokens[:, :2]).mean(1))

    with pytest.raises(InputError, match='as few tokens as networks have'):
        laid_out(Split(), (64, 64), 'special')


def test_what_all_images_of_a_batch_share_is_no_map_of_them():
    """Position embeddings, which Hugging Face's CLIP looks up once for a batch."""

    class Placed(Tokens):
        def __init__(self):
            super().__init__()
            self.places = nn.Embedding(65, 16)

        def forward(self, x):
            tokens = self.embed(x).flatten(2).transpose(1, 2)
            return self.head((tokens + self.places(torch.arange(64)[None])).mean(1))

    module, images = Placed(), torch.randn(2, 3, 64, 64)
    for analysis in (FeatureMaps(layers='places'), CAM('eigencam', layers='places')):
        with pytest.raises(InputError, match='1 entry for 2 images: what all images share'):
            analysis(module, images)


def test_a_layer_that_does_not_see_the_image_is_drawn_with_a_warning(caplog):
    module = Tokens()
    nn.init.zeros_(module.embed.weight)
    with caplog.at_level(logging.WARNING, 'vistool'):
        assert laid_out(module, (64, 64)) == Layout('BLC', (8, 8), 1)
    assert 'blocks.1: the order of its tokens could not be checked' in caplog.text
    for analysis in (FeatureMaps(layers='blocks.1'), CAM('eigencam', layers='blocks.1')):
        assert 'token order not checked' in facets(analysis(module, torch.randn(3, 64, 64))).caption
        assert 'not checked' not in facets(replace(analysis, layers='embed')(module, torch.randn(3, 64, 64))).caption


def _hiera(**options):
    torch.manual_seed(0)
    return timm.models.hiera.Hiera(
        img_size=(64, 64), embed_dim=16, num_heads=1, stages=(1, 2, 2, 1), num_classes=5, **options
    ).eval()


@pytest.mark.parametrize('block', range(6))
def test_blocks_of_hiera_are_laid_out_as_its_own_reroll_does(block):
    module, image = _hiera(), torch.randn(2, 3, 64, 64)
    seen = {}
    handle = module.blocks[block].register_forward_hook(lambda m, a, output: seen.update(x=output.detach()))
    module(image)
    handle.remove()
    expected = module.reroll(seen['x'], block).permute(0, 3, 1, 2)
    maps = FeatureMaps(layers=f'blocks.{block}', channels=[3])(module, image)
    for own, result in zip(expected, maps, strict=True):
        torch.testing.assert_close(torch.from_numpy(result.maps[0].values), own[3], rtol=1e-4, atol=1e-5)


def test_blocks_of_nest_are_put_back():
    from timm.models.nest import Nest, deblockify

    torch.manual_seed(0)
    module = Nest(
        img_size=64, num_levels=3, embed_dims=(8, 16, 24), num_heads=(1, 1, 1), depths=(1, 1, 1), num_classes=5
    )
    image, seen = torch.randn(1, 3, 64, 64), {}
    names = [f'levels.{level}.transformer_encoder.0' for level in range(3)]
    for name in names:
        module.get_submodule(name).register_forward_hook(
            lambda m, a, output, name=name: seen.update({name: output.detach()})
        )
    module.eval()(image)
    expected = [deblockify(seen[name], 4).permute(0, 3, 1, 2) for name in names]
    for name, maps in zip(names, expected, strict=True):
        with forward(module, image, {name: module.get_submodule(name)}, gradients=False) as run:
            torch.testing.assert_close(run.layers[0].map(run.layers[0].value), maps)


@pytest.mark.parametrize('layer', ['stages.2.1.transformer.0.norm1', 'stages.3.1.transformer.1'])
def test_unfolded_patches_of_mobilevit_are_put_back(layer):
    module = timm.create_model('mobilevitv2_050', num_classes=5).eval()
    layout = laid_out(module, (128, 128), layer)
    assert layout.order is not None and layout.order.name == 'strides of 2×2'


@pytest.mark.parametrize('part', ['norm2', 'mlp', 'mlp.fc1', 'mlp.act', 'attn.out_proj'])
def test_inner_convolutions_of_1x1_over_unfolded_patches_are_put_back(part):
    """They return (B, C, pixels, patches), with the channels where a map has them."""
    torch.manual_seed(0)
    module, image = timm.create_model('mobilevitv2_050', num_classes=5).eval(), torch.randn(1, 3, 128, 160)
    layer = f'stages.2.1.transformer.1.{part}'
    block, seen = module.get_submodule('stages.2.1'), {}
    module.get_submodule(layer).register_forward_hook(lambda m, a, output: seen.update(x=output.detach()))
    module(image)
    high, wide = block.patch_size
    tokens = seen['x'].unflatten(2, (high, wide)).unflatten(4, (16 // high, 20 // wide))
    expected = tokens.permute(0, 1, 4, 2, 5, 3).reshape(1, -1, 16, 20)
    maps = FeatureMaps(layers=layer, channels=[3])(module, image)[0].maps[0].values
    torch.testing.assert_close(torch.from_numpy(maps), expected[0, 3], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('part', ['attn.attn_drop', 'attn'])
def test_what_a_softmax_makes_of_unfolded_patches_is_not_a_picture(part):
    torch.manual_seed(0)
    module = timm.create_model('mobilevitv2_050', num_classes=5).eval()
    layout = None
    try:
        layout = laid_out(module, (128, 160), f'stages.3.1.transformer.1.{part}')
    except InputError as error:
        assert 'follows no known order' in str(error)
    assert layout is None or layout.grid == (8, 10)


@pytest.mark.parametrize('layer', ['blocks.0.attn.k_norm', 'blocks.1.attn.q_norm'])
def test_heads_of_a_known_family_are_not_a_picture(layer):
    """(B, heads, tokens, channels): the table vouches for the order of tokens, not for what four axes are."""
    module = timm.create_model('vit_tiny_patch16_224', img_size=96, depth=2, num_classes=5).eval()
    with pytest.raises(InputError, match='axes are not positions'):
        laid_out(module, (96, 96), layer)


def test_heads_of_attention_are_not_a_picture():
    class Heads(Tokens):
        def __init__(self):
            super().__init__(before=0)
            self.split = nn.Unflatten(2, (2, 8))
            self.heads = nn.Identity()

        def forward(self, x):
            tokens = self.embed(x).flatten(2).transpose(1, 2)
            heads = self.heads(self.split(tokens).transpose(1, 2))
            return self.head(heads.transpose(1, 2).flatten(2).mean(1))

    with pytest.raises(InputError, match='axes are not positions'):
        laid_out(Heads(), (64, 64), 'heads')


def test_the_check_runs_once_and_known_families_pay_nothing():
    def forwards(module, layer):
        seen = []
        module.register_forward_hook(lambda m, args, output: seen.append(len(args[0])))
        for _ in range(2):
            CAM(layers=layer)(module, torch.randn(3, 64, 64))
        return seen

    assert forwards(Tokens().eval(), 'blocks.0') == [1, 2, 1]
    assert forwards(Tokens().eval(), 'embed') == [1, 1]
    known = timm.create_model('vit_tiny_patch16_224', img_size=64, depth=2, num_classes=5).eval()
    assert forwards(known, 'blocks.0') == [1, 1]
    assert not known_positions(Tokens(), 'blocks.0')


def test_a_network_that_takes_single_images_goes_on_with_a_warning(caplog):
    class Single(Tokens):
        def forward(self, x):
            assert len(x) == 1
            return super().forward(x)

    with caplog.at_level(logging.WARNING, 'vistool'):
        assert laid_out(Single(), (64, 64)) == Layout('BLC', (8, 8), 1)
    assert 'fails on a batch of two' in caplog.text


@pytest.mark.parametrize('name', ['resnet18', 'convnext_atto', 'swin_tiny_patch4_window7_224', 'poolformer_s12'])
def test_networks_that_keep_rows_and_columns_are_not_refused(name):
    module = timm.create_model(
        name, num_classes=5, pretrained=False, **({'img_size': 64, 'window_size': 4} if 'swin' in name else {})
    )
    found = positions(module.eval(), torch.randn(1, 3, 64, 64))
    assert not found.problem and found.answers


def test_the_user_says_how_many_tokens_come_before_and_after():
    module = Tokens(before=0, after=2)
    assert laid_out(module, (64, 64), hints=token_hints((0, 2))) == Layout('BLC', (8, 8), 0, 2)
    with pytest.raises(InputError, match='3 does not fit'):
        laid_out(module, (64, 56), hints=token_hints(3))
    for wrong in (-1, (1, -1), (1, 2, 3), 1.5):
        with pytest.raises(InputError, match='is not a number of tokens'):
            CAM(extra_tokens=wrong)(module, torch.randn(3, 64, 64))


def test_maps_and_tokens_go_back_where_they_came_from():
    order = token_orders((4, 6))[1]
    layout, tokens = Layout('BLC', (4, 6), 1, 2, 0, order), torch.randn(2, 27, 5)
    assert torch.equal(layout.from_map(layout.to_map(tokens), tokens), tokens)
    groups = torch.randn(2 * 4, 6, 5)
    blocks = Layout('BLC', (4, 6), order=token_orders((4, 6))[1])
    assert blocks.to_map(groups).shape == (2, 5, 4, 6)
    assert torch.equal(blocks.from_map(blocks.to_map(groups), groups), groups)


class Joined(nn.Module):
    """Two photos that run through one backbone as one batch."""

    def __init__(self):
        super().__init__()
        self.backbone, self.head = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU()), nn.Linear(8, 3)

    def forward(self, first, second):
        one, two = self.backbone(torch.cat([first, second])).mean((2, 3)).chunk(2)
        return self.head((one - two).abs())


@pytest.mark.parametrize('batch', [1, 2])
@pytest.mark.parametrize('analysis', [CAM(), FeatureMaps(), CAM(layers='backbone'), FeatureMaps(layers='backbone.0')])
def test_inputs_joined_to_one_batch_are_named_as_such(analysis, batch):
    image = torch.randn(batch, 3, 32, 32)
    with pytest.raises(InputError, match='inputs joined to one batch'):
        analysis(Joined().eval(), (image, image.flip(-1)))


@pytest.mark.parametrize(
    'order',
    [
        WindowOrder((6, 10), (4, 4)),
        WindowOrder((6, 10), (4, 4), (2, 2)),
        WindowOrder((8, 12), (4, 4), scattered=True),
        WindowOrder((5, 6), (7, 7), centered=True),
    ],
    ids=lambda order: order.name,
)
@pytest.mark.parametrize('axes', ['BLC', 'BCL'])
def test_windows_go_back_where_they_came_from(order, axes):
    (height, width), windows = order.grid, math.prod(order.counts)
    shape = (2 * windows, math.prod(order.window), 5) if axes == 'BLC' else (2 * windows, 5, *order.window)
    tokens, layout = torch.randn(shape), Layout(axes, order.grid, order=order)
    maps = layout.to_map(tokens)
    assert maps.shape == (2, 5, height, width) and torch.equal(layout.from_map(maps, tokens), tokens)
    last = tokens if axes == 'BLC' else tokens.flatten(2).mT
    for number, cells in enumerate(order.cells()):
        for token, cell in enumerate(cells.tolist()):
            if cell >= 0:
                assert torch.equal(maps[1, :, cell // width, cell % width], last[windows + number, token])


@pytest.mark.parametrize('kind', ['window', 'grid'])
@pytest.mark.parametrize('part', ['partition_op', 'partition_swap', 'attn_layer.0', 'mlp_layer.1', 'departition_swap'])
def test_windows_on_an_axis_of_their_own_are_put_back(kind, part):
    """torchvision's MaxViT: (B, windows, tokens, C) between cutting and joining, for grids with both axes swapped."""
    from torchvision.models.maxvit import MaxVit

    torch.manual_seed(0)
    module = MaxVit((112, 112), 16, 7, [16, 32], [1, 1], 16, 0.0, num_classes=5).eval()
    layer, seen = f'blocks.0.layers.0.layers.{kind}_attention.{part}', {}
    module.get_submodule(layer).register_forward_hook(lambda m, a, output: seen.update(x=output.detach()))
    image = torch.randn(1, 3, 112, 112)
    module(image)
    cut = seen['x']
    if kind == 'grid' and not part.endswith(('partition_op', 'departition_swap')):
        cut = cut.transpose(1, 2)
    sides = (4, 4, 7, 7) if kind == 'window' else (7, 7, 4, 4)
    expected = cut.reshape(*sides, -1).permute(4, 0, 2, 1, 3).reshape(-1, 28, 28)
    maps = FeatureMaps(layers=layer, channels=[3])(module, image)[0].maps[0].values
    torch.testing.assert_close(torch.from_numpy(maps), expected[3], rtol=1e-4, atol=1e-5)


def test_windows_whose_order_the_answers_do_not_tell_are_no_picture():
    """What attention within scattered windows returns answers to the whole image alike."""
    from torchvision.models.maxvit import MaxVit

    torch.manual_seed(0)
    module = MaxVit((112, 112), 16, 7, [16, 32], [1, 1], 16, 0.0, num_classes=5)
    with pytest.raises(InputError, match='28×28 positions in windows or patches, whose order is not known'):
        laid_out(module, (112, 112), 'blocks.0.layers.0.layers.grid_attention.attn_layer')


def test_a_single_window_that_is_larger_than_the_map_is_put_back():
    """timm's TinyViT at other sizes: 8 × 10 positions padded to one window of 14 × 14."""

    class Padded(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.embed, self.norm, self.head = nn.Conv2d(3, 16, 8, 8), nn.LayerNorm(16), nn.Linear(16, 5)

        def forward(self, x):
            maps = nn.functional.pad(self.embed(x), (0, 4, 0, 6))
            tokens = self.norm(maps.flatten(2).mT)
            return self.head(tokens.mT.unflatten(2, (14, 14))[..., :8, :10].mean((2, 3)))

    assert laid_out(Padded(), (64, 80), 'norm') == Layout('BLC', (8, 10), order=WindowOrder((8, 10), (14, 14)))


def test_units_of_tokens_on_two_axes_are_put_back():
    """HiViT (Zhang et al., ICLR 2023): (B, units, 4, 4, C)."""

    class Units(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.embed, self.mlp, self.head = nn.Conv2d(3, 16, 4, 4), nn.Linear(16, 16), nn.Linear(16, 5)

        def forward(self, x):
            units = self.embed(x).unflatten(3, (-1, 4)).unflatten(2, (-1, 4)).permute(0, 2, 4, 3, 5, 1).flatten(1, 2)
            return self.head(self.mlp(units).mean((1, 2, 3)))

    module, image = Units().eval(), torch.randn(1, 3, 64, 96)
    expected = module.mlp(module.embed(image).permute(0, 2, 3, 1))[0].permute(2, 0, 1).detach()
    maps = FeatureMaps(layers='mlp', channels=[3])(module, image)[0].maps[0].values
    torch.testing.assert_close(torch.from_numpy(maps), expected[3], rtol=1e-4, atol=1e-5)


def test_tokens_that_fill_a_grid_are_not_a_padded_window_over_a_smaller_one():
    """Behind layers that blur the answers a padded window of twice the size would fit by chance (VAN)."""

    class Blurred(Tokens):
        def forward(self, x):
            maps = self.embed(x)
            for _ in range(4):
                maps = nn.functional.avg_pool2d(maps, 5, 1, 2)
            tokens = self.blocks[0].norm1(maps.flatten(2).mT)
            return self.head(nn.functional.max_pool2d(tokens.mT.unflatten(2, maps.shape[2:]), 2).mean((2, 3)))

    for size in ((64, 80), (128, 160)):
        layout = laid_out(Blurred(before=0), size, 'blocks.0.norm1')
        assert layout.grid == (size[0] // 8, size[1] // 8) and layout.order is None


class Stated(nn.Module):
    """A user's own network: tokens in windows of 2 × 2, whose size a module states."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.norm, self.head = nn.Conv2d(3, 16, 8, 8), nn.LayerNorm(16), nn.Linear(16, 5)
        self.norm.window_size, self.norm.shift_size = 2, 0

    def forward(self, x):
        tokens = self.embed(x).unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).permute(0, 2, 4, 3, 5, 1)
        return self.head(self.norm(tokens.reshape(-1, 4, 16)).unflatten(0, (len(x), -1)).mean((1, 2)))


def test_windows_that_a_module_states_are_said_to_be_stated(caplog):
    module = Stated()
    with caplog.at_level(logging.INFO, 'vistool'):
        for _ in range(2):
            order = laid_out(module, (64, 96), 'norm').order
    assert order == WindowOrder((8, 12), (2, 2))
    assert caplog.text.count('layer norm: 8×12 tokens in windows of 2×2, as a module around it states') == 1


def test_tokens_of_a_dense_network_are_said_to_be_unchecked(caplog):
    with caplog.at_level(logging.INFO, 'vistool'):
        laid_out(Tokens(before=0), (64, 96), dense=True)
        laid_out(Tokens(before=0), (64, 96), 'embed', dense=True)
    assert caplog.text.count('(not checked)') == 1
    assert 'layer blocks.1: its tokens are taken for 8×12 positions row by row' in caplog.text


class Flat(nn.Module):
    """No convolution: rows and columns come from a reshape, in a network that takes single images only."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.mix, self.head = nn.Conv2d(192, 16, 1), nn.Linear(16, 5)

    def forward(self, x):
        assert len(x) == 1
        maps = x.unflatten(3, (-1, 8)).unflatten(2, (-1, 8)).permute(0, 1, 3, 5, 2, 4).flatten(1, 3)
        return self.head(self.mix(maps).mean((2, 3)))


def test_a_map_that_only_its_shape_tells_is_said_to_be_one_by_its_shape(caplog):
    with caplog.at_level(logging.INFO, 'vistool'):
        assert laid_out(Flat(), (64, 96), 'mix') == Layout('BCHW', (8, 12))
    assert 'layer mix: its output is taken for 8×12 positions by its shape, channels first' in caplog.text


class Enlarging(nn.Module):
    """Patches that are mixed like tokens deep in a transformer, enlarged by a function, projected, and convolved."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patches, self.mix = nn.Conv2d(3, 8, 8, 8), nn.Linear(96, 96)
        self.project, self.conv, self.head = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 5)
        self.pool, self.norm = nn.AdaptiveAvgPool2d((4, 6)), nn.BatchNorm2d(8)

    def forward(self, x):
        x = self.patches(x)
        x = self.mix(x.flatten(2)).view_as(x)
        x = self.conv(self.project(nn.functional.interpolate(x, scale_factor=2)))
        return self.head(self.norm(self.pool(x)).mean((2, 3)))


@pytest.mark.parametrize(('layer', 'grid'), [('project', (16, 24)), ('norm', (4, 6))])
def test_a_size_that_only_a_later_convolution_or_a_pooling_shows_is_that_of_a_map(layer, grid):
    assert laid_out(Enlarging(), (64, 96), layer) == Layout('BCHW', grid)


@pytest.mark.parametrize(('ahead', 'said'), [(True, 0), (False, 1)])
def test_row_by_row_that_is_taken_though_another_order_fits_better_is_told(ahead, said, caplog):
    found = positions(nn.Conv2d(3, 4, 8, 8), torch.randn(1, 3, 64, 64))
    (own,) = found.answers
    rows, columns = Layout('BLC', (8, 8)), Layout('BLC', (8, 8), order=token_orders((8, 8))[0])
    best = [Reading(rows, 0.90, 1.0), Reading(columns, 0.89, 1.0)]
    if not ahead:
        best = [Reading(columns, 0.90, 1.0), Reading(rows, 0.89, 1.0)]
    found.ranked = lambda *args: best
    found.vouched = lambda *args: None
    with caplog.at_level(logging.INFO, 'vistool'):
        assert found.decided(own, rows, (64, 64), TokenHints(), 'norm') == rows
    assert len(caplog.messages) == said and all('the likeliest of several orders' in each for each in caplog.messages)

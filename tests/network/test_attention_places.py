"""Where the tokens of attention lie: asked of the network, never assumed. Right maps, or a refusal with its reason."""

import logging
import math

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers.halo_attn import HaloAttn
from timm.models.hiera import Hiera
from timm.models.nest import Nest
from torch import nn
from transformers import MobileViTConfig, MobileViTForImageClassification, ViTMAEConfig, ViTMAEModel

from vistool import Attention, FeatureMaps
from vistool.errors import InputError
from vistool.network.attention import watch_attention
from vistool.network.attention_answers import attention_answers, is_known
from vistool.network.token_layout import place_tokens
from vistool.visualization.facets import facets

SIZE = (48, 64)  # 6 × 8 patches of 8 × 8
GRID = (6, 8)


def seeded(make, *args, **more):
    torch.manual_seed(0)
    return make(*args, **more).eval()


def merged(y):
    return y.transpose(1, 2).flatten(2)


class Block(nn.Module):
    """Pre-norm attention with a residual, whose attention proper is ``attend(q, k, v)`` on ``(B, H, N, d)``."""

    def __init__(self, attend=None, dim=16, heads=2):
        super().__init__()
        self.heads, self.attend = heads, attend or F.scaled_dot_product_attention
        self.norm, self.qkv, self.proj = nn.LayerNorm(dim), nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        nn.init.normal_(self.qkv.weight, std=0.4)
        self.mlp = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def split(self, x):
        return self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)

    def forward(self, x):
        x = x + self.proj(merged(self.attend(*self.split(x))))
        return x + self.mlp(x)


class Vit(nn.Module):
    """A user's own ViT; ``order`` arranges the tokens before the blocks."""

    def __init__(self, attend=None, order=lambda x: x, before=0, after=0, depth=2, last=None):
        super().__init__()
        self.patches, self.order = nn.Conv2d(3, 16, 8, 8), order
        self.position = nn.Parameter(torch.randn(1, 48, 16) * 0.3)
        self.before, self.after = (nn.Parameter(torch.randn(1, n, 16)) for n in (before, after))
        self.blocks = nn.ModuleList([Block(attend) for _ in range(depth)])
        self.last = last
        self.head = nn.Linear(16, 5)

    def embed(self, x):
        x = self.order(self.patches(x).flatten(2).transpose(1, 2) + self.position)
        return torch.cat([self.before.expand(len(x), -1, -1), x, self.after.expand(len(x), -1, -1)], 1)

    def forward(self, x):
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.head((x if self.last is None else self.last(x)).mean(1))

    def weights(self, x):
        """The last block's ``(B, H, N, N)``."""
        x = self.embed(x)
        for block in self.blocks[:-1]:
            x = block(x)
        q, k, _ = self.blocks[-1].split(x)
        return (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1).detach()


def heads_of(result):
    return torch.stack([torch.from_numpy(m.values) for m in result.maps if m.coordinates['head'] != 'mean'])


def close(result, expected):
    torch.testing.assert_close(heads_of(result), expected.to(torch.float32), atol=1e-6, rtol=1e-3)


def grid_rows(tokens):
    """Mean over all queries of weights ``(H, N, N)`` whose tokens lie row by row."""
    return tokens.mean(1).unflatten(-1, GRID)


# --- axes ---------------------------------------------------------------------------------------------------------


def heads_before_batch_merged(q, k, v):
    batch = len(q)
    q, k, v = (t.transpose(0, 1).flatten(0, 1) for t in (q, k, v))  # (heads · batch, N, d)
    y = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1) @ v
    return y.unflatten(0, (-1, batch)).transpose(0, 1)


def heads_before_batch(q, k, v):
    return F.scaled_dot_product_attention(*(t.transpose(0, 1) for t in (q, k, v))).transpose(0, 1)


def batch_before_heads_merged(q, k, v):
    q, k, v = (t.flatten(0, 1) for t in (q, k, v))
    return torch.bmm((q @ k.mT * q.shape[-1] ** -0.5).softmax(-1), v).unflatten(0, (-1, 2))


def heads_last(q, k, v):
    a = torch.einsum('bhqd,bhkd->qkhb', q, k).mul(q.shape[-1] ** -0.5).softmax(1)
    return torch.einsum('qkhb,bhkd->bhqd', a, v)


AXES = [heads_before_batch_merged, heads_before_batch, batch_before_heads_merged, heads_last]


@pytest.mark.parametrize('attend', AXES)
@pytest.mark.parametrize('batch', [1, 2, 3])
def test_each_image_of_a_batch_keeps_its_own_attention(attend, batch):
    net, x = seeded(Vit, attend), torch.randn(batch, 3, *SIZE)
    expected = net.weights(x)
    for image, result in enumerate(Attention()(net, x)):
        close(result, grid_rows(expected[image]))
        close(Attention()(net, x[image]), grid_rows(expected[image]))


@pytest.mark.parametrize('attend', AXES)
@pytest.mark.parametrize('method', ['rollout', 'grad-rollout', 'legrad'])
def test_methods_over_all_layers_keep_images_apart_too(attend, method):
    net, plain, x = seeded(Vit, attend), seeded(Vit), torch.randn(2, 3, *SIZE)
    plain.load_state_dict(net.state_dict())
    targets = [] if method == 'rollout' else [2]
    for own, other in zip(*(Attention(method, targets=targets)(each, x) for each in (net, plain)), strict=True):
        np.testing.assert_allclose(own.maps[0].values, other.maps[0].values, atol=1e-4)


# --- tokens -------------------------------------------------------------------------------------------------------


def columns(x):
    return x.unflatten(1, GRID).transpose(1, 2).flatten(1, 2)


def blocks(x):
    return x.view(len(x), 3, 2, 4, 2, -1).transpose(2, 3).reshape(len(x), 48, -1)


def strides(x):
    return x.view(len(x), 3, 2, 4, 2, -1).permute(0, 2, 4, 1, 3, 5).reshape(len(x), 48, -1)


@pytest.mark.parametrize('order', [columns, blocks, strides])
def test_tokens_in_another_order_are_put_back(order):
    net, x = seeded(Vit, order=order), torch.randn(2, 3, *SIZE)
    index = order(torch.arange(48)[None, :, None])[0, :, 0].argsort()  # the token at each place
    expected = net.weights(x)[..., index]
    point = (3.5 * 8, 4.5 * 8)  # column 3, row 4
    for image, (mean, single) in enumerate(zip(Attention()(net, x), Attention(queries=[point])(net, x), strict=True)):
        close(mean, grid_rows(expected[image]))
        close(single, expected[image, :, index[4 * 8 + 3]].unflatten(-1, GRID))
    for method in ('rollout', 'legrad'):
        rows = Attention(method, targets=[1] if method == 'legrad' else [])(net, x)[0].maps[0].values
        plain = seeded(Vit)
        plain.load_state_dict(net.state_dict())
        plain.order, plain.position = (lambda t: t), net.position
        own = Attention(method, targets=[1] if method == 'legrad' else [])(plain, x)[0].maps[0].values
        np.testing.assert_allclose(rows, own, atol=1e-4)


@pytest.mark.parametrize(('before', 'after'), [(1, 0), (0, 1), (1, 4), (0, 5), (5, 0)])
def test_class_tokens_and_registers_are_found_on_either_side(before, after):
    net, x = seeded(Vit, before=before, after=after), torch.randn(2, 3, *SIZE)
    expected = net.weights(x)[..., before : before + 48]
    asked = before + 48 + (after - 1 if after else -2)  # by the model's own number
    for image, result in enumerate(Attention(queries=['mean', asked])(net, x)):
        close(result.isel(query=0), grid_rows(expected[image, :, before : before + 48]))
        close(result.isel(query=1), expected[image, :, asked].unflatten(-1, GRID))
        assert len(result.mass[0].prefix) == before + after


class Pruning(nn.Module):
    """EViT: keeps the 30 tokens with the largest norm."""

    def forward(self, x):
        kept = x.norm(dim=-1).topk(30, 1).indices
        return x.gather(1, kept[..., None].expand(-1, -1, x.shape[-1]))


class Merging(nn.Module):
    """Two tokens that are most alike become one, eighteen times."""

    def forward(self, x):
        order = (x @ x.mean(1, keepdim=True).mT)[..., 0].argsort(1)
        x = x.gather(1, order[..., None].expand(-1, -1, x.shape[-1]))
        return torch.cat([x[:, :12], (x[:, 12:30] + x[:, 30:]) / 2], 1)


class Shuffling(nn.Module):
    """Sorts the tokens by their contents."""

    def forward(self, x):
        order = x[..., 0].argsort(1)
        return x.gather(1, order[..., None].expand(-1, -1, x.shape[-1]))


@pytest.mark.parametrize('change', [Pruning, Merging, Shuffling])
def test_pruned_merged_and_shuffled_tokens_are_refused(change, caplog):
    net = seeded(Vit, last=nn.Sequential(change(), Block()))
    x = torch.randn(1, 3, *SIZE)
    with pytest.raises(InputError, match=r'follow no known order.*choose layer 1 \(blocks\.1\)'):
        Attention(layers=[-1])(net, x)
    with caplog.at_level(logging.WARNING):
        (result,) = Attention()(net, x)  # the default is the last that can be placed
    close(result, grid_rows(net.weights(x)[0]))
    assert result.layers == ('blocks.1',) and 'drawn is layer 1 (blocks.1)' in caplog.text


def test_known_families_are_not_asked(monkeypatch):
    from vistool.analyses.attention import capture

    monkeypatch.setattr(capture, 'attention_answers', lambda *_: pytest.fail('asked'))
    net = seeded(timm.create_model, 'vit_tiny_patch16_224', img_size=SIZE, embed_dim=32, depth=2, num_heads=2)
    assert is_known(net, torch.zeros(1, 3, *SIZE))
    Attention()(net, torch.randn(1, 3, *SIZE))


def test_unknown_ones_are_asked_once_by_two_images():
    net, seen = seeded(Vit), []
    net.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    for _ in range(3):
        Attention()(net, torch.randn(1, 3, *SIZE))
    assert seen == [2, 1, 1, 1]


# --- blocks and windows of published networks ---------------------------------------------------------------------


def placed(net, x, layer):
    """A layer's weights ``(B, H, cells, cells)`` between the cells of its grids, summed over windows by hand."""
    found = []
    answers = attention_answers(net, x)

    def keep(op):
        if op.index == layer:
            op, layout = place_tokens(op, len(x), tuple(x.shape[-2:]), answers)
            found.append((op.part(slice(None)), layout))

    with torch.no_grad(), watch_attention(net, len(x), keep):
        net(x)
    weights, layout = found[0]
    if layout.windows is None:
        return weights, layout
    cells, asking = (math.prod(grid) for grid in (layout.grid, layout.query_grid))
    full = torch.zeros(len(x), weights.shape[1], asking, cells)
    for window, keys, queries in zip(weights, layout.windows, layout.asking, strict=True):
        image = int(keys.max()) // cells
        inside, own = keys >= 0, queries >= 0
        rows = (queries[own] % asking)[:, None].expand(-1, int(inside.sum()))
        full[image][:, rows, (keys[inside] % cells)[None].expand_as(rows)] = window[:, own][:, :, inside]
    return full, layout


def test_nests_blocks_are_where_it_cuts_them():
    net = seeded(Nest, img_size=64, embed_dims=(16, 16, 32), num_heads=(2, 2, 2), depths=(1, 1, 1), num_classes=3)
    x = torch.randn(2, 3, 64, 64)
    inside = {}
    for level in net.levels:
        level.transformer_encoder[0].attn.register_forward_hook(lambda m, args, _: inside.update({m: args[0]}))
    for number, level in enumerate(net.levels):
        full, layout = placed(net, x, number)
        attention = level.transformer_encoder[0].attn
        tokens = inside[attention]  # (B, T, N, C)
        q, k, _ = attention.qkv(tokens).unflatten(-1, (3, 2, -1)).permute(3, 0, 4, 1, 2, 5).unbind(0)
        own = (q @ k.mT * attention.scale).softmax(-1).detach()  # (B, H, T, N, N)
        side, count = level.block_size, math.isqrt(own.shape[2])
        assert layout.grid == (side * count, side * count)
        expected = torch.zeros_like(full)
        for block in range(count**2):
            y, x_ = (torch.arange(side) + side * n for n in divmod(block, count))
            cells = (y[:, None] * layout.grid[1] + x_).flatten()
            expected[:, :, cells[:, None], cells] = own[:, :, block]
        torch.testing.assert_close(full, expected, atol=1e-6, rtol=1e-4)


def test_hieras_tokens_are_where_reroll_puts_them():
    net = seeded(
        Hiera, img_size=(128, 128), embed_dim=16, num_heads=1, stages=(1, 2, 1, 1), num_classes=3, mask_unit_size=(8, 8)
    )
    x, inside = torch.randn(2, 3, 128, 128), {}
    for block in net.blocks:
        block.attn.register_forward_hook(lambda m, args, _: inside.update({m: args[0]}))
    for number, block in enumerate(net.blocks):
        full, _ = placed(net, x, number)
        attention, tokens = block.attn, inside.get(block.attn)
        windows = tokens.shape[1] // (attention.q_stride * attention.window_size)
        windows = windows if attention.use_mask_unit_attn else 1
        q, k, _ = (
            attention.qkv(tokens)
            .reshape(2, -1, windows, 3, attention.heads, attention.head_dim)
            .permute(3, 0, 4, 2, 1, 5)
        )
        if attention.q_stride > 1:
            q = q.view(2, attention.heads, windows, attention.q_stride, -1, attention.head_dim).amax(3)
        own = (q @ k.mT * attention.scale).softmax(-1).detach()

        def cells(schedule_of, count, windows=windows):
            """The cell of each token, by timm's reroll, ``(windows, tokens)``."""
            numbers = torch.arange(count).view(1, count, 1).float()
            index = net.reroll(numbers, schedule_of).flatten().long()  # the token at each cell
            table = torch.empty(count, dtype=torch.long)
            table[index] = torch.arange(count)
            return table.view(-1, windows).mT

        keys = cells(number - (attention.q_stride > 1), tokens.shape[1])
        queries = cells(number, tokens.shape[1] // attention.q_stride)
        expected = torch.zeros_like(full)
        for window in range(windows):
            expected[:, :, queries[window][:, None], keys[window]] = own[:, :, window]
        torch.testing.assert_close(full, expected, atol=1e-6, rtol=1e-4)


class Halo(nn.Module):
    """HaloNet's attention on maps, with a residual."""

    def __init__(self, block=4, halo=2, side=16):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 4, 4)
        self.attention = HaloAttn(16, feat_size=(side, side), num_heads=2, block_size=block, halo_size=halo)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        x = self.stem(x)
        return self.head((x + self.attention(x)).mean((2, 3)))


@pytest.mark.parametrize(('block', 'halo', 'side'), [(4, 2, 16), (8, 2, 16), (8, 3, 8), (2, 1, 16)])
def test_halonets_overlapping_windows_are_where_it_cuts_them(block, halo, side):
    net, x = seeded(Halo, block, halo, side), torch.randn(2, 3, 4 * side, 4 * side)
    full, layout = placed(net, x, 0)
    assert layout.grid == layout.query_grid == (side, side)
    raw = []
    with torch.no_grad(), watch_attention(net, 2, raw.append):
        net(x)
    own = raw[0].weights.reshape(2, 2, -1, block**2, (block + 2 * halo) ** 2)  # (B, H, blocks, queries, keys)
    count, width = side // block, block + 2 * halo
    numbers = F.pad(torch.arange(1, side**2 + 1).view(1, 1, side, side).float(), (halo,) * 4)
    keys = F.unfold(numbers, width, stride=block)[0].mT.long() - 1  # (blocks, keys); -1 is padding
    queries = F.unfold(numbers[..., halo:-halo, halo:-halo], block, stride=block)[0].mT.long() - 1
    expected = torch.zeros_like(full)
    for number in range(count**2):
        inside = keys[number] >= 0
        rows = queries[number][:, None]
        expected[:, :, rows, keys[number][inside]] = own[:, :, number][..., inside]
    torch.testing.assert_close(full, expected, atol=1e-6, rtol=1e-4)
    for image, result in enumerate(Attention()(net, x)):
        close(result, full[image].mean(1).unflatten(-1, (side, side)))
        (mass,) = result.mass
        assert mass.image + mass.padding == pytest.approx(1, abs=1e-5) and mass.padding > 0.01
    stats = Attention(stats=True)(net, x)[0].companions['stats'].rows
    assert all(row['padding'] == pytest.approx(mass.padding, abs=0.2) for row in stats)


def test_the_last_spatial_attention_is_drawn_where_channels_come_last(caplog):
    small = {'depths': (1, 1, 1, 1), 'embed_dims': (16, 16, 16, 16), 'num_heads': (1, 1, 1, 1)}
    net = seeded(timm.create_model, 'davit_tiny', **small)
    x = torch.randn(1, 3, 64, 96)
    with caplog.at_level(logging.WARNING):
        (result,) = Attention()(net, x)
    assert result.layers == ('stages.3.blocks.0.0.attn',)
    assert 'attends over channels' in caplog.text and 'drawn is layer 6 (stages.3.blocks.0.0.attn)' in caplog.text
    with pytest.raises(InputError, match=r'over channels.*choose layer 6'):
        Attention(layers=[-1])(net, x)


# --- tokens that are not places -----------------------------------------------------------------------------------


class ImageText(nn.Module):
    """An image tower, then a text tower for several prompts; then places attend to the words of the first."""

    def __init__(self):
        super().__init__()
        self.vision, self.words = Vit(), nn.Embedding(100, 16)
        self.text = nn.ModuleList([Block(), Block()])
        self.cross = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, pixel_values, input_ids):
        image = self.vision.embed(pixel_values)
        for block in self.vision.blocks:
            image = block(image)
        words = self.words(input_ids)
        for block in self.text:
            words = block(words)
        first = words[:1].expand(len(image), -1, -1)
        image = image + self.cross(image, first, first, need_weights=False)[0]  # from places to words
        return image.mean(1) @ words.mean(1).T


@pytest.mark.parametrize(('words', 'prompts'), [(48, 3), (6, 3), (77, 4), (48, 1)])
def test_attention_over_text_is_not_drawn_on_the_photo(words, prompts, caplog):
    net = seeded(ImageText)
    inputs = {'pixel_values': torch.randn(2, 3, *SIZE), 'input_ids': torch.randint(100, (prompts, words))}
    for layer in (-1, -2, 3):
        with pytest.raises(InputError, match=r'(do not come from the image|are the same for all).*choose layer 1'):
            Attention(layers=[layer])(net, inputs)
    with caplog.at_level(logging.WARNING):
        results = Attention()(net, inputs)
    assert 'drawn is layer 1 (vision.blocks.1)' in caplog.text
    for image, result in enumerate(results):
        close(result, grid_rows(net.vision.weights(inputs['pixel_values'])[image]))


class Siamese(nn.Module):
    """One network for two photos, whose features are compared; drawn is the first."""

    def __init__(self):
        super().__init__()
        self.vision, self.fc = Vit(), nn.Linear(5, 2)

    def forward(self, before, after):
        return self.fc((self.vision(before) - self.vision(after)).abs())


def test_the_call_of_the_drawn_photo_is_shown(caplog):
    net, before, after = seeded(Siamese), torch.randn(1, 3, *SIZE), torch.randn(1, 3, *SIZE)
    with caplog.at_level(logging.WARNING):
        (result,) = Attention()(net, (before, after))
    close(result, grid_rows(net.vision.weights(before)[0]))
    assert 'drawn is layer 1' in caplog.text
    with pytest.raises(InputError, match='do not come from the image'):
        Attention(layers=[3])(net, (before, after))


class Latents(Vit):
    """48 latents read the patches, then attend to each other."""

    def __init__(self):
        super().__init__(depth=1)
        self.latents = nn.Parameter(torch.randn(1, 48, 16))
        self.cross, self.own = nn.MultiheadAttention(16, 2, batch_first=True), Block()

    def forward(self, x):
        x = self.blocks[0](self.embed(x))
        latents = self.latents.expand(len(x), -1, -1)
        latents = latents + self.cross(latents, x, x, need_weights=False)[0]
        return self.head(self.own(latents).mean(1))


class Transposed(Vit):
    """A common mistake: ``batch_first`` forgotten, so that the images of the batch attend to each other."""

    def __init__(self):
        super().__init__()
        self.mistaken = nn.MultiheadAttention(16, 2)

    def forward(self, x):
        x = self.blocks[1](self.blocks[0](self.embed(x)))
        return self.head((x + self.mistaken(x, x, x, need_weights=False)[0]).mean(1))


def test_images_that_attend_to_each_other_are_not_places():
    with pytest.raises(InputError, match=r'are the same for all images, or mix them.*choose layer 1'):
        Attention(layers=[-1])(seeded(Transposed), torch.randn(2, 3, *SIZE))


def test_latents_are_not_places():
    net, x = seeded(Latents), torch.randn(1, 3, *SIZE)
    with pytest.raises(InputError, match=r'not places in it|do not come from the image|no known order'):
        Attention(layers=['own'])(net, x)
    (result,) = Attention(layers=['cross'], heads=['mean'])(net, x)  # from latents to patches: those are places
    assert result.maps[0].values.shape == GRID and result.provenance['queries'] == ['mean query']
    with pytest.raises(InputError, match='48 queries whose places in the image are not known'):
        Attention(layers=['cross'], queries=['30,30'])(net, x)


def of_channels(q, k, v):
    """Efficient attention (Shen et al., WACV 2021): queries attend over the channels of a context."""
    return q.softmax(-1) @ (k.softmax(-2).mT @ v)


def test_a_softmax_over_channels_is_not_a_map():
    """Its 8 keys would be 2 × 4 positions."""
    with pytest.raises(InputError, match='8 keys that all depend on the whole image alike'):
        Attention(layers=[-1])(seeded(Vit, of_channels), torch.randn(3, *SIZE))


def along_rows(q, k, v):
    q, k, v = (t.unflatten(2, GRID) for t in (q, k, v))  # (B, H, rows, columns, d)
    return F.scaled_dot_product_attention(q, k, v).flatten(2, 3)


def along_columns(q, k, v):
    q, k, v = (t.unflatten(2, GRID).transpose(2, 3) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(2, 3).flatten(2, 3)


@pytest.mark.parametrize('attend', [along_rows, along_columns])
def test_rows_and_columns_that_attend_within_themselves_are_windows_not_heads(attend):
    """Neighboring rows of an image are nearly alike, as heads are."""
    net, x = seeded(Vit, attend), torch.randn(2, 3, *SIZE)
    tokens = net.blocks[0](net.embed(x))
    q, k, _ = net.blocks[1].split(tokens)
    logits = (q @ k.mT * q.shape[-1] ** -0.5).unflatten(3, GRID).unflatten(2, GRID)  # (B, H, y, x, y', x')
    own = logits.diagonal(dim1=2, dim2=4) if attend is along_rows else logits.diagonal(dim1=3, dim2=5)
    mean = own.softmax(-2).mean(2)  # over the queries of a row: (B, H, others, rows or columns)
    expected = (mean.mT if attend is along_rows else mean).detach() / GRID[0 if attend is along_rows else 1]
    for image, result in enumerate(Attention(layers=[-1], queries=['mean'], heads=['all'])(net, x)):
        close(result, expected[image])


class Head(nn.Module):
    """One head of attention as a module of its own."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(16, 8) for _ in range(3))

    def forward(self, x):
        return (self.q(x) @ self.k(x).mT).softmax(-1) @ self.v(x)


class Heads(nn.Module):
    """A block whose heads run one by one."""

    def __init__(self):
        super().__init__()
        self.heads, self.proj = nn.ModuleList([Head(), Head()]), nn.Linear(16, 16)

    def forward(self, x):
        return x + self.proj(torch.cat([head(x) for head in self.heads], -1))


@pytest.mark.parametrize('method', ['rollout', 'grad-rollout', 'legrad'])
def test_heads_that_are_modules_are_not_layers_one_after_the_other(method):
    net = seeded(Vit)
    net.blocks = nn.ModuleList([Heads(), Heads()])
    with pytest.raises(InputError, match=r'blocks\.0\.heads\.0 and blocks\.0\.heads\.1 run side by side'):
        Attention(method)(net, torch.randn(3, *SIZE))


def test_patches_that_are_masked_at_random_are_not_a_map():
    small = {'hidden_size': 16, 'num_hidden_layers': 2, 'num_attention_heads': 2, 'intermediate_size': 16}
    net = seeded(ViTMAEModel, ViTMAEConfig(**small, image_size=(64, 64), patch_size=8, mask_ratio=0.75))
    with pytest.raises(InputError, match='masked'):
        FeatureMaps(layers=['encoder.layer.1'])(net, torch.randn(3, 64, 64))


class Experts(Vit):
    """A gate that mixes four experts at every position, after the blocks."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.gate = kind, nn.Linear(16, 4)
        self.experts = nn.ModuleList([nn.Linear(16, 16) for _ in range(4)])
        self.prototypes = nn.Parameter(torch.randn(4, 16))

    def mix(self, x):
        gate = self.gate(x).softmax(-1)  # (B, N, 4)
        if self.kind == 'vectors':
            return gate @ self.prototypes
        if self.kind == 'normalized':
            return gate @ F.normalize(self.prototypes, dim=-1).expand(len(x), -1, -1)
        stacked = torch.stack([expert(x) for expert in self.experts], -2)  # (B, N, 4, C)
        if self.kind == 'stacked':
            return (gate.unsqueeze(-2) @ stacked).squeeze(-2)
        return torch.einsum('bne,bnec->bnc', gate, stacked)

    def forward(self, x):
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.head((x + self.mix(x)).mean(1))


@pytest.mark.parametrize('kind', ['vectors', 'normalized', 'stacked', 'einsum'])
@pytest.mark.parametrize('batch', [1, 2])
def test_a_gate_over_experts_is_not_an_attention_layer(kind, batch):
    net, x = seeded(Experts, kind), torch.randn(batch, 3, *SIZE)
    for image, result in enumerate(Attention(layers=[-1])(net, x)):
        close(result, grid_rows(net.weights(x)[image]))
    with pytest.raises(InputError, match='2 attention layers run'):
        Attention(layers=[2])(net, x)


def test_a_gate_is_named_in_one_line(caplog):
    net = seeded(Experts, 'stacked')
    with caplog.at_level(logging.INFO, 'vistool'):
        for _ in range(2):
            Attention()(net, torch.randn(1, 3, *SIZE))
    assert caplog.text.count('is not numbered as attention: the network') == 1


def test_tokens_that_are_too_few_to_show_their_order_are_said_to_be_assumed(caplog):
    net, images = seeded(Vit), [torch.randn(1, 3, *size) for size in ((16, 24), SIZE)]
    net.position = nn.Parameter(torch.zeros(1, 1, 16))
    few, enough = (facets(Attention()(net, image)[0]).caption for image in images)
    assert 'token order not checked' in few and 'not checked' not in enough
    assert caplog.text.count('6 tokens are too few to show their order, and are taken to lie row by row') == 1


# --- deep in a network --------------------------------------------------------------------------------------------


def live(net):
    """``net`` with all norms at one: fresh ones of some libraries are nearly zero, so that no image gets through."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return net


def mobilevit():
    config = MobileViTConfig(
        hidden_sizes=[16, 24, 32], neck_hidden_sizes=[8, 8, 8, 16, 16, 16, 32], num_attention_heads=2, mlp_ratio=1.0
    )
    return seeded(MobileViTForImageClassification, config)


def test_an_image_that_gets_lost_on_the_way_is_told_apart_from_text():
    with pytest.raises(InputError, match='its effect is lost in the layers before'):
        Attention(layers=0)(mobilevit(), torch.randn(1, 3, 64, 64))


class Windows(nn.Module):
    """Attention without a separate axis of heads within windows of ``side``, padded or of positions a stride apart."""

    def __init__(self, side, strided=False):
        super().__init__()
        self.side, self.strided = side, strided
        self.qkv, self.proj = nn.Conv2d(16, 48, 1), nn.Conv2d(16, 16, 1)

    def cut(self, x):
        (a, b), (h, w) = self.side, x.shape[2:]
        x = F.pad(x, (0, -w % b, 0, -h % a))
        rows, columns = x.shape[2] // a, x.shape[3] // b
        if self.strided:
            return (
                x.unflatten(2, (a, rows))
                .unflatten(4, (b, columns))
                .permute(0, 3, 5, 2, 4, 1)
                .flatten(3, 4)
                .flatten(0, 2)
            )
        return (
            x.unflatten(2, (rows, a)).unflatten(4, (columns, b)).permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(0, 2)
        )

    def forward(self, x):
        tokens = self.cut(x)
        q, k, v = (tokens @ self.qkv.weight[:, :, 0, 0].T).chunk(3, -1)
        y = (q @ k.mT / 4).softmax(-1) @ v
        return x + y.mean((0, 1)).view(1, -1, 1, 1) + self.proj(x)


class Convolutional(nn.Module):
    """Many convolutions before attention, behind which all places answer nearly alike."""

    def __init__(self, attention):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 4, 4)
        self.deep = nn.Sequential(*[nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.GELU()) for _ in range(8)])
        self.attention, self.head = attention, nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.attention(self.deep(self.stem(x))).mean((2, 3)))


@pytest.mark.parametrize(
    ('side', 'strided', 'size'),
    [((7, 7), False, (32, 40)), ((4, 5), True, (32, 40)), ((4, 5), False, (64, 80)), ((4, 4), False, (48, 64))],
)
def test_windows_behind_many_convolutions_are_where_they_were_cut(side, strided, size):
    net, x = live(seeded(Convolutional, Windows(side, strided))), torch.randn(2, 3, *size)
    grid = size[0] // 4, size[1] // 4
    cells = torch.arange(1.0, 2 * grid[0] * grid[1] + 1).view(2, 1, *grid)
    expected = net.attention.cut(cells)[..., 0].long() - 1
    _, layout = placed(net, x, 0)
    assert layout.grid == grid
    torch.testing.assert_close(layout.windows, expected)


def test_a_single_window_with_a_halo_reaches_beyond_the_image():
    net, x = (
        seeded(Convolutional, seeded(HaloAttn, 16, 16, num_heads=2, block_size=8, halo_size=2)),
        torch.randn(2, 3, 32, 32),
    )
    _, layout = placed(live(net), x, 0)
    assert layout.grid == layout.query_grid == (8, 8)
    inside = F.pad(torch.arange(64).view(8, 8), (2, 2, 2, 2), value=-1).flatten()
    torch.testing.assert_close(layout.windows[0], inside)

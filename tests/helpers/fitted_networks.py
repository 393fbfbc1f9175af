"""Tiny networks of many kinds, fitted in a second to textures in noise, whose evidence lies where the texture is."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZE, PATCH, CLASSES = 32, 12, 3


def textures(count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Images ``(N, 3, 32, 32)`` of random dots with one texture, their classes, and its corner ``(N, 2)``."""
    generator = torch.Generator().manual_seed(seed)
    line = torch.arange(PATCH) // 2 % 2
    rows, columns = line[:, None].expand(PATCH, PATCH), line[None].expand(PATCH, PATCH)
    kinds = torch.stack([rows, columns, (rows + columns) % 2]).float() * 2 - 1
    dots = torch.randint(0, 2, (count, 1, SIZE // 2, SIZE // 2), generator=generator).float() * 2 - 1
    images = F.interpolate(dots, scale_factor=2).expand(-1, 3, -1, -1).clone()
    labels = torch.arange(count) % CLASSES
    corners = torch.randint(2, SIZE - PATCH - 1, (count, 2), generator=generator)
    for image, label, (row, column) in zip(images, labels.tolist(), corners.tolist(), strict=True):
        image[:, row : row + PATCH, column : column + PATCH] = kinds[label]
    images += 0.2 * torch.randn(images.shape, generator=generator)
    return images, labels, corners


def fitted(build: Callable[[], nn.Module], steps: int = 60, rate: float = 4e-3, seed: int = 0) -> nn.Module:
    """A network fitted to :func:`textures`, in eval mode."""
    with torch.random.fork_rng([]), one_thread():
        torch.manual_seed(seed)
        network = build()
        images, labels, _ = textures(256, seed + 1)
        optimizer = torch.optim.AdamW(network.parameters(), rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps)
        for step in range(steps):
            chosen = torch.arange(step * 32, step * 32 + 32) % len(images)
            if step % 8 == 0:
                order = torch.randperm(len(images))
            batch, truth = images[order[chosen]], labels[order[chosen]]
            loss = F.cross_entropy(network(batch), truth)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        optimizer.zero_grad()
    return network.eval()


@contextmanager
def one_thread() -> Iterator[None]:
    """Threads wait for each other longer than such small layers take."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def accuracy(network: nn.Module) -> float:
    """On new images."""
    images, labels, _ = textures(64, 99)
    with torch.no_grad():
        return float((network(images).argmax(1) == labels).float().mean())


def _conv(given: int, made: int, stride: int = 1, norm: bool = True) -> nn.Sequential:
    layers = [nn.Conv2d(given, made, 3, stride, 1), *([nn.BatchNorm2d(made)] if norm else []), nn.ReLU()]
    return nn.Sequential(*layers)


class Pooled(nn.Module):
    """Features, a mean over positions, and a linear head."""

    def __init__(self, features: nn.Module, channels: int, hidden: int = 0) -> None:
        super().__init__()
        self.features = features
        self.head = (
            nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, CLASSES))
            if hidden
            else nn.Linear(channels, CLASSES)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))


class Residual(nn.Module):
    def __init__(self, width: int, depthwise: bool = False, scale: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, 1, 1, groups=width if depthwise else 1)
        self.norm1, self.norm2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 1 if depthwise else 3, 1, 0 if depthwise else 1)
        self.gamma = nn.Parameter(torch.full((width, 1, 1), 0.5)) if scale else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))
        return (x + (y if self.gamma is None else self.gamma * y)).relu()


class Attending(nn.Module):
    """A small vision transformer; with ``token`` its head reads a class token, else the mean over patches."""

    def __init__(self, token: bool, width: int = 48, depth: int = 2) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv(3, 24, 2), nn.Conv2d(24, width, 2, 2))
        self.cls_token = nn.Parameter(torch.randn(1, 1, width) * 0.02) if token else None
        cells = (SIZE // 4) ** 2
        self.pos_embed = nn.Parameter(torch.randn(1, cells + token, width) * 0.02)
        self.blocks = nn.ModuleList([Block(width) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1)
        x = x + self.pos_embed
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return self.head(x[:, 0] if self.cls_token is not None else x.mean(1))


class Block(nn.Module):
    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class Flattened(nn.Module):
    """A head that sees positions, so that the network takes one input size only."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(_conv(3, 16, 2), _conv(16, 24, 2), _conv(24, 24, 2))
        self.head = nn.Linear(24 * (SIZE // 8) ** 2, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).flatten(1))


class Gated(nn.Module):
    """Squeeze and excitation around a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = _conv(width, width)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, width, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y * self.gate(y)


def _plain(width: int = 16, norm: bool = True, activation: Callable[[], nn.Module] | None = None) -> nn.Module:
    parts = nn.Sequential(
        _conv(3, width, 2, norm), _conv(width, 2 * width, 2, norm), _conv(2 * width, 2 * width, 1, norm)
    )
    if activation is not None:
        for part in parts:
            part[-1] = activation()  # type: ignore[index]
    return parts


def _dense() -> nn.Module:
    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = _conv(3, 16, 2)
            self.first, self.second = _conv(16, 16), _conv(32, 16)
            self.down = _conv(48, 32, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            x = torch.cat([x, self.first(x)], 1)
            return self.down(torch.cat([x, self.second(x)], 1))

    return Dense()


def _branches() -> nn.Module:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = _conv(3, 16, 2)
            self.wide, self.narrow = nn.Conv2d(16, 16, 5, 1, 2), nn.Conv2d(16, 16, 1)
            self.mix = _conv(32, 32, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return self.mix(torch.cat([self.wide(x), self.narrow(x)], 1).relu())

    return Branches()


def _chain(*parts: nn.Module) -> nn.Module:
    """Features from parts, with a head on the mean of their channels."""
    channels = nn.Sequential(*parts)(torch.zeros(2, 3, SIZE, SIZE)).shape[1]
    return Pooled(nn.Sequential(*parts), channels)


def _grouped(given: int, made: int) -> list[nn.Module]:
    return [nn.Conv2d(given, made, 3, 2, 1), nn.GroupNorm(4, made), nn.ReLU()]


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    'plain': lambda: Pooled(_plain(), 32),
    'without normalization': lambda: Pooled(_plain(norm=False), 32),
    'GELU': lambda: Pooled(_plain(activation=nn.GELU), 32),
    'SiLU': lambda: Pooled(_plain(activation=nn.SiLU), 32),
    'leaky ReLU': lambda: Pooled(_plain(activation=functools.partial(nn.LeakyReLU, 0.1)), 32),
    'hidden layer in the head': lambda: Pooled(_plain(), 32, hidden=24),
    'max pooling': lambda: _chain(_conv(3, 16), nn.MaxPool2d(2), _conv(16, 32), nn.MaxPool2d(2), _conv(32, 32)),
    'VGG': lambda: _chain(_conv(3, 12), _conv(12, 12, 2), _conv(12, 24), _conv(24, 24, 2)),
    'residual': lambda: _chain(_conv(3, 16, 2), Residual(16), _conv(16, 32, 2), Residual(32)),
    'residual, scaled': lambda: _chain(_conv(3, 16, 2), Residual(16, scale=True), _conv(16, 32, 2)),
    'depthwise': lambda: _chain(_conv(3, 24, 2), Residual(24, depthwise=True), _conv(24, 32, 2), Residual(32, True)),
    'squeeze and excitation': lambda: _chain(_conv(3, 16, 2), Gated(16), _conv(16, 32, 2), Gated(32)),
    'dense': lambda: Pooled(_dense(), 32),
    'branches': lambda: Pooled(_branches(), 32),
    'dilated': lambda: _chain(_conv(3, 16, 2), nn.Conv2d(16, 24, 3, 1, 2, 2), nn.ReLU(), _conv(24, 32, 2)),
    'group norm': lambda: _chain(*_grouped(3, 16), *_grouped(16, 32)),
    'patches': lambda: _chain(_conv(3, 32, 2), nn.Conv2d(32, 48, 2, 2), nn.GELU(), nn.Conv2d(48, 48, 1), nn.GELU()),
    'flattened': Flattened,
    'transformer, class token': lambda: Attending(True),
    'transformer, mean': lambda: Attending(False),
}
"""Name → how to build the network."""

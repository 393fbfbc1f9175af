"""What attention maps cost beyond a plain forward: rows, streamed rollout, and what keeping whole maps costs instead.

Memory is the process's peak beyond that of the plain forward, each contender in a process of its own.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import re
import statistics
import warnings
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from timing import in_float32, machine, measure, ratio, table
from torch import Tensor, nn

from vistool import Attention

CONTENDERS = (
    'forward',
    'vistool, last layer',
    'vistool, 12 layers',
    'vistool, rollout',
    'all maps kept',
    'naive rollout',
)


def build(size: int, device: str = 'cpu', batch: int = 1) -> tuple[nn.Module, Tensor]:
    """A ViT-B/16 for square images, and a batch of them."""
    torch.manual_seed(0)
    model = timm.create_model('vit_base_patch16_224', img_size=size).eval()
    return model.to(device), torch.randn(batch, 3, size, size).to(device)


def unfused(model: nn.Module, image: Tensor) -> list[Tensor]:
    """Every attention map, as DINO's script and timm's extractor get them: fused attention off, and hooks."""
    maps: list[Tensor] = []
    handles = []
    for block in model.blocks:
        block.attn.fused_attn = False
        handles.append(block.attn.attn_drop.register_forward_hook(lambda module, args, output: maps.append(output)))
    try:
        with torch.no_grad():
            model(image)
    finally:
        for handle in handles:
            handle.remove()
        for block in model.blocks:
            block.attn.fused_attn = True
    return maps


def naive_rollout(model: nn.Module, image: Tensor) -> Tensor:
    """The product of all layers' matrices; its class row."""
    rows = None
    for weights in unfused(model, image):
        mixed = (weights[0].mean(0) + torch.eye(weights.shape[-1], device=weights.device)) / 2
        rows = mixed if rows is None else mixed @ rows
    assert rows is not None
    return rows[0, 1:]


def contender(name: str, model: nn.Module, image: Tensor) -> Callable[[], object]:
    """What a name stands for."""

    def forward() -> None:
        with torch.no_grad():
            model(image)

    return {
        'forward': forward,
        'vistool, last layer': lambda: Attention()(model, image),
        'vistool, 12 layers': lambda: Attention(layers=['all'])(model, image),
        'vistool, rollout': lambda: Attention(method='rollout')(model, image),
        'all maps kept': lambda: unfused(model, image),
        'naive rollout': lambda: naive_rollout(model, image),
    }[name]


def peak(name: str, size: int, device: str = 'cpu') -> float:
    """Peak memory of one run, MiB: beyond what a fresh process had before it, or of the tensors on a GPU."""
    if device != 'cpu':
        model, image = build(size, device)
        torch.cuda.reset_peak_memory_stats()
        contender(name, model, image)()
        return torch.cuda.max_memory_allocated() / 2**20
    with multiprocessing.get_context('spawn').Pool(1) as pool:
        return pool.apply(_peak, (name, size))


def _peak(name: str, size: int) -> float:
    model, image = build(size)
    small = contender(name, *build(224))
    small()  # whatever is loaded at first use
    gc.collect()
    Path('/proc/self/clear_refs').write_text('5')  # from here on: building the networks needs more than a forward
    before = _memory('VmRSS')
    contender(name, model, image)()
    return _memory('VmHWM') - before


def _memory(name: str) -> float:
    """A value of this process's own, MiB; ``ru_maxrss`` counts what the process that started this one had."""
    return int(re.findall(rf'{name}:\s*(\d+) kB', Path('/proc/self/status').read_text())[0]) / 1024


def main() -> None:
    """Prints one table per image size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--sizes', type=int, nargs='+', default=[224, 448, 1024])
    parser.add_argument(
        '--naive-up-to', type=int, default=448, metavar='PX', help='largest size for whole maps (9 GiB at 1024)'
    )
    parser.add_argument('--device', default='cpu')
    args = parser.parse_args()
    warnings.filterwarnings('ignore')
    in_float32()
    print(f'ViT-B/16, batch 1, class rows; {machine()}')
    for size in args.sizes:
        names = [n for n in CONTENDERS if size <= args.naive_up_to or n not in ('all maps kept', 'naive rollout')]
        model, image = build(size, args.device)
        seconds = measure({name: contender(name, model, image) for name in names}, args.rounds)
        table(f'{size}×{size}', seconds, 'forward')
        memory = {name: statistics.median(peak(name, size, args.device) for _ in range(3)) for name in names}
        print('\nextra peak memory, MiB: ' + ', '.join(f'{n} {m - memory["forward"]:.0f}' for n, m in memory.items()))
        print(f'rows of 12 layers: {ratio(seconds, "vistool, 12 layers", "forward"):.3f} × forward')
        if 'naive rollout' in names:
            ours = torch.from_numpy(Attention(method='rollout')(model, image)[0].maps[0].values).flatten()
            print(
                'streamed rollout differs from the product by '
                f'{float((ours - naive_rollout(model, image).cpu()).abs().max()):.1e}'
            )


if __name__ == '__main__':
    main()

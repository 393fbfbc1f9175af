"""Measures what docs/en/performance.md tells, and writes it: under 20 minutes on two quiet cores.

What is compared runs in turn in one run, under the same settings (:data:`processes.SETTINGS`), and its results are
compared first. A row that fails says so, and the others go on::

    python tools/benchmarks/run_all.py            # every row
    python tools/benchmarks/run_all.py --only cam start --rounds 3
    python tools/benchmarks/run_all.py --device cuda   # the rows that a GPU changes

What was measured is kept in measured.json beside this file, part by part; the page shows all of it.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import bench_attention
import bench_batch
import bench_cam
import bench_lr
import bench_start
import numpy as np
import timm
import torch
from bench_folder import costs, make_photos
from PIL import Image
from processes import SETTINGS, alternate, cpu_ratio, middle, run
from timing import in_float32, machine, measure, ratio
from torchvision.models import resnet50

import vistool as vt
from vistool.analyses.featmap import FeatureMaps

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / 'docs' / 'en' / 'performance.md'
MEASURED = Path(__file__).with_name('measured.json')
PHOTOS = 1000
LITE = ('configs/efficientnet_lite/efficientnet-lite0_in1k.py', 'demo://efficientnet-lite0')


@dataclass(frozen=True)
class Row:
    """One line of the table: what was done, what it took, and what was aimed at."""

    work: str
    measured: str
    goal: str = ''


def cam(rounds: int, device: str = 'cpu', batch: int = 1) -> list[Row]:
    """One and eight methods on ResNet-50, after a comparison with pytorch-grad-cam."""
    torch.manual_seed(0)
    model, image = resnet50().eval().to(device), torch.randn(batch, 3, 224, 224).to(device)
    ours = vt.CAM(['gradcam'], targets=281, layers=['layer4'])(model, image)[0].maps[0].values
    with bench_cam.EIGHT['gradcam'](model=model, target_layers=[model.layer4]) as other:
        theirs = other(image, [bench_cam.ClassifierOutputTarget(281)])[0]
    agree(np.abs(ours - theirs).max(), 1e-4)
    contenders = {
        'forward': bench_cam.forward(model, image),
        'one': bench_cam.ours(model, image, ['gradcam']),
        'eight': bench_cam.ours(model, image, list(bench_cam.EIGHT)),
    }
    found = by_threads(contenders, 4 * rounds, device)
    return [
        Row(f'one CAM method, ResNet-50 layer4, batch {batch}', beyond(found, 'one'), '≤ 1.05 × forward'),
        Row(f'eight CAM methods, batch {batch}', beyond(found, 'eight'), '≤ 1.12 × forward'),
    ]


def by_threads(
    contenders: Mapping[str, Callable[[], object]], rounds: int, device: str
) -> dict[str, dict[str, list[float]]]:
    """Seconds of contenders as PyTorch sets its threads, and on a CPU also with one: Python's part stays the same."""
    found = {'': measure(contenders, rounds)}
    threads = torch.get_num_threads()
    if device == 'cpu' and threads > 1:
        torch.set_num_threads(1)
        found['one thread'] = measure(contenders, rounds)
        torch.set_num_threads(threads)
    return found


def beyond(found: Mapping[str, Mapping[str, list[float]]], name: str) -> str:
    """What a contender takes beyond the forward: ``'1.06 × (+3.8 of 65 ms); one thread 1.03 × (+4.0 of 120 ms)'``."""
    told = []
    for threads, seconds in found.items():
        base = statistics.median(seconds['forward'])
        most = ratio(seconds, name, 'forward')
        told.append(f'{threads} {times(most)} ({1000 * base * (most - 1):+.1f} of {1000 * base:.0f} ms)'.strip())
    return '; '.join(told)


def attention(rounds: int, device: str = 'cpu') -> list[Row]:
    """Rows of 12 layers at 224, and streaming rollout at 1024, after a comparison with whole maps at 224."""
    model, image = bench_attention.build(224, device)
    rollout = torch.from_numpy(vt.Attention(method='rollout')(model, image)[0].maps[0].values).flatten()
    agree(float((rollout - bench_attention.naive_rollout(model, image).cpu()).abs().max()), 1e-5)
    rows = [each.values for each in vt.Attention(layers=['all'], heads='mean')(model, image)[0].maps]
    whole = [weights[0].mean(0)[0, 1:].cpu().numpy() for weights in bench_attention.unfused(model, image)]
    agree(float(np.abs(np.stack(rows).reshape(12, -1) - np.stack(whole)).max()), 1e-5)
    names = ('forward', 'vistool, 12 layers')
    contenders = {name: bench_attention.contender(name, model, image) for name in names}
    small = by_threads(contenders, 4 * rounds, device)
    model, image = bench_attention.build(1024, device)
    names = ('forward', 'vistool, rollout')
    large = measure({name: bench_attention.contender(name, model, image) for name in names}, rounds)
    memory = {name: bench_attention.peak(name, 1024, device) for name in names}
    extra = memory['vistool, rollout'] - memory['forward']
    return [
        Row('CLS rows of 12 layers, ViT-B/16 at 224', beyond(small, 'vistool, 12 layers'), '≤ 1.04 ×'),
        Row(
            'streaming rollout at 1024',
            f'{times(ratio(large, "vistool, rollout", "forward"))}, {extra:.0f} MiB extra',
            '≤ 1.4 ×, ≤ 350 MiB',
        ),
    ]


def search(rounds: int) -> list[Row]:
    """The first and second call on networks that no table knows."""
    rows = []
    for name in ('tinynet_a', 'ghostnetv3_100', 'vit_tiny_patch16_224'):
        found: dict[str, list[float]] = {'cam': [], 'maps': [], 'cam again': [], 'maps again': []}
        for _ in range(rounds):
            torch.manual_seed(0)
            model, image = timm.create_model(name).eval(), torch.randn(1, 3, 224, 224)
            forward = bench_cam.forward(model, image)
            forward()
            plain = sorted(seconds_of(forward) for _ in range(5))[2]
            cam, maps = vt.CAM(['gradcam']), FeatureMaps()
            gc.collect()  # what building the network made, which is not for the first call to look through
            for key, call in (('cam', cam), ('cam again', cam), ('maps', maps), ('maps again', maps)):
                found[key].append(seconds_of(partial(call, model, image)) / plain)
        told = ', '.join(f'{key} {times(sorted(values)[len(values) // 2])}' for key, values in found.items())
        rows.append(Row(f'first and second call, {name}', told, 'CAM ≤ 2.5 ×, maps ≤ 2 × forward'))
    return rows


def start(rounds: int) -> list[Row]:
    """Whole processes for one photo."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        chosen = bench_start.prepare(folder)
        found = alternate(chosen, rounds)
    timm_more = middle(found['vis_cam, timm']).cpu - middle(found[bench_start.IMPORTS]).cpu
    others = [
        f'{key} {middle(found[key]).cpu - middle(found[base]).cpu:+.2f} s' for key, base in bench_start.BESIDE.items()
    ]
    versus = cpu_ratio(found, 'vis_cam', 'mmpretrain vis_cam')
    cost = middle(found['vis_cam'])
    return [
        Row('vis_cam, one photo, whole process, CPU', f"{times(versus)} mmpretrain's, {cost.cpu:.2f} s", '≤ 0.50 ×'),
        Row('of that, `import torch`', f'{middle(found["torch imported"]).cpu:.2f} s'),
        Row('vis_cam timm::resnet50', f'imports of torch and timm {timm_more:+.2f} s', '≤ +0.6 s'),
        Row('other commands against vis_cam on the same network', ', '.join(others), '≤ +0.2 s'),
    ]


def schedule(rounds: int) -> list[Row]:
    """vis_lr against mmpretrain's vis_scheduler, after a comparison of every rate."""
    with tempfile.TemporaryDirectory() as name:
        ours, theirs = bench_lr.commands(Path(name))
        agree(bench_lr.apart(Path(name)), 1e-9)
        found = alternate({'ours': lambda: run(ours), 'theirs': lambda: run(theirs)}, rounds)
    versus = cpu_ratio(found, 'ours', 'theirs')
    return [Row('vis_lr, Swin-T 300 epochs, whole process, CPU', f"{times(versus)} vis_scheduler's", '≤ 0.30 ×')]


def browse(rounds: int) -> list[Row]:
    """Seconds until browse_dataset has drawn the demo dataset's first sample."""
    with tempfile.TemporaryDirectory() as name:
        words = [str(ROOT / 'tools/browse_dataset.py'), str(ROOT / 'configs/demo_dataset/plain.py'), '--indices', '0']
        found = alternate({'first': lambda: run([*words, '-o', f'{name}/out'])}, rounds)
    return [Row('browse_dataset, first picture, wall', f'{middle(found["first"]).wall:.1f} s', '≤ 3 s')]


def folder(rounds: int, device: str = 'cpu', batch: int = 8) -> list[Row]:
    """1,000 photos through EfficientNet-Lite0, against the plain forward with and without vistool's settings."""
    config, checkpoint = LITE
    how = ['--batch-size', str(batch), '--device', device]
    common = ['--config', config, '--checkpoint', checkpoint, *how]
    with tempfile.TemporaryDirectory() as name:
        photos = Path(name) / 'photos'
        photos.mkdir()
        make_photos(photos, PHOTOS)
        few = [str(bench_batch.TOOL), str(photos), config, checkpoint, *how, '--indices', '0-39']
        alone = bench_batch.speed(run([*few, '-o', f'{name}/one']).said)[0]
        agree(apart(Path(name) / 'one', photos), 1e-4)
        beside = ['--compare', config, checkpoint, '--compare', config, checkpoint]
        three = bench_batch.speed(run([*few, *beside, '-o', f'{name}/three']).said)[0]
        plain = [str(Path(bench_batch.__file__)), '--forward', str(photos), *common]
        bare = bench_batch.speed(run(plain, {}).said)[0]
        tool = [str(bench_batch.TOOL), str(photos), config, checkpoint, *how, '--overwrite', '-o', f'{name}/out']
        tuned, drawn, parts, halves = race(plain, tool, rounds, alone=device != 'cpu')
        each = costs(*LITE, photos) if device == 'cpu' else {}
    rows = [
        Row(
            f'{PHOTOS:,} photos, EfficientNet-Lite0, PNG, batch {batch}',
            f'{times(drawn / tuned)} the plain forward ({drawn:.1f} against {tuned:.1f} images/s; {parts})',
            '≥ 0.95 ×',
        ),
        *(
            Row('the same in two processes (`tools/dist_vis.sh`)', f'{times(speed / tuned)} ({speed:.1f} images/s)')
            for speed in halves
        ),
        Row("the plain forward without vistool's settings", f'{bare:.1f} images/s'),
        Row('`--compare` with three models, 40 photos', f"{times(alone / three)} one model's time", '3 ×, ± 5 %'),
    ]
    if each:
        told = ', '.join(f'{part} {ms:.1f}' for part, ms in each.items())
        most = 1000 * torch.get_num_threads() / sum(each.values())
        bound = f'{most:.1f} images/s ({times(most / tuned)}) if every core is always busy'
        rows.append(Row('CPU milliseconds an image, one thread', f'{told}: {bound}'))
    return rows


def race(plain: Sequence[str], tool: Sequence[str], rounds: int, alone: bool) -> tuple[float, float, str, list[float]]:
    """Images per second of the plain forward and of a command, where its time went, and its speed in two processes.

    Two processes share two cores best if each computes in one thread, as torchrun sets it by itself.

    Args:
        plain: What measures the plain forward.
        tool: The command.
        rounds: Of the whole part; half as many are run in turn.
        alone: Whether to leave out the two processes.
    """
    both = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2', *tool, '--launcher', 'pytorch']
    found: dict[str, list[float]] = {'plain': [], 'drawn': [], 'both': []}
    for _ in range(max(1, rounds // 2)):
        found['plain'].append(bench_batch.speed(run(plain).said)[0])
        speed, parts = bench_batch.speed(run(tool).said)
        found['drawn'].append(speed)
        if not alone:
            found['both'].append(bench_batch.speed(run(both).said)[0])
    tuned, drawn = (statistics.median(found[name]) for name in ('plain', 'drawn'))
    return tuned, drawn, parts, [statistics.median(found['both'])] if found['both'] else []


def memory(rounds: int) -> list[Row]:
    """Peak memory of a long run against a shorter one, and of a large photo against a small one."""
    words = [str(bench_batch.TOOL), 'PHOTOS', 'timm::test_resnet', 'none', '--batch-size', '8', '--width', '200']
    with tempfile.TemporaryDirectory() as name:
        photos = Path(name) / 'photos'
        photos.mkdir()

        def peak(subject: Path, out: str) -> float:
            return run([*words[:1], str(subject), *words[2:], '-o', f'{name}/{out}']).memory

        make_photos(photos, PHOTOS)
        few = statistics.median(peak(photos, f'few-{number}') for number in range(3))  # they differ by a few percent
        bench_batch.multiply(photos, 10)
        many = peak(photos, 'many')
        coarse = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8))
        coarse.save(Path(name) / 'small.jpg')
        coarse.resize((12000, 9000), Image.Resampling.NEAREST).save(Path(name) / 'large.jpg')
        small, large = (peak(Path(name) / f'{size}.jpg', f'{size}.png') for size in ('small', 'large'))
    return [
        Row(
            f'peak memory, {10 * PHOTOS:,} photos against {PHOTOS:,}',
            f'{times(many / few)} ({few:.0f} MiB)',
            '≤ 1.05 ×',
        ),
        Row('a JPEG of 12,000×9,000 against a small one', f'{large - small:+.0f} MiB', '≤ 1,228 MiB'),
    ]


PARTS: dict[str, Callable[[int], list[Row]]] = {
    'start': start,
    'schedule': schedule,
    'browse': browse,
    'memory': memory,
    'folder': folder,
    'cam': cam,
    'attention': attention,
    'search': search,
}
"""Name → what it measures, in the order of the page."""


def parts_of(device: str) -> dict[str, Callable[[int], list[Row]]]:
    """The parts for a device: those of :data:`PARTS` for the CPU, those that it changes for a GPU."""
    if device == 'cpu':
        return PARTS
    return {
        'cam': lambda rounds: [row for batch in (1, 32) for row in cam(rounds, device, batch)],
        'attention': partial(attention, device=device),
        'folder': partial(folder, device=device, batch=32),
    }


def agree(apart: float, most: float) -> None:
    """Raises where results that are about to be timed differ."""
    if not apart <= most:
        raise AssertionError(f'the results differ by {apart:.1e}')


def apart(out: Path, photos: Path) -> float:
    """The largest difference between the scores in a run's manifest and those of the plain forward."""
    model = vt.load(*LITE)
    found = []
    for entry in map(json.loads, (out / 'manifest.jsonl').read_text().splitlines()):
        with torch.no_grad():
            scores = model.module(model.batch([model.read(photos / f'{entry["name"]}.jpg')])).softmax(1)[0]
        found.append(abs(float(scores[entry['prediction']['id']]) - entry['prediction']['score']))
    return max(found)


def times(value: float) -> str:
    """A ratio as text."""
    return f'{value:.2f} ×'


def seconds_of(call: Callable[[], object]) -> float:
    """What one call takes."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def keep(device: str, parts: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """Puts rows in the place of those of the same parts on the same machine; returns all that are known.

    Rows of another machine of this kind are dropped.
    """
    known = json.loads(MEASURED.read_text(encoding='utf-8')) if MEASURED.is_file() else {}
    last = known.get(kind_of(device), {})
    before = last.get('parts', {}) if last.get('machine') == machine(device) else {}
    rows = {name: [astuple(row) for row in found] for name, found in parts.items()}
    merged = {name: each for name in PARTS if (each := rows.get(name, before.get(name)))}
    known[kind_of(device)] = {'machine': machine(device), 'parts': merged}
    MEASURED.write_text(json.dumps(known, indent=2, ensure_ascii=False) + '\n', encoding='utf-8')
    return known


def kind_of(device: str) -> str:
    """``'CPU'`` or ``'GPU'``, as the page calls them."""
    return 'CPU' if device == 'cpu' else 'GPU'


def page(known: Mapping[str, Any]) -> str:
    """The text of docs/en/performance.md."""
    lines = [
        '# Performance',
        '',
        'Measured by `python tools/benchmarks/run_all.py`. Medians; what is compared runs in turn in one run, with the',
        'same settings of OpenMP and of memory, after a check that its results are equal. Ratios mean more than',
        'seconds, which depend on the machine.',
        '',
    ]
    for kind, found in sorted(known.items()):
        lines += [f'## On a {kind}', '', f'{found["machine"]}.', '', '| Work | Measured | Aim |', '| --- | --- | --- |']
        rows = [row for part in found['parts'].values() for row in part]
        lines += [f'| {work} | {measured} | {goal} |' for work, measured, goal in rows]
        lines.append('')
    return '\n'.join([*lines, NOTES])


NOTES = """\
## What a start consists of

A command imports what its config names. `import mmpretrain` alone would import transformers, torchvision,
albumentations, FSDP and sympy; a command leaves them out until something asks for them (`vistool/imports.py`). Pictures
of pixels are drawn without matplotlib. What is left is `import torch` (two thirds of `vis_cam`), then 0.2 s for
vistool's own modules (half of it makes 180 dataclasses), 0.2 s for the parts of mmengine, OpenCV and rich that are
used, the network, one forward, and one picture. A command collects no garbage while it imports. Networks of timm and
torchvision need those packages whole, and `torchvision.ops` imports `torch._dynamo`.

For one photo `vis_featmap` finds its layers in the forward that gives the maps. Of what `vis_lr` imports, torch is two
thirds and matplotlib a tenth, without the help texts that matplotlib would write for each of its classes.

With `custom_imports` of your own, or with a name that no single module registers, packages are imported whole, as in
any other program.

## What the first call on an unknown network consists of

A network that is in the table (`vistool/network/layers.py`) pays nothing. For others the default layer of CAM takes one
forward of one image with every module watched, a backward that ends behind the last maps, and, where the layer is not a
convolution, one forward of two images that shows where its positions lie. The network goes on with its own tensors;
only one that writes to what the backward needs runs again, with copies. The first map's own forward watches the layer
alone, since the search has noted the sizes before it. So the floor is two forwards, of which the first records a graph
in memory that is new (1.4 forwards), and the second is that of any map (1.3). Watching takes 0.03 ms a module. That is
negligible for a ResNet, but half of a forward for GhostNetV3, which has 1,800 modules that take 0.05 ms each. Almost
half of them only return what they are given; they are counted, and nothing more.

The stages of feature maps are found in the forward that also gives the maps. Its hooks note shapes and hold what the
modules return; only the maps of the stages are copied, after it. Where the network has written to one of them since, it
runs once more. What is left is 0.05 ms a module, and memory that is new for everything the modules return. While a
network is watched, the garbage collector waits: hooks make thousands of objects, and it would look through all that the
process has imported, which takes as long as two forwards. Both searches are remembered for the network, its weights and
the input size.

## What maps cost beyond the forward

One CAM method on ResNet-50 takes 4 to 5 ms beyond 110 ms of one core: half a millisecond lists, locks, freezes and
hands back a network of 150 modules, 1 ms is the backward (the weights of the last layer are read once more), the rest
are the map and its checks. Each method more takes 0.1 to 0.4 ms, those with an eigenvector 1.2 ms. Two cores halve the
forward but not this, so the ratio is larger there.

Rows of attention take half a millisecond a layer: a softmax over the keys of one query, and the product with the
values that proves it. The rest of twelve layers of a ViT-B/16 is Python: 1.3 ms to borrow the network, 1 for PyTorch's
function mode and its 300 calls, 2.5 for hooks on 63 modules and notes on each operation, 1.3 to find where the tokens
lie, 3 for 156 maps (the mean and each head). A network of the same modules with next to no arithmetic takes 15 ms
longer in all. A ViT-B/16 takes 20 to 30 ms longer, since its products empty the caches in between. The rows, the mode
and the borrowing alone would be 1.035 × a forward of 250 ms. Rollout has to compute the weights of all layers but the
last again: the fused kernel keeps none, and the row is multiplied from the last layer to the first, when the forward
is over. At 1024 pixels that is 0.45 s for the products of a layer and 0.13 s for their softmax on one core, beside 0.7
s for the attention and 0.65 s for the linear layers of the forward. Other tiles (0.25 to 16 MB, keys in blocks) are
not faster. With the sums over the queries that is a floor of about 1.45. The queries and keys of twelve layers take
288 MiB of memory, and all are needed once the forward is over. The rest of what the table says, which varies by 80
MiB, lies between them in malloc's heap, where the short-lived tensors of the forward find less room. Pages of their
own for what is kept take more, not less.

## What a folder consists of

Reading and writing run in threads beside the network. On two cores they take time from the forward itself, which could
use both, so the sum of the CPU times in the table is the floor. More cores, or a GPU, change that. Reading is for the
most part Pillow's bicubic resize, which the config asks for, and the decoding of the JPEG; drawing is one resize of the
photo that averages pixels, and the map over it. PNG files are packed by ISA-L, five times as fast as by zlib, each row
less the one above it. That takes 1.5 ms an image; OpenCV's encoder takes 7.8 ms, for files 5 % smaller.

A forward in one thread takes less CPU than in two, since small layers do not fill two cores. So two processes
(`tools/dist_vis.sh vis_cam 2 …`), each with half of the images, use the cores better than one, at twice the memory.

## What a GPU changes

`python tools/checks/devices.py` runs 34 command lines on both devices and compares every array that they write. On an
H100 they are at most 7e-6 of an array's largest value apart; what vis_check reports, which are ranks, 1.5e-3.
Convolutions run in float32: cuDNN takes TF32 by default, which changes maps of the last layer by 0.2 % and of inner
layers by 5 %. The plain forward of the table runs in float32 too.

A forward of one image takes 4 milliseconds there, most of it spent on starting kernels. The work around it runs on one
core of the CPU: 5 milliseconds for locking the network, the maps and their checks, 20 for reading twelve layers of
attention. The ratios of the table compare Python with a fast device. Of eight methods, those with an
eigenvector take 23 milliseconds each for 32 images, in cuSOLVER. The copy of a batch is pinned and overlaps with the
forward before it; maps stay on the device until they are finished. The rows of the GPU were measured before two kinds
of waits for it were taken out: for each image of a batch, and for each tile of rollout. A folder was not measured.
"""


def main() -> None:
    """Runs the parts and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--only', nargs='+', choices=PARTS, default=list(PARTS))
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--print', action='store_true', help='only print the rows')
    args = parser.parse_args()
    if not SETTINGS.items() <= os.environ.items():  # glibc reads its own when a process starts
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **SETTINGS})
    os.chdir(ROOT)
    warnings.filterwarnings('ignore')
    in_float32()
    begin = time.perf_counter()
    parts = parts_of(args.device)
    measured: dict[str, list[Row]] = {}
    for name in (each for each in parts if each in args.only):
        try:
            found = parts[name](args.rounds)
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            found = [Row(name, f'failed: {str(error).partition(chr(10))[0]}')]
        for row in found:
            print(f'{row.work}: {row.measured} (aim: {row.goal or "none"})', flush=True)
        measured[name] = found
    print(f'{(time.perf_counter() - begin) / 60:.0f} minutes')
    if not args.print:
        PAGE.write_text(page(keep(args.device, measured)), encoding='utf-8')


if __name__ == '__main__':
    main()

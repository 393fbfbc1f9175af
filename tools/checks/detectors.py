"""Compares the maps of detectors and segmenters with a backward through the whole network.

    python tools/checks/detectors.py [--only NAME …] [--ops FILE]

It builds ten detectors of mmdet, four of torchvision, and segmenters of mmseg and torchvision, at their full depth and
with random weights, and needs ``pip install onedl-mmdetection onedl-mmsegmentation`` besides vistool. Where mmcv was
installed without its compiled operators, ``mmcv_ops.py`` beside this file stands in for those that are needed; --ops
names another file that does. Detectors and segmenters of transformers, and small ones of torchvision, are compared in
the tests. Exit code 1 if a map is wrong.

The oracle takes predictions of the library's own with their graph, differentiates one number of one prediction by
autograd, and multiplies with the layers' outputs. mmdet's dense heads detach what they filter, by an argument of one
function; here that argument is turned around. Points of deformable attention are compared with those that mmcv's
operator is given.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import importlib.util
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torchvision.models import get_model

import vistool as vt

SIZE = (96, 128)
TOLERANCE = 1e-5
Map: TypeAlias = NDArray[np.float64]
Numbers: TypeAlias = Callable[[Any], Tensor]
"""The output of an oracle's run → the number that is explained."""


@dataclass(frozen=True)
class Entry:
    """A network to compare.

    Attributes:
        name: Its config, after the scheme.
        inner: A layer of its backbone.
        options: Changes of its config, or arguments of torchvision's function.
    """

    name: str
    inner: str
    options: dict[str, Any] = field(default_factory=dict)


LOW = {'model.test_cfg.score_thr': 0.0}
LOW_REGIONS = {'model.test_cfg.rcnn.score_thr': 0.0, 'model.test_cfg.rpn.max_per_img': 60}
MMDET = (
    Entry('retinanet/retinanet_r18_fpn_1x_coco.py', 'backbone.layer3', LOW),
    Entry('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', 'backbone.layer3', LOW_REGIONS),
    Entry('mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', 'backbone.layer3', LOW_REGIONS),
    Entry('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', 'backbone.layer3', LOW),
    Entry('atss/atss_r50_fpn_1x_coco.py', 'backbone.layer3', LOW),
    Entry('rtmdet/rtmdet_tiny_8xb32-300e_coco.py', 'backbone.stage3', LOW),
    Entry('yolox/yolox_tiny_8xb8-300e_coco.py', 'backbone.stage3', LOW),
    Entry(
        'yolo/yolov3_mobilenetv2_8xb24-320-300e_coco.py',
        'backbone.layer4',
        {**LOW, 'model.test_cfg.conf_thr': 0.0},
    ),
    Entry('detr/detr_r50_8xb2-150e_coco.py', 'backbone.layer3'),
    Entry('dino/dino-4scale_r50_8xb2-12e_coco.py', 'backbone.layer3', {'model.num_queries': 30}),
    Entry('deformable_detr/deformable-detr_r50_16xb2-50e_coco.py', 'backbone.layer3', {'model.num_queries': 30}),
)
SMALL = {'min_size': 96, 'max_size': 160}
TORCHVISION = (
    Entry('retinanet_resnet50_fpn', 'backbone.body.layer3', SMALL),
    Entry('fasterrcnn_resnet50_fpn', 'backbone.body.layer3', SMALL),
    Entry('maskrcnn_resnet50_fpn', 'backbone.body.layer3', SMALL),
    Entry('fcos_resnet50_fpn', 'backbone.body.layer3', SMALL),
    Entry('ssd300_vgg16', 'backbone.features[12]'),
)
MMSEG = (
    Entry('fcn/fcn_r18-d8_4xb2-80k_cityscapes-512x1024.py', 'backbone.layer3'),
    Entry('deeplabv3plus/deeplabv3plus_r18-d8_4xb2-80k_cityscapes-512x1024.py', 'backbone.layer3'),
    Entry('segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py', 'decode_head.fusion_conv'),
)
TORCHVISION_SEGMENTERS = (
    Entry('fcn_resnet50', 'backbone.layer3'),
    Entry('deeplabv3_resnet50', 'backbone.layer3'),
    Entry('lraspp_mobilenet_v3_large', 'classifier.cbr'),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Compares the networks; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', nargs='+', default=[''], metavar='NAME', help='text in the name of a network')
    parser.add_argument(
        '--ops', type=Path, metavar='FILE', help='run before mmcv is imported if it lacks its operators'
    )
    args = parser.parse_args(argv)
    warnings.filterwarnings('ignore')
    logging.disable(logging.WARNING)
    stand_in(args.ops)
    kinds: Sequence[tuple[str, Sequence[Entry], Callable[[Entry], Iterator[float]]]] = (
        ('mmdet', MMDET, functools.partial(detector, 'mmdet')),
        ('mmdet', MMDET[-2:], sampled_points),
        ('torchvision', TORCHVISION, functools.partial(detector, 'torchvision')),
        ('mmseg', MMSEG, functools.partial(segmenter, 'mmseg')),
        ('torchvision', TORCHVISION_SEGMENTERS, functools.partial(segmenter, 'torchvision')),
    )
    wrong = 0
    for package, entries, compare in kinds:
        for entry in entries:
            name = f'{package}::{entry.name}'
            if not any(part in name for part in args.only):
                continue
            start = time.perf_counter()
            try:
                apart = list(compare(entry))
                what = 'sets of points' if compare is sampled_points else 'maps'
                told = f'{len(apart)} {what}, at most {max(apart):.1e} apart'
                bad = not max(apart) <= TOLERANCE
            except Exception as error:  # one network that fails is a line, not the end
                told, bad = f'{type(error).__name__}: {error}', True
            wrong += bad
            print(f'{"WRONG" if bad else "equal"}  {name}: {told}  {time.perf_counter() - start:.0f} s', flush=True)
    return 1 if wrong else 0


def stand_in(file: Path | None) -> None:
    """Enters a stand-in for mmcv's compiled operators where mmcv lacks them."""
    if importlib.util.find_spec('mmcv._ext') is not None:
        return
    file = file or Path(__file__).with_name('mmcv_ops.py')
    print(f'mmcv has no compiled operators: {file.name} stands in for them')
    spec = importlib.util.spec_from_file_location('mmcv_ops', file)
    assert spec is not None and spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


def detector(package: str, entry: Entry) -> Iterator[float]:
    """How far each map of a detector is from the oracle's."""
    model = build(package, entry)
    network, image = model.module, image_of(package)
    run = (mmdet_predictions if package == 'mmdet' else torchvision_predictions)(network, image)
    for options in (
        {'attribute': ('class', 'left', 'box')},
        {'layers': entry.inner},
        {'layers': entry.inner, 'attribute': 'bottom'},
    ):
        result = vt.CAM('hirescam', instances=[0, 2], score_threshold=0.0, **options)(model, image)
        numbers = [
            functools.partial(number_of, item.coordinates['instance'], item.coordinates.get('attribute', 'class'))
            for item in result
        ]
        for item, expected in zip(result, oracle(network, run, result.layers, numbers), strict=True):
            yield difference(item.values, expected, item.coordinates.get('attribute', 'class') == 'class')


def sampled_points(entry: Entry) -> Iterator[float]:
    """How far the points and weights that vis_attention draws are from those that mmcv's operator is given."""
    model = build('mmdet', entry)
    operator = importlib.import_module('mmcv.ops.multi_scale_deform_attn')
    plain, given = operator.multi_scale_deformable_attn_pytorch, []

    def keep(*args: Any) -> Tensor:
        given.append(args)
        return plain(*args)

    for queries in (['#0', '#2'], [(40, 30)]):
        operator.multi_scale_deformable_attn_pytorch = keep
        try:
            result = vt.Attention(queries=queries)(model, image_of('mmdet'))
        finally:
            operator.multi_scale_deformable_attn_pytorch = plain
        for item in result:
            if item.coordinates['head'] != 'mean':
                yield min(points_apart(item, *args[2:4]) for args in given)
        given.clear()


def points_apart(item: Any, places: Tensor, weights: Tensor) -> float:
    """How far the points and weights of a head are from those of the query that has the most similar ones.

    Args:
        item: The drawn points.
        places: ``(B, Nq, heads, levels, points, 2)``, in fractions of the input.
        weights: ``(B, Nq, heads, levels, points)``.
    """
    head, own = item.coordinates['head'], item.sampled
    there = places[0, :, head].flatten(1, 2).numpy()
    if there.shape[1] != len(own.points):
        return float('inf')
    points = np.abs(there - own.points / [SIZE[1], SIZE[0]]).max((1, 2))
    return float(np.maximum(points, np.abs(weights[0, :, head].flatten(1).numpy() - own.weights).max(1)).min())


def segmenter(package: str, entry: Entry) -> Iterator[float]:
    """How far each map of a segmenter is from the oracle's."""
    model = build(package, entry)
    network, image = model.module, image_of(package)
    run = functools.partial(mmseg_logits if package == 'mmseg' else torchvision_logits, network, image)
    with torch.no_grad():
        predicted = run()[0].argmax(0)
    for options in ({'targets': 'top2'}, {'layers': entry.inner, 'point': (40, 30)}):
        result = vt.CAM('hirescam', **options)(model, image)
        numbers = []
        for target in result.targets:
            region = predicted == target.id
            if 'point' in options:
                region = torch.zeros(SIZE, dtype=torch.bool)
                region[30, 40] = True
            numbers.append(functools.partial(lambda at, where, output: output[0, at][where].sum(), target.id, region))
        for item, expected in zip(result, oracle(network, run, result.layers, numbers), strict=True):
            yield difference(item.values, expected)


def build(package: str, entry: Entry) -> vt.Model:
    """A network whose random weights give predictions that differ from each other."""
    if package == 'torchvision':
        model = vt.load(get_model(entry.name, weights=None, weights_backbone=None, **entry.options))
    else:
        model = vt.load(f'{package}::{entry.name}', 'none', options=entry.options or None)
    torch.manual_seed(0)
    network = model.module.eval()
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, std=(1.5 / module.weight[0].numel()) ** 0.5)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.1)
        for name in ('score_thresh', 'score_thr'):
            if hasattr(module, name):
                setattr(module, name, 0.0)
    normalize(network, package)
    return model


def normalize(network: nn.Module, package: str) -> None:
    """Statistics of batch norms as the image gives them, so that activations neither vanish nor explode."""
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    image = image_of(package)
    with torch.no_grad():
        if package == 'mmdet':
            mmdet_predictions(network, image, copies=2)()
        elif package == 'mmseg':
            network(image.expand(2, -1, -1, -1), mode='tensor')
        elif hasattr(network, 'transform'):
            network([image, image.flip(2)])
        else:
            network(torch.stack([image, image.flip(2)]))
    for norm in norms:
        norm.eval()


def image_of(package: str) -> Tensor:
    """The network's input ``(3, H, W)``: normalized, or in [0, 1] for torchvision's detectors."""
    found = torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(3))
    return found if package == 'torchvision' else (found - 0.5) * 4


def mmdet_predictions(network: Any, image: Tensor, copies: int = 1) -> Callable[[], Any]:
    """A run that gives ``(scores, boxes)`` of the first image with their graph, the surest first."""
    from mmdet.structures import DetDataSample

    metainfo = {'img_shape': SIZE, 'ori_shape': SIZE, 'pad_shape': SIZE, 'batch_input_shape': SIZE}

    def run() -> tuple[Tensor, Tensor]:
        samples = [DetDataSample(metainfo={**metainfo, 'scale_factor': (1.0, 1.0)}) for _ in range(copies)]
        images = torch.stack([image, image.flip(2)][:copies])
        with attached() if hasattr(network, 'bbox_head') else contextlib.nullcontext():
            found = network.predict(images, samples, rescale=False)[0].pred_instances
        order = found.scores.argsort(descending=True, stable=True)
        return found.scores[order], found.bboxes[order]

    return run


@contextlib.contextmanager
def attached() -> Iterator[None]:
    """Dense heads of mmdet keep the graph of what they filter; those that only propose regions are left alone."""
    heads = importlib.import_module('mmdet.models.dense_heads.base_dense_head')
    plain = heads.select_single_mlvl
    heads.select_single_mlvl = lambda maps, image, detach=True: plain(maps, image, detach=False)
    try:
        yield
    finally:
        heads.select_single_mlvl = plain


def torchvision_predictions(network: nn.Module, image: Tensor) -> Callable[[], Any]:
    """A run that gives ``(scores, boxes)`` with their graph, the surest first."""

    def run() -> tuple[Tensor, Tensor]:
        found = network([image])[0]
        order = found['scores'].argsort(descending=True, stable=True)
        return found['scores'][order], found['boxes'][order]

    return run


def mmseg_logits(network: Any, image: Tensor) -> Tensor:
    """Class scores at the size of the input, enlarged as mmseg does before it decides."""
    logits: Tensor = network(image[None], mode='tensor')
    return F.interpolate(logits, SIZE, mode='bilinear', align_corners=network.align_corners)


def torchvision_logits(network: nn.Module, image: Tensor) -> Tensor:
    """Class scores at the size of the input."""
    found: Tensor = network(image[None])['out']
    return found


def number_of(index: int, attribute: str, predictions: tuple[Tensor, Tensor]) -> Tensor:
    """A prediction's score, or how far an edge lies outward."""
    scores, boxes = predictions
    if attribute == 'class':
        return scores[index]
    left, top, right, bottom = boxes[index]
    return {'left': -left, 'top': -top, 'right': right, 'bottom': bottom, 'box': right - left + bottom - top}[attribute]


def oracle(network: nn.Module, run: Callable[[], Any], layers: Sequence[str], numbers: Sequence[Numbers]) -> list[Map]:
    """HiResCAM of each number: layers scaled and enlarged, their mean scaled."""
    kept: dict[str, Tensor] = {}
    handles, copied = [], []
    for layer in layers:
        path, _, key = layer.partition('[')
        if path.rpartition('.')[2] in ('features',):  # an item of a Sequential, not of an output
            path, key = f'{path}.{key.rstrip("]")}', ''

        def keep(module: nn.Module, args: Any, output: Any, layer: str = layer, key: str = key.rstrip(']')) -> None:
            index = key if isinstance(output, dict) else int(key or 0)
            if layer not in kept:
                kept[layer] = output if isinstance(output, Tensor) else output[index]

        module = network.get_submodule(path)
        if module not in copied:  # a level may be computed from another inside: what counts is what is handed on
            copied.append(module)
            handles.append(module.register_forward_hook(lambda module, args, output: tree_map(Tensor.clone, output)))
        handles.append(module.register_forward_hook(keep))
    prepared: list[Any] = []
    if hasattr(network, 'transform'):
        handles.append(network.transform.register_forward_hook(lambda module, args, output: prepared.append(output[0])))
    with torch.enable_grad():
        for parameter in network.parameters():
            parameter.requires_grad_(True)
        output = run()
    for handle in handles:
        handle.remove()
    frame = tuple(prepared[0].tensors.shape[-2:]) if prepared else SIZE
    valid = prepared[0].image_sizes[0] if prepared else SIZE
    values = [kept[layer] for layer in layers]
    return [one_map(number(output), values, frame, valid) for number in numbers]


def one_map(number: Tensor, values: Sequence[Tensor], frame: tuple[int, ...], valid: tuple[int, int]) -> Map:
    """The map of one number."""
    gradients = torch.autograd.grad(number, values, allow_unused=True, retain_graph=True)
    unit = []
    for value, gradient in zip(values, gradients, strict=True):
        product = torch.zeros_like(value) if gradient is None else value.detach() * gradient
        unit.append(enlarged(scaled(product[0].sum(0).clamp_min(0).double().numpy()), frame))
    fused = scaled(sum(unit[1:], unit[0]) / len(unit))[: valid[0], : valid[1]]
    return fused if fused.shape == SIZE else enlarged(fused, SIZE)


def scaled(values: Map) -> Map:
    """From 0 to 1."""
    span = values.max() - values.min()
    found: Map = (values - values.min()) / (span + min(max(span, 1e-300), 1e-7))
    return found


def enlarged(values: Map, size: Sequence[int]) -> Map:
    """At another size, bilinear."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))[None, None]
    found: Map = F.interpolate(tensor, tuple(size), mode='bilinear', align_corners=False)[0, 0].numpy()
    return found


def difference(values: NDArray[np.float32], expected: Map, shows: bool = True) -> float:
    """The largest difference; infinite where a map that has to show something shows nothing, or where one is NaN."""
    if not np.isfinite(expected).all() or (shows and not expected.max() > 0):
        return float('inf')
    return float(np.abs(values - expected).max())


if __name__ == '__main__':
    sys.exit(main())

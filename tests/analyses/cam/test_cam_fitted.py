"""A detector that is fitted here: its evidence lies on its objects, and evidence carried elsewhere is flagged."""

from collections import OrderedDict
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import box_iou

import vistool as vt
from vistool.visualization.facets import facets

pytestmark = pytest.mark.slow

SIDE, STRIDE, CARRIED = 64, 8, 3
CLASSES = ('background', 'square', 'disc')


class Backbone(nn.Module):
    """One level of stride 8."""

    out_channels = 32

    def __init__(self):
        super().__init__()
        widths = (3, 16, 24, 32)
        self.stages = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.ReLU())
                for before, after in pairwise(widths)
            )
        )

    def forward(self, images):
        return OrderedDict(level=self.stages(images))


class Carried(nn.Module):
    """A module whose map is moved by some cells, or moved back before it looks at it."""

    def __init__(self, module, cells):
        super().__init__()
        self.module, self.cells = module, cells
        self.out_channels = getattr(module, 'out_channels', None)

    def forward(self, maps):
        if isinstance(maps, torch.Tensor):
            return OrderedDict((key, self.moved(value)) for key, value in self.module(maps).items())
        return self.module([self.moved(each) for each in maps])

    def moved(self, maps):
        return maps.roll((self.cells, self.cells), (2, 3))


def scene(rng):
    """An image ``(3, 64, 64)`` in [0, 1] with one bright shape on noise, its box and its label."""
    image = rng.uniform(0.2, 0.6, (3, SIDE, SIDE))
    side = int(rng.integers(14, 23))
    left, top = (int(n) for n in rng.integers(1, SIDE - side - 1, 2))
    rows, columns = np.mgrid[:SIDE, :SIDE]
    inside = (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)
    label = int(rng.integers(1, 3))
    if label == 2:
        inside &= np.hypot(rows + 0.5 - top - side / 2, columns + 0.5 - left - side / 2) < side / 2
    image[:, inside] = rng.uniform(0.7, 1.0, (3, 1))
    box = torch.tensor([[left, top, left + side, top + side]], dtype=torch.float32)
    return torch.from_numpy(image).float(), {'boxes': box, 'labels': torch.tensor([label])}


@pytest.fixture(scope='module')
def network():
    rng = np.random.default_rng(3)
    with torch.random.fork_rng([]):
        torch.manual_seed(3)
        backbone = Backbone()
        made = RetinaNet(
            backbone, len(CLASSES), min_size=SIDE, max_size=SIDE,
            anchor_generator=AnchorGenerator(((18,),), ((1.0,),)), head=RetinaNetHead(32, 1, len(CLASSES)),
        ).train()  # fmt: skip
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # of so small a network two would wait for each other
    optimizer = torch.optim.AdamW(made.parameters(), lr=2e-3)
    for _ in range(120):
        images, targets = zip(*(scene(rng) for _ in range(8)), strict=True)
        loss = sum(made(list(images), list(targets)).values())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(made.parameters(), 1.0)
        optimizer.step()
    torch.set_num_threads(threads)
    return made.eval()


@pytest.fixture(scope='module')
def scenes():
    rng = np.random.default_rng(7)
    return [scene(rng) for _ in range(12)]


def explained(network, images, **options):
    model = vt.load(network, classes=CLASSES)
    return [vt.CAM('hirescam', instances='top1', score_threshold=0.0, **options)(model, image) for image in images]


def test_the_energy_of_each_map_lies_in_its_box_far_above_chance(network, scenes):
    results = explained(network, [image for image, _ in scenes])
    shares, chances = [], []
    for result, (_, target) in zip(results, scenes, strict=True):
        found = result.instance(result.maps[0])
        overlap = torch.tensor([found.seen]), target['boxes']
        assert float(box_iou(*overlap)) > 0.5  # it is fitted
        left, top, right, bottom = (max(round(edge), 0) for edge in found.seen)
        inside = result.maps[0].values[top:bottom, left:right]
        shares.append(float(inside.sum() / result.maps[0].values.sum()))
        chances.append(inside.size / result.maps[0].values.size)
    assert np.mean(shares) > 4 * np.mean(chances)
    assert min(share / chance for share, chance in zip(shares, chances, strict=True)) > 1.5


def test_evidence_that_is_carried_elsewhere_is_flagged(network, scenes):
    """The network computes the same, but its map is moved by three cells, and moved back in the head."""
    images = [image for image, _ in scenes[:4]]
    plain = explained(network, images, verify=True)
    backbone, head = network.backbone, network.head
    network.backbone, network.head = Carried(backbone, CARRIED), Carried(head, -CARRIED)
    try:
        carried = explained(network, images, verify=True, layers='backbone')
    finally:
        network.backbone, network.head = backbone, head
    notes = [[facets(result).tiles[0].note for result in results] for results in (plain, carried)]
    for one, other in zip(plain, carried, strict=True):
        assert one.instances[0].score == pytest.approx(other.instances[0].score, abs=1e-5)
    assert not any(note.startswith('drift') for note in notes[0])
    assert all(note.startswith('drift') for note in notes[1])

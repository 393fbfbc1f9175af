"""Semantic segmenters: the class scores of every pixel in what one returned.

Known are torchvision's segmenters, those of transformers whose output is a map for each class or can be read as one
(MaskFormer, Mask2Former), and mmseg's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vistool.errors import InputError
from vistool.network.outputs import ScoreReader
from vistool.network.tensors import NetworkInput, Size

_HUGGING_FACE = ('ForSemanticSegmentation', 'ForUniversalSegmentation', 'MaskFormerForInstanceSegmentation')

_LAYERS = ('segformer.encoder.layer_norm[-1]', 'model.pixel_level_module.decoder.mask_projection')
"""Layers of transformers' segmenters that the last decisions are made from."""


class Segmenter:
    """How a semantic segmenter is read.

    Attributes:
        module: The segmenter inside the network.
        path: Its dotted name there; ``''`` for the network itself.
        package: The package of its class.
    """

    def __init__(self, module: nn.Module, path: str, package: str) -> None:
        self.module, self.path, self.package = module, path, package

    def prepared(self, inputs: NetworkInput, samples: Sequence[Any]) -> NetworkInput:
        """The input of the network: as it is."""
        return inputs

    extra_tokens = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Nothing needs to be noted during a forward."""
        yield

    def reader(self, size: Size) -> ScoreReader:
        """Finds the sum of the largest scores in an output, for the search of a layer."""
        return ScoreReader(lambda output, count: self.logits(output, size).amax(1).flatten(1).sum(1)[:, None], 'pixels')

    def logits(self, output: Any, size: Size) -> Tensor:
        """Class scores ``(B, K, H, W)`` at the size of the input, enlarged as the libraries do before they decide.

        Args:
            output: What the network returned.
            size: ``(H, W)`` of its input.

        Raises:
            InputError: The output holds none.
        """
        found = output if isinstance(output, Tensor) else None
        if isinstance(output, Mapping):  # transformers' outputs are mappings too
            found = output.get('out', output.get('logits'))
            if found is None and output.get('masks_queries_logits') is not None:
                found = _of_queries(output['class_queries_logits'], output['masks_queries_logits'])
        elif isinstance(output, (tuple, list)) and output and isinstance(output[-1], Tensor):
            found = output[0]
        if not isinstance(found, Tensor) or found.ndim != 4:
            raise InputError(
                f'{type(self.module).__name__} gives no class scores for each pixel', accepted='a tensor (B, K, h, w)'
            )
        if found.shape[-2:] == size:
            return found
        corners = bool(getattr(self.module, 'align_corners', False))  # mmseg's decoder heads say how they enlarge
        return F.interpolate(found, size, mode='bilinear', align_corners=corners)

    def layers(self) -> list[str]:
        """The layers that are explained by default: what the last decisions are made from; ``[]`` where unknown."""
        prefix = f'{self.path}.' if self.path else ''
        known = dict(self.module.named_modules())
        if self.package == 'torchvision':
            high = 'high' if type(self.module).__name__ == 'LRASPP' else 'out'
            return [f'{prefix}backbone[{high}]']
        return [f'{prefix}{name}' for name in _LAYERS if name.removesuffix('[-1]') in known][:1]


def _of_queries(classes: Tensor, masks: Tensor) -> Tensor:
    """Σ_q p_q(c)·σ(m_q), MaskFormer's semantic inference: ``(B, Q, K+1)``, ``(B, Q, h, w)`` → ``(B, K, h, w)``."""
    return torch.einsum('bqc,bqhw->bchw', classes.softmax(-1)[..., :-1], masks.sigmoid())


def find_segmenter(root: nn.Module) -> Segmenter | None:
    """The segmenter in a network; None if it holds none."""
    for path, module in root.named_modules():
        for kind in type(module).__mro__:
            package, name = kind.__module__.partition('.')[0], kind.__name__
            if (
                (package == 'torchvision' and name in ('_SimpleSegmentationModel', 'LRASPP'))
                or (package == 'transformers' and name.endswith(_HUGGING_FACE))
                or (package == 'mmseg' and name == 'BaseSegmentor')
            ):
                return Segmenter(module, path, package)
        if path.count('.') > 1:
            break
    return None

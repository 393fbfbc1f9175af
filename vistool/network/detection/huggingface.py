"""Detectors of transformers: DETR and its relatives, RT-DETR, YOLOS.

Scores and boxes are those of the library's own post-processing, whose tensors keep their graph. Every query depends on
the whole image, so each prediction takes a backward of its own through what follows the layers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vistool.errors import InputError
from vistool.network.detection import Adapter, Detections
from vistool.network.tensors import Size

_LAYERS = (
    'model.decoder_input_proj',
    'model.input_proj',
    'model.encoder.layers[-1]',
    'vit.encoder.layer[-1].layernorm_before',
)
"""Modules whose outputs the decoder, or the last attention, looks at: the first that exists is explained by default."""


class HuggingFaceAdapter(Adapter):
    """Runs and reads detectors of transformers."""

    @classmethod
    def fits(cls, module: nn.Module) -> bool:
        """Whether a module is a detector, by the name that transformers gives its class."""
        return any(kind.__name__.endswith('ForObjectDetection') for kind in type(module).__mro__)

    def read(self, output: Any, count: int, size: Size) -> Detections:
        """The predictions, by the library's own post-processing."""
        found = self._processor().post_process_object_detection(output, threshold=0.0, target_sizes=[size] * count)
        parts = []
        for each in found:
            order = each['scores'].detach().argsort(descending=True, stable=True)
            parts.append([each[name][order] for name in ('scores', 'labels', 'boxes')])
        scores, labels, boxes = zip(*parts, strict=True)
        return Detections(scores, labels, boxes)

    def query_boxes(self, output: Any, size: Size) -> list[Tensor] | None:
        """The boxes of the last decoder layer."""
        boxes = getattr(output, 'pred_boxes', None)
        if boxes is None:
            return None
        (x, y), (width, height) = boxes[..., :2].split(1, -1), boxes[..., 2:].split(1, -1)
        corners = torch.cat([x - width / 2, y - height / 2, x + width / 2, y + height / 2], -1)
        return list(corners * corners.new_tensor([size[1], size[0], size[1], size[0]]))

    def first_query(self, size: Size) -> int:
        """YOLOS' queries come after the class token and the patches."""
        config: Any = self.module.config
        if self.extra_tokens is None:
            return 0
        return 1 + (size[0] // config.patch_size) * (size[1] // config.patch_size)

    def layers(self) -> list[str]:
        """The maps that queries attend to; ``[]`` for a detector whose layers are not known."""
        prefix = f'{self.path}.' if self.path else ''
        for name in _LAYERS:
            parts = name.replace('[-1]', '.-1').split('.')
            module: Any = self.module
            for part in parts:
                module = module[-1] if part == '-1' else getattr(module, part, None)
                if module is None:
                    break
            if module is None:
                continue
            if isinstance(module, nn.ModuleList) and not name.endswith('layers[-1]'):
                return [f'{prefix}{name}[{level}]' for level in range(len(module))]
            return [f'{prefix}{name}']
        return []

    @property
    def extra_tokens(self) -> tuple[int, int] | None:
        """Tokens before and after those of the image: YOLOS appends one for each prediction."""
        count = getattr(self.module.config, 'num_detection_tokens', None)
        return None if count is None else (1, int(count))

    def _processor(self) -> Any:
        """The image processor that belongs to the network, for its post-processing."""
        import transformers
        from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES as names

        config: Any = self.module.config
        for name in names.get(config.model_type, ()):
            processor = getattr(transformers, name, None) if name else None
            if processor is not None and hasattr(processor, 'post_process_object_detection'):
                return processor()
        raise InputError(
            f'transformers {transformers.__version__} has no post-processing for {config.model_type}',
            accepted='a detector with an image processor of its own: DETR, RT-DETR, YOLOS, …',
            parameter='model',
        )

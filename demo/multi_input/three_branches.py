"""A network with three inputs: photo, spectrum and texture, joined by cross-attention.

Small, but of the usual shape: one convolutional branch per input, and tokens of one branch that ask the tokens of the
others. Its ``forward`` takes three tensors by name; vistool needs nothing more than a config.
"""

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class ThreeBranches(nn.Module):
    """Classifies from a photo, its spectrum and its texture.

    Args:
        num_classes: Number of classes.
        width: Channels of each branch.
    """

    def __init__(self, num_classes: int = 3, width: int = 32) -> None:
        super().__init__()
        self.texture, self.spectrum, self.photo = (_branch(width) for _ in range(3))
        self.cross = nn.MultiheadAttention(width, 4, add_bias_kv=True, batch_first=True)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x_b: Tensor, x_f: Tensor, x_p: Tensor) -> Tensor:
        """Class scores ``(B, num_classes)``.

        Args:
            x_b: Texture, ``(B, 3, H, W)``.
            x_f: Spectrum, ``(B, 3, H, W)``.
            x_p: Photo, ``(B, 3, H, W)``.
        """
        texture, spectrum, photo = (
            branch(x).flatten(2).transpose(1, 2)
            for branch, x in ((self.texture, x_b), (self.spectrum, x_f), (self.photo, x_p))
        )
        context = torch.cat([spectrum, photo], 1)
        joined, _ = self.cross(texture, context, context, need_weights=False)
        return self.head(joined.mean(1))


def _branch(width: int) -> nn.Sequential:
    """Three strided convolutions: a 64×64 image becomes an 8×8 grid."""
    layers: list[nn.Module] = []
    channels = 3
    for _ in range(3):
        layers += [nn.Conv2d(channels, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers)

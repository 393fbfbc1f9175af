"""Trains the three-branch network on generated images and writes its weights, reproducibly.

The class is the direction of the stripes in one corner (``REGION``) of the texture input's image; everything else, in
all three inputs, is noise. So it is known where evidence can be found, and in which input.

    python -m demo.multi_input.train

writes ``three_branches.pth``, ``photo.png`` and ``texture.png`` beside this file; it takes some 20 s of CPU.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from demo.multi_input.three_branches import ThreeBranches
from vistool.data.derived import FFTMagnitude, LocalBinaryPattern

SIZE = 64
REGION = (36, 8, 60, 32)
"""Top, left, bottom, right of the part of the texture image that decides about the class."""
CLASSES = ('horizontal', 'vertical', 'diagonal')
HERE = Path(__file__).parent


def noise(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Smooth noise that nothing can be read from, uint8 ``(SIZE, SIZE, 3)``."""
    coarse = rng.integers(60, 196, (SIZE // 8, SIZE // 8, 3)).astype(np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((SIZE, SIZE), Image.Resampling.BICUBIC), np.int16)
    return np.clip(smooth + rng.integers(-20, 21, smooth.shape), 0, 255).astype(np.uint8)


def striped(rng: np.random.Generator, label: int) -> NDArray[np.uint8]:
    """Noise with stripes of the class's direction in ``REGION``."""
    image = noise(rng)
    top, left, bottom, right = REGION
    y, x = np.mgrid[top:bottom, left:right]
    phase = (y, x, x + y)[label] + rng.integers(0, 6)
    stripes = np.where(phase % 6 < 3, 50, -50)[..., None]
    image[top:bottom, left:right] = np.clip(image[top:bottom, left:right].astype(np.int16) + stripes, 0, 255)
    return image


def tensors(photo: NDArray[np.uint8], texture: NDArray[np.uint8]) -> tuple[Tensor, Tensor, Tensor]:
    """Texture, spectrum and photo as the config's pipelines make them: ``(3, SIZE, SIZE)``, normalized."""
    images = (LocalBinaryPattern()({'img': texture})['img'], FFTMagnitude()({'img': photo})['img'], photo)
    x_b, x_f, x_p = (
        torch.from_numpy((image.transpose(2, 0, 1).astype(np.float32) - 127.5) / 127.5) for image in images
    )
    return x_b, x_f, x_p


def batch(rng: np.random.Generator, count: int) -> tuple[list[Tensor], Tensor]:
    """``count`` generated samples: the three inputs, and the labels."""
    labels = rng.integers(0, len(CLASSES), count)
    samples = [tensors(noise(rng), striped(rng, int(label))) for label in labels]
    return [torch.stack(column) for column in zip(*samples, strict=True)], torch.from_numpy(labels)


def train(steps: int = 120, samples: int = 512, seed: int = 0) -> ThreeBranches:
    """A trained network, in eval mode."""
    rng = np.random.default_rng(seed)
    inputs, labels = batch(rng, samples)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        model = ThreeBranches(len(CLASSES)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    for _ in range(steps):
        picked = torch.from_numpy(rng.integers(0, samples, 48))
        optimizer.zero_grad()
        scores = model(*(each[picked] for each in inputs))
        nn.functional.cross_entropy(scores, labels[picked], label_smoothing=0.1).backward()
        optimizer.step()
    return model.eval()


def main() -> None:
    """Trains, tells the accuracy on new samples, and writes the files."""
    model = train()
    inputs, labels = batch(np.random.default_rng(1), 200)
    with torch.no_grad():
        accuracy = (model(*inputs).argmax(1) == labels).float().mean()
    print(f'accuracy on 200 new samples: {accuracy:.3f}')
    meta = {'dataset_meta': {'classes': CLASSES}}
    torch.save({'state_dict': model.state_dict(), 'meta': meta}, HERE / 'three_branches.pth')
    rng = np.random.default_rng(2)
    Image.fromarray(noise(rng)).save(HERE / 'photo.png')
    Image.fromarray(striped(rng, 1)).save(HERE / 'texture.png')


if __name__ == '__main__':
    main()

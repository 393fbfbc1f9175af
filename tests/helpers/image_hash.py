"""pHash as imagehash computes it, written out again: in the place of that package where it is not installed."""

from types import SimpleNamespace

import numpy as np
from PIL import Image
from scipy.fft import dct


def phash(image):
    small = np.asarray(image.convert('L').resize((32, 32), Image.Resampling.LANCZOS), np.float64)
    low = dct(dct(small, axis=0), axis=1)[:8, :8]
    return SimpleNamespace(hash=low > np.median(low))

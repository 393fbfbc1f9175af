"""The methods as their papers write them: loops over channels and positions, one image at a time, in numpy.

``A`` and ``G`` are ``(K, h, w)`` arrays. Each function returns the signed map ``(h, w)``, before any ReLU.
"""

import numpy as np


def weighted_sum(weights, A):
    total = np.zeros(A.shape[1:])
    for k in range(len(A)):
        total += weights[k] * A[k]
    return total


def gradcam(A, G):
    Z = A.shape[1] * A.shape[2]
    alpha = [sum(G[k, i, j] for i in range(A.shape[1]) for j in range(A.shape[2])) / Z for k in range(len(A))]
    return weighted_sum(alpha, A)


def gradcam_plus_plus(A, G):
    weights = []
    for k in range(len(A)):
        total = A[k].sum()
        w = 0.0
        for g in G[k].ravel():
            if g != 0:
                alpha = g**2 / (2 * g**2 + total * g**3 + 1e-6)
                w += alpha * max(g, 0.0)
        weights.append(w)
    return weighted_sum(weights, A)


def xgradcam(A, G):
    return weighted_sum([(G[k] * A[k]).sum() / (A[k].sum() + 1e-7) for k in range(len(A))], A)


def layercam(A, G):
    total = np.zeros(A.shape[1:])
    for k in range(len(A)):
        total += np.where(G[k] > 0, G[k], 0) * A[k]
    return total


def first_component(X):
    """Position by position projection on the first right singular vector; the larger magnitude made positive."""
    flat = X.reshape(len(X), -1).T
    flat = flat - flat.mean(0)
    _, _, vt = np.linalg.svd(flat)
    projection = (flat @ vt[0]).reshape(X.shape[1:])
    return -projection if abs(projection.min()) > abs(projection.max()) else projection


def eigencam(A, G):
    return first_component(A)


def eigengradcam(A, G):
    return first_component(G * A)


METHODS = {
    'gradcam': gradcam,
    'gradcam++': gradcam_plus_plus,
    'xgradcam': xgradcam,
    'eigencam': eigencam,
    'eigengradcam': eigengradcam,
    'layercam': layercam,
}


def minmax(x):
    x = x - x.min()
    return x / (1e-7 + x.max())


def bilinear(x, size):
    """Half-pixel bilinear enlargement, one output pixel at a time."""
    h, w = x.shape
    out = np.zeros(size)
    for i in range(size[0]):
        for j in range(size[1]):
            y = min(max((i + 0.5) * h / size[0] - 0.5, 0), h - 1)
            z = min(max((j + 0.5) * w / size[1] - 0.5, 0), w - 1)
            i0, j0 = int(y), int(z)
            i1, j1 = min(i0 + 1, h - 1), min(j0 + 1, w - 1)
            dy, dx = y - i0, z - j0
            top = x[i0, j0] * (1 - dx) + x[i0, j1] * dx
            bottom = x[i1, j0] * (1 - dx) + x[i1, j1] * dx
            out[i, j] = top * (1 - dy) + bottom * dy
    return out


def finish(signed, size):
    layers = [bilinear(minmax(np.maximum(x, 0)), size) for x in signed]
    return minmax(sum(layers) / len(layers))

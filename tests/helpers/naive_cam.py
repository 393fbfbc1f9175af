"""The methods as their papers write them: loops over channels and positions, one image at a time, in numpy.

``A`` and ``G`` are ``(K, h, w)`` arrays. Each function returns the signed map ``(h, w)``, before any ReLU.
"""

import numpy as np
import torch


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


def hirescam(A, G):
    return sum(G[k] * A[k] for k in range(len(A)))


def gradcam_element_wise(A, G):
    return sum(np.maximum(G[k] * A[k], 0) for k in range(len(A)))


def segeigencam(A, G):
    return first_component(np.abs(G) * A)


def kpcacam(A, G):
    X = A.reshape(len(A), -1).T
    X = X - X.mean(0)
    n, K = X.shape
    kernel = np.array([[np.tanh(X[i] @ X[j] / K + 1) for j in range(n)] for i in range(n)])
    ones = np.full((n, n), 1 / n)
    kernel = kernel - ones @ kernel - kernel @ ones + ones @ kernel @ ones
    values, vectors = np.linalg.eigh(kernel)
    projection = (np.sqrt(max(values[-1], 0)) * vectors[:, -1]).reshape(A.shape[1:])
    return -projection if abs(projection.min()) > abs(projection.max()) else projection


def fem(A, G):
    weights = []
    for k in range(len(A)):
        mean = A[k].mean()
        sigma = np.sqrt(((A[k] - mean) ** 2).mean())
        weights.append((A[k] > mean + 2 * sigma).mean())
    return weighted_sum(weights, A)


METHODS = {
    'gradcam': gradcam,
    'gradcam++': gradcam_plus_plus,
    'xgradcam': xgradcam,
    'eigencam': eigencam,
    'eigengradcam': eigengradcam,
    'layercam': layercam,
    'hirescam': hirescam,
    'gradcamelementwise': gradcam_element_wise,
    'segeigencam': segeigencam,
    'kpcacam': kpcacam,
    'fem': fem,
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


# Methods that run the network. ``image`` is (1, C, H, W); ``to_map`` turns the layer's output into (K, h, w), a view.


def with_output(model, layer, image, change):
    """The network's output with ``change(output)`` in place of the layer's."""
    handle = layer.register_forward_hook(lambda module, args, output: change(output))
    try:
        with torch.no_grad():
            return model(image)
    finally:
        handle.remove()


def ablation_weights(model, layer, image, label, to_map):
    """(y − y_k) / y: the whole network once for each channel that is set to zero."""
    y = model(image)[0, label].item()
    kept = {}
    with_output(model, layer, image, lambda output: kept.update(a=output.detach().clone()))
    weights = []
    for k in range(len(to_map(kept['a']))):

        def silence(output, k=k):
            output = output.clone()
            to_map(output)[k] = 0
            return output

        weights.append((y - with_output(model, layer, image, silence)[0, label].item()) / y)
    return np.array(weights), to_map(kept['a']).numpy()


def finer_score(scores, label, similar):
    p = np.exp(scores) / np.exp(scores).sum()
    return sum(p[d] * (scores[label] - scores[d]) for d in similar) / (sum(p[d] for d in similar) + 1e-9)


def corner_bilinear(x, size):
    """Enlargement that puts corner on corner, as grad-cam's ScoreCAM has it."""
    h, w = x.shape
    out = np.zeros(size)
    for i in range(size[0]):
        for j in range(size[1]):
            y, z = i * (h - 1) / (size[0] - 1), j * (w - 1) / (size[1] - 1)
            i0, j0 = min(int(y), max(h - 2, 0)), min(int(z), max(w - 2, 0))
            i1, j1 = min(i0 + 1, h - 1), min(j0 + 1, w - 1)
            dy, dx = y - i0, z - j0
            out[i, j] = (x[i0, j0] * (1 - dx) + x[i0, j1] * dx) * (1 - dy) + (
                x[i1, j0] * (1 - dx) + x[i1, j1] * dx
            ) * dy
    return out


def scorecam(model, A, image, label):
    scores = []
    for k in range(len(A)):
        mask = corner_bilinear(A[k], image.shape[2:])
        mask = (mask - mask.min()) / (mask.max() - mask.min() + 1e-8)
        scores.append(model(image * torch.from_numpy(mask))[0, label].item())
    weights = np.exp(scores) / np.exp(scores).sum()
    return weighted_sum(weights, A)


def shapleycam(A, score_of):
    """w = mean(G − ½·H·A), H·A by differences of the gradient along A."""

    def gradient(values):
        values = values.clone().requires_grad_()
        return torch.autograd.grad(score_of(values), values)[0].detach().numpy()[0]

    at = torch.from_numpy(A)[None]
    step = 1e-5
    product = (gradient(at * (1 + step)) - gradient(at * (1 - step))) / (2 * step)
    return weighted_sum((gradient(at) - product / 2).mean((1, 2)), A)


def fullgrad(model, image, label, layers):
    """|x ⊙ ∂y/∂x| and |b ⊙ ∂y/∂output| of the convolutions and batch norms in ``layers``."""
    outputs = []
    handles = [layer.register_forward_hook(lambda module, args, output: outputs.append(output)) for layer in layers]
    image = image.clone().requires_grad_()
    y = model(image)[0, label]
    for handle in handles:
        handle.remove()
    gradients = torch.autograd.grad(y, [image, *outputs])
    size = image.shape[2:]
    total = sum(bilinear(minmax(abs(x)), size) for x in (image * gradients[0])[0].detach().numpy())
    for layer, gradient in zip(layers, gradients[1:], strict=True):
        bias = layer.bias
        if isinstance(layer, torch.nn.BatchNorm2d):
            bias = bias - layer.running_mean * layer.weight / torch.sqrt(layer.running_var + layer.eps)
        maps = (bias[:, None, None] * gradient[0]).detach().numpy()
        total = total + sum(bilinear(minmax(abs(x)), size) for x in maps)
    return total


def refinecam(layers, size):
    """The product of the finished GradCAM++ maps of layers, each an (A, G)."""
    product = np.ones(size)
    for A, G in layers:
        product = product * finish([gradcam_plus_plus(A, G)], size)
    return minmax(product)

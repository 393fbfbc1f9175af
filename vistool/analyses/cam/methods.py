"""The methods, one table: each with its title, its paper, what it needs, and its maths.

Most need the activations ``A`` and the gradients ``G = ∂score/∂A``, ``(B, K, h, w)``, of one shared forward. Such a
method gives weighted activations of the same shape; their sum over the channels K (or, for the eigen methods and
``eigen_smooth``, a principal component) is the signed map ``(B, h, w)``. Those that ask another score than the class's
or run the network themselves are entries of the same table from their own files. ReLU, scaling, upsampling and fusion
are the same for all and live in :mod:`vistool.analyses.cam.maps`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vistool.errors import InputError, close_matches

if TYPE_CHECKING:
    from vistool.analyses.cam.probe import Probe
    from vistool.analyses.cam.targets import Goal

DENSE = 512
"""Up to this many positions a full eigendecomposition is quicker than an iteration for its first vector."""


def principal_component(weighted: Tensor) -> Tensor:
    """Projection of every position onto the first principal direction of the channels.

    With X the column-centred ``(h·w, K)`` matrix this is X·v₁ = σ₁·u₁, taken from the smaller of the Gram matrices
    X·Xᵀ and Xᵀ·X in float64 (a squared condition number costs half the digits).

    Args:
        weighted: ``(B, K, h, w)``; NaN counts as 0.

    Returns:
        ``(B, h, w)`` in the dtype of ``weighted``.
    """
    x = _centred(weighted)
    positions, channels = x.shape[1:]
    if positions <= channels:
        values, vectors = torch.linalg.eigh(x @ x.transpose(1, 2))
        projection = vectors[..., -1] * values[..., -1:].clamp_min(0).sqrt()
    else:
        _, vectors = torch.linalg.eigh(x.transpose(1, 2) @ x)
        projection = (x @ vectors[..., -1:]).squeeze(-1)
    return _signed(projection, weighted)


def kernel_component(weighted: Tensor) -> Tensor:
    """The first component of kernel PCA with the sigmoid kernel tanh(x·y / K + 1) over the positions.

    Args:
        weighted: ``(B, K, h, w)``; NaN counts as 0.

    Returns:
        ``(B, h, w)`` in the dtype of ``weighted``.
    """
    x = _centred(weighted)
    kernel = torch.tanh(x @ x.transpose(1, 2) / x.shape[2] + 1)
    kernel = kernel - kernel.mean(1, keepdim=True)
    kernel = kernel - kernel.mean(2, keepdim=True)
    if kernel.shape[1] <= DENSE or kernel.device.type != 'cpu':
        values, vectors = torch.linalg.eigh(kernel)
        values, vectors = values[:, -1:], vectors[..., -1]
    else:
        values, vectors = _largest(kernel)
    return _signed(vectors * values.clamp_min(0).sqrt(), weighted)


def _centred(weighted: Tensor) -> Tensor:
    """``(B, h·w, K)`` in float64 where the device has it, every channel's mean taken off."""
    double = torch.float64 if weighted.device.type != 'mps' else torch.float32
    x = weighted.nan_to_num(nan=0.0).flatten(2).transpose(1, 2).to(double)
    return x - x.mean(1, keepdim=True)


def _signed(projection: Tensor, like: Tensor) -> Tensor:
    flip = projection.amin(1).abs() > projection.amax(1).abs()
    projection = torch.where(flip[:, None], -projection, projection)
    return projection.unflatten(1, like.shape[2:]).to(like.dtype)


def _largest(symmetric: Tensor) -> tuple[Tensor, Tensor]:
    """The largest eigenvalue ``(B, 1)`` of each matrix and its vector ``(B, n)``, by Lanczos iteration."""
    import numpy as np
    from scipy.sparse.linalg import eigsh

    start = np.random.default_rng(0).uniform(
        -1, 1, symmetric.shape[1]
    )  # constant vectors lie in the kernel's null space
    pairs = [eigsh(matrix.numpy(), k=1, which='LA', v0=start) for matrix in symmetric.detach()]
    values, vectors = zip(*pairs, strict=True)
    return torch.from_numpy(np.stack(values)), torch.from_numpy(np.stack(vectors)[..., 0])


Weighing = Callable[[Tensor, Tensor], Tensor]
Projection = Callable[[Tensor], Tensor]
Rescore = Callable[['Goal', Any, Tensor], Tensor]
Run = Callable[['Probe'], list[Tensor]]


class Needs(enum.Flag):
    """What a method needs; what its map costs and where it works follows from it."""

    ACTIVATIONS = enum.auto()
    """The layer's output of the shared forward; alone, the map shows no class."""
    GRADIENTS = enum.auto()
    """The gradient there as well: one backward through the tail for each class, whatever the number of methods."""
    SCORE = enum.auto()
    """The gradient of another score than the class's: one more such backward."""
    RUNS = enum.auto()
    """Runs of the network of its own."""
    SECOND_DERIVATIVES = enum.auto()
    """A network that can be differentiated twice."""
    NO_LAYER = enum.auto()
    """No target layer: it looks at all of them."""

    @property
    def words(self) -> str:
        """In words, for documents and listings: ``'runs, no layer'``."""
        return ', '.join(str(need.name).lower().replace('_', ' ') for need in Needs if need in self)


@dataclass(frozen=True)
class Method:
    """A class activation map.

    Attributes:
        title: The name in its paper, for headings.
        paper: Where it is defined.
        needs: What it needs.
        weigh: ``(A, G) → (B, K, h, w)``, the weighted activations; without gradients it is handed ``A`` twice.
        project: ``(B, K, h, w) → (B, h, w)`` in place of the sum over the channels.
        score: ``(goal, output, rows) → (n,)``, the score to differentiate in place of the goal's own.
        run: For methods that run the network themselves: ``probe → `` signed maps ``(B, h, w)``, one a layer, or one
            for all.
    """

    title: str
    paper: str
    needs: Needs
    weigh: Weighing | None = None
    project: Projection | None = None
    score: Rescore | None = None
    run: Run | None = None

    @property
    def shared(self) -> bool:
        """Whether the one forward, and one backward a class, that all share is enough."""
        return self.run is None and self.score is None

    @property
    def gradients(self) -> bool:
        """Whether it takes gradients from the shared forward."""
        return self.run is None and Needs.GRADIENTS in self.needs

    @property
    def shows_class(self) -> bool:
        """Whether the map depends on the class (or other score) that is asked for."""
        return bool(self.needs & (Needs.GRADIENTS | Needs.RUNS | Needs.SECOND_DERIVATIVES))

    def __call__(self, activations: Tensor, gradients: Tensor | None, eigen_smooth: bool = False) -> Tensor:
        """The signed map ``(B, h, w)``, before ReLU and scaling."""
        assert self.weigh is not None
        weighted = self.weigh(activations, activations if gradients is None else gradients)
        return self.project(weighted) if self.project else combine(weighted, eigen_smooth)


def combine(weighted: Tensor, eigen_smooth: bool = False) -> Tensor:
    """Weighted activations ``(B, K, h, w)`` → signed map ``(B, h, w)``: their sum or first principal component."""
    return principal_component(weighted) if eigen_smooth else weighted.sum(1)


METHODS: dict[str, Method] = {}
"""Name in lower case, without dashes → method."""


def method(
    name: str,
    title: str,
    paper: str,
    *,
    needs: Needs = Needs.GRADIENTS,
    project: Projection | None = None,
    score: Rescore | None = None,
) -> Callable[[Weighing], Weighing]:
    """Adds a weighing function ``(A, G) → (B, K, h, w)`` to the table, also from a user's own file."""

    def add(weigh: Weighing) -> Weighing:
        METHODS[_key(name)] = Method(title, paper, needs, weigh, project, score)
        return weigh

    return add


def running(name: str, title: str, paper: str, *, needs: Needs = Needs.RUNS) -> Callable[[Run], Run]:
    """Adds a method that runs the network itself, ``probe → signed maps``, to the table."""

    def add(run: Run) -> Run:
        METHODS[_key(name)] = Method(title, paper, needs, run=run)
        return run

    return add


def find_methods(names: Iterable[str]) -> dict[str, Method]:
    """The methods of these names, each once, in the order given; ``'all'`` means those that share a forward.

    Raises:
        InputError: If a name is unknown; close matches are listed.
    """
    found: dict[str, Method] = {}
    for name in names:
        key = _key(name)
        if key == 'all':
            found.update({key: entry for key, entry in METHODS.items() if entry.shared and key not in found})
        elif key in METHODS:
            found[key] = METHODS[key]
        else:
            titles = [entry.title for entry in METHODS.values()]
            raise InputError(
                f'unknown method {name!r}',
                accepted=f'all, {", ".join(titles)}',
                hint=close_matches(name, titles),
                parameter='methods',
            )
    if not found:
        raise InputError('none given', accepted='all, ' + titles_of(lambda entry: True), parameter='methods')
    return found


def titles_of(fits: Callable[[Method], bool]) -> str:
    """The titles of the methods that fit, for a message that names those that do work."""
    return ', '.join(entry.title for entry in METHODS.values() if fits(entry))


def _key(name: str) -> str:
    return name.lower().replace('-', '').replace('_', '').replace('plusplus', '++')


@method('gradcam', 'GradCAM', 'Selvaraju et al., Grad-CAM, ICCV 2017')
def gradcam(a: Tensor, g: Tensor) -> Tensor:
    """W = mean of G over the positions."""
    return g.mean((2, 3), keepdim=True) * a


@method('gradcam++', 'GradCAM++', 'Chattopadhay et al., Grad-CAM++, WACV 2018')
def gradcam_plus_plus(a: Tensor, g: Tensor) -> Tensor:
    """W = Σ α·ReLU(G), α = G² / (2G² + S·G³ + 1e-6), S = Σ A, and 0 where G is 0."""
    square = g**2
    alpha = square / (2 * square + a.sum((2, 3), keepdim=True) * square * g + 1e-6)
    alpha = torch.where(g != 0, alpha, torch.zeros_like(alpha))
    return (alpha * g.relu()).sum((2, 3), keepdim=True) * a


@method('xgradcam', 'XGradCAM', 'Fu et al., Axiom-based Grad-CAM, BMVC 2020')
def xgradcam(a: Tensor, g: Tensor) -> Tensor:
    """W = Σ(G⊙A) / (Σ A + 1e-7)."""
    return (g * a).sum((2, 3), keepdim=True) / (a.sum((2, 3), keepdim=True) + 1e-7) * a


@method('layercam', 'LayerCAM', 'Jiang et al., LayerCAM, IEEE TIP 2021')
def layercam(a: Tensor, g: Tensor) -> Tensor:
    """Σ_k ReLU(G)⊙A."""
    return g.relu() * a


@method('hirescam', 'HiResCAM', 'Draelos and Carin, HiResCAM, arXiv 2011.08891')
def hirescam(a: Tensor, g: Tensor) -> Tensor:
    """Σ_k G⊙A."""
    return g * a


@method('gradcamelementwise', 'GradCAMElementWise', 'Gildenblat et al., pytorch-grad-cam, 2021')
def gradcam_element_wise(a: Tensor, g: Tensor) -> Tensor:
    """Σ_k ReLU(G⊙A)."""
    return (g * a).relu()


@method(
    'eigencam',
    'EigenCAM',
    'Muhammad and Yeasin, Eigen-CAM, IJCNN 2020',
    needs=Needs.ACTIVATIONS,
    project=principal_component,
)
def eigencam(a: Tensor, g: Tensor) -> Tensor:
    """The first principal component of A; shows no class."""
    return a


@method('eigengradcam', 'EigenGradCAM', 'Gildenblat et al., pytorch-grad-cam, 2021', project=principal_component)
def eigengradcam(a: Tensor, g: Tensor) -> Tensor:
    """The first principal component of G⊙A."""
    return g * a


@method('segeigencam', 'SegEigenCAM', 'Chung and Ying, Seg-Eigen-CAM, Appl. Sci. 2025', project=principal_component)
def segeigencam(a: Tensor, g: Tensor) -> Tensor:
    """The first principal component of |G|⊙A."""
    return g.abs() * a


@method('kpcacam', 'KPCA-CAM', 'Karmani et al., KPCA-CAM, MMSP 2024', needs=Needs.ACTIVATIONS, project=kernel_component)
def kpcacam(a: Tensor, g: Tensor) -> Tensor:
    """The first component of kernel PCA of A, sigmoid kernel; shows no class."""
    return a


@method('fem', 'FEM', 'Fuad et al., Features Understanding in 3D CNNs, IPTA 2020', needs=Needs.ACTIVATIONS)
def fem(a: Tensor, g: Tensor) -> Tensor:
    """W = share of positions where A > μ + 2σ of the channel; shows no class."""
    deviation, mean = torch.std_mean(a, (2, 3), correction=0, keepdim=True)
    return (a > mean + 2 * deviation).to(a.dtype).mean((2, 3), keepdim=True) * a

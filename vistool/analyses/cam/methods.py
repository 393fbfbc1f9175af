"""The methods, one table: activations ``A`` and gradients ``G`` in, a signed map out.

``A`` and ``G = ∂score/∂A`` are ``(B, K, h, w)``. A method gives weighted activations of the same shape; their sum over the
channels K (or, for the eigen methods and ``eigen_smooth``, their first principal component) is the map, ``(B, h, w)``.
ReLU, scaling and upsampling are the same for all and live in :mod:`vistool.analyses.cam.maps`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from vistool.errors import InputError, close_matches

Weighing = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Method:
    """A class activation map.

    Attributes:
        title: The name in its paper, for headings.
        paper: Where it is defined.
        weigh: ``(A, G) → (B, K, h, w)``, the weighted activations.
        gradients: Whether ``G`` is used; without it ``weigh`` is handed ``A`` twice and the map shows no class.
        project: Whether the map is the first principal component instead of the sum over channels.
    """

    title: str
    paper: str
    weigh: Weighing
    gradients: bool = True
    project: bool = False

    def __call__(self, activations: Tensor, gradients: Tensor | None, eigen_smooth: bool = False) -> Tensor:
        """The signed map ``(B, h, w)``, before ReLU and scaling."""
        weighted = self.weigh(activations, activations if gradients is None else gradients)
        return principal_component(weighted) if self.project or eigen_smooth else weighted.sum(1)


METHODS: dict[str, Method] = {}
"""Lower-case name → method."""


def method(
    name: str, title: str, paper: str, *, gradients: bool = True, project: bool = False
) -> Callable[[Weighing], Weighing]:
    """Adds a weighing function to the table, also from a user's own file (``custom_imports``)."""

    def add(weigh: Weighing) -> Weighing:
        METHODS[name.lower()] = Method(title, paper, weigh, gradients, project)
        return weigh

    return add


def find_methods(names: Iterable[str]) -> dict[str, Method]:
    """The methods of these names, case-insensitive, each once, in the order given.

    Raises:
        InputError: If a name is unknown; close matches are listed.
    """
    found: dict[str, Method] = {}
    for name in names:
        key = name.lower().replace('-', '').replace('_', '').replace('plusplus', '++')
        if key not in METHODS:
            titles = [entry.title for entry in METHODS.values()]
            raise InputError(
                f'unknown method {name!r}',
                accepted=', '.join(titles),
                hint=close_matches(name, titles),
                argument='--method',
            )
        found[key] = METHODS[key]
    return found


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


@method('eigencam', 'EigenCAM', 'Muhammad and Yeasin, Eigen-CAM, IJCNN 2020', gradients=False, project=True)
def eigencam(a: Tensor, g: Tensor) -> Tensor:
    """The first principal component of A; shows no class."""
    return a


@method('eigengradcam', 'EigenGradCAM', 'Gildenblat et al., pytorch-grad-cam, 2021', project=True)
def eigengradcam(a: Tensor, g: Tensor) -> Tensor:
    """The first principal component of G⊙A."""
    return g * a


@method('layercam', 'LayerCAM', 'Jiang et al., LayerCAM, IEEE TIP 2021')
def layercam(a: Tensor, g: Tensor) -> Tensor:
    """Σ_k ReLU(G)⊙A."""
    return g.relu() * a


def principal_component(weighted: Tensor) -> Tensor:
    """Projection of every position onto the first principal direction of the channels.

    With X the column-centred ``(h·w, K)`` matrix this is X·v₁ = σ₁·u₁, taken from the smaller of the Gram matrices X·Xᵀ and
    Xᵀ·X in float64 (a squared condition number costs half the digits). The sign, which an SVD leaves open, is
    fixed so that the largest magnitude is positive.

    Args:
        weighted: ``(B, K, h, w)``; NaN counts as 0.

    Returns:
        ``(B, h, w)`` in the dtype of ``weighted``.
    """
    double = torch.float64 if weighted.device.type != 'mps' else torch.float32
    x = weighted.nan_to_num(nan=0.0).flatten(2).transpose(1, 2).to(double)
    x = x - x.mean(1, keepdim=True)
    positions, channels = x.shape[1:]
    if positions <= channels:
        values, vectors = torch.linalg.eigh(x @ x.transpose(1, 2))
        projection = vectors[..., -1] * values[..., -1:].clamp_min(0).sqrt()
    else:
        _, vectors = torch.linalg.eigh(x.transpose(1, 2) @ x)
        projection = (x @ vectors[..., -1:]).squeeze(-1)
    flip = projection.amin(1).abs() > projection.amax(1).abs()
    projection = torch.where(flip[:, None], -projection, projection)
    return projection.unflatten(1, weighted.shape[2:]).to(weighted.dtype)

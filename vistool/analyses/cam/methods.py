"""The table of methods: each with its title, its paper, what it needs, and its formula.

Most need the activations ``A`` and the gradients ``G = ∂score/∂A``, ``(B, K, h, w)``, of one shared forward. Such a
method returns weighted activations of the same shape; their sum over the channels K (or, for the eigen methods and
``eigen_smooth``, a principal component) is the signed map ``(B, h, w)``. Methods that run the network themselves are in
:mod:`~vistool.analyses.cam.perturbation` and :mod:`~vistool.analyses.cam.gradcam_adapter`. ReLU, scaling, upsampling
and fusion are the same for all and are in :mod:`vistool.analyses.cam.maps`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from vistool import ranges
from vistool.analyses.cam.maps import (
    CANCELED,
    COARSEST,
    POSITIONS,
    above_rounding,
    combine,
    error_by_trying,
    kernel_component,
    principal_component,
)
from vistool.analyses.cam.targets import ClassTarget, Target
from vistool.errors import InputError, close_matches
from vistool.network.forward import Layer
from vistool.network.tensors import NetworkInput

CONTRASTED = 3
"""How many classes FinerCAM contrasts the target with, where none are named."""


@dataclass(frozen=True)
class Probe:
    """What a method gets that runs the network itself: the network, its inputs, and the target.

    Attributes:
        module: The network, in eval mode, its parameters frozen.
        inputs: The batch: a tensor ``(B, C, H, W)``, or a tuple or dict of tensors.
        layers: The target layers from the shared forward: name, value, layout.
        modules: Their modules by name.
        target: What is explained; None for a method whose map does not depend on it.
        eigen_smooth: Whether a principal component is asked for instead of a sum over channels.
        seed: Of random numbers.
    """

    module: nn.Module
    inputs: NetworkInput
    layers: tuple[Layer, ...]
    modules: Mapping[str, nn.Module]
    target: Target | None = None
    eigen_smooth: bool = False
    seed: int = 0

    def score(self, output: Any, row: int, count: int) -> Tensor:
        """The score ``(count,)`` of an output of ``count`` versions of image ``row``."""
        assert self.target is not None
        return self.target.score(output, torch.full((count,), row))


Weighting: TypeAlias = Callable[[Tensor, Tensor], Tensor]
Projection: TypeAlias = Callable[[Tensor], Tensor]
Rescore: TypeAlias = Callable[[Target, Any, Tensor], Tensor]
Run: TypeAlias = Callable[[Probe], list[Tensor]]
ErrorOfWeights: TypeAlias = Callable[[Tensor, Tensor, torch.dtype], Tensor | None]


class Needs(enum.Flag):
    """What a method needs; its cost, and the networks it works with, follow from it."""

    ACTIVATIONS = enum.auto()
    """The layer's output from the shared forward; alone, the map does not depend on the class."""
    GRADIENTS = enum.auto()
    """The gradient there as well: one backward for each class, whatever the number of methods."""
    SCORE = enum.auto()
    """The gradient of another score than the target's own: one more such backward."""
    RUNS = enum.auto()
    """Further runs of the network."""
    SECOND_DERIVATIVES = enum.auto()
    """A network that can be differentiated twice."""
    NO_LAYER = enum.auto()
    """No target layer: it looks at all of them, or at none."""
    BASELINE = enum.auto()
    """Nothing of the network: a map to compare with. It stands beside the others for each target."""

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
        weigh: ``(A, G) → (B, K, h, w)``, the weighted activations; without gradients it is given ``A`` twice.
        project: ``(B, K, h, w) → (B, h, w)`` in place of the sum over the channels.
        score: ``(target, output, rows) → (n,)``, the score to differentiate in place of the target's own.
        error: ``(A, G, dtype) → (B, K)``, how far rounding errors move weights that are sums over the positions; None
            finds out by computing the terms once more.
        run: For methods that run the network themselves: ``probe → signed maps``, ``(B, h, w)`` for each layer, or one
            for all.
    """

    title: str
    paper: str
    needs: Needs
    weigh: Weighting | None = None
    project: Projection | None = None
    score: Rescore | None = None
    error: ErrorOfWeights | None = None
    run: Run | None = None

    @property
    def shared(self) -> bool:
        """Whether the forward, and the one backward per class, that all methods share are enough."""
        return self.run is None and self.score is None

    @property
    def gradients(self) -> bool:
        """Whether it takes gradients from the shared forward."""
        return self.run is None and Needs.GRADIENTS in self.needs

    @property
    def shows_class(self) -> bool:
        """Whether the map depends on the target."""
        return bool(self.needs & (Needs.GRADIENTS | Needs.RUNS | Needs.SECOND_DERIVATIVES))

    @property
    def is_baseline(self) -> bool:
        """Whether the map knows nothing about the network, and is there to compare with."""
        return Needs.BASELINE in self.needs

    def __call__(
        self,
        activations: Tensor,
        gradients: Tensor | None,
        eigen_smooth: bool = False,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """The signed map ``(B, h, w)``, before ReLU and scaling; zero where it is nothing but rounding errors.

        Args:
            activations: ``(B, K, h, w)``.
            gradients: Likewise, or None.
            eigen_smooth: Whether a principal component is taken instead of the sum.
            dtype: The numbers that the network computed them with, where these are others.
        """
        assert self.weigh is not None
        dtype = dtype or activations.dtype
        weighted = self.weigh(activations, activations if gradients is None else gradients)
        signed = self.project(weighted) if self.project else combine(weighted, eigen_smooth)
        if self.project not in (None, principal_component):
            return signed  # on a scale of its own, which says nothing about rounding
        error = None
        if gradients is not None and weighted.shape == activations.shape:  # else nothing weights the channels
            error = (self.error or partial(error_by_trying, self.weigh))(activations, gradients, dtype)
        return above_rounding(signed, weighted, dtype, error, activations)


Key: TypeAlias = tuple[str, int | None]
"""A method's name and the number of the target; None for a method whose map does not depend on it."""

METHODS: dict[str, Method] = {}
"""Name in lower case, without dashes → method; in the order of the documentation, the user's own last."""

_DOCUMENTED = (
    *('gradcam', 'gradcam++', 'xgradcam', 'layercam', 'hirescam', 'gradcamelementwise', 'eigencam', 'eigengradcam'),
    *('segeigencam', 'kpcacam', 'fem', 'ablationcam', 'randomcam', 'finercam', 'scorecam', 'shapleycam', 'fullgrad'),
    *('refinecam', 'random', 'sobel', 'center'),
)


def register_cam(
    name: str,
    title: str,
    paper: str,
    *,
    needs: Needs = Needs.GRADIENTS,
    project: Projection | None = None,
    score: Rescore | None = None,
    error: ErrorOfWeights | None = None,
) -> Callable[[Weighting], Weighting]:
    """Registers a function ``(A, G) → (B, K, h, w)`` that weights activations; works from a user's own file too.

    >>> @register_cam('sumcam', 'SumCAM', 'nobody, 2026')
    ... def sumcam(a, g):
    ...     return a * g.sum((2, 3), keepdim=True)

    Args:
        name: The name users type; case, dashes and underscores do not matter.
        title: The name in its paper, for headings.
        paper: Where it is defined.
        needs: What it needs.
        project: ``(B, K, h, w) → (B, h, w)`` in place of the sum over the channels.
        score: ``(target, output, rows) → (n,)``, the score to differentiate in place of the target's own.
        error: ``(A, G, dtype) → (B, K)``, how far rounding errors move the weights (:func:`no_sums` where none is a
            sum over the positions); None finds out by computing the terms once more.
    """

    def register(weigh: Weighting) -> Weighting:
        _register(name, Method(title, paper, needs, weigh, project, score, error))
        return weigh

    return register


def register_perturbation_cam(name: str, title: str, paper: str, *, needs: Needs = Needs.RUNS) -> Callable[[Run], Run]:
    """Registers a function ``probe → signed maps`` that runs the network itself; see :func:`register_cam`."""

    def register(run: Run) -> Run:
        _register(name, Method(title, paper, needs, run=run))
        return run

    return register


def _register(name: str, method: Method) -> None:
    """Adds a method in its documented place, whatever file registers first."""
    METHODS[_key(name)] = method
    ranks = {key: rank for rank, key in enumerate(_DOCUMENTED)}
    ordered = sorted(METHODS.items(), key=lambda item: ranks.get(item[0], len(ranks)))
    METHODS.clear()
    METHODS.update(ordered)


def find_methods(names: str | Iterable[str]) -> dict[str, Method]:
    """The methods with these names, each once, in the order given; ``'all'`` means those that share a forward.

    Raises:
        InputError: If a name is unknown; close matches are listed.
    """
    found: dict[str, Method] = {}
    for name in ranges.several(names, (str,), 'methods', 'the name of a method, or several'):
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


def _roundings(count: float, dtype: torch.dtype) -> float:
    """The relative error of a number after so many roundings."""
    return min(count * torch.finfo(dtype).eps / 2, COARSEST)


def no_sums(a: Tensor, g: Tensor, dtype: torch.dtype) -> None:
    """The error of weights that there are not: each term is computed from the values at its own position."""


def error_of_means(a: Tensor, g: Tensor, dtype: torch.dtype) -> Tensor:
    """c·u·√(Σ G²) / (h·w), ``(B, K)``: the error of the mean of G, to which every position adds its own.

    Where a constant added to a channel changes no score, that mean is zero: before a norm over positions, at keys (a
    softmax ignores what all of its logits share), before pooling minus identity. What is left is a rounding error.
    """
    return _roundings(POSITIONS, dtype) * g.flatten(2).norm(dim=2) / g[0, 0].numel()


@register_cam('gradcam', 'GradCAM', 'Selvaraju et al., Grad-CAM, ICCV 2017', error=error_of_means)
def gradcam(a: Tensor, g: Tensor) -> Tensor:
    """W = mean of G over the positions."""
    return g.mean((2, 3), keepdim=True) * a


def error_near_poles(a: Tensor, g: Tensor, dtype: torch.dtype) -> Tensor | None:
    """The error of Σ α·ReLU(G), ``(B, K)``, where α = 1 / (2 + S·G + e) with e = 1e-6 / G² comes near a pole.

    To first order G moves its term by G·α²·(2 + 3e) times its relative error, and S moves the sum by Σ G²·α² times its
    own. With S >= 0, as after a ReLU, the terms are positive and α at most 1/2, so that the weight is as exact as they.
    """
    total = a.sum((2, 3), keepdim=True)
    if bool((total >= 0).all()):
        return None
    positive = g.relu()
    rest = 1e-6 / positive**2
    slope = positive / (2 + total * positive + rest) ** 2
    by_gradients = (slope * (2 + 3 * rest)).nan_to_num(nan=0.0, posinf=0.0).flatten(2).norm(dim=2)
    by_total = (slope * positive).nan_to_num(nan=0.0).sum((2, 3)) * a.flatten(2).norm(dim=2)
    return _roundings(POSITIONS, dtype) * by_gradients.hypot(by_total)


@register_cam('gradcam++', 'GradCAM++', 'Chattopadhay et al., Grad-CAM++, WACV 2018', error=error_near_poles)
def gradcam_plus_plus(a: Tensor, g: Tensor) -> Tensor:
    """W = Σ α·ReLU(G), α = G² / (2G² + S·G³ + 1e-6), S = Σ A, and 0 where G is 0.

    α is computed as 1 / (2 + S·G + 1e-6 / G²): the cube of a large gradient has no float32.
    """
    alpha = 1 / (2 + a.sum((2, 3), keepdim=True) * g + 1e-6 / g**2)
    return (alpha * g.relu()).sum((2, 3), keepdim=True) * a


def error_of_quotients(a: Tensor, g: Tensor, dtype: torch.dtype) -> Tensor:
    """The error of Σ(G⊙A) / (Σ A + 1e-7), ``(B, K)``.

    Either sum may cancel: the lower one after a norm over positions, the upper one before it, up to its epsilon.
    """
    product, total = (g * a).flatten(2), a.sum((2, 3)) + 1e-7
    above = _roundings(CANCELED, dtype) * product.norm(dim=2)
    below = _roundings(POSITIONS, dtype) * a.flatten(2).norm(dim=2) * (product.sum(2) / total).abs()
    return (above.hypot(below) / total).abs().nan_to_num(nan=0.0)


@register_cam('xgradcam', 'XGradCAM', 'Fu et al., Axiom-based Grad-CAM, BMVC 2020', error=error_of_quotients)
def xgradcam(a: Tensor, g: Tensor) -> Tensor:
    """W = Σ(G⊙A) / (Σ A + 1e-7)."""
    return (g * a).sum((2, 3), keepdim=True) / (a.sum((2, 3), keepdim=True) + 1e-7) * a


@register_cam('layercam', 'LayerCAM', 'Jiang et al., LayerCAM, IEEE TIP 2021', error=no_sums)
def layercam(a: Tensor, g: Tensor) -> Tensor:
    """Σ_k ReLU(G)⊙A."""
    return g.relu() * a


@register_cam('hirescam', 'HiResCAM', 'Draelos and Carin, HiResCAM, arXiv 2011.08891', error=no_sums)
def hirescam(a: Tensor, g: Tensor) -> Tensor:
    """Σ_k G⊙A."""
    return g * a


@register_cam('gradcamelementwise', 'GradCAMElementWise', 'Gildenblat et al., pytorch-grad-cam, 2021', error=no_sums)
def gradcam_element_wise(a: Tensor, g: Tensor) -> Tensor:
    """Σ_k ReLU(G⊙A)."""
    return (g * a).relu()


@register_cam(
    'eigencam',
    'EigenCAM',
    'Muhammad and Yeasin, Eigen-CAM, IJCNN 2020',
    needs=Needs.ACTIVATIONS,
    project=principal_component,
)
def eigencam(a: Tensor, g: Tensor) -> Tensor:
    """The first principal component of A; class-agnostic."""
    return a


@register_cam(
    'eigengradcam',
    'EigenGradCAM',
    'Gildenblat et al., pytorch-grad-cam, 2021',
    project=principal_component,
    error=no_sums,
)
def eigengradcam(a: Tensor, g: Tensor) -> Tensor:
    """The first principal component of G⊙A."""
    return g * a


@register_cam(
    'segeigencam',
    'SegEigenCAM',
    'Chung and Ying, Seg-Eigen-CAM, Appl. Sci. 2025',
    project=principal_component,
    error=no_sums,
)
def segeigencam(a: Tensor, g: Tensor) -> Tensor:
    """The first principal component of |G|⊙A."""
    return g.abs() * a


@register_cam(
    'kpcacam', 'KPCA-CAM', 'Karmani et al., KPCA-CAM, MMSP 2024', needs=Needs.ACTIVATIONS, project=kernel_component
)
def kpcacam(a: Tensor, g: Tensor) -> Tensor:
    """The first component of kernel PCA of A, sigmoid kernel; class-agnostic."""
    return a


@register_cam('fem', 'FEM', 'Fuad et al., Features Understanding in 3D CNNs, IPTA 2020', needs=Needs.ACTIVATIONS)
def fem(a: Tensor, g: Tensor) -> Tensor:
    """W = share of positions where A > μ + 2σ of the channel; class-agnostic."""
    deviation, mean = torch.std_mean(a, (2, 3), correction=0, keepdim=True)
    return (a > mean + 2 * deviation).to(a.dtype).mean((2, 3), keepdim=True) * a


def finer_score(target: Target, output: Any, rows: Tensor) -> Tensor:
    """Σ_d p_d·(y_c − y_d) / (Σ_d p_d + 1e-9) over the contrasted classes d, with p their probabilities.

    These are the classes named by the target, else those whose scores for the plain image are nearest to the target's.

    Args:
        target: A class for each image.
        output: What the network returned for n images.
        rows: int64 ``(n,)``, the image of each.

    Returns:
        ``(n,)``.

    Raises:
        InputError: If the target is not a class, or there is no other class.
    """
    if not isinstance(target, ClassTarget) or target.readout.is_value:
        works = titles_of(lambda entry: entry.score is None)
        name = target.readout.name if isinstance(target, ClassTarget) else getattr(target, 'name', 'the target')
        raise InputError(f'FinerCAM compares classes, and {name} is not a class', accepted=works, parameter='methods')
    scores = target.readout.scores(output, len(rows))
    images = rows.to(scores.device) % len(target.classes)
    own = target.classes[images]
    others = (target.contrast if target.contrast is not None else nearest(target.plain, target.classes))[images]
    shares = target.readout.numbers(scores).to(scores.dtype).gather(1, others)
    margins = scores.gather(1, own[:, None]) - scores.gather(1, others)
    return target.signed((shares * margins).sum(1) / (shares.sum(1) + 1e-9), rows)


def nearest(scores: Tensor, classes: Tensor, count: int = CONTRASTED) -> Tensor:
    """The other classes with the nearest scores: ``(B, C)`` and ``(B,)`` → int64 ``(B, count)``, nearest first."""
    count = min(count, scores.shape[1] - 1)
    if count < 1:
        raise InputError('FinerCAM needs a second class to compare with', parameter='methods')
    distance = (scores - scores.gather(1, classes[:, None])).abs()
    distance = distance.scatter(1, classes[:, None], torch.inf)
    return distance.topk(count, dim=1, largest=False).indices


register_cam(
    'finercam',
    'FinerCAM',
    'Zhang et al., Finer-CAM, CVPR 2025',
    needs=Needs.GRADIENTS | Needs.SCORE,
    score=finer_score,
    error=error_of_means,
)(gradcam)

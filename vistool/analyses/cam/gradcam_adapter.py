"""Methods taken from pytorch-grad-cam: those whose cost is in runs of the network, and which it implements correctly.

It takes seconds to import, so the import waits for the first call. Images go in one by one, because its maps depend on
what else is in the batch. It sees a network whose only output is the score, and the target layer's output as a map
``(1, K, h, w)`` that passes through a module of ours, so it does not have to handle tokens, tuples or in-place
operations.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from vistool.analyses.cam.maps import above_rounding
from vistool.analyses.cam.methods import Needs, Probe, error_of_means, register_perturbation_cam, titles_of
from vistool.errors import InputError, message_of, param
from vistool.network.capture import borrowed, hooked, hooked_layers
from vistool.network.forward import Layer
from vistool.network.tensors import call_module, part_of, replace_tensor, rows

log = logging.getLogger('vistool')

_exclusive = threading.RLock()
"""Held while pytorch-grad-cam runs: standard error and the choice of attention kernels are global."""


class Scored(nn.Module):
    """A network as pytorch-grad-cam takes it: n versions of one image in, their scores ``(n, 1)`` out."""

    def __init__(self, probe: Probe, row: int) -> None:
        super().__init__()
        self.module, self._probe, self._row = probe.module, probe, row

    def forward(self, inputs: Tensor) -> Tensor:
        """The score of each version."""
        return self._probe.score(call_module(self.module, inputs), self._row, len(inputs))[:, None]


@register_perturbation_cam(
    'scorecam', 'ScoreCAM', 'Wang et al., Score-CAM, CVPR Workshops 2020', needs=Needs.RUNS | Needs.ACTIVATIONS
)
def scorecam(probe: Probe) -> list[Tensor]:
    """W = softmax_k of the score of the image seen through channel k: x ⊙ min-max of A_k, enlarged corner to corner."""
    return _layer_by_layer(probe, 'ScoreCAM')


@register_perturbation_cam(
    'shapleycam', 'ShapleyCAM', 'Cai, CAMs as Shapley Value-based Explainers, 2025', needs=Needs.SECOND_DERIVATIVES
)
def shapleycam(probe: Probe) -> list[Tensor]:
    """W = mean of G − ½·H·A, H the score's second derivative; attention has one in its plain form only.

    Where the sum of G over the positions cancels, so does that of H·A.
    """
    with _exclusive, sdpa_kernel(SDPBackend.MATH):
        return _layer_by_layer(probe, 'ShapleyCAM')


@register_perturbation_cam(
    'fullgrad', 'FullGrad', 'Srinivas and Fleuret, FullGrad, NeurIPS 2019', needs=Needs.RUNS | Needs.NO_LAYER
)
def fullgrad(probe: Probe) -> list[Tensor]:
    """|x ⊙ ∂y/∂x| and |b ⊙ ∂y/∂b| of every convolution and batch norm, each min-max scaled and enlarged, summed."""
    _warn_of_left_out_biases(probe.module)

    def image(row: int) -> Any:
        from pytorch_grad_cam import FullGrad

        cam = FullGrad(Scored(probe, row), [])
        expected = iter(cam.target_layers)

        def check(name: str, layer: nn.Module, args: Any, output: Any) -> None:
            if next(expected, None) is not layer:
                raise AssertionError('its layers run in another order than they are defined in')

        layers = {str(index): layer for index, layer in enumerate(cam.target_layers)}
        with _released(cam), hooked(layers, check):
            return cam(_one(probe, row), [_first], eigen_smooth=probe.eigen_smooth)

    return [_images(probe, 'FullGrad', image)]


@register_perturbation_cam(
    'refinecam', 'RefineCAM', 'Refine-CAM, arXiv 2605.14641, 2026', needs=Needs.RUNS | Needs.GRADIENTS
)
def refinecam(probe: Probe) -> list[Tensor]:
    """The product over the layers of their finished GradCAM++ maps."""
    if len(probe.layers) == 1:
        log.warning(f'RefineCAM of a single layer is GradCAM++; name several with {param("layers")}')

    def image(row: int) -> Any:
        from pytorch_grad_cam import RefineCAM

        with contextlib.ExitStack() as stack:
            taps = [stack.enter_context(_tapped(layer, probe.modules[layer.name])) for layer in probe.layers]
            return RefineCAM(Scored(probe, row), taps)(_one(probe, row), [_first], eigen_smooth=probe.eigen_smooth)

    return [_images(probe, 'RefineCAM', image)]


def _layer_by_layer(probe: Probe, name: str) -> list[Tensor]:
    """The signed maps of the class ``name`` of pytorch-grad-cam, before its ReLU."""

    def image(layer: Layer, row: int) -> Any:
        import pytorch_grad_cam

        signed: list[Any] = []

        def keep(image: Any, target_layer: Any, targets: Any, a: Any, g: Any, *more: Any) -> Any:
            drawn = original(image, target_layer, targets, a, g, *more)
            if name == 'ShapleyCAM':
                drawn = _without_rounding(drawn, weights[-1], a.detach(), g.detach(), layer.value.dtype)
            signed.append(drawn)
            return drawn

        def weigh(*args: Any) -> Any:
            weights.append(own(*args))
            return weights[-1]

        weights: list[Any] = []
        with _tapped(layer, probe.modules[layer.name]) as tap:
            cam = getattr(pytorch_grad_cam, name)(Scored(probe, row), [tap])
            original, cam.get_cam_image = cam.get_cam_image, keep
            own, cam.get_cam_weights = cam.get_cam_weights, weigh
            cam(_one(probe, row), [_first], eigen_smooth=probe.eigen_smooth)
        seen = cam.activations_and_grads
        seen.activations, seen.gradients = [], []  # it would detach them in place, which views do not allow
        return signed[0]

    return [_images(probe, name, functools.partial(image, layer)) for layer in probe.layers]


def _without_rounding(drawn: Any, weights: Any, a: Tensor, g: Tensor, dtype: torch.dtype) -> Any:
    """A signed map ``(1, h, w)``, zero where its weights ``(1, K)`` are nothing but rounding errors."""
    terms = torch.from_numpy(weights).to(a)[:, :, None, None] * a
    kept = above_rounding(torch.from_numpy(drawn).to(a), terms, dtype, error_of_means(a, g, dtype), a)
    return kept.cpu().numpy()


def _images(probe: Probe, name: str, image: Callable[[int], Any]) -> Tensor:
    """``image(row)`` for every image of the batch, ``(B, h, w)``; the network is left as it was."""
    if not isinstance(probe.inputs, Tensor):
        works = titles_of(lambda entry: entry.run is None)
        raise InputError(f'{name} takes networks with a single input', accepted=works, parameter='methods')
    device = probe.inputs.device
    with _guarded(probe, name), torch.autocast(device.type, enabled=False):
        maps = [np.asarray(image(row))[0] for row in range(len(probe.inputs))]
    return torch.from_numpy(np.stack(maps)).to(device)


@contextlib.contextmanager
def _released(cam: Any) -> Iterator[Any]:
    """Removes the hooks of a method of pytorch-grad-cam, which otherwise stay until it is garbage-collected."""
    try:
        yield cam
    finally:
        cam.activations_and_grads.release()


@contextlib.contextmanager
def _guarded(probe: Probe, name: str) -> Iterator[None]:
    """Keeps the parameters' gradients, hides the progress bars, and turns a failure into one line."""
    kept = [(parameter, parameter.grad) for parameter in probe.module.parameters()]
    try:
        with _exclusive, borrowed(probe.module), contextlib.redirect_stderr(io.StringIO()):
            yield
    except InputError:
        raise
    except (AssertionError, AttributeError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f'{name} of pytorch-grad-cam does not fit {type(probe.module).__name__}: {message_of(error)}',
            accepted=titles_of(lambda entry: entry.run is None),
            parameter='methods',
        ) from error
    finally:
        for parameter, gradient in kept:
            parameter.grad = gradient


@contextlib.contextmanager
def _tapped(layer: Layer, module: nn.Module) -> Iterator[nn.Module]:
    """A module through which the layer's map ``(1, K, h, w)`` passes, on its way back into the network.

    Of a layer that runs several times in a forward only the call that the other methods look at passes.
    """
    tap, seen = nn.Identity(), itertools.count()

    def detour(name: str, child: nn.Module, args: Any, output: Any) -> Any:
        if next(seen) % layer.calls != layer.call:
            return None
        tensor = part_of(output, layer.place)[1]
        maps = tap(layer.layout.to_map(tensor).clone())
        maps = (
            maps + 0 * maps.square()
        )  # ShapleyCAM fails where the score is linear in the layer: so it is not, formally
        return replace_tensor(output, tensor, layer.layout.from_map(maps, tensor).clone())

    with hooked_layers({layer.name: module}, detour):
        yield tap


def _one(probe: Probe, row: int) -> Tensor:
    """Image ``row`` as a batch of one that asks for gradients: no parameter does, so a graph has to start here."""
    return rows(probe.inputs, row, row + 1).detach().clone().requires_grad_()


def _first(scores: Tensor) -> Tensor:
    return scores[0]


def _warn_of_left_out_biases(module: nn.Module) -> None:
    kinds = {
        type(child).__name__
        for child in module.modules()
        if getattr(child, 'bias', None) is not None and type(child) not in (nn.Conv2d, nn.BatchNorm2d, nn.Linear)
    }
    if kinds:
        log.warning('FullGrad counts the biases of Conv2d and BatchNorm2d, not those of %s', ', '.join(sorted(kinds)))

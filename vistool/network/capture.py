"""Borrowing a network to look inside: it is locked meanwhile, watched by hooks, and handed back as it was."""

from __future__ import annotations

import gc
import itertools
import sys
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import torch
import torch.fx
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from vistool.environment import SharedContext
from vistool.errors import InputError
from vistool.network.layers import WRAPPED, function_of, layers_of, module_path, place_of, unwrapped
from vistool.network.tensors import Grids, Size, first_tensor, float_tensors, map_tensors, part_of

T = TypeVar('T')

_locks: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()
_locks_lock = threading.Lock()


def lock_of(module: nn.Module) -> threading.RLock:
    """The re-entrant lock of a network; the same one for its ``DataParallel`` or compiled wrapper."""
    with _locks_lock:
        return _locks.setdefault(unwrapped(module), threading.RLock())


_remembered: WeakKeyDictionary[nn.Module, dict[str, tuple[Hashable, dict[Hashable, Any]]]] = WeakKeyDictionary()
_MOST_REMEMBERED = 16
"""Values of one name that are kept at a time, such as those for images of different sizes."""


def remembered(module: nn.Module, name: str, key: Hashable, compute: Callable[[], T]) -> T:
    """What ``compute`` found out about a network by running it, run again only when ``key`` or the network changes.

    The network has changed when a module or weight was exchanged or a weight was written to. The newest values of each
    name are kept, as long as the network lives; a ``DataParallel`` or compiled wrapper shares them.

    Args:
        module: The network.
        name: What the value is.
        key: Whatever else it depends on, such as the input size.
        compute: Finds the value.
    """
    network = unwrapped(module)
    with lock_of(network):
        found = _remembered.setdefault(network, {})
        state = _known_state_of(network)
        if name not in found or found[name][0] != state:
            found[name] = state, {}
        values = found[name][1]
        if key not in values:
            value = compute()
            while len(values) >= _MOST_REMEMBERED:
                del values[next(iter(values))]
            values[key] = value
        known: T = values[key]
        return known


def _known_state_of(network: nn.Module) -> Hashable:
    """:func:`_state_of`, asked once while this thread has borrowed the network: then only it can change the network."""
    states: Mapping[int, Callable[[], Hashable]] = getattr(_borrowing, 'states', {})
    known = states.get(id(network))
    return _state_of(_Inside.of(network)) if known is None else known()


def _state_of(inside: _Inside) -> Hashable:
    """What differs once a module or weight of a network is exchanged or written to."""
    parts = tuple((name, id(part)) for child in inside.modules for name, part in child._modules.items())
    weights = inside.parameters
    if lazy := _any_lazy(weights):
        return hash((parts, lazy))  # they have no version, and borrowing will refuse them
    versions = [0 if each.is_inference() else each._version for each in weights]
    return hash((parts, tuple(map(id, weights)), tuple(versions)))


def modules_of(network: nn.Module) -> list[nn.Module]:
    """A network and every module in it, each once; ``network.modules()`` takes ten times as long for their names."""
    found = {id(network): network}
    waiting = [network]
    while waiting:
        for part in waiting.pop()._modules.values():
            if part is not None and id(part) not in found:
                found[id(part)] = part
                waiting.append(part)
    return list(found.values())


class _Inside(NamedTuple):
    """What a network consists of, listed once: a walk through a network of 2,000 modules takes milliseconds.

    Attributes:
        modules: Itself and every module in it.
        parameters: Their parameters; one that is shared appears more than once.
        buffers: Their buffers, likewise.
    """

    modules: Sequence[nn.Module]
    parameters: Sequence[nn.Parameter]
    buffers: Sequence[Tensor]

    @classmethod
    def of(cls, network: nn.Module) -> _Inside:
        """Lists a network."""
        modules = modules_of(network)
        parameters = [each for part in modules for each in part._parameters.values() if each is not None]
        buffers = [each for part in modules if part._buffers for each in part._buffers.values() if each is not None]
        return cls(modules, parameters, buffers)

    @property
    def tensors(self) -> Iterator[Tensor]:
        """The parameters, then the buffers."""
        return itertools.chain(self.parameters, self.buffers)


def _any_lazy(weights: Iterable[Tensor]) -> bool:
    """Whether a weight has no shape yet; its class tells, and a network has few of those."""
    return any(map(is_lazy, {type(each): each for each in weights}.values()))


@contextmanager
def borrowed(module: nn.Module, device: torch.device | None = None) -> Iterator[None]:
    """Locks a network and prepares it for analysis; hands it back as it was, also after an exception.

    Inside, every submodule is in eval mode, no parameter requires gradients, and autograd is on. With the parameters
    frozen no graph is recorded before a layer's output is made a leaf, so a forward costs what a ``no_grad`` forward
    costs, yet contexts inside the model that restore the gradient mode cannot switch gradients off after that layer.
    Nothing is compiled or checkpointed: a module that ran twice for the sake of memory would be watched twice. A GPU
    computes in float32 what is float32: TF32, which cuDNN takes by default, keeps 10 bits of the mantissa, and maps of
    inner layers change by several percent.

    Afterwards device, modes, ``requires_grad``, ``.grad`` and the caller's gradient mode are as before. Other threads
    that borrow the same network, a part of it or a network around it, wait.

    Args:
        module: The network.
        device: Where it should run; None leaves it where it is. Its weights are moved there for the time being, and the
            original tensors put back.

    Raises:
        InputError: If the network cannot be watched: it was scripted, traced or exported, or its weights have no
            values.
    """
    inside: Mapping[int, torch.device | None] = getattr(_borrowing, 'devices', {})
    if id(module) in inside and (device is None or inside[id(module)] == device):
        with torch.inference_mode(False), torch.enable_grad():
            yield
        return
    states: Mapping[int, Callable[[], Hashable]] = getattr(_borrowing, 'states', {})
    with (
        _locked(modules_of(module)),
        _plain_calls,
        _float32,
        _at_home(module, device),
        torch.inference_mode(False),
        _without_wrappers(_watchable(module)) as bare,
        _with_recordable_weights(bare) as parts,
        _on_device(module, device),
        _in_eval_mode(module, parts.modules),
        _without_gradients(parts.parameters),
        _with_scripted_parts_as_layers(parts.modules),
        torch.enable_grad(),
    ):
        network = unwrapped(module)
        own = partial(_state_of, parts) if network is module else lambda: _state_of(_Inside.of(network))
        _borrowing.devices = {**inside, id(module): device}
        _borrowing.states = {**states, id(network): cache(own)}
        try:
            yield
        finally:
            _borrowing.devices, _borrowing.states = inside, states


_borrowing = threading.local()
"""``devices``: the networks that this thread has borrowed, by their ids → the device that was asked for; ``states``:
what tells their states, which :func:`remembered` asks for, once."""


def _watchable(module: nn.Module) -> _Inside:
    """What a network that can be watched consists of.

    Raises:
        InputError: Its modules never run in Python, or its weights have shapes but no values.
    """
    name = type(module).__name__
    if isinstance(module, torch.jit.ScriptModule):
        raise InputError(
            'a scripted or traced network (TorchScript) does not run its layers in Python, so they cannot be watched',
            accepted='the nn.Module that it was made from, with the same weights',
        )
    graph = module.graph if isinstance(module, torch.fx.GraphModule) else None
    if graph is not None and not {node.target for node in graph.nodes if node.op == 'call_module'} - {'_guards_fn'}:
        raise InputError(
            'an exported network (torch.export) calls operators only and has no layers that could be watched',
            accepted='the nn.Module that it was made from, with the same weights',
        )
    parts = _Inside.of(module)
    if _any_lazy(parts.tensors):
        lazy = [name for name, tensor in _weights(module) if is_lazy(tensor)]
        raise InputError(
            f'weights of {name} have no shape yet ({", ".join(lazy[:3])}{", …" if len(lazy) > 3 else ""}): its lazy '
            'modules have not run',
            hint='run one batch through it first, then load its weights',
        )
    if any(tensor.is_meta for tensor in parts.parameters):
        raise InputError(
            f'weights of {name} are on the meta device: they have shapes but no values',
            hint='load its weights first, with load_state_dict(…, assign=True) or from_pretrained(…)',
        )
    return parts


def _weights(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


@contextmanager
def _locked(parts: Sequence[nn.Module]) -> Iterator[None]:
    """Holds the locks of all modules of a network, in one order for all threads.

    Hooks, modes and gradients belong to modules, and two networks may share some: a model and a wrapper around it.
    """
    owners = sorted(map(unwrapped, parts) if _any_wrapper(parts) else parts, key=id)
    with _locks_lock:
        locks = [_locks.get(owner) or _locks.setdefault(owner, threading.RLock()) for owner in owners]
    held = []
    try:
        for lock in locks:
            lock.acquire()
            held.append(lock)
        yield
    finally:
        for lock in reversed(held):
            lock.release()


class _PlainCalls:
    """While a thread is inside, compiling, checkpointing and ``torch.inference_mode`` have no effect in that thread.

    All are reached through functions that users' code holds references to, so what those functions call is replaced,
    as long as any thread is inside; other threads get what was replaced. The setting of ``torch.compile`` is one for
    the whole process: meanwhile other threads run compiled networks uncompiled, with the same results.
    """

    _KINDS = ('_checkpoint_without_reentrant_generator', '_checkpoint_without_reentrant_generator_impl')

    def __init__(self) -> None:
        self._own, self._replaced = threading.local(), SharedContext(self._replacing)

    def __enter__(self) -> None:
        self._own.depth = getattr(self._own, 'depth', 0) + 1
        self._replaced.__enter__()

    def __exit__(self, *error: object) -> None:
        self._own.depth -= 1
        self._replaced.__exit__(*error)

    @contextmanager
    def _replacing(self) -> Iterator[None]:
        library: Any = torch.utils.checkpoint
        with ExitStack() as undo:
            if 'torch._dynamo' in sys.modules:  # else nothing was compiled, and the import takes seconds
                undo.enter_context(torch.compiler.set_stance('force_eager'))
            for name in ('CheckpointFunction', *self._KINDS):
                original = getattr(library, name, None)
                if original is not None:
                    kept = self._reentrant(original) if name not in self._KINDS else self._other(original)
                    setattr(library, name, kept)
                    undo.callback(setattr, library, name, original)
            enter: Any = torch.inference_mode.__enter__
            torch.inference_mode.__enter__ = self._recordable(enter)  # type: ignore[method-assign]
            undo.callback(setattr, torch.inference_mode, '__enter__', enter)
            yield

    @property
    def _inside(self) -> bool:
        return bool(getattr(self._own, 'depth', 0))

    def _reentrant(self, original: Any) -> Any:
        def apply(function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
            return function(*args) if self._inside else original.apply(function, preserve, *args)

        return SimpleNamespace(apply=apply)

    def _recordable(self, original: Any) -> Any:
        """What is computed in inference mode can neither be differentiated nor told by its version."""

        def enter(context: torch.inference_mode) -> None:
            mode = context.mode
            context.mode = mode and not self._inside
            try:
                original(context)
            finally:
                context.mode = mode

        return enter

    def _other(self, original: Any) -> Any:
        def nothing() -> Iterator[None]:
            yield  # for the call of the checkpointed function, which this generator surrounds

        def choose(*args: Any, **kwargs: Any) -> Any:
            return nothing() if self._inside else original(*args, **kwargs)

        return choose


_plain_calls = _PlainCalls()


@contextmanager
def _in_float32() -> Iterator[None]:
    """No product or convolution of float32 is rounded to TF32.

    Since PyTorch 2.9 the settings have two interfaces: flags, and words for each kind of operation. The flags cannot be
    read once a user has set a word, so then words are set.
    """
    cudnn: Any = torch.backends.cudnn
    matmul: Any = torch.backends.cuda.matmul
    with ExitStack() as undo:
        try:
            if cudnn.allow_tf32:
                cudnn.allow_tf32 = False
                undo.callback(setattr, cudnn, 'allow_tf32', True)
        except RuntimeError:
            _set_words(undo, cudnn.conv, cudnn.rnn)
        try:
            products = torch.get_float32_matmul_precision()
            if products != 'highest':  # the others round on CPUs too
                torch.set_float32_matmul_precision('highest')
                undo.callback(torch.set_float32_matmul_precision, products)
        except RuntimeError:
            _set_words(undo, matmul)
        yield


def _set_words(undo: ExitStack, *kinds: Any) -> None:
    for kind in kinds:
        undo.callback(setattr, kind, 'fp32_precision', kind.fp32_precision)
        kind.fp32_precision = 'ieee'


_float32 = SharedContext(_in_float32)
"""The settings hold for the whole process, so while any thread is inside."""


def made_on(device: torch.device) -> AbstractContextManager[object]:
    """Within it, what is made without a device is made on ``device``, if ``set_default_device`` said elsewhere.

    Without such a default it is made on the CPU, as everywhere in PyTorch.
    """
    default = torch.get_default_device()
    return nullcontext() if default.type == 'cpu' or _same_device(device, default) else device


def _at_home(module: nn.Module, device: torch.device | None) -> AbstractContextManager[object]:
    """:func:`made_on` where the network is."""
    first = next(itertools.chain(module.parameters(), module.buffers()), None)
    home = device or (None if first is None else first.device)
    return nullcontext() if home is None else made_on(home)


def _any_wrapper(parts: Sequence[nn.Module]) -> bool:
    """Whether a module is called as wrappers call the network inside them."""
    return not WRAPPED.isdisjoint(itertools.chain.from_iterable(part._modules.keys() for part in parts))


@contextmanager
def _without_wrappers(parts: _Inside) -> Iterator[_Inside]:
    """Puts what ``torch.compile`` and ``DataParallel`` wrapped back in its place: names and hooks reach it there.

    Args:
        parts: What a network consists of.

    Yields:
        What it consists of then.
    """
    compiled = [child for child in parts.modules if child.__dict__.get('_compiled_call_impl') is not None]
    calls = [(child, child.__dict__['_compiled_call_impl']) for child in compiled]
    try:
        for child in compiled:
            child.__dict__['_compiled_call_impl'] = None
        if _any_wrapper(parts.modules):
            with _exchanged(parts.modules, unwrapped):
                yield _Inside.of(parts.modules[0])
        else:
            yield parts
    finally:
        for child, call in calls:
            child.__dict__['_compiled_call_impl'] = call


class _Scripted(nn.Module):
    """A part of a network in TorchScript, as a layer that takes hooks; what is inside it stays out of sight."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.__dict__['part'] = part

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__['part'], name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.part(*args, **kwargs)


def hidden_parts(module: nn.Module) -> str:
    """Why nothing is seen of parts of a network: TorchScript, or modules in a plain list; ``''`` if it has neither.

    It goes on from what is said: ``': body is TorchScript, inside which nothing can be watched'``.
    """
    kinds = (_Scripted, torch.jit.ScriptModule)
    named = dict(unwrapped(module).named_modules())
    known = set(map(id, named.values()))
    for name, part in named.items():
        if isinstance(part, kinds):
            return f': {name or "it"} is TorchScript, inside which nothing can be watched'
        for attribute, value in vars(part).items():
            inside = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
            forgotten = (each for each in inside if isinstance(each, nn.Module) and id(each) not in known)
            if not attribute.startswith('_') and next(forgotten, None) is not None:
                where = f'{name}.{attribute}' if name else attribute
                return (
                    f': {where} is a plain {type(value).__name__}, whose modules are not part of the network (training '
                    'leaves them out as well): make it an nn.ModuleList or nn.ModuleDict'
                )
    return ''


@contextmanager
def _with_scripted_parts_as_layers(parts: Sequence[nn.Module]) -> Iterator[None]:
    """TorchScript refuses hooks: its modules are exchanged for modules that call them."""
    if not any(issubclass(kind, torch.jit.ScriptModule) for kind in set(map(type, parts))):
        yield
        return
    with _exchanged(parts, lambda part: _Scripted(part) if isinstance(part, torch.jit.ScriptModule) else part):
        yield


@contextmanager
def _exchanged(parts: Sequence[nn.Module], change: Callable[[nn.Module], nn.Module]) -> Iterator[None]:
    """``change(part)`` in place of each module inside others."""
    kept: list[tuple[nn.Module, str, nn.Module]] = []
    try:
        for child in parts:
            if isinstance(child, torch.jit.ScriptModule):
                continue
            for name, part in child._modules.items():
                if part is not None and (new := change(part)) is not part:
                    kept.append((child, name, part))
                    child._modules[name] = new
        yield
    finally:
        for child, name, part in kept:
            child._modules[name] = part


@contextmanager
def _with_recordable_weights(parts: _Inside) -> Iterator[_Inside]:
    """Copies in place of weights and buffers that were made in inference mode: autograd cannot record those.

    Args:
        parts: What a network consists of.

    Yields:
        What it consists of then.
    """
    if not any(map(Tensor.is_inference, parts.tensors)):
        yield parts
        return
    slots: list[tuple[dict[str, Any], str, Tensor]] = [
        (kept, name, tensor)
        for child in parts.modules
        for kept in (child._parameters, child._buffers)
        for name, tensor in kept.items()
        if tensor is not None and tensor.is_inference()
    ]
    copies: dict[int, Tensor] = {}
    try:
        for kept, name, tensor in slots:
            if id(tensor) not in copies:
                copy = tensor.detach().clone()
                copies[id(tensor)] = nn.Parameter(copy, False) if isinstance(tensor, nn.Parameter) else copy
            kept[name] = copies[id(tensor)]
        yield _Inside.of(parts.modules[0])
    finally:
        for kept, name, tensor in slots:
            kept[name] = tensor


@contextmanager
def _in_eval_mode(module: nn.Module, parts: Sequence[nn.Module]) -> Iterator[None]:
    if not any(child.training for child in parts):
        yield
        return
    modes = [(child, child.training) for child in module.modules()]  # parents first
    try:
        module.eval()
        yield
    finally:
        # Some models fuse or split weights in train(), so setting the attribute is not enough. Parents come first.
        for child, training in modes:
            if child.training != training:
                child.train(training)
        for child, training in modes:
            child.training = training


@contextmanager
def _without_gradients(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


@contextmanager
def _on_device(module: nn.Module, device: torch.device | None) -> Iterator[None]:
    parameter = next(module.parameters(), None)
    home = None if parameter is None else parameter.device
    if device is None or home is None or _same_device(home, device):
        yield
        return
    weights = [(parameter, parameter.data, parameter.grad) for parameter in module.parameters()]
    buffers = [(child, dict(child._buffers)) for child in module.modules()]
    try:
        for parameter, _, _ in weights:
            parameter.grad = None  # it stays where it is
        module.to(device)
        yield
    finally:
        for parameter, data, gradient in weights:
            parameter.data = data
            parameter.grad = gradient
        for child, tensors in buffers:
            child._buffers.update(tensors)
        if all(parameter.device == home for parameter, _, _ in weights):
            module.to(home)  # moves nothing, but modules that keep their device in an attribute reset it


def _same_device(one: torch.device, other: torch.device) -> bool:
    return one.type == other.type and (None in (one.index, other.index) or one.index == other.index)


Hook = Callable[[str, nn.Module, Any, Any], Any]
"""``(name, module, args, output) → replacement or None``."""


@contextmanager
def hooked(modules: Mapping[str, nn.Module], hook: Hook) -> Iterator[None]:
    """Calls ``hook(name, module, args, output)`` after each module's forward; anything but None replaces its output."""
    handles = []
    try:
        for name, module in modules.items():
            handles.append(module.register_forward_hook(partial(hook, name)))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _paused_collector() -> Iterator[None]:
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


uncollected = SharedContext(_paused_collector)
"""Pauses the garbage collector: watching hundreds of modules makes thousands of objects that end by themselves.

They would make it look through everything that the process has imported, which takes as long as several forwards."""


class ReluCalls(TorchFunctionMode):
    """Calls ``hook(given, version, output)`` after each call of ReLU as a function; a tensor replaces its output.

    ``version`` is that of the tensor ``given`` before the call, which may have worked in place.
    """

    _FUNCTIONS = (F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_)

    def __init__(self, hook: Callable[[Tensor, int, Tensor], Tensor | None]) -> None:
        super().__init__()
        self.hook = hook

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        given = args[0] if args and func in self._FUNCTIONS else None
        version = given._version if isinstance(given, Tensor) else 0
        output = func(*args, **(kwargs or {}))
        changed = self.hook(given, version, output) if isinstance(given, Tensor) else None
        return output if changed is None else changed


@contextmanager
def hooked_layers(layers: Mapping[str, nn.Module], hook: Hook) -> Iterator[None]:
    """:func:`hooked` for canonical layer names, some of which mean a function's output (``features+relu``)."""
    applied = {name: module for name, module in layers.items() if function_of(name)}
    waiting: list[tuple[str, nn.Module, Tensor, int]] = []

    def wait(name: str, module: nn.Module, args: Any, output: Any) -> None:
        tensor = first_tensor(output)
        if tensor is not None:
            waiting.append((name, module, tensor, tensor._version))

    def follow(given: Tensor, version: int, output: Tensor) -> Any:
        for name, module, tensor, seen in waiting:
            if tensor is given and seen == version:
                return hook(name, module, (given,), output)
        return None

    with ExitStack() as stack:
        stack.enter_context(hooked({name: layers[name] for name in layers if name not in applied}, hook))
        if applied:
            stack.enter_context(hooked(applied, wait))
            stack.enter_context(ReluCalls(follow))
        yield


@dataclass
class Activation:
    """A layer's output in one forward.

    Attributes:
        tensors: Its tensors by their place in what the layer returned, leaves of the autograd graph (or computed from
            earlier leaves).
        grids: Spatial sizes seen before that layer, most recent last.
    """

    tensors: dict[str, Tensor]
    grids: Sequence[Size]

    @property
    def value(self) -> Tensor:
        """The first of the tensors."""
        return next(iter(self.tensors.values()))


@contextmanager
def activations(
    root: nn.Module,
    layers: Mapping[str, nn.Module],
    *,
    cut: bool = True,
    known: dict[str, list[Sequence[Size]]] | None = None,
) -> Iterator[dict[str, list[Activation]]]:
    """Collects the outputs of ``layers`` while ``root`` runs.

    Args:
        root: The model.
        layers: Name → module.
        cut: Whether the earliest layer's output becomes a leaf, so that autograd records what follows it and nothing
            before it. The network goes on with a copy: an in-place operation there does not reach what is kept here.
        known: For each layer the spatial sizes seen before each of its calls, as earlier forwards of such inputs have
            shown them. Where a layer is missing, all modules are watched, and it is filled in.

    Yields:
        Name → one :class:`Activation` per call of that layer, in call order; filled during the forward.
    """
    found: dict[str, list[Activation]] = {name: [] for name in layers}
    grids = Grids()

    def keep(name: str, module: nn.Module, args: Any, output: Any) -> Any:
        tensors = tensors_of(name, output)
        if not tensors:
            return None
        if cut:
            torch.set_grad_enabled(True)
        kept = {
            place: tensor.clone() if tensor.requires_grad else tensor.detach().clone().requires_grad_(cut)
            for place, tensor in tensors.items()
        }
        seen = [] if watching or known is None else known[name][len(found[name]) :][:1]
        found[name].append(Activation(kept, seen[0] if seen else grids.copy()))
        if not cut:
            return None
        passed = {id(tensor): kept[place].clone() for place, tensor in tensors.items()}
        return map_tensors(lambda tensor: passed.get(id(tensor), tensor), output)

    def note(name: str, module: nn.Module, args: Any, output: Any) -> None:
        grids.watch(output, args, module)

    watching = known is None or not layers.keys() <= known.keys()
    watched = layers_of(root) if watching else {}
    with hooked(watched, note), hooked_layers(layers, keep):
        yield found
    if watching and known is not None:
        known.update({name: [each.grids for each in calls] for name, calls in found.items()})


def tensors_of(name: str, output: Any) -> dict[str, Tensor]:
    """The distinct floating-point tensors that a layer's name means in what the module returned, by their places.

    Raises:
        InputError: If there is nothing at the place that the name gives.
    """
    try:
        start, part = part_of(output, place_of(name))
    except LookupError:
        path = module_path(name)
        raise InputError(
            f'layer {name!r}: {path!r} returns nothing at {place_of(name)}',
            accepted=listed(path, dict(float_tensors(output))),
            parameter='layers',
        ) from None
    found: dict[int, tuple[str, Tensor]] = {}
    for inner, tensor in float_tensors(part):
        found.setdefault(id(tensor), (start + inner, tensor))
    return dict(found.values())


def listed(path: str, tensors: Mapping[str, Tensor]) -> str:
    """Tensors that a layer returns, as a user names them, with their shapes: ``'encoder[aux][0] 256×14×14'``."""
    return ', '.join(
        f'{path}{place} {"×".join(map(str, tensor.shape[1:])) or "scalar"}' for place, tensor in tensors.items()
    )

"""Put a model, an optimizer and the random generators back, bit for bit, after a trial. Knows torch's optimizers."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from ._lr_range_result import lr_ratios, write_lr
from ._preserve import modes, random_state

Restore = Callable[[], None]
Keep = Callable[[torch.Tensor], torch.Tensor]


@contextmanager
def preserved(
    model: nn.Module | None,
    optimizers: Sequence[torch.optim.Optimizer],
    extras: Sequence[Any],
    sources: Sequence[Any],
) -> Iterator[Restore]:
    """Restore everything on leaving, whatever happens inside; the yielded function restores all but the generators.

    Covers parameters, buffers, gradients (also that there are none), `requires_grad`, train/eval modes, the
    optimizers' state and groups, objects in `extras` (gradient scalers with all they hold, others by state_dict),
    generators of torch, numpy, `random` and of the loaders in `sources`. The optimizers' hooks do not run inside: a
    snapshot collector or an EMA must not see a trial.
    """
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    parameters = {id(p): p for group in groups for p in group["params"]}
    if model is not None:
        parameters.update({id(p): p for p in model.parameters()})
    keep = keeper(list(parameters.values()))
    parts = [
        _tensors(list(parameters.values()), keep),
        _registrations(model, keep),
        *(_optimizer(optimizer, keep) for optimizer in optimizers),
        *(_scaler(extra) if isinstance(extra, torch.amp.GradScaler) else _extra(extra) for extra in extras),
    ]

    def restore() -> None:
        with torch.no_grad():
            for part in parts:
                part()

    with ExitStack() as stack:
        stack.enter_context(random_state(sources))
        if model is not None:
            stack.enter_context(modes(model))
        for optimizer in optimizers:
            stack.enter_context(_no_hooks(optimizer))
        stack.callback(_gradients(list(parameters.values())))
        stack.callback(restore)
        for parameter in parameters.values():
            parameter.grad = None
        yield restore


def keeper(parameters: Sequence[torch.Tensor]) -> Keep:
    """Return how copies are made: on their own device, or in host memory where the device is short of it.

    Short means that three times the parameters (they and two states) would fill more than half of what is free.
    """
    needed: dict[torch.device, int] = {}
    for parameter in parameters:
        if parameter.device.type == "cuda":
            needed[parameter.device] = needed.get(parameter.device, 0) + 3 * parameter.nbytes
    short = {device for device, size in needed.items() if size > free_memory(device) / 2}
    return lambda t: t.detach().to("cpu", copy=True) if t.device in short else t.detach().clone()


def free_memory(device: torch.device) -> int:
    """Return the bytes that can still be had on a CUDA device, torch's own reserve included."""
    free, _ = torch.cuda.mem_get_info(device)
    return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def _gradients(parameters: list[torch.Tensor]) -> Restore:
    """The gradient tensors are set aside, not copied: inside, `.grad` starts as None, so nothing writes to them."""
    saved = [(p, p.grad) for p in parameters]

    def restore() -> None:
        for parameter, gradient in saved:
            parameter.grad = gradient

    return restore


def _tensors(parameters: list[torch.Tensor], keep: Keep) -> Restore:
    saved = [(p, keep(p), p.requires_grad) for p in parameters]

    def restore() -> None:
        for parameter, value, requires_grad in saved:
            parameter.copy_(value)
            parameter.requires_grad_(requires_grad)
            parameter.grad = None

    return restore


def _registrations(model: nn.Module | None, keep: Keep) -> Restore:
    """Buffers by content, and which objects are registered: a forward may replace a buffer by a new tensor."""
    modules = [] if model is None else list(model.modules())
    saved = [
        (
            module,
            dict(module._parameters),
            {n: (b, None if b is None else keep(b)) for n, b in module._buffers.items()},
        )
        for module in modules
    ]

    def restore() -> None:
        for module, parameters, buffers in saved:
            module._parameters.clear()
            module._parameters.update(parameters)
            module._buffers.clear()
            for name, (buffer, value) in buffers.items():
                module._buffers[name] = buffer
                if buffer is not None and value is not None:
                    buffer.copy_(value)

    return restore


def _kept(value: Any, keep: Keep) -> tuple[Any, Any]:
    """Return an object and a copy of what it holds now."""
    return value, keep(value) if isinstance(value, torch.Tensor) else copy.deepcopy(value)


def _back(kept: tuple[Any, Any]) -> Any:
    """Return the object with its old content: tensors keep their identity, which graphs and cached addresses need."""
    value, content = kept
    if isinstance(value, torch.Tensor):
        value.copy_(content)
        return value
    return copy.deepcopy(content)


def _optimizer(optimizer: torch.optim.Optimizer, keep: Keep) -> Restore:
    state = {p: {key: _kept(value, keep) for key, value in entries.items()} for p, entries in optimizer.state.items()}
    groups = [
        {k: (v, v) if k == "params" else _kept(v, keep) for k, v in group.items()} for group in optimizer.param_groups
    ]
    plain = {k: v for k, v in vars(optimizer).items() if isinstance(v, (int, float, str, bool, type(None)))}

    def restore() -> None:
        for parameter in [p for p in optimizer.state if p not in state]:
            del optimizer.state[parameter]
        for parameter, entries in state.items():
            current = optimizer.state[parameter]
            current.clear()
            current.update({key: _back(kept) for key, kept in entries.items()})
        for group, saved in zip(optimizer.param_groups, groups, strict=True):
            group.clear()
            group.update({key: kept[0] if key == "params" else _back(kept) for key, kept in saved.items()})
        for key in [k for k, v in vars(optimizer).items() if k not in plain and isinstance(v, (int, float, str, bool))]:
            delattr(optimizer, key)
        vars(optimizer).update(plain)

    return restore


def _extra(extra: Any) -> Restore:
    saved = copy.deepcopy(extra.state_dict())
    return lambda: extra.load_state_dict(copy.deepcopy(saved))


def _scaler(scaler: Any) -> Restore:
    """All that a gradient scaler holds; its state_dict leaves out what the next step() looks at."""
    saved = {name: _kept(value, torch.clone) for name, value in vars(scaler).items()}

    def restore() -> None:
        vars(scaler).clear()
        vars(scaler).update({name: _back(kept) for name, kept in saved.items()})

    return restore


@contextmanager
def _no_hooks(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    names = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")
    saved = {name: getattr(optimizer, name) for name in names}
    for name in names:
        setattr(optimizer, name, OrderedDict())
    try:
        yield
    finally:
        for name, hooks in saved.items():
            setattr(optimizer, name, hooks)


@contextmanager
def lr_writer(optimizers: Sequence[torch.optim.Optimizer]) -> Iterator[Callable[[float], None]]:
    """Yield a function that sets the learning rate of the first group; all other groups keep their ratios to it.

    A thalweg optimizer sets its schedules and their counter aside itself (`_lr_override`).
    """
    ratios = lr_ratios(optimizers)
    with ExitStack() as stack:
        writers: list[tuple[Callable[[list[float]], None], slice]] = []
        first = 0
        for optimizer in optimizers:
            override = getattr(optimizer, "_lr_override", None)
            write = partial(write_lr, optimizer) if override is None else stack.enter_context(override())
            writers.append((write, slice(first, first := first + len(optimizer.param_groups))))

        def set_lr(lr: float) -> None:
            for write, part in writers:
                write([lr * ratio for ratio in ratios[part]])

        yield set_lr

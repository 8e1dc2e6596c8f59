"""Put a model, an optimizer and the random generators back, bit for bit, after a trial. Knows torch's optimizers."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from ._lr_range_result import lr_ratios, write_lr
from ._preserve import modes, random_state

Restore = Callable[[], None]


@contextmanager
def preserved(
    model: nn.Module | None, optimizer: torch.optim.Optimizer, extras: Sequence[Any], sources: Sequence[Any]
) -> Iterator[Restore]:
    """Restore everything on leaving, whatever happens inside; the yielded function restores all but the generators.

    Covers parameters, buffers, gradients (also that there are none), `requires_grad`, train/eval modes, the
    optimizer's state and groups, objects in `extras` (by state_dict), generators of torch, numpy, `random`
    and of the loaders in `sources`. The optimizer's hooks do not run inside: a snapshot collector or an EMA
    must not see a trial.
    """
    parameters = {id(p): p for group in optimizer.param_groups for p in group["params"]}
    if model is not None:
        parameters.update({id(p): p for p in model.parameters()})
    parts = [
        _tensors(list(parameters.values())),
        _registrations(model),
        _optimizer(optimizer),
        *(_extra(extra) for extra in extras),
    ]

    def restore() -> None:
        with torch.no_grad():
            for part in parts:
                part()

    with ExitStack() as stack:
        stack.enter_context(random_state(sources))
        if model is not None:
            stack.enter_context(modes(model))
        stack.enter_context(_no_hooks(optimizer))
        stack.callback(_gradients(list(parameters.values())))
        stack.callback(restore)
        for parameter in parameters.values():
            parameter.grad = None
        yield restore


def _gradients(parameters: list[torch.Tensor]) -> Restore:
    """The gradient tensors are set aside, not copied: inside, `.grad` starts as None, so nothing writes to them."""
    saved = [(p, p.grad) for p in parameters]

    def restore() -> None:
        for parameter, gradient in saved:
            parameter.grad = gradient

    return restore


def _tensors(parameters: list[torch.Tensor]) -> Restore:
    saved = [(p, p.detach().clone(), p.requires_grad) for p in parameters]

    def restore() -> None:
        for parameter, value, requires_grad in saved:
            parameter.copy_(value)
            parameter.requires_grad_(requires_grad)
            parameter.grad = None

    return restore


def _registrations(model: nn.Module | None) -> Restore:
    """Buffers by content, and which objects are registered: a forward may replace a buffer by a new tensor."""
    modules = [] if model is None else list(model.modules())
    saved = [
        (
            module,
            dict(module._parameters),
            {n: (b, None if b is None else b.clone()) for n, b in module._buffers.items()},
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


def _kept(value: Any) -> tuple[Any, Any]:
    """Return an object and a copy of what it holds now."""
    return value, value.detach().clone() if isinstance(value, torch.Tensor) else copy.deepcopy(value)


def _back(kept: tuple[Any, Any]) -> Any:
    """Return the object with its old content: tensors keep their identity, which graphs and cached addresses need."""
    value, content = kept
    if isinstance(value, torch.Tensor):
        value.copy_(content)
        return value
    return copy.deepcopy(content)


def _optimizer(optimizer: torch.optim.Optimizer) -> Restore:
    state = {p: {key: _kept(value) for key, value in entries.items()} for p, entries in optimizer.state.items()}
    groups = [{k: (v, v) if k == "params" else _kept(v) for k, v in group.items()} for group in optimizer.param_groups]
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
def lr_writer(optimizer: torch.optim.Optimizer) -> Iterator[Callable[[float], None]]:
    """Yield a function that sets the learning rate of the first group; the other groups keep their ratios to it.

    A thalweg optimizer sets its schedules and their counter aside itself (`_lr_override`).
    """
    ratios = lr_ratios(optimizer)
    override = getattr(optimizer, "_lr_override", None)
    if override is None:
        yield lambda lr: write_lr(optimizer, [lr * ratio for ratio in ratios])
        return
    with override() as set_lr:
        yield lambda lr: set_lr([lr * ratio for ratio in ratios])

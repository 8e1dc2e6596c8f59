"""Whole training steps as one CUDA graph: forward, backward, clipping, update and schedule, replayed without host work."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from . import _check, _data
from ._capture import capture, culprit
from ._criterion import objective_of
from ._preserve import random_state, unwrap
from .optim import FusedOptimizer

__all__ = ["CapturedStep", "capture_step"]

_WHO = "capture_step"


class CapturedStep:
    """A training step in one CUDA graph, made by `capture_step`; call it with a batch.

    Attributes:
        inputs: The batch that the graph reads; calls copy theirs into it.
        loss: The loss that the last replay wrote, a scalar on the device; overwritten by the next one.
        optimizer: The optimizer; its `sync()` tells where the schedules stand.
    """

    def __init__(self, optimizer: FusedOptimizer, inputs: Any) -> None:
        self.optimizer = optimizer
        self.inputs = inputs
        self.loss: Tensor = torch.empty(0)
        self.graph = torch.cuda.CUDAGraph()
        self._places = list(_tensors(inputs))
        self._rates = self._numbers()

    def __call__(self, batch: Any) -> Tensor:
        """Copy the batch into place and replay; nothing waits for the device.

        Args:
            batch: As the example batch: same structure, shapes and types, on any device.

        Returns:
            The loss, a scalar on the device, a copy of its own.

        Raises:
            ValueError: The batch differs from the example.
            RuntimeError: A learning rate that the graph holds as a number was changed.
        """
        given = list(_tensors(batch))
        if len(given) != len(self._places):
            raise ValueError(f"{_WHO}: expected a batch of {len(self._places)} tensors as captured, got {len(given)}")
        for number, (place, value) in enumerate(zip(self._places, given, strict=True)):
            if place.shape != value.shape or place.dtype != value.dtype:
                raise ValueError(
                    f"{_WHO}: tensor {number} of the batch must have shape {tuple(place.shape)} and {place.dtype} as "
                    f"captured, got {tuple(value.shape)} and {value.dtype}; drop the last short batch or capture it too"
                )
        for place, value in zip(self._places, given, strict=True):
            if place.data_ptr() != value.data_ptr():
                place.copy_(value, non_blocking=True)
        self.replay()
        return self.loss.clone()

    def _keep(self, *owners: Any) -> None:
        """Keep alive whose memory the graph reads and writes, and remember which state it is."""
        self._owners = owners
        self._state = self.optimizer.state

    def replay(self) -> None:
        """Replay with what `inputs` holds now; the loss is in `loss`."""
        if self.optimizer.state is not self._state:
            raise RuntimeError(
                f"{_WHO}: the optimizer's state was replaced after the capture, as load_state_dict() does, and the graph "
                "writes the old one; capture again"
            )
        if self._numbers() != self._rates:
            raise RuntimeError(
                f"{_WHO}: lr was set to {self._numbers()} but the graph holds {self._rates}; pass a schedule to the "
                "optimizer or a tensor on the device as lr, or capture again"
            )
        self.graph.replay()

    def _numbers(self) -> list[float | None]:
        """The learning rates that a capture turns into constants."""
        lrs = [group["lr"] for group in self.optimizer.param_groups]
        fixed = [s is None and not isinstance(lr, Tensor) for s, lr in zip(self.optimizer.schedules, lrs, strict=True)]
        return [lr if constant else None for lr, constant in zip(lrs, fixed, strict=True)]


def capture_step(
    model: nn.Module,
    loss_fn: Callable[..., Any] | nn.Module | str,
    optimizer: FusedOptimizer,
    example_batch: Any,
    *,
    scaler: torch.amp.GradScaler | None = None,
    autocast: torch.dtype | None = None,
    warmup: int = 3,
) -> CapturedStep:
    r"""Capture one training step, :math:`\theta_{k+1} = \mathrm{step}(\theta_k, \nabla L(\theta_k), \gamma(k))`.

    The learning rate is evaluated by the kernels from a step counter on the device, so it moves on from replay to
    replay, and N replays equal N eager steps. Capturing changes nothing: parameters, buffers, optimizer state, schedule
    and random generators are as before. Eager steps between replays are allowed. What runs on the host is not in the
    graph: hooks of the optimizer, a scheduler's `step()`, prints. Python code of the model runs while it is captured,
    and never again.

    Args:
        model: The model, on one CUDA device, in the mode that it trains in.
        loss_fn: A loss module or name (`loss = criterion(model(inputs), targets)`), or loss_fn(model, batch) -> scalar.
        optimizer: A thalweg optimizer; `max_grad_norm` and a Schedule become part of the graph.
        example_batch: A batch with the shapes and types of all later ones: tensors, tuples, lists, mappings of them.
        scaler: torch's or thalweg's GradScaler; scaling, skipping and its update become part of the graph.
        autocast: dtype of `torch.autocast` for the forward pass and the loss, or None.
        warmup: Forward and backward passes before the capture, on a stream of their own.

    Returns:
        The step; `loss = step(batch)`.

    Raises:
        RuntimeError: No CUDA device, a parameter without gradient, or something that cannot be captured; the text
            names it.
        TypeError, ValueError: Another optimizer, a loss that is not a scalar.

    Example:
        >>> import torch, thalweg as tw
        >>> if torch.cuda.is_available():
        ...     model = torch.nn.Linear(8, 2).cuda()
        ...     opt = tw.optim.AdamW(model.parameters(), lr=tw.schedules.cosine(1e-3, total_steps=1000))
        ...     x, y = torch.randn(32, 8).cuda(), torch.zeros(32, dtype=torch.long).cuda()
        ...     step = tw.graphs.capture_step(model, "cross_entropy", opt, (x, y))
        ...     losses = [step((x, y)) for _ in range(10)]

    References:
        PyTorch documentation, CUDA semantics, "CUDA graphs": whole-network capture.
    """
    device = _check_arguments(model, optimizer, warmup)
    objective = objective_of(_WHO, loss_fn)
    step = CapturedStep(optimizer, _copied(example_batch, device))

    def loss_and_gradients() -> Tensor:
        with torch.autocast("cuda", dtype=autocast) if autocast is not None else nullcontext():
            loss = objective(model, step.inputs)
        _check.instance(_WHO, "the loss", loss, Tensor, "a tensor that backward() works on")
        if loss.numel() != 1:
            raise ValueError(f"{_WHO}: the loss must be a scalar, got shape {list(loss.shape)}; take its mean")
        (loss if scaler is None else scaler.scale(loss)).backward()
        value: Tensor = loss.detach().reshape(())
        return value

    def whole_step() -> Tensor:
        loss = loss_and_gradients()
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
        return loss

    with torch.cuda.device(device), random_state():
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        buffers = [(b, b.detach().clone()) for b in model.buffers()]
        stream.wait_stream(torch.cuda.current_stream(device))
        fresh = [p for g in optimizer.param_groups for p in g["params"] if p not in optimizer.state]
        done, handled = False, sys.exc_info()[1]
        try:
            with torch.cuda.stream(stream):
                _warm_up(model, optimizer, loss_and_gradients, scaler, warmup)
            optimizer.zero_grad(set_to_none=True)  # the graph's own memory holds its gradients
            with capture(step.graph, stream):
                step.loss = whole_step()
            done = True
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or str(error).startswith(type(optimizer).__name__):
                raise
            raise RuntimeError(
                f"{_WHO}: this step cannot be captured into a CUDA graph: {culprit(error, handled)}. What waits for the device "
                "(.item(), float(tensor), printing, control flow on values) or copies from the CPU must leave the step; an "
                "earlier loss that is still alive keeps its stream: `del loss` first"
            ) from error
        finally:
            torch.cuda.current_stream(device).wait_stream(stream)
            with torch.no_grad():
                for buffer, value in buffers:
                    buffer.copy_(value)
            if not done:
                optimizer.zero_grad(set_to_none=True)
                for name in ("grad_scale", "found_inf"):  # torch's GradScaler leaves them behind an error
                    optimizer.__dict__.pop(name, None)
                if scaler is not None and scaler.is_enabled():
                    scaler._per_optimizer_states.clear()
                optimizer._forget_states([p for p in fresh if p in optimizer.state])
            optimizer.sync()
    step._keep(model, objective, scaler)
    return step


def _check_arguments(model: nn.Module, optimizer: FusedOptimizer, warmup: int) -> torch.device:
    """The one CUDA device that everything is on."""
    _check.integer(_WHO, "warmup", warmup, 1)
    if not isinstance(optimizer, FusedOptimizer):
        raise TypeError(
            f"{_WHO}: expected an optimizer of thalweg.optim, got {_check.describe(optimizer)}; others cannot move the "
            "learning rate inside a graph"
        )
    tensors = {**dict(unwrap(model).named_parameters()), **dict(unwrap(model).named_buffers())}
    devices: dict[torch.device, str] = {}
    for name, tensor in tensors.items():
        devices.setdefault(tensor.device, name)
    if any(device.type != "cuda" for device in devices) or len(devices) != 1:
        where = ", ".join(f"{name!r} on {device}" for device, name in devices.items()) or "no parameters"
        raise RuntimeError(f"{_WHO}: expected a model on one CUDA device, got {where}; move it with model.cuda()")
    hooks = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
    if hooks:
        raise RuntimeError(
            f"{_WHO}: the optimizer has step hooks, which run on the host and would be left out of the graph; remove "
            "them, or step eagerly"
        )
    return next(iter(devices))


def _warm_up(
    model: nn.Module,
    optimizer: FusedOptimizer,
    loss_and_gradients: Callable[[], Tensor],
    scaler: torch.amp.GradScaler | None,
    rounds: int,
) -> None:
    """Everything that happens only once, such as loading kernels: passes whose updates are skipped on the device."""
    for _ in range(rounds):
        optimizer.zero_grad(set_to_none=True)
        loss_and_gradients()
    names = {id(p): name for name, p in model.named_parameters()}
    for group in optimizer.param_groups:
        for p in group["params"]:
            if p.grad is None and p.requires_grad:
                raise RuntimeError(
                    f"{type(optimizer).__name__}: {names.get(id(p)) or optimizer._name_of(p)} gets no gradient from "
                    "the example batch, and replays would leave it out for ever. Freeze it with requires_grad_(False), "
                    "or use it in the loss"
                )
    if scaler is not None and scaler.is_enabled():
        scaler._check_inf_per_device(optimizer)
        scaler._per_optimizer_states.clear()
    found = torch.ones((), device=next(p.device for g in optimizer.param_groups for p in g["params"]))
    optimizer.found_inf = found  # type: ignore[attr-defined]
    try:
        optimizer.step()
    finally:
        del optimizer.found_inf  # type: ignore[attr-defined]


def _tensors(value: Any) -> Any:
    """The tensors inside, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from _tensors(entry)
    elif isinstance(value, (tuple, list)):
        for entry in value:
            yield from _tensors(entry)


def _copied(batch: Any, device: torch.device) -> Any:
    """The batch on the device in memory of its own, which replays read."""
    moved = _data.to_device(batch, device)
    if isinstance(moved, Tensor):
        return moved.clone()
    if isinstance(moved, Mapping):
        return {key: _copied(entry, device) for key, entry in moved.items()}
    if isinstance(moved, (tuple, list)):
        return type(moved)(_copied(entry, device) for entry in moved)
    return moved

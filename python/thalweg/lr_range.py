"""Learning-rate range test: one short run with a rising learning rate, read by phases. Leaves no trace."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, overload

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from . import _check
from ._criterion import objective_of
from ._lr_range_analysis import MIN_POINTS, Array, analyse_curve
from ._lr_range_result import RangeTestResult
from ._lr_range_run import WHO as _WHO
from ._lr_range_run import model_step, run_ramp
from ._lr_range_state import lr_writer, preserved

__all__ = ["RangeTestResult", "analyse", "range_test"]


@overload
def range_test(
    model: nn.Module,
    loss_fn: Any,
    batches: Iterable[Any],
    optimizer: torch.optim.Optimizer,
    /,
    *,
    min_lr: float = ...,
    max_lr: float = ...,
    num_steps: int = ...,
    mode: str = ...,
    repeats: int = ...,
    stop_early: bool = ...,
    restore: Sequence[Any] = ...,
    progress: bool = ...,
) -> RangeTestResult: ...
@overload
def range_test(
    step_closure: Callable[[], Any],
    optimizer: torch.optim.Optimizer,
    /,
    *,
    model: nn.Module | None = ...,
    min_lr: float = ...,
    max_lr: float = ...,
    num_steps: int = ...,
    mode: str = ...,
    repeats: int = ...,
    stop_early: bool = ...,
    restore: Sequence[Any] = ...,
    progress: bool = ...,
) -> RangeTestResult: ...
def range_test(
    *args: Any,
    model: nn.Module | None = None,
    min_lr: float = 1e-7,
    max_lr: float = 10.0,
    num_steps: int = 200,
    mode: str = "exp",
    repeats: int = 1,
    stop_early: bool = True,
    restore: Sequence[Any] = (),
    progress: bool = True,
) -> RangeTestResult:
    r"""Raise the learning rate from `min_lr` to `max_lr` over a short run and read the best one off the loss.

    At low rates the loss is flat, then it descends, then it diverges. The suggestion is the geometric mean of
    the rate where the flat phase ends and the rate of the least (smoothed) loss. Update k uses lr_k =
    min_lr·(max_lr/min_lr)^{k/(n−1)} (`mode="exp"`) or lr_k = min_lr + (max_lr − min_lr)·k/(n−1) ("linear");
    the loss of step k is measured just before it.

    Two forms:

    * `range_test(model, loss_fn, batches, optimizer)`: range_test does forward, backward and
    `optimizer.step()`. It runs in
      train mode if the model is in eval mode, else in the modes that the modules have. Gradients start as
      None.
    * `range_test(step_closure, optimizer)`: the closure takes one batch and does everything for it, also
      `optimizer.zero_grad()`, `backward()` and `optimizer.step()` (so accumulation, AMP and clipping are as
      in your training), and returns the loss. range_test only sets the learning rate. Give `model=` so that
      buffers and modes are restored too, and scalers, schedulers or averages that the closure changes in
      `restore=`.

    Afterwards everything is as before, bit for bit, also after an error or Ctrl-C: weights, buffers,
    gradients, `requires_grad`, modes, optimizer state and groups, schedules and their counters, and the
    generators of torch, numpy, `random` and of a DataLoader. Hooks of the optimizer (snapshot collectors,
    averages) do not run meanwhile. With several parameter groups the rates are those of the first; the others
    keep their ratios to it.

    A range test is cumulative: a slower ramp meets a better trained model at each rate, so the answer moves a
    little with `num_steps`.

    Args:
        args: `model, loss_fn, batches, optimizer` or `step_closure, optimizer`. `loss_fn(model, batch)` returns the
            loss; a criterion module, a function of torch.nn.functional or a name ("cross_entropy", "mse", "l1",
            "nll", "bce_with_logits") means criterion(model(inputs), targets). `batches` is an iterable of batches,
            started again (with a warning) when it ends, or `(inputs, targets)` tensors, taken 256 samples at a time.
        model: In the second form, the model behind the closure.
        min_lr: First learning rate, > 0.
        max_lr: Last learning rate.
        num_steps: n, updates, at least 10.
        mode: "exp" or "linear".
        repeats: Runs from the same start on new batches; the pointwise median of their losses is read.
        stop_early: End a run after three losses in a row that are clearly diverged.
        restore: Further objects with `state_dict()` and `load_state_dict()` to restore.
        progress: Show a progress bar on a terminal.

    Returns:
        `RangeTestResult`.

    Raises:
        TypeError, ValueError: Bad arguments; a loss that is no scalar; a loss that is not finite in the first
            10 steps; batches that are empty, or an iterator that cannot be started again and ends within the
            first 10.

    Example:
        >>> import torch, thalweg as tw
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(512, 8)
        >>> y = x @ torch.randn(8, 1)
        >>> model = torch.nn.Linear(8, 1)
        >>> opt = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> r = tw.range_test(model, "mse", (x, y), opt, min_lr=1e-5, num_steps=100)
        >>> r.observed
        ('flat', 'descent', 'divergence')
        >>> r.bounds[0] < r.suggestion < r.bounds[1]
        True

    References:
        Smith, "Cyclical Learning Rates for Training Neural Networks", 2017, arXiv:1506.01186, section 3.3.
    """
    step_of, model, optimizer, sources = _forms(args, model)
    lrs = _ramp(min_lr, max_lr, num_steps, mode)
    repeats = _check.integer(_WHO, "repeats", repeats, 1)
    for extra in restore:
        if not (hasattr(extra, "state_dict") and hasattr(extra, "load_state_dict")):
            raise TypeError(
                f"{_WHO}: restore must hold objects with state_dict and load_state_dict, got {_check.describe(extra)}"
            )
    runs: list[tuple[Array, str]] = []
    with preserved(model, optimizer, restore, sources) as start_again, lr_writer(optimizer) as set_lr:
        if model is not None and not model.training:
            model.train()
        bar = tqdm(total=repeats * len(lrs), desc="range test", leave=False, disable=None if progress else True)
        with bar:
            for run in range(repeats):
                if run:
                    start_again()
                runs.append(run_ramp(step_of(), set_lr, lrs, stop_early, bar))
    return _read(lrs, [losses for losses, _ in runs], [stop for _, stop in runs])


def analyse(lrs: Any, losses: Any) -> RangeTestResult:
    """Read phases and a suggestion off a curve that was recorded elsewhere; `range_test` does the same with its own.

    Args:
        lrs: [n] learning rates, positive and rising.
        losses: [n] raw, unsmoothed losses; negative ones are fine. What follows the first NaN or infinity is
            dropped.

    Returns:
        `RangeTestResult`.

    Raises:
        ValueError: Wrong shapes, learning rates that do not rise, or fewer than 10 finite losses.

    Example:
        >>> import numpy as np
        >>> from thalweg.lr_range import analyse
        >>> lr = np.logspace(-6, 1, 200)
        >>> loss = 2.3 - 1.8 / (1 + (1e-3 / lr) ** 2) + np.minimum(lr**2, 20)
        >>> r = analyse(lr, loss)
        >>> 1e-3 < r.suggestion < 1e-1
        True
    """
    x, y = np.asarray(lrs, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"analyse: lrs and losses must be two lists of one length, got shapes {x.shape} and {y.shape}")
    if not (np.isfinite(x).all() and (x > 0).all() and (np.diff(x) > 0).all()):
        raise ValueError("analyse: lrs must be positive, finite and rising")
    return _read(x, [y], [], who="analyse")


def _forms(
    args: tuple[Any, ...], model: nn.Module | None
) -> tuple[Callable[[], Callable[[], Any]], nn.Module | None, torch.optim.Optimizer, list[Any]]:
    """Return (function that starts a run and returns its step), model, optimizer, data loaders."""
    if len(args) == 4 and isinstance(args[0], nn.Module):
        model, loss_fn, batches, optimizer = args
        _check_optimizer(optimizer)
        loss_of = objective_of(_WHO, loss_fn)
        if isinstance(batches, (str, bytes)) or not (hasattr(batches, "__iter__") or hasattr(batches, "__getitem__")):
            raise TypeError(f"{_WHO}: batches must be an iterable of batches, got {_check.describe(batches)}")
        return lambda: model_step(args[0], loss_of, batches, optimizer), model, optimizer, [batches]
    if len(args) == 2 and callable(args[0]) and not isinstance(args[0], nn.Module):
        _check_optimizer(args[1])
        if model is not None:
            _check.instance(_WHO, "model", model, nn.Module, "a torch.nn.Module or None")
        return lambda: args[0], model, args[1], []
    raise TypeError(
        f"{_WHO}: expected (model, loss_fn, batches, optimizer) or (step_closure, optimizer), got "
        f"({', '.join(type(arg).__name__ for arg in args)})"
    )


def _check_optimizer(optimizer: Any) -> None:
    _check.instance(_WHO, "optimizer", optimizer, torch.optim.Optimizer, "a torch.optim.Optimizer")


def _ramp(min_lr: Any, max_lr: Any, num_steps: Any, mode: Any) -> Array:
    low = _check.real(_WHO, "min_lr", min_lr, above=0.0)
    high = _check.real(_WHO, "max_lr", max_lr, above=low)
    n = _check.integer(_WHO, "num_steps", num_steps, MIN_POINTS)
    if _check.choice(_WHO, "mode", mode, ("exp", "linear")) == "linear":
        return np.linspace(low, high, n)
    lrs = np.exp(np.linspace(math.log(low), math.log(high), n))
    lrs[0], lrs[-1] = low, high
    return lrs


def _read(lrs: Array, curves: list[Array], stops: list[str], who: str = _WHO) -> RangeTestResult:
    padded = np.full((len(curves), max(len(curve) for curve in curves)), math.inf)
    for row, curve in zip(padded, curves, strict=True):
        row[: len(curve)] = np.where(np.isfinite(curve), curve, math.inf)
    median = np.median(padded, axis=0)
    finite = np.isfinite(median)
    n = len(median) if finite.all() else int(np.argmin(finite))
    if n < MIN_POINTS:
        raise ValueError(f"{who}: at least {MIN_POINTS} finite losses are needed, got {n}")
    blew_up = any(len(curve) > n and not np.isfinite(curve[n]) for curve in curves)
    stopped = next((stop for stop in stops if stop), "") if n < len(lrs) else ""
    if n < len(lrs) and not stopped:
        stopped = f"the loss is not finite at lr {lrs[n]:.3g}"
    return RangeTestResult(
        lrs=lrs[:n].copy(),
        losses=median[:n].copy(),
        stopped=stopped,
        curves=tuple(curves),
        **vars(analyse_curve(lrs[:n], median[:n], blew_up)),
    )

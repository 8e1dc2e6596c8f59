"""Learning-rate range test: one short run with a rising learning rate, read by phases. Leaves no trace."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, overload

import torch
from torch import nn
from tqdm import tqdm

from . import _check
from ._lr_range_curve import MIN_POINTS, Array
from ._lr_range_forms import Trial, trial_of
from ._lr_range_ramp import narrower, rates, wider
from ._lr_range_read import analyse, check_rule, read_curves
from ._lr_range_record import WHO as _WHO
from ._lr_range_result import RangeTestResult
from ._lr_range_run import Ramp, Repeats
from ._lr_range_state import lr_writer, preserved
from .schedules import Schedule

__all__ = ["RangeTestResult", "analyse", "range_test"]

Optimizers = torch.optim.Optimizer | Sequence[torch.optim.Optimizer]


@overload
def range_test(
    model: nn.Module,
    loss_fn: Any,
    batches: Iterable[Any],
    optimizer: Optimizers,
    /,
    *,
    min_lr: float = ...,
    max_lr: float = ...,
    num_steps: int = ...,
    mode: str | Schedule = ...,
    rule: str = ...,
    repeats: int = ...,
    seed: int | None = ...,
    reinitialise: Callable[[], Any] | None = ...,
    extend: int = ...,
    refine: bool = ...,
    accumulate: int = ...,
    scaler: torch.amp.GradScaler | None = ...,
    autocast: torch.dtype | None = ...,
    validation: Any = ...,
    validation_batches: int = ...,
    validate_every: int = ...,
    stop_early: bool = ...,
    lag: int | None = ...,
    distributed: bool | None = ...,
    restore: Sequence[Any] = ...,
    progress: bool = ...,
) -> RangeTestResult: ...
@overload
def range_test(
    step_closure: Callable[[], Any],
    optimizer: Optimizers,
    /,
    *,
    model: nn.Module | None = ...,
    min_lr: float = ...,
    max_lr: float = ...,
    num_steps: int = ...,
    mode: str | Schedule = ...,
    rule: str = ...,
    repeats: int = ...,
    seed: int | None = ...,
    reinitialise: Callable[[], Any] | None = ...,
    extend: int = ...,
    refine: bool = ...,
    validation: Callable[[], Any] | None = ...,
    validate_every: int = ...,
    stop_early: bool = ...,
    lag: int | None = ...,
    distributed: bool | None = ...,
    restore: Sequence[Any] = ...,
    progress: bool = ...,
) -> RangeTestResult: ...
def range_test(
    *args: Any,
    model: nn.Module | None = None,
    min_lr: float = 1e-7,
    max_lr: float = 10.0,
    num_steps: int = 200,
    mode: str | Schedule = "exp",
    rule: str = "descent",
    repeats: int = 1,
    seed: int | None = None,
    reinitialise: Callable[[], Any] | None = None,
    extend: int = 0,
    refine: bool = False,
    accumulate: int = 1,
    scaler: torch.amp.GradScaler | None = None,
    autocast: torch.dtype | None = None,
    validation: Any = None,
    validation_batches: int = 8,
    validate_every: int = 1,
    stop_early: bool = True,
    lag: int | None = None,
    distributed: bool | None = None,
    restore: Sequence[Any] = (),
    progress: bool = True,
) -> RangeTestResult:
    r"""Raise the learning rate from `min_lr` to `max_lr` over a short run and read the best one off the loss.

    At low rates the loss is flat, then it descends, then it diverges. Update k uses lr_k =
    min_lr·(max_lr/min_lr)^{k/(n−1)} (`mode="exp"`) or lr_k = min_lr + (max_lr − min_lr)·k/(n−1) ("linear"); the
    loss of step k is measured just before it. The losses are smoothed symmetrically over ln lr. With x(q) the ln lr
    at which the share q of the whole drop is done, the suggestion is the mean of x(q) over q from 0.5 to 0.9: the
    middle of the late descent.

    Two forms:

    * `range_test(model, loss_fn, batches, optimizer)`: range_test does forward, backward and `optimizer.step()`. It
      runs in train mode if the model is in eval mode, else in the modes that the modules have. Gradients start as None.
    * `range_test(step_closure, optimizer)`: the closure takes one batch and does everything for it, also
      `optimizer.zero_grad()`, `backward()` and `optimizer.step()`, and returns the loss. range_test only sets the
      learning rate. Give `model=` so that buffers and modes are restored too, and scalers, schedulers or averages
      that the closure changes in `restore=`.

    Afterwards everything is as before, bit for bit, also after an error or Ctrl-C: weights, buffers, gradients,
    `requires_grad`, modes, optimizer state and groups, schedules and their counters, gradient scalers, and the
    generators of torch, numpy, `random` and of a DataLoader. Hooks of the optimizer (snapshot collectors, averages)
    do not run meanwhile. The copies lie on the model's device, or in host memory where the device is short of it.

    The rates are those of the first parameter group of the first optimizer; all other groups keep their ratios to it.
    On a CUDA device losses stay there; the host looks at each `lag` steps later, so that no step waits for it. With
    DistributedDataParallel losses are averaged over the processes, which stop at the same step.

    A range test is cumulative: a slower ramp meets a better trained model at each rate. Twice `num_steps` gives
    about half the suggestion where the descent is far below divergence; 200 steps fit trainings of some hundred steps
    and more.

    Args:
        args: `model, loss_fn, batches, optimizer` or `step_closure, optimizer`. `loss_fn(model, batch)` returns the
            loss; a criterion module, a function of torch.nn.functional or a name ("cross_entropy", "mse", "l1",
            "nll", "bce_with_logits") means criterion(model(inputs), targets). `batches` is an iterable of batches,
            started again (with a warning) when it ends, or `(inputs, targets)` tensors, taken 256 samples at a time.
            `optimizer` may be a list of optimizers.
        model: In the second form, the model behind the closure.
        min_lr: First learning rate, > 0.
        max_lr: Last learning rate.
        num_steps: n, updates, at least 10.
        mode: "exp", "linear", or a `Schedule` that rises, whose first `num_steps` values are taken.
        rule: What the suggestion is: "descent" (above), "geometric" (between the flat phase's end and the minimum),
            "steepest", "half_drop", "min/3", "min/10"; or another package's rule, exactly: fastai's "valley",
            "slide", "minimum/10", "steep", "lightning", "lightning<2.5.3", "ignite", "lr_finder". All of them are in
            the result's `candidates`.
        repeats: Runs from the same start; the pointwise median of their losses is read. From the second on, tensors
            and lists of batches are taken in another order; a loader goes on drawing.
        seed: Repeat i seeds the generators of torch, numpy and `random`, and the order of tensors and lists, with
            seed + i; None leaves them as they are.
        reinitialise: Called before each repeat but the first; it may draw new weights.
        extend: Up to so many further tests while a phase is missing, each from 100 times lower or to 10 times higher, with
            as many steps a decade. The last one counts.
        refine: At the end one more test of as many steps, from a tenth of the end of the flat phase to three times
            the start of divergence: a slower ramp, so a lower suggestion.
        accumulate: Batches per update; their mean loss counts.
        scaler: `torch.amp.GradScaler` or thalweg's; restored with all it holds.
        autocast: dtype of `torch.autocast`; None for none.
        validation: Data as `batches`; then the mean loss of its first `validation_batches` batches in eval mode is
            read instead of the training loss. In the second form, a function that returns the loss.
        validation_batches: Batches.
        validate_every: Steps from one validation to the next; the steps between are not read.
        stop_early: End a run after three losses in a row that are clearly diverged.
        lag: Steps after which the host looks at a loss; 16 on a CUDA device, 0 elsewhere. 0 stops at the first loss
            that is not finite, before another update.
        distributed: Average losses over all processes; None: when the model is a DistributedDataParallel.
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
    check_rule(_WHO, rule)
    trial = trial_of(
        args,
        model,
        distributed,
        {
            "accumulate": accumulate,
            "scaler": scaler,
            "autocast": autocast,
            "validation": validation,
            "validation_batches": validation_batches,
        },
    )
    every = _check.integer(_WHO, "validate_every", validate_every, 1)
    ramp = Ramp(
        rates(min_lr, max_lr, num_steps, mode),
        stop_early,
        every if trial.measure else 1,
        None if lag is None else _check.integer(_WHO, "lag", lag, 0),
        trial.group,
    )
    if len(ramp.recorded) < MIN_POINTS:
        raise ValueError(f"{_WHO}: num_steps / validate_every must be at least {MIN_POINTS}, got {num_steps} / {every}")
    _check.integer(_WHO, "repeats", repeats, 1)
    if seed is not None:
        _check.integer(_WHO, "seed", seed, 0)
    if reinitialise is not None and not callable(reinitialise):
        raise TypeError(f"{_WHO}: reinitialise must be a function or None, got {_check.describe(reinitialise)}")
    if (extend or refine) and mode != "exp":
        raise ValueError(f"{_WHO}: extend and refine choose the rates of an exponential ramp; mode must be 'exp'")
    extras = [*_checked(restore), *([] if scaler is None else [scaler])]

    def test(ramp: Ramp) -> RangeTestResult:
        runs = _runs(trial, ramp, Repeats(repeats, seed, reinitialise), extras, progress)
        return read_curves(ramp.recorded, [losses for losses, _ in runs], [stop for _, stop in runs], rule=rule)

    result = test(ramp)
    for next_rates in [wider] * _check.integer(_WHO, "extend", extend, 0) + [narrower] * bool(refine):
        lrs = next_rates(result, ramp.lrs)
        if lrs is not None:
            ramp = replace(ramp, lrs=lrs)
            result = test(ramp)
    return result


def _runs(trial: Trial, ramp: Ramp, repeats: Repeats, extras: list[Any], progress: bool) -> list[tuple[Array, str]]:
    """Run every repeat from the same start and leave no trace."""
    runs: list[tuple[Array, str]] = []
    model = trial.model
    with (
        preserved(model, trial.optimizers, extras, trial.sources) as start_again,
        lr_writer(trial.optimizers) as set_lr,
        tqdm(
            total=repeats.count * len(ramp.lrs), desc="range test", leave=False, disable=None if progress else True
        ) as bar,
    ):
        if model is not None and not model.training:
            model.train()
        measure = None if trial.measure is None else trial.measure()
        for run in range(repeats.count):
            if run:
                start_again()
            order = repeats.begin(run)
            runs.append(ramp.run(trial.start(order), measure, set_lr, bar))
    return runs


def _checked(restore: Sequence[Any]) -> list[Any]:
    for extra in restore:
        if not (hasattr(extra, "state_dict") and hasattr(extra, "load_state_dict")):
            raise TypeError(
                f"{_WHO}: restore must hold objects with state_dict and load_state_dict, got {_check.describe(extra)}"
            )
    return list(restore)

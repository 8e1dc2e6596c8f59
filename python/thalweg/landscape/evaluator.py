"""The evaluator: loss and metrics of a model at many points of weight space, exactly as plain torch computes them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from .. import _check
from . import _walk, _weights
from ._cells import on_device as is_on_device
from ._evaluation import BN_MODES, Evaluation, How, Run
from ._grids import grid, timings, volume
from ._keeping import Keeper, Keeping
from ._loss import LossFn, Measure, Metric
from ._points import axis
from ._rounding import warn_of_unmoved
from ._saved import Saved, check_buffers
from .directions import Directions
from .engines.approximate import check_precision
from .engines.choice import Choice
from .engines.tiers import IMPLEMENTATIONS, TIERS
from .result import Line, Points, Surface

Array = npt.NDArray[np.float64]
Axis = tuple[float, float, int]
Preview = Callable[[Surface], object]
Path = str | os.PathLike[str]


class Evaluator:
    r"""Evaluate :math:`L(\theta)` at :math:`\theta(\alpha, \beta) = (w + \alpha d_1) + \beta d_2`.

    Every value is what fifteen lines of plain torch give with the same batches, threads and device, bit for bit: the model is
    in eval mode, each batch's loss is the criterion's own value, the mean over batches is weighted in float64: by their
    samples, for a cross-entropy by the class weights of the targets that are not ignored, so that it is the mean over all
    the data. The order of the points does not matter: buffers and random generators start afresh at every point.
    On a GPU the host launches one CUDA graph per point and reads once, at the end; a model, loss or metric that a graph
    cannot hold is launched operation by operation, and the result's metadata say why ("graph", "graph_reason").
    Whatever happens, the model (parameters, buffers, gradients, modes, hooks, attributes) and the random generators
    are as before afterwards.

    Args:
        model: Any `nn.Module` on the CPU or on one CUDA device; tied weights count once, parametrised modules move their originals.
        loss_fn: A loss module, a function of `torch.nn.functional` or a name ("cross_entropy", "mse", "l1", "nll",
            "bce_with_logits"): then the loss is `criterion(model(inputs), targets)`; with reduction="sum" it is the sum
            over the data. Any other callable is `loss_fn(model, (inputs, targets))` and returns the batch mean, or
            one value per sample.
        data: (inputs, targets) tensors or arrays, a data set, or an iterable of such batches; for a loss_fn(model, batch)
            of any batches (dictionaries, for instance), which it gets as they come. Read once and kept where the model
            is, or, when larger than `memory_budget`, read again in every pass, which serves 256 points.
        metrics: "loss"; "accuracy" and "top5" (share of samples with the target among the 1 or 5 largest scores, of
            equal ones the first, never with NaN); "confidence" (mean of the largest softmax probability); "margin"
            (mean of the target's score minus the largest other one, 0 for a tie, NaN for NaN); "stderr" (standard error
            of the loss over the samples); "l2" (sum of all squared parameters); callables `metric(output, targets)`
            (batch mean, or one value per sample), or pairs (name, callable). All come from one forward pass.
        batch_size: Samples per batch, for tensors and data sets; default: as many as keep the widest layer's
            activations within 2 MiB (256 MiB on a device), a rule without timing, so two runs use the same. "tune" times a few sizes and
            takes the fastest. Batches that an iterable brings are kept as they are.
        bn: Whose statistics BatchNorm uses. "interpolate": the model's own, and on a line between two models theirs,
            interpolated like the weights; "frozen": the model's own everywhere, so that a line and `at` move weights
            alone. In planes of directions, which say nothing about statistics, both are the same. "recalibrate": those
            of all the data at every point, layer by layer, as one batch of all the data would have; "batch": each
            batch's own.
        train_mode: Evaluate in train mode, Dropout at work with the same draws at every point. BatchNorm follows `bn`.
        tier: "exact": the bits of plain torch. "rounding": the same real numbers, rounded otherwise and several times
            faster: many points at once, the products of the data with the first layer's weights computed once, BatchNorm
            folded into the layers before it, channels last. "approximate": that with fewer bits, see `precision`.
        implementation: Of the rounding tier: "program", "threads" (one group of points per thread), "vmap" (torch.func),
            "loop"; "auto" tries them on a few points, drops those whose values differ from the plain loop's, and takes
            the fastest; `choice` tells which and why, as do the results.
        precision: Of the approximate tier, which needs one: "bf16" (autocast) or "tf32" (on CUDA). Its results have
            `metadata["error_probe"]`: the largest errors at up to 16 points, against the model's own precision.
        memory_budget: Bytes that the data, or the activations of "recalibrate", may take where the model is; default:
            half of what is free. Streamed data (of a DataLoader, say) must be the same in every pass, which is checked.

    Raises:
        TypeError, ValueError: Empty data, a model on several devices, an unknown name, a loss that is NaN at the
            model's own weights.
        torch.OutOfMemoryError: A batch does not fit into the device's memory.

    Example:
        >>> import torch, thalweg as tw
        >>> model, x = torch.nn.Linear(3, 2), torch.randn(20, 3)
        >>> ev = tw.landscape.Evaluator(model, "cross_entropy", (x, torch.zeros(20, dtype=torch.long)))
        >>> surface = ev.grid(tw.landscape.random_directions(model), x=(-1, 1, 5), y=(-1, 1, 3))
        >>> surface.values["loss"].shape
        (3, 5)

    References:
        Li et al.: Visualizing the loss landscape of neural nets, arXiv 1712.09913.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFn,
        data: Any,
        metrics: Sequence[str | tuple[str, Metric] | Metric] = ("loss",),
        batch_size: int | str | None = None,
        bn: str = "interpolate",
        train_mode: bool = False,
        tier: str = "exact",
        implementation: str = "auto",
        precision: str | None = None,
        memory_budget: int | None = None,
    ) -> None:
        self.model = model
        params = _weights.parameters("Evaluator", model)
        check_buffers("Evaluator", model)
        _check.instance("Evaluator", "train_mode", train_mode, bool, "True or False")
        self._evaluation = Evaluation(
            model, params, Measure(loss_fn, metrics, params), _check.choice("Evaluator", "bn", bn, BN_MODES), train_mode,
            is_on_device(next(iter(params.values()))), _check.choice("Evaluator", "tier", tier, TIERS),
            _check.choice("Evaluator", "implementation", implementation, IMPLEMENTATIONS),
            check_precision(tier, precision, next(iter(params.values())).device),
        )  # fmt: skip
        self._evaluation.read(data, batch_size, memory_budget)
        self._keeper = Keeper(self._evaluation, self._evaluation.center())

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the values at a point."""
        return self._evaluation.measure.names

    @property
    def choice(self) -> Choice | None:
        """Which implementation the last run had, why, and how long a point was expected to take; before the first run
        what the point at the model's own weights has shown. `print(ev.choice, ev.choice.predicted(2601))`.
        """
        return self._evaluation.choice

    @property
    def count(self) -> int:
        """Samples in the data."""
        return self._evaluation.samples

    def at(self, state: nn.Module | Mapping[str, Tensor] | None = None) -> dict[str, float]:
        """Values at the model's own weights, or at those of another module or state_dict (buffers included)."""

        def start(saved: Saved) -> _walk.Move:
            if state is not None:
                _walk.onto(self.model, state, self._evaluation.still)
            return _walk.Move()

        return self._evaluation.run(start, np.empty((1, 0)), How()).first()

    def points(
        self,
        directions: Directions,
        coordinates: Any,
        progress: bool = False,
        resume: Path | None = None,
        share: Any = False,
    ) -> Points:
        """Values at any coordinates, in the order given.

        Args:
            directions: One to four directions.
            coordinates: [points, len(directions)], finite.
            progress: Show a progress bar when standard error is a terminal.
            resume: As of `grid`.
            share: As of `grid`.

        Raises:
            ValueError: The coordinates do not fit the directions, or these do not fit the model.
        """
        _check.instance("Evaluator.points", "directions", directions, Directions, "Directions")
        coords = np.atleast_2d(np.asarray(coordinates, dtype=np.float64))
        if coords.ndim != 2 or coords.shape[1] != len(directions) or not len(coords):
            raise ValueError(
                f"Evaluator.points: coordinates must have shape (points, {len(directions)}) for {len(directions)} "
                f"direction(s), got shape {np.shape(coordinates)}"
            )
        if not np.isfinite(coords).all():
            raise ValueError("Evaluator.points: coordinates must be finite")
        started = time.perf_counter()
        keeping = Keeping("Evaluator.points", resume, share)
        run = self._in_plane(directions, coords, How("points", progress), keeping)
        return Points(coords, run.values, run.told, timings(started, len(coords)))

    def _in_plane(self, directions: Directions, coords: Array, how: How, keeping: Keeping) -> Run:
        params = self._evaluation.params

        def start(saved: Saved) -> _walk.Move:
            move = _walk.in_plane(params, saved, directions)
            warn_of_unmoved(params, move, coords)
            return move

        return self._keeper.run(start, coords, how, keeping, directions=directions)

    grid, volume = grid, volume

    def line(
        self,
        direction: Directions | tuple[Any, Any],
        alphas: Axis = (-0.5, 1.5, 41),
        progress: bool = True,
        resume: Path | None = None,
        share: Any = False,
    ) -> Line:
        """Values along one direction, or on the straight line from model a (0) to model b (1), exact at both.

        Args:
            direction: Directions (the first one is used), or a pair of modules or state_dicts of this architecture.
                Between models, floating-point buffers such as BatchNorm statistics are interpolated too.
            alphas: (first, last, number).
            progress: Show a progress bar when standard error is a terminal.
            resume: As of `grid`.
            share: As of `grid`.

        Returns:
            A Line.

        Raises:
            ValueError: The models do not fit, or the axis is empty or not finite.
        """
        ts = axis("Evaluator.line", "alphas", alphas)
        pair = isinstance(direction, tuple) and len(direction) == 2
        if not pair and not isinstance(direction, Directions):
            raise TypeError(
                f"Evaluator.line: direction must be Directions or a pair of models, got {_check.describe(direction)}"
            )
        started = time.perf_counter()
        how, keeping = How("line", progress), Keeping("Evaluator.line", resume, share)
        if isinstance(direction, Directions):
            run = self._in_plane(direction[:1], ts[:, None], how, keeping)
        else:
            run = self._between(direction, ts, how, keeping)
        return Line(ts, run.values, run.told, timings(started, len(ts)))

    def _between(self, ends: tuple[Any, Any], ts: Array, how: How, keeping: Keeping) -> Run:
        def start(saved: Saved) -> _walk.Move:
            return _walk.between(self.model, ends, self._evaluation.still)

        return self._keeper.run(start, ts[:, None], how, keeping, ends=ends)

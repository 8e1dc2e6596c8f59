"""The evaluator: loss and metrics of a model at many points of weight space, exactly as plain torch computes them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from tqdm.auto import tqdm

from .. import _check, _core
from .._preserve import random_state, unwrap
from . import _weights
from ._loss import LossFn, Measure, Metric, check_center
from ._points import Batch, axis, dense, dense_targets, read_batches
from .directions import Directions
from .result import Line, Points, Surface

Axis = tuple[float, float, int]
BN_MODES = ("frozen", "recalibrate", "batch")


class Evaluator:
    r"""Evaluate :math:`L(\theta)` at :math:`\theta(\alpha, \beta) = (w + \alpha d_1) + \beta d_2`.

    Every value is what fifteen lines of plain torch give with the same batches and threads, bit for bit: the model is
    in eval mode, each batch's loss is the criterion's own value, the mean over batches is weighted by their samples in
    float64. The order of the points does not matter. Whatever happens, the model (parameters, buffers, gradients,
    modes) and the random generators are as before afterwards.

    Args:
        model: Any `nn.Module` on the CPU; tied weights count once.
        loss_fn: A loss module, a function of `torch.nn.functional` or a name ("cross_entropy", "mse", "l1", "nll",
            "bce_with_logits"): then the loss is `criterion(model(inputs), targets)`. Any other callable is
            `loss_fn(model, (inputs, targets))` and returns the batch mean, or one value per sample.
        data: (inputs, targets) tensors, a data set, or an iterable of such batches, read once and kept.
        metrics: "loss", "accuracy", callables `metric(output, targets)` (batch mean, or one value per sample), or pairs
            (name, callable); all from one forward pass.
        batch_size: Samples per batch; default: as many as keep the widest layer's activations within 2 MiB, a rule
            without timing, so two runs use the same. "tune" times a few sizes and takes the fastest. Batches that an
            iterable brings are kept as they are.
        bn: BatchNorm: "frozen" statistics as they are (lines between models interpolate them); "recalibrate" computes
            them anew over the data at every point; "batch" uses each batch's own.

    Raises:
        TypeError, ValueError: Empty data, a model that is not on the CPU, an unknown name, a loss that is NaN at the
            model's own weights.

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
        bn: str = "frozen",
    ) -> None:
        self.model = model
        self._params = _weights.parameters("Evaluator", model)
        self._measure = Measure(loss_fn, metrics)
        self._bn = _check.choice("Evaluator", "bn", bn, BN_MODES)
        tune = batch_size == "tune"
        size = None if tune or batch_size is None else _check.integer("Evaluator", "batch_size", batch_size, 1)
        self._batches = read_batches(model, self._params, data, size, self._seconds if tune else None)
        self.count = sum(n for _, _, n in self._batches)
        with random_state():
            check_center(self.at())

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the values at a point."""
        return tuple(self._measure.names)

    # ---- points -------------------------------------------------------------------------------------------

    def _here(self) -> list[float]:
        """Values at the weights that the model has now."""
        if self._bn == "recalibrate":
            from ..ensemble import reestimate_bn

            reestimate_bn(self.model, ((x, t) for x, t, _ in self._batches))
        totals = [0.0] * len(self._measure.names)
        for inputs, targets, n in self._batches:
            for i, value in enumerate(self._measure.batch(self.model, inputs, targets, n)):
                totals[i] += value
        return [self._measure.mean(name, total, self.count) for name, total in zip(self.metrics, totals, strict=True)]

    def _seconds(self, batches: list[Batch]) -> float:
        """Time of one pass over these batches."""
        self._batches, self.count = batches, sum(n for _, _, n in batches)
        started = time.perf_counter()
        self.at()
        return time.perf_counter() - started

    def _evaluation_mode(self) -> None:
        self.model.eval()
        if self._bn == "batch":
            for module in unwrap(self.model).modules():
                if isinstance(module, _BatchNorm):
                    module.training = True

    def at(self, state: nn.Module | Mapping[str, Tensor] | None = None) -> dict[str, float]:
        """Values at the model's own weights, or at those of another module or state_dict (buffers included)."""
        with _weights.untouched(self.model, self._params), torch.inference_mode():
            self._evaluation_mode()
            if state is not None:
                target = _weights.state_of("Evaluator.at", self.model)
                source = _weights.state_of("Evaluator.at", state)
                for name, value in zip(target, _weights.pick("Evaluator.at", target, source), strict=True):
                    target[name].copy_(value)
            return dict(zip(self.metrics, self._here(), strict=True))

    def _run(
        self, moves: Iterable[Callable[[], None]], total: int, what: str, progress: bool
    ) -> npt.NDArray[np.float64]:
        """Values [point, metric] after each move."""
        values = np.empty((total, len(self.metrics)))
        bar = tqdm(moves, total=total, desc=what, unit="point", leave=False, disable=None if progress else True)
        with torch.inference_mode():
            for i, move in enumerate(bar):
                move()
                values[i] = self._here()
        return values

    def points(self, directions: Directions, coordinates: Any, progress: bool = False) -> Points:
        """Values at any coordinates, in the order given.

        Args:
            directions: One or two directions.
            coordinates: [points, len(directions)], finite.
            progress: Show a progress bar when standard error is a terminal.
        """
        coords = np.atleast_2d(np.asarray(coordinates, dtype=np.float64))
        if not 1 <= len(directions) <= 2 or coords.ndim != 2 or coords.shape[1] != len(directions) or not len(coords):
            raise ValueError(
                f"Evaluator.points: coordinates must have shape (points, {len(directions)}) for {len(directions)} "
                f"direction(s), of which one or two are allowed; got shape {np.shape(coordinates)}"
            )
        if not np.isfinite(coords).all():
            raise ValueError("Evaluator.points: coordinates must be finite")
        started = time.perf_counter()
        values = self._perturbed(directions, coords, "points", progress)
        named = {name: values[:, i] for i, name in enumerate(self.metrics)}
        return Points(coords, named, self._metadata(directions), {"seconds": time.perf_counter() - started})

    def _perturbed(
        self, directions: Directions, coords: npt.NDArray[np.float64], what: str, progress: bool
    ) -> npt.NDArray[np.float64]:
        matched = directions.matching("Evaluator", self._params)
        threads = torch.get_num_threads()
        with _weights.untouched(self.model, self._params) as saved:
            self._evaluation_mode()
            params = list(self._params.values())
            origin = saved.weights
            if directions.origin is not None:
                origin = [
                    torch.empty_like(p, requires_grad=False).copy_(o)
                    for p, o in zip(params, directions.origin, strict=True)
                ]
            second = matched[1] if len(matched) > 1 else [None] * len(params)
            targets, strided = dense_targets(params)
            perturbation = _core.Perturbation(targets, [dense(w) for w in origin], matched[0], second)

            def move(a: float, b: float) -> Callable[[], None]:
                def go() -> None:
                    perturbation.perturb(a, b, threads)
                    for param, dense in strided:
                        param.data.copy_(dense)

                return go

            rows = (move(float(c[0]), float(c[1]) if len(c) > 1 else 0.0) for c in coords)
            return self._run(rows, len(coords), what, progress)

    def grid(
        self, directions: Directions, x: Axis = (-1, 1, 51), y: Axis = (-1, 1, 51), progress: bool = True
    ) -> Surface:
        """Values on a grid in the plane of two directions.

        Args:
            directions: Two directions.
            x: (first, last, number) along the first direction: the columns.
            y: (first, last, number) along the second direction: the rows.
            progress: Show a progress bar when standard error is a terminal.

        Returns:
            A Surface; `values[name]` has shape (ny, nx).

        Raises:
            ValueError: Other than two directions, or an axis that is empty or not finite.
        """
        _check.instance("Evaluator.grid", "directions", directions, Directions, "Directions")
        if len(directions) != 2:
            raise ValueError(f"Evaluator.grid: expected two directions, got {len(directions)}; use line() for one")
        xs, ys = axis("Evaluator.grid", "x", x), axis("Evaluator.grid", "y", y)
        coords = np.stack(np.broadcast_arrays(xs[None, :], ys[:, None]), axis=-1).reshape(-1, 2)
        started = time.perf_counter()
        values = self._perturbed(directions, coords, "landscape", progress)
        named = {name: values[:, i].reshape(len(ys), len(xs)) for i, name in enumerate(self.metrics)}
        timings = {"seconds": time.perf_counter() - started}
        return Surface(xs, ys, named, self._metadata(directions), timings, directions, self._origin(directions))

    def line(
        self,
        direction: Directions | tuple[Any, Any],
        alphas: Axis = (-0.5, 1.5, 41),
        progress: bool = True,
    ) -> Line:
        """Values along one direction, or on the straight line from model a (0) to model b (1), exact at both.

        Args:
            direction: Directions (the first one is used), or a pair of modules or state_dicts of this architecture.
                Between models, floating-point buffers such as BatchNorm statistics are interpolated too.
            alphas: (first, last, number).
            progress: Show a progress bar when standard error is a terminal.

        Returns:
            A Line.

        Raises:
            ValueError: The models do not fit, or the axis is empty or not finite.
        """
        ts = axis("Evaluator.line", "alphas", alphas)
        started = time.perf_counter()
        if isinstance(direction, Directions):
            first = Directions(direction.names, direction.vectors[:1], direction.recipe, direction.origin)
            values, metadata = self._perturbed(first, ts[:, None], "line", progress), self._metadata(first)
        elif isinstance(direction, tuple) and len(direction) == 2:
            values = self._between(direction, ts, progress)
            metadata = self._metadata(None)
        else:
            raise TypeError(
                f"Evaluator.line: direction must be Directions or a pair of models, got {_check.describe(direction)}"
            )
        named = {name: values[:, i] for i, name in enumerate(self.metrics)}
        return Line(ts, named, metadata, {"seconds": time.perf_counter() - started})

    def _between(self, ends: tuple[Any, Any], ts: npt.NDArray[np.float64], progress: bool) -> npt.NDArray[np.float64]:
        who = "Evaluator.line"
        target = _weights.state_of(who, self.model)
        a, b = (_weights.pick(who, target, _weights.state_of(who, end)) for end in ends)
        threads = torch.get_num_threads()
        with _weights.untouched(self.model, self._params):
            self._evaluation_mode()
            moving = [i for i, t in enumerate(target.values()) if t.is_floating_point() and t.numel()]
            tensors = list(target.values())
            outs, strided = dense_targets([tensors[i] for i in moving])
            from_a, to_b = ([dense(torch.empty_like(tensors[i]).copy_(s[i])) for i in moving] for s in (a, b))
            with torch.no_grad():
                for i, tensor in enumerate(tensors):
                    if i not in moving:
                        tensor.copy_(a[i])
            lerp = _core.Perturbation(outs, from_a, to_b, [None] * len(moving))

            def move(t: float) -> Callable[[], None]:
                def go() -> None:
                    lerp.lerp(t, threads)
                    for tensor, dense in strided:
                        tensor.copy_(dense)

                return go

            return self._run((move(float(t)) for t in ts), len(ts), "line", progress)

    def _origin(self, directions: Directions) -> tuple[Tensor, ...]:
        if directions.origin is not None:
            return directions.origin
        return tuple(p.detach().clone() for p in self._params.values())

    def _metadata(self, directions: Directions | None) -> dict[str, Any]:
        sizes = sorted({n for _, _, n in self._batches}, reverse=True)
        return {
            "directions": None if directions is None else directions.describe(),
            "weights_hash": _weights.hash_of(dict(self._params)),
            "samples": self.count,
            "batch_sizes": sizes,
            "bn": self._bn,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "thalweg": _core.__version__,
            "tier": "exact",
        }

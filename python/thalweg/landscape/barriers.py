"""Numbers from the evaluator: barriers between models, sharpness of a minimum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn
from tqdm.auto import tqdm

from .. import _check
from ._evaluation import How
from ._keeping import Keeping
from ._loss import HIGHER_IS_BETTER
from .directions import random_directions
from .evaluator import Evaluator

Array = npt.NDArray[np.float64]


@dataclass
class Barriers:
    """Barriers between every pair of models.

    Attributes:
        heights: [models, models], symmetric; 0 on the diagonal.
        curves: [models, models, n] values along the lines from row to column.
        alphas: [n] places on the line, 0 … 1.
        metric: What was evaluated.
    """

    heights: Array
    curves: Array
    alphas: Array
    metric: str


def barriers(
    snapshots: Sequence[nn.Module | Mapping[str, Tensor]],
    ev: Evaluator,
    n: int = 21,
    metric: str = "loss",
    progress: bool = True,
) -> Barriers:
    r"""Barrier between models: :math:`\max_t\, L((1-t)a + tb) - ((1-t)L(a) + tL(b))`, never below 0.

    For "accuracy", "top5", "confidence" and "margin" it is the largest fall below the straight connection. Both ends are the models themselves, to the bit, so a barrier of 0 means that the line does not rise above the
    straight connection of the two losses at the n places that were looked at.

    Args:
        snapshots: Modules or state_dicts of the evaluator's architecture; at least two.
        ev: The evaluator with the data. By default BatchNorm statistics are interpolated along the line; see its `bn`.
        n: Places on each line, ends included; at least 3.
        metric: Which of the evaluator's metrics.
        progress: Show a progress bar when standard error is a terminal.

    Returns:
        Heights and curves.

    Raises:
        ValueError: Fewer than two models, or models that do not fit.

    Example:
        >>> import torch, thalweg as tw
        >>> a, b = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
        >>> ev = tw.landscape.Evaluator(a, "cross_entropy", (torch.randn(8, 3), torch.zeros(8, dtype=torch.long)))
        >>> bool(tw.landscape.barriers([a, b], ev, n=5).heights.max() < 1e-6)  # a linear model is convex
        True

    References:
        Frankle et al.: Linear mode connectivity, arXiv 1912.05671, section 2.
    """
    _check.instance("barriers", "ev", ev, Evaluator, "a landscape.Evaluator")
    n = _check.integer("barriers", "n", n, 3)
    models = list(snapshots)
    if len(models) < 2:
        raise ValueError(f"barriers: expected at least two models, got {len(models)}")
    _check.choice("barriers", "metric", metric, ev.metrics)
    alphas = np.linspace(0.0, 1.0, n)
    sign = -1.0 if metric in HIGHER_IS_BETTER else 1.0
    heights = np.zeros((len(models), len(models)))
    curves = np.zeros((len(models), len(models), n))
    for i, model in enumerate(models):
        curves[i, i] = ev.at(model)[metric]
    pairs = [(i, j) for i in range(len(models)) for j in range(i + 1, len(models))]
    for i, j in tqdm(pairs, desc="barriers", unit="pair", leave=False, disable=None if progress else True):
        inside = ev._between((models[i], models[j]), alphas[1:-1], How(), Keeping("barriers")).values[metric]
        curve = np.concatenate([curves[i, i, :1], inside, curves[j, j, :1]])  # the line is exact at its ends
        excess = sign * (curve - ((1 - alphas) * curve[0] + alphas * curve[-1]))
        excess[0] = excess[-1] = 0.0
        heights[i, j] = heights[j, i] = excess.max()  # NaN stays NaN
        curves[i, j], curves[j, i] = curve, curve[::-1]
    return Barriers(heights, curves, alphas, metric)


@dataclass
class Sharpness:
    """Mean rise of the loss at a given distance, over random directions.

    Attributes:
        mean: Mean of L(w + ρ d) - L(w).
        standard_error: Of that mean, over the directions.
        rises: [n] the single rises.
        rho: Distance in units of the filters' norms.
    """

    mean: float
    standard_error: float
    rises: Array
    rho: float


def sharpness(ev: Evaluator, rho: float = 0.1, n: int = 10, seed: int = 0, metric: str = "loss") -> Sharpness:
    r"""How fast the loss rises around the model: the mean of :math:`L(w + \rho d_i) - L(w)` over filter-normalised d_i.

    Because the directions are normalised filter by filter, rescaling a layer and its successor (which changes no
    output) changes nothing here.

    Args:
        ev: The evaluator with model and data.
        rho: Distance ρ > 0, as a share of each filter's norm.
        n: Number of directions, at least 2; each is used in both signs.
        seed: Key of the directions.
        metric: Which of the evaluator's metrics.

    Returns:
        Mean, standard error and the single rises.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> import torch, thalweg as tw
        >>> model = torch.nn.Linear(3, 2)
        >>> ev = tw.landscape.Evaluator(model, "cross_entropy", (torch.randn(8, 3), torch.zeros(8, dtype=torch.long)))
        >>> tw.landscape.sharpness(ev, rho=0.1, n=4).rises.shape
        (4,)

    References:
        Li et al., arXiv 1712.09913, section 4 (the normalisation).
    """
    _check.instance("sharpness", "ev", ev, Evaluator, "a landscape.Evaluator")
    rho = _check.real("sharpness", "rho", rho, above=0)
    n = _check.integer("sharpness", "n", n, 2)
    _check.choice("sharpness", "metric", metric, ev.metrics)
    center = ev.at()[metric]
    rises = np.empty(n)
    directions = random_directions(ev.model, n, seed=seed)
    for i in range(n):
        rises[i] = ev.points(directions[i : i + 1], [[-rho], [rho]]).values[metric].mean() - center
    return Sharpness(float(rises.mean()), float(rises.std(ddof=1) / np.sqrt(n)), rises, rho)

"""Part (d), second half: a saddle in two parameters, and four learning rates that meet it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from .. import optim, schedules
from ..schedules import Schedule

Array = npt.NDArray[np.float64]

CURVATURE = 25.0  # across the ridge; plain gradient descent is unstable above 2 / CURVATURE
START = (0.6, 0.02)
SMALL, PEAK, STEP_SIZE = 0.002, 0.1, 25
STEPS = 250
LEFT = 0.5  # the plateau counts as left when the loss is below this share of the saddle's
_GONE = 1e6  # loss at which a diverging run is stopped


def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return f(x, y) = 25 x²/2 + (y² - 1)²/4: a saddle at (0, 0) of height 1/4, minima of height 0 at (0, ±1)."""
    return 0.5 * CURVATURE * x * x + 0.25 * (y * y - 1) ** 2


def surface(x: Array, y: Array) -> Array:
    """Return f on a grid, [len(y), len(x)]."""
    return np.asarray(0.5 * CURVATURE * x[None, :] ** 2 + 0.25 * (y[:, None] ** 2 - 1) ** 2)


@dataclass(frozen=True, eq=False)
class Descent:
    """One run.

    Attributes:
        title: What the learning rate does.
        path: [points, 2] x and y before each update and at the end; ends early when it diverges.
        losses: [points] f along the path.
        lrs: [points - 1] the rate of each update.
        left: Updates until the loss fell below half of the saddle's; None if it never did.
        diverged: Whether the loss grew beyond all bounds.
    """

    title: str
    path: Array
    losses: Array
    lrs: Array
    left: int | None
    diverged: bool


def rates() -> dict[str, tuple[str, Schedule]]:
    """Return title and schedule of the four runs."""
    mean = (SMALL + PEAK) / 2
    return {
        "small": (f"constant {SMALL:g}", schedules.constant(SMALL)),
        "cyclical": (f"cyclical, {SMALL:g} to {PEAK:g}", schedules.triangular(SMALL, PEAK, step_size=STEP_SIZE)),
        "mean": (f"constant {mean:g}, the cycle's mean", schedules.constant(mean)),
        "peak": (f"constant {PEAK:g}, the cycle's peak", schedules.constant(PEAK)),
    }


def descend(title: str, lr: Schedule, steps: int = STEPS, f: Callable[..., torch.Tensor] = loss) -> Descent:
    """Follow plain gradient descent (thalweg's SGD without momentum, float64) from the edge of the saddle."""
    point = torch.nn.Parameter(torch.tensor(START, dtype=torch.float64))
    optimizer = optim.SGD([point], lr=lr)
    path, losses, lrs = [point.tolist()], [float(f(*point.detach()))], []
    for _ in range(steps):
        optimizer.zero_grad()
        f(point[0], point[1]).backward()  # type: ignore[no-untyped-call]
        lrs.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        path.append(point.tolist())
        losses.append(float(f(*point.detach())))
        if not losses[-1] < _GONE:
            break
    height = float(f(torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)))
    below = np.flatnonzero(np.asarray(losses) < LEFT * height)
    return Descent(
        title,
        np.asarray(path),
        np.asarray(losses),
        np.asarray(lrs),
        int(below[0]) if len(below) else None,
        not losses[-1] < _GONE,
    )


def run() -> dict[str, Descent]:
    """Run all four."""
    return {name: descend(title, lr) for name, (title, lr) in rates().items()}

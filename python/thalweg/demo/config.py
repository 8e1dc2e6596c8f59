"""Sizes of the demo: one table, fixed, so that what is computed never depends on how fast the machine is."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .. import _check

SETTINGS = ("plain", "noisy")
SETTING_TITLES = {"plain": "plain digits", "noisy": "20% of training labels re-drawn"}
SETTING_NAMES = {"plain": "plain digits", "noisy": "noisy labels"}  # in sentences

DEFAULT_SEEDS = 6
FULL_SEEDS = 10


@dataclass(frozen=True)
class Config:
    """Everything that determines the demo's numbers.

    Attributes:
        seeds: Paired repetitions; seed 0 also gives the pictures.
        train_size: Training images.
        val_size: Validation images; the rest is the test set.
        noise: Share of the training labels that are re-drawn in the noisy setting.
        batch_size: Images a step.
        epochs: Passes over the training images in every run.
        cycles: Snapshots of the cyclical run; divides the number of steps.
        triangles: Cycles of the triangular run.
        momentum: Nesterov momentum of SGD.
        weight_decay: L2 decay of SGD.
        other_weight_decay: With this one the runs behind the ensembles are repeated, to see whether the verdicts hold.
        range_steps: Updates of the range test.
        grid: Points along each side of a landscape.
        barrier_points: Points on the line between two snapshots.
        repeats: Repetitions of a timing.
    """

    seeds: int = DEFAULT_SEEDS
    train_size: int = 600
    val_size: int = 300
    noise: float = 0.2
    batch_size: int = 32
    epochs: int = 48
    cycles: int = 6
    triangles: int = 4
    momentum: float = 0.9
    weight_decay: float = 5e-3
    other_weight_decay: float = 5e-4
    range_steps: int = 200
    grid: int = 41
    barrier_points: int = 17
    repeats: int = 300

    @property
    def steps_per_epoch(self) -> int:
        """Updates in one pass; images that do not fill a batch wait for another pass."""
        return self.train_size // self.batch_size

    @property
    def steps(self) -> int:
        """Updates of every run: the one budget."""
        return self.epochs * self.steps_per_epoch

    @property
    def cycle_steps(self) -> int:
        """Updates between two snapshots."""
        return self.steps // self.cycles


def config(budget: str = "default", seeds: int | None = None) -> Config:
    """Return the sizes for "default", "full" (more seeds) or "smoke" (a few seconds, for tests)."""
    _check.choice("demo", "budget", budget, ("default", "full", "smoke"))
    sizes = {
        "default": Config(),
        "full": Config(seeds=FULL_SEEDS),
        "smoke": Config(
            seeds=2, train_size=200, val_size=200, epochs=12, cycles=3, triangles=1, grid=7, barrier_points=3, repeats=5
        ),
    }[budget]
    return sizes if seeds is None else replace(sizes, seeds=_check.integer("demo", "seeds", seeds, 1, 100))

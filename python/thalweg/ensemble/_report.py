"""EnsembleReport: an ensemble, its members and their diversity measured on test data. Draws nothing itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from ._evaluate import Predictions, predict
from ._metrics import Diversity, DiversitySums, PerSample

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ._module import Ensemble


@dataclass(frozen=True)
class RegressionMetrics:
    """How good predicted numbers are: means over samples and outputs.

    Attributes:
        mse: Mean squared error.
        mae: Mean absolute error.
        n: Samples.
    """

    mse: float
    mae: float
    n: int

    def to_dict(self) -> dict[str, float]:
        """Return the values by name."""
        return asdict(self)


@dataclass(frozen=True)
class EnsembleReport:
    """What an ensemble is worth on test data.

    Attributes:
        ensemble: Metrics of the ensemble, with its weights and temperature.
        members: Metrics of each member alone, oldest first.
        last_m: Metrics of the equally weighted last 1, 2, … m members, without temperature.
        diversity: Correlation and disagreement matrices; None for regression.
        weights: [m] weights of the members.
        temperature: Temperature of the ensemble.
        steps: [m] optimizer step of each member.
    """

    ensemble: Any
    members: tuple[Any, ...]
    last_m: tuple[Any, ...]
    diversity: Diversity | None
    weights: tuple[float, ...]
    temperature: float
    steps: tuple[int, ...]

    @property
    def correlation(self) -> torch.Tensor:
        """Pearson correlation of the members' probabilities, [m, m]."""
        return self._diversity.correlation

    @property
    def disagreement(self) -> torch.Tensor:
        """Share of samples on which two members predict different classes, [m, m]."""
        return self._diversity.disagreement

    @property
    def _diversity(self) -> Diversity:
        if self.diversity is None:
            raise ValueError("EnsembleReport: a regression ensemble has no classes to agree on")
        return self.diversity

    def to_dict(self) -> dict[str, Any]:
        """Return everything in JSON's types."""
        return {
            "ensemble": self.ensemble.to_dict(),
            "members": [member.to_dict() for member in self.members],
            "last_m": [point.to_dict() for point in self.last_m],
            **({} if self.diversity is None else self.diversity.to_dict()),
            "weights": list(self.weights),
            "temperature": self.temperature,
            "steps": list(self.steps),
        }

    def __str__(self) -> str:
        names = [name for name in self.ensemble.to_dict() if name != "n"]
        head = f"{'':>24}" + "".join(f"{name:>10}" for name in names)
        rows = [(f"ensemble of {len(self.members)}", self.ensemble)]
        rows += [(f"last {m}, equal weights", point) for m, point in enumerate(self.last_m, 1)]
        rows += [
            (f"step {step}, weight {weight:.3f}", member)
            for step, weight, member in zip(self.steps, self.weights, self.members, strict=True)
        ]
        lines = [f"{label:>24}" + "".join(f"{getattr(row, name):>10.4f}" for name in names) for label, row in rows]
        return "\n".join([head, *lines])

    def plot(self, figure: Figure | None = None) -> list[Axes]:
        """Draw the last-m curve, the members and both diversity matrices; see `thalweg.plot.ensemble`."""
        from ..plot import ensemble

        return ensemble.overview(self, figure)


def make_report(ensemble: Ensemble, data: Any) -> EnsembleReport:
    """Measure `ensemble` on `data`."""
    predictions = predict("report", ensemble, data)
    m = ensemble.m
    lasts = [[0.0] * (m - k) + [1.0 / k] * k for k in range(1, m + 1)]
    measure = _regression if ensemble.combine == "mean" else _classification
    rows, found = measure(ensemble, predictions, lasts)
    return EnsembleReport(
        rows[0],
        tuple(rows[1 : 1 + m]),
        tuple(rows[1 + m :]),
        found,
        tuple(ensemble.weights.tolist()),
        ensemble.temperature,
        tuple(ensemble.steps),
    )


def _classification(
    ensemble: Ensemble, predictions: Predictions, lasts: list[list[float]]
) -> tuple[list[Any], Diversity | None]:
    m = ensemble.m
    rows: list[list[PerSample]] = [[] for _ in range(1 + 2 * m)]
    sums = DiversitySums(m)
    for log_p, y in predictions.chunks(ensemble):
        p = log_p.exp()
        sums.add(p)
        log_rows = [
            ensemble.combined(log_p),
            *log_p,
            *(ensemble.combined(log_p, w, temperature=1.0) for w in lasts),
        ]
        for row, log_row in zip(rows, log_rows, strict=True):
            row.append(PerSample.of(log_row.exp(), y, log_row))
    return [PerSample.joined(row).metrics() for row in rows], sums.result()


def _regression(
    ensemble: Ensemble, predictions: Predictions, lasts: list[list[float]]
) -> tuple[list[Any], Diversity | None]:
    outputs = predictions.outputs.to(torch.float64)

    def measure(prediction: torch.Tensor) -> RegressionMetrics:
        error = prediction - predictions.targets
        return RegressionMetrics(error.square().mean().item(), error.abs().mean().item(), predictions.n)

    last_m = [measure(ensemble.mean(outputs, weights)) for weights in lasts]
    return [measure(ensemble.mean(outputs)), *(measure(output) for output in outputs), *last_m], None

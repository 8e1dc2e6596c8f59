"""Error, NLL, Brier score, calibration, and how much members differ. float64; knows no model and no data loader."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch

ECE_BINS = 15


@dataclass(frozen=True)
class Metrics:
    """How good predicted probabilities are.

    Attributes:
        error: Share of samples whose most probable class is wrong, in [0, 1].
        nll: Mean negative log-likelihood of the true class, in nats.
        brier: Mean squared distance between the probabilities and the one-hot truth, in [0, 2].
        ece: Expected calibration error over 15 bins of equal width, in [0, 1].
        n: Samples.
    """

    error: float
    nll: float
    brier: float
    ece: float
    n: int

    def to_dict(self) -> dict[str, float]:
        """Return the values by name."""
        return asdict(self)


@dataclass(frozen=True)
class Diversity:
    """How much members differ on the same samples.

    Attributes:
        correlation: [m, m] Pearson correlation of the members' probabilities, over samples and classes.
        disagreement: [m, m] share of samples on which two members predict different classes.
    """

    correlation: torch.Tensor
    disagreement: torch.Tensor

    def to_dict(self) -> dict[str, Any]:
        """Return both matrices as nested lists; undefined correlations are None."""
        return {
            "correlation": [[None if math.isnan(v) else v for v in row] for row in self.correlation.tolist()],
            "disagreement": self.disagreement.tolist(),
        }


def metrics(probabilities: Any, targets: Any) -> Metrics:
    r"""Measure probabilities against the truth.

    With p_n the probabilities of sample n and y_n its class: NLL = −mean ln p_n(y_n); Brier = mean Σ_c
    (p_n(c) − [c = y_n])²; ECE = Σ_b |B_b|/N · |accuracy(B_b) − confidence(B_b)| over bins (k/15, (k+1)/15] of
    the largest probability.

    Args:
        probabilities: [n, classes], rows sum to 1; tensor or array.
        targets: [n] class numbers; tensor or array.

    Returns:
        `Metrics`; the NLL is infinite when a true class has probability 0.

    Raises:
        ValueError: Wrong shapes, no samples, class numbers out of range, or rows that are no probabilities
            (logits, for instance).

    Example:
        >>> import torch
        >>> from thalweg.ensemble import metrics
        >>> metrics(torch.tensor([[0.8, 0.2], [0.4, 0.6]]), torch.tensor([0, 0])).error
        0.5

    References:
        Guo et al., "On Calibration of Modern Neural Networks", 2017, arXiv:1706.04599, eq. 3 (ECE).
        Brier, "Verification of forecasts expressed in terms of probability", 1950.
    """
    p, y = _checked("metrics", probabilities, targets)
    return PerSample.of(p, y).metrics()


def diversity(probabilities: Any) -> Diversity:
    """Compare the members of an ensemble pairwise.

    Args:
        probabilities: [m, n, classes]; tensor or array.

    Returns:
        `Diversity`; the correlation with a member whose output is constant is NaN.

    Raises:
        ValueError: Not three axes, or no samples.

    Example:
        >>> import torch
        >>> from thalweg.ensemble import diversity
        >>> p = torch.tensor([[[0.9, 0.1], [0.2, 0.8]], [[0.8, 0.2], [0.6, 0.4]]])
        >>> diversity(p).disagreement
        tensor([[0.0000, 0.5000],
                [0.5000, 0.0000]], dtype=torch.float64)
    """
    p = torch.as_tensor(probabilities).detach().to("cpu", torch.float64)
    if p.ndim != 3 or not p.numel():
        raise ValueError(f"diversity: probabilities must have shape [m, n, classes], got {list(p.shape)}")
    sums = DiversitySums(len(p))
    sums.add(p)
    return sums.result()


class DiversitySums:
    """Sums over samples from which both matrices follow, so that the samples may come in chunks."""

    def __init__(self, m: int) -> None:
        self._gram = torch.zeros(m, m, dtype=torch.float64)
        self._sum = torch.zeros(m, dtype=torch.float64)
        self._differ = torch.zeros(m, m, dtype=torch.float64)
        self._values = self._samples = 0

    def add(self, p: torch.Tensor) -> None:
        """Add samples, [m, n, classes] in float64."""
        flat = p.flatten(1) - 1.0 / p.shape[2]  # every row of classes sums to 1, so this is near the mean already
        self._gram += flat @ flat.T
        self._sum += flat.sum(1)
        best = p.argmax(2)
        for i in range(len(p)):
            self._differ[i] += (best[i] != best).sum(1)
        self._values += flat.shape[1]
        self._samples += p.shape[1]

    def result(self) -> Diversity:
        """Return the matrices over all samples added."""
        covariance = self._gram - torch.outer(self._sum, self._sum) / self._values
        deviation = covariance.diagonal().clamp(min=0).sqrt()
        correlation = (covariance / torch.outer(deviation, deviation)).clamp(-1, 1)
        correlation = (correlation + correlation.T) / 2  # the product's rounding is not symmetric
        correlation.fill_diagonal_(1.0)
        constant = deviation <= 1e-12 * math.sqrt(self._values)
        correlation[constant, :] = math.nan
        correlation[:, constant] = math.nan
        return Diversity(correlation, self._differ / self._samples)


@dataclass
class PerSample:
    """What each sample contributes; the parts of several chunks can be joined. All [n], float64."""

    nll: torch.Tensor
    brier: torch.Tensor
    confidence: torch.Tensor
    correct: torch.Tensor

    @staticmethod
    def of(p: torch.Tensor, y: torch.Tensor, log_p: torch.Tensor | None = None) -> PerSample:
        """Measure `p` [n, classes] (float64) against `y` [n]; `log_p` where it is known better than log(p)."""
        true = p.gather(1, y[:, None])[:, 0]
        nll = -(true.log() if log_p is None else log_p.gather(1, y[:, None])[:, 0])
        brier = p.square().sum(1) - 2 * true + 1
        confidence, best = p.max(1)
        return PerSample(nll, brier, confidence, (best == y).to(torch.float64))

    @staticmethod
    def joined(parts: list[PerSample]) -> PerSample:
        """Join chunks."""
        columns = zip(*((s.nll, s.brier, s.confidence, s.correct) for s in parts), strict=True)
        return PerSample(*(torch.cat(column) for column in columns))

    def metrics(self) -> Metrics:
        """Return the means over the samples, and the calibration error."""
        n = len(self.nll)
        bins = (self.confidence * ECE_BINS).ceil().long().clamp(1, ECE_BINS) - 1
        gaps = torch.zeros(ECE_BINS, dtype=torch.float64).index_add_(0, bins, self.correct - self.confidence)
        return Metrics(
            error=1.0 - self.correct.mean().item(),
            nll=self.nll.mean().item(),
            brier=self.brier.mean().item(),
            ece=gaps.abs().sum().item() / n,
            n=n,
        )


def check_targets(who: str, targets: torch.Tensor, n: int, classes: int) -> torch.Tensor:
    """Return `targets` as [n] int64 class numbers below `classes`, on the CPU."""
    y = targets.detach().cpu()
    if y.ndim != 1 or len(y) != n:
        raise ValueError(
            f"{who}: targets must have shape [{n}], got {list(y.shape)}; give class numbers, not one-hot rows"
        )
    if y.is_floating_point():
        if not torch.equal(y, y.round()):
            raise ValueError(f"{who}: targets must be class numbers, got fractions")
    elif y.is_complex():
        raise TypeError(f"{who}: targets must be class numbers, got {y.dtype}")
    y = y.long()
    if n and not 0 <= int(y.min()) <= int(y.max()) < classes:
        raise ValueError(
            f"{who}: targets must be class numbers in [0, {classes}), got values from {int(y.min())} to {int(y.max())}"
        )
    return y


def _checked(who: str, probabilities: Any, targets: Any) -> tuple[torch.Tensor, torch.Tensor]:
    p = torch.as_tensor(probabilities).detach().cpu()
    loose = 1e-2 if p.dtype in (torch.float16, torch.bfloat16) else 1e-4
    p = p.to(torch.float64)
    if p.ndim != 2 or not p.numel():
        raise ValueError(f"{who}: probabilities must have shape [n, classes] with n >= 1, got {list(p.shape)}")
    if bool((p < 0).any()) or not bool(((p.sum(1) - 1).abs() <= loose).all()):
        raise ValueError(f"{who}: rows of probabilities must be >= 0 and sum to 1; apply softmax to logits first")
    return p, check_targets(who, torch.as_tensor(targets), len(p), p.shape[1])

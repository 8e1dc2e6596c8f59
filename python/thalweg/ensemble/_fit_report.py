"""FitReport: what was chosen for an ensemble, and why. Fits nothing itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class FitReport:
    """What was fitted, and why.

    Attributes:
        fit: "equal", "last-m" or "weights".
        why: The reason in words.
        m: Members used.
        steps: [m] their optimizer steps.
        weights: [m] their weights.
        temperature: Temperature.
        loss: "nll" or, for regression, "mse"; what `candidates` holds.
        candidates: Cross-validated loss and its standard error of each way that was tried.
        dropped: Optimizer step of each member left out -> reason.
        n: Validation samples; 0 without data.
    """

    fit: str
    why: str
    m: int
    steps: tuple[int, ...]
    weights: tuple[float, ...]
    temperature: float
    loss: str = "nll"
    candidates: dict[str, dict[str, float]] = field(default_factory=dict)
    dropped: dict[int, str] = field(default_factory=dict)
    n: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return everything in JSON's types."""
        return {**asdict(self), "dropped": {str(step): reason for step, reason in self.dropped.items()}}

    def __str__(self) -> str:
        lines = [f"{self.fit}: {self.m} members, temperature {self.temperature:.3f} ({self.why})"]
        lines += [f"  step {s}: weight {w:.3f}" for s, w in zip(self.steps, self.weights, strict=True)]
        lines += [f"  step {step}: left out, {reason}" for step, reason in self.dropped.items()]
        lines += [f"  {name}: {self.loss} {c['loss']:.4f} ± {c['se']:.4f}" for name, c in self.candidates.items()]
        return "\n".join(lines)

"""The two convex fits of an ensemble: mixture weights on the simplex, and a temperature. float64; knows no model."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

T_MIN, T_MAX = 0.05, 20.0  # a temperature at a bound means that the data do not determine it
_FLOOR = -745.0  # ln of the smallest double: stands for ln 0 where 0 * ln 0 must be 0


@dataclass(frozen=True)
class WeightFit:
    """Fitted mixture weights.

    Attributes:
        weights: [m], sum 1.
        nll: Mean negative log-likelihood at `weights`, nats.
        gap: Bound on how far the objective is above its minimum (Karush-Kuhn-Tucker gap).
        history: Objective after every accepted step; never rises.
    """

    weights: torch.Tensor
    nll: float
    gap: float
    history: list[float] = field(repr=False)


def fit_weights(
    log_true: torch.Tensor, prior: float = 0.0, tolerance: float = 1e-8, max_iterations: int = 1000
) -> WeightFit:
    r"""Find the mixture weights of least negative log-likelihood, F(w) = −mean_n ln Σᵢ wᵢ pᵢ(y_n) − (a/N) Σᵢ ln wᵢ.

    F is convex on the simplex. Each round does the multiplicative (EM) update wᵢ ← wᵢ·mean_n[pᵢ(y_n)/Σⱼ wⱼ
    pⱼ(y_n)], which never raises F but crawls where members are alike, and then tries a Newton step (a
    quadratic model minimised over w >= 0), which is kept only if it lowers F. It ends when max_i (gᵢ + a/(N
    wᵢ))/(1 + ma/N) − 1 <= tolerance, gᵢ being the mean in the update; for a = 0 that number bounds F(w) − min
    F.

    Args:
        log_true: [m, n] ln pᵢ(y_n), log-probability of the true class by each member.
        prior: a >= 0, pseudo-observations per member (Dirichlet); pulls the weights towards equal ones.
        tolerance: Largest gap, nats.
        max_iterations: Rounds at most.

    Returns:
        `WeightFit`.

    Example:
        >>> import torch
        >>> from thalweg.ensemble import fit_weights
        >>> log_true = torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=torch.float64).log()  # each knows one sample
        >>> fit_weights(log_true).weights.tolist()
        [0.5, 0.5]

    References:
        Kim et al., "A fast algorithm for maximum likelihood estimation of mixture proportions using
        sequential quadratic programming", 2020, arXiv:1806.01412 (the Newton step).
    """
    m, n = log_true.shape
    top = log_true.amax(0).clamp(min=_FLOOR)  # scaling a sample's column changes no weight
    p = (log_true - top).exp()
    p[:, ~log_true.isfinite().any(0)] = 1.0  # no member gives the truth a chance: the sample says nothing
    problem = _Problem(p, prior / n)
    w = torch.full((m,), 1.0 / m, dtype=torch.float64)
    history = [problem.value(w)]
    gap = problem.gap(w)
    for _ in range(max_iterations):
        if gap <= tolerance:
            break
        w = problem.em(w)
        w = problem.newton(w)
        value = problem.value(w)
        stuck = value >= history[-1]
        history.append(min(value, history[-1]))
        gap = problem.gap(w)
        if stuck:  # rounding is all that moves
            break
    nll = -(log_true + w.log()[:, None]).logsumexp(0).mean().item()
    return WeightFit(w, nll, gap, history)


class _Problem:
    """F for fixed p [m, n] and a/N."""

    def __init__(self, p: torch.Tensor, strength: float) -> None:
        self.p, self.strength = p, strength
        self.total = 1.0 + len(p) * strength

    def value(self, w: torch.Tensor) -> float:
        prior = self.strength * w.log().sum().item() if self.strength else 0.0
        return -(w @ self.p).log().mean().item() - prior

    def ratios(self, w: torch.Tensor) -> torch.Tensor:
        return self.p / (w @ self.p)

    def slope(self, w: torch.Tensor, ratios: torch.Tensor) -> torch.Tensor:
        return ratios.mean(1) + (self.strength / w if self.strength else 0.0)

    def gap(self, w: torch.Tensor) -> float:
        return self.slope(w, self.ratios(w)).max().item() / self.total - 1.0

    def em(self, w: torch.Tensor) -> torch.Tensor:
        updated = w * self.slope(w, self.ratios(w)) / self.total
        return updated / updated.sum()

    def newton(self, w: torch.Tensor) -> torch.Tensor:
        """Minimise the quadratic model over w >= 0 and go as far towards it as F falls; scaling restores the sum."""
        ratios = self.ratios(w)
        slope = self.slope(w, ratios)
        hessian = ratios @ ratios.T / ratios.shape[1]
        if self.strength:
            hessian = hessian + torch.diag(self.strength / w.square())
        target = _nonnegative(hessian, 2.0 * slope - self.total)
        if target is None or target.sum() <= 0:
            return w
        before = self.value(w)
        step = 1.0
        for _ in range(12):
            trial = (w + step * (target - w)).clamp(min=0.0)
            trial = trial / trial.sum()
            if self.value(trial) < before:
                return trial
            step /= 2
        return w


def _nonnegative(h: torch.Tensor, c: torch.Tensor) -> torch.Tensor | None:
    """Minimise ½xᵀhx − cᵀx over x >= 0 by Lawson and Hanson's active sets; None if rounding spoils it."""
    m = len(c)
    h = h + torch.eye(m, dtype=h.dtype) * (1e-12 * h.diagonal().mean())  # members may be equal
    x = torch.zeros(m, dtype=h.dtype)
    free = torch.zeros(m, dtype=torch.bool)
    for _ in range(3 * m):
        pull = torch.where(free, -math.inf, c - h @ x)
        if pull.max() <= 1e-12 * c.abs().max():
            return x
        free[pull.argmax()] = True
        while True:
            index = free.nonzero()[:, 0]
            solution = torch.zeros_like(x)
            solution[index] = torch.linalg.solve(h[index][:, index], c[index])
            if not solution.isfinite().all():
                return None
            if (solution[index] > 0).all():
                break
            blocked = free & (solution <= 0)
            share = (x[blocked] / (x[blocked] - solution[blocked])).min()
            x = x + share * (solution - x)
            free &= x > 1e-15
            if not free.any():
                return None
        x = solution
    return x


def fit_temperature(log_p: torch.Tensor, targets: torch.Tensor) -> float:
    r"""Find T of least NLL for p_T ∝ p^{1/T}.

    The NLL is convex in β = 1/T: its derivative is mean_n[E_{p_β} ln p − ln p(y_n)] and its curvature the
    variance of ln p under p_β. Newton's method inside a bracket.

    Args:
        log_p: [n, classes] ln p.
        targets: [n] class numbers.

    Returns:
        T in [0.05, 20]; a bound means that the data do not determine it (all samples right, for instance).

    Example:
        >>> import torch
        >>> from thalweg.ensemble import fit_temperature
        >>> log_p = torch.tensor([[0.9, 0.1]] * 4, dtype=torch.float64).log()  # says 90 %, is right in 3 of 4
        >>> temperature = fit_temperature(log_p, torch.tensor([0, 0, 0, 1]))
        >>> round((log_p[0] / temperature).softmax(0)[0].item(), 6)
        0.75

    References:
        Guo et al., "On Calibration of Modern Neural Networks", 2017, arXiv:1706.04599, section 4.2.
    """
    log_p = log_p.clamp(min=_FLOOR)
    truth = log_p.gather(1, targets[:, None])[:, 0].mean().item()
    low, high, beta = 1.0 / T_MAX, 1.0 / T_MIN, 1.0
    for _ in range(100):
        p = (beta * log_p).softmax(1)
        mean = (p * log_p).sum(1)
        slope = mean.mean().item() - truth
        curvature = ((p * log_p.square()).sum(1) - mean.square()).mean().item()
        low, high = (low, beta) if slope > 0 else (beta, high)
        after = beta - slope / curvature if curvature > 0 else math.nan
        if not low < after < high:
            after = math.sqrt(low * high)
        if abs(after - beta) <= 1e-12 * beta or high - low <= 1e-12 * high:
            break
        beta = after
    return 1.0 / beta

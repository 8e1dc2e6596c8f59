"""Choose members, weights and temperature of an ensemble on validation data, and say why. Knows no optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from .. import _check
from ._evaluate import Predictions, predict
from ._fit_report import FitReport
from ._module import Combine, Ensemble, Outputs
from ._snapshot import Snapshot
from ._weights import fit_temperature, fit_weights

_WHO = "ensemble"
_FOLDS = 5
_FEW = 10  # validation samples below which cross-validation decides nothing
_NEGLIGIBLE = 1e-6  # a member of smaller weight costs a forward pass and changes nothing


@dataclass(frozen=True)
class Request:
    """What the user asked `SnapshotCollector.ensemble` for; see there."""

    fit: str
    m: int | None
    temperature: float | str
    prior: float
    combine: Combine
    outputs: Outputs
    extract: Callable[[Any], torch.Tensor] | None

    def check(self, has_data: bool) -> None:
        """Raise on arguments that are wrong or do not go together."""
        _check.choice(_WHO, "fit", self.fit, ("auto", "equal", "last-m", "weights"))
        _check.choice(_WHO, "combine", self.combine, ("prob", "logit", "mean"))
        if isinstance(self.temperature, str):
            _check.choice(_WHO, "temperature", self.temperature, ("auto", "fit"))
        else:
            _check.real(_WHO, "temperature", self.temperature, above=0.0)
        if self.m is not None:
            _check.integer(_WHO, "m", self.m, 1)
        _check.real(_WHO, "prior", self.prior, 0.0)
        needs = self.fit == "weights" or (self.fit == "last-m" and self.m is None) or self.temperature == "fit"
        if needs and not has_data:
            raise ValueError(f"{_WHO}: fit={self.fit!r} and temperature={self.temperature!r} need val_data, got None")
        if self.fit == "weights" and self.combine != "prob":
            raise ValueError(f"{_WHO}: fit='weights' needs combine='prob', got {self.combine!r}; use fit='last-m'")
        if self.combine == "mean" and self.temperature not in ("auto", 1):
            raise ValueError(f"{_WHO}: combine='mean' has no temperature, got {self.temperature!r}")


def _asked_for(snapshots: Sequence[Snapshot], m: int | None) -> list[Snapshot]:
    """Return the healthy members, the last `m` of them if given."""
    members = [s for s in snapshots if s.healthy]
    if not members:
        raise ValueError(f"{_WHO}: no healthy snapshot yet; train over a cycle end, or call take() or finish()")
    if m is not None and m > len(members):
        raise ValueError(f"{_WHO}: m must be at most the number of healthy members ({len(members)}), got {m}")
    return members[-m:] if m else members


def make_ensemble(model: nn.Module, snapshots: Sequence[Snapshot], val_data: Any, request: Request) -> Ensemble:
    """Make the ensemble that `request` asks for; see `SnapshotCollector.ensemble`."""
    request.check(val_data is not None)
    dropped = {s.step: "its weights are not finite" for s in snapshots if not s.healthy}
    members = _asked_for(snapshots, request.m)
    states = [s.state for s in members]

    def build(indices: Sequence[int], weights: Sequence[float] | None, temperature: float) -> Ensemble:
        return Ensemble(
            model,
            [states[i] for i in indices],
            weights,
            temperature=temperature,
            combine=request.combine,
            outputs=request.outputs,
            extract=request.extract,
            steps=[members[i].step for i in indices],
        )

    everyone = build(range(len(members)), None, 1.0)
    if val_data is None:
        choice = _Choice("equal", "no validation data were given", list(everyone.weights.tolist()))
        temperature, n = (1.0 if isinstance(request.temperature, str) else float(request.temperature)), 0
        loss = "mse" if request.combine == "mean" else "nll"
    else:
        fitting = _Fitting(everyone, predict(_WHO, everyone, val_data), request)
        choice = fitting.choose({i: members[i].step for i in range(len(members))}, dropped)
        temperature, n, loss = fitting.temperature(choice), fitting.n, fitting.loss
    used = [i for i, w in enumerate(choice.weights) if w > _NEGLIGIBLE]
    for i in set(range(len(members))) - set(used):
        dropped.setdefault(
            members[i].step, "its fitted weight is 0" if choice.fit == "weights" else "not among the last m"
        )
    del everyone
    ensemble = build(used, [choice.weights[i] for i in used], temperature)
    ensemble.fit_report = FitReport(
        fit=choice.fit,
        why=choice.why,
        m=len(used),
        steps=tuple(members[i].step for i in used),
        weights=tuple(ensemble.weights.tolist()),
        temperature=temperature,
        loss=loss,
        candidates=choice.candidates,
        dropped=dict(sorted(dropped.items())),
        n=n,
    )
    return ensemble


@dataclass
class _Choice:
    fit: str
    why: str
    weights: list[float]  # of all members, oldest first
    candidates: dict[str, dict[str, float]] = field(default_factory=dict)


class _Fitting:
    """Losses of the members on validation data, and the fits made of them."""

    def __init__(self, ensemble: Ensemble, predictions: Predictions, request: Request) -> None:
        self.ensemble, self.predictions, self.request = ensemble, predictions, request
        self.m, self.n = ensemble.m, predictions.n
        self.loss = "mse" if request.combine == "mean" else "nll"
        self.log_true = None if self.loss == "mse" else predictions.log_true(ensemble)
        self.alive = list(range(self.m))
        order = np.random.default_rng(0).permutation(self.n)  # its own generator: no global one moves
        folds = min(_FOLDS, self.n)
        self.folds = [torch.from_numpy(np.sort(order[k::folds])) for k in range(folds)]

    # --- losses per sample, [n]

    def losses(self, weights: Sequence[float]) -> torch.Tensor:
        """Loss of each validation sample under mixture `weights`, temperature 1."""
        if self.loss == "mse":
            error = self.ensemble.mean(self.predictions.outputs.to(torch.float64), weights) - self.predictions.targets
            return error.square().reshape(self.n, -1).mean(1)
        if self.request.combine == "prob":
            assert self.log_true is not None
            terms = [self.log_true[i] + math.log(w) for i, w in enumerate(weights) if w > 0]
            return -torch.stack(terms).logsumexp(0)
        parts = [
            -self.ensemble.combined(log_p, weights).gather(1, y[:, None])[:, 0]
            for log_p, y in self.predictions.chunks(self.ensemble)
        ]
        return torch.cat(parts)

    def last_weights(self, m: int) -> list[float]:
        """Equal weights on the last m members that are alive."""
        chosen = set(self.alive[-m:])
        return [1.0 / m if i in chosen else 0.0 for i in range(self.m)]

    def best_weights(self, samples: torch.Tensor | None) -> list[float]:
        """Mixture weights fitted on `samples` (indices; None for all)."""
        assert self.log_true is not None
        log_true = self.log_true[self.alive]
        found = fit_weights(log_true if samples is None else log_true[:, samples], self.request.prior).weights.tolist()
        by_member = dict(zip(self.alive, found, strict=True))
        return [by_member.get(i, 0.0) for i in range(self.m)]

    # --- choosing

    def choose(self, steps: dict[int, int], dropped: dict[int, str]) -> _Choice:
        """Choose the weights of all members as the request says."""
        fit = self.request.fit
        if fit == "equal":
            return _Choice("equal", "asked for", self.last_weights(self.m))
        if fit == "weights":
            return _Choice("weights", "asked for", self.best_weights(None))
        if fit == "auto" and self.loss == "nll":
            self._drop_dead(steps, dropped)
        if fit == "last-m" and self.request.m is not None:
            return _Choice("last-m", "asked for", self.last_weights(self.m))
        if self.n < _FEW and fit == "auto":
            why = f"{self.n} validation samples are too few to choose"
            return _Choice("equal", why, self.last_weights(len(self.alive)))
        curve = torch.stack([self.losses(self.last_weights(m)) for m in range(1, len(self.alive) + 1)])  # [m, n]
        last = self.last_weights(int(curve.mean(1).argmin()) + 1)
        if fit == "last-m":
            return _Choice("last-m", f"least validation {self.loss}", last)
        return self._cross_validated(curve, last)

    def _drop_dead(self, steps: dict[int, int], dropped: dict[int, str]) -> None:
        """Leave out members that know no more than the class frequencies: a diverged cycle, for instance."""
        assert self.log_true is not None
        counts = torch.bincount(self.predictions.targets).to(torch.float64)
        frequencies = counts[counts > 0] / self.n
        naive_nll = -(frequencies * frequencies.log()).sum().item()
        naive_error = 1.0 - frequencies.max().item()
        wrong = torch.cat(
            [(log_p.argmax(2) != y).to(torch.float64) for log_p, y in self.predictions.chunks(self.ensemble)],
            dim=1,
        ).mean(1)
        nll = -self.log_true.mean(1)
        dead = [i for i in range(self.m) if not nll[i] <= naive_nll and wrong[i] >= naive_error]
        if len(dead) < self.m:
            self.alive = [i for i in range(self.m) if i not in dead]
            dropped.update({steps[i]: "it predicts no better than the class frequencies" for i in dead})

    def _cross_validated(self, curve: torch.Tensor, last: list[float]) -> _Choice:
        held_last = torch.empty(self.n, dtype=torch.float64)
        held_weights = torch.empty(self.n, dtype=torch.float64)
        both = self.request.combine == "prob" and len(self.alive) > 1
        for fold in self.folds:
            train = self._others(fold)
            held_last[fold] = curve[int(curve[:, train].mean(1).argmin()), fold]
            if both:
                held_weights[fold] = self.losses(self.best_weights(train))[fold]
        candidates = {"last-m": _summary(held_last)}
        if both:
            candidates["weights"] = _summary(held_weights)
        k = len(self.folds)
        if both and candidates["weights"]["loss"] < candidates["last-m"]["loss"]:
            difference = _summary(held_last - held_weights)
            why = f"{k}-fold cross-validated {self.loss} lower than last-m's by {_shown(difference)}"
            return _Choice("weights", why, self.best_weights(None), candidates)
        if both:
            difference = _summary(held_weights - held_last)
            why = f"{k}-fold cross-validated {self.loss} not above that of fitted weights, by {_shown(difference)}"
        else:
            why = f"least validation {self.loss}"
        return _Choice("last-m", why, last, candidates)

    def _others(self, fold: torch.Tensor) -> torch.Tensor:
        keep = torch.ones(self.n, dtype=torch.bool)
        keep[fold] = False
        return keep.nonzero()[:, 0]

    # --- temperature

    def temperature(self, choice: _Choice) -> float:
        """Return the temperature as the request says; "auto" keeps a fitted one only if held-out samples gain."""
        asked = self.request.temperature
        if not isinstance(asked, str):
            return float(asked)
        if self.loss == "mse" or (asked == "auto" and self.n < _FEW):
            return 1.0
        log_p = torch.cat(
            [self.ensemble.combined(log_p, choice.weights) for log_p, _ in self.predictions.chunks(self.ensemble)]
        )
        y = self.predictions.targets
        fitted = fit_temperature(log_p, y)
        if asked == "fit":
            return fitted
        held = torch.empty(self.n, dtype=torch.float64)
        for fold in self.folds:
            train = self._others(fold)
            t = fit_temperature(log_p[train], y[train])
            held[fold] = -(log_p[fold] / t).log_softmax(1).gather(1, y[fold][:, None])[:, 0]
        plain = -log_p.gather(1, y[:, None])[:, 0]
        choice.candidates["temperature 1"] = _summary(plain)
        choice.candidates["temperature fitted"] = _summary(held)
        return fitted if held.mean() < plain.mean() else 1.0


def _summary(losses: torch.Tensor) -> dict[str, float]:
    spread = losses.std().item() / math.sqrt(len(losses)) if len(losses) > 1 else math.nan
    return {"loss": losses.mean().item(), "se": spread}


def _shown(difference: dict[str, float]) -> str:
    return f"{abs(difference['loss']):.4f} ± {difference['se']:.4f}"

"""Ensemble: members that predict together, as one nn.Module. Knows no training and no storage."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from .. import _check
from ._members import MemberList, Members
from ._snapshot import State

if TYPE_CHECKING:
    from ._fit_report import FitReport
    from ._metrics import Metrics
    from ._report import EnsembleReport

Combine = Literal["prob", "logit", "mean"]
Outputs = Literal["logits", "probabilities", "binary"]


class Ensemble(nn.Module):
    r"""Members that predict together; returns probabilities.

    combine="prob" (the default): p(x) = Σᵢ wᵢ softmax(fᵢ(x)); "logit": p(x) = softmax(Σᵢ wᵢ fᵢ(x)), the
    normalised geometric mean; "mean" (regression): Σᵢ wᵢ fᵢ(x), returned as it is. A temperature T ≠ 1 then
    gives p_T ∝ p^{1/T}.

    The members always predict in eval mode and get no gradients (gradients with respect to the input flow). The weights
    lie in one buffer [m, ...] per tensor, on the model's device; small models run in one batch, others one by one.

    Args:
        model: The architecture; its own weights are not used and not changed.
        state_dicts: One state_dict per member, oldest first.
        weights: [m] non-negative; normalised to sum 1. Equal ones by default.
        temperature: T > 0, dimensionless; must be 1 for regression.
        combine: "prob", "logit" or "mean", as above.
        outputs: What a member returns: "logits" [batch, classes, ...], "probabilities" of that shape, or
            "binary", one logit per sample ([batch] or [batch, 1]), which gives two classes.
        extract: Takes the tensor out of what a member returns, for instance `lambda out: out.logits`.
        backend: "auto" (by fixed rules: batched matrix products for plain feed-forward models, vmap for small models on
            a GPU, else the loop), "loop" or "vmap".
        steps: [m] optimizer step of each member, for reports.

    Attributes:
        m: Number of members.
        members: The members as ordinary modules that share memory with the ensemble.
        weights: [m] float64.
        temperature: T.
        fit_report: How `SnapshotCollector.ensemble` chose members, weights and temperature; None otherwise.

    Raises:
        TypeError: `model` is no module, or cannot be copied.
        ValueError: No members, state_dicts of another model, or bad weights or temperature.

    Example:
        >>> import torch, thalweg as tw
        >>> model = torch.nn.Linear(4, 3)
        >>> states = [{k: torch.randn_like(v) for k, v in model.state_dict().items()} for _ in range(5)]
        >>> ens = tw.ensemble.Ensemble(model, states)
        >>> ens(torch.zeros(2, 4)).sum(1)
        tensor([1., 1.])
        >>> ens.members[4].weight.equal(states[4]["weight"])
        True

    References:
        Huang et al., "Snapshot Ensembles: Train 1, get M for free", 2017, arXiv:1704.00109, section 3.
    """

    def __init__(
        self,
        model: nn.Module,
        state_dicts: Sequence[State],
        weights: Sequence[float] | torch.Tensor | None = None,
        *,
        temperature: float = 1.0,
        combine: Combine = "prob",
        outputs: Outputs = "logits",
        extract: Callable[[Any], torch.Tensor] | None = None,
        backend: str = "auto",
        steps: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        who = "Ensemble"
        _check.choice(who, "combine", combine, ("prob", "logit", "mean"))
        _check.choice(who, "outputs", outputs, ("logits", "probabilities", "binary"))
        _check.choice(who, "backend", backend, ("auto", "loop", "vmap"))
        if extract is not None and not callable(extract):
            raise TypeError(f"{who}: extract must be a function, got {_check.describe(extract)}")
        self.combine, self.outputs, self.extract = combine, outputs, extract
        self._members = Members(who, model, list(state_dicts), backend)
        self._weights = _normalised(who, weights, self.m)
        self._weight_cache: dict[Any, torch.Tensor] = {}
        self._temperature = _check.real(who, "temperature", temperature, above=0.0)
        if combine == "mean" and self._temperature != 1.0:
            raise ValueError(f"{who}: temperature must be 1 with combine='mean', got {temperature}")
        self.steps = list(range(self.m)) if steps is None else [int(step) for step in steps]
        if len(self.steps) != self.m:
            raise ValueError(f"{who}: steps must have one entry per member ({self.m}), got {len(self.steps)}")
        self.fit_report: FitReport | None = None
        self.eval()

    @property
    def m(self) -> int:
        """Number of members."""
        return self._members.m

    @property
    def members(self) -> MemberList:
        """Members as ordinary modules in eval mode, oldest first; writing to one changes the ensemble."""
        return MemberList(self._members)

    @property
    def weights(self) -> torch.Tensor:
        """Weights of the members, [m] float64, sum 1."""
        return torch.tensor(self._weights, dtype=torch.float64)

    @property
    def temperature(self) -> float:
        """Temperature T of the combined probabilities."""
        return self._temperature

    @property
    def backend_reason(self) -> str:
        """Why members run one by one although a batched run was tried; empty otherwise."""
        return self._members.reason

    def get_extra_state(self) -> dict[str, Any]:
        """Weights and temperature: part of the state_dict, in full precision whatever the module's dtype."""
        return {"weights": list(self._weights), "temperature": self._temperature, "steps": list(self.steps)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_extra_state` gave."""
        self._weights = _normalised("Ensemble", state["weights"], self.m)
        self._weight_cache.clear()
        self._temperature = float(state["temperature"])
        self.steps = list(state["steps"])

    def member_outputs(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return what every member returns for one batch, [m, batch, ...]."""
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
        device = self.device
        for value in tensors:
            if value.device != device:
                raise ValueError(
                    f"Ensemble: the input is on {value.device}, the members on {device}; move one with .to()"
                )
        plain = tensors[0] if len(tensors) == len(args) == 1 and not kwargs and self.extract is None else None
        outputs: torch.Tensor = self._members.forward(lambda model: self._tensor(model(*args, **kwargs)), plain)
        return outputs

    def _tensor(self, out: Any) -> torch.Tensor:
        value = out if self.extract is None else self.extract(out)
        if not isinstance(value, torch.Tensor):
            raise TypeError(
                f"Ensemble: a member must return a tensor, got {type(value).__name__}; give extract=lambda out: ..."
            )
        return value

    @property
    def device(self) -> torch.device:
        """Device of the members."""
        return next((buffer.device for buffer in self._members.buffers()), torch.device("cpu"))

    def log_probabilities(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return ln p of each member from its raw outputs [..., batch, classes, ...], in float32 or wider."""
        z = outputs if outputs.dtype == torch.float64 else outputs.float()
        if self.outputs == "binary":
            z = z.squeeze(2) if z.ndim == 3 and z.shape[2] == 1 else z
            if z.ndim != 2:
                raise ValueError(
                    "Ensemble: with outputs='binary' a member must return [batch] or [batch, 1], got "
                    f"{list(z.shape[1:])}"
                )
            return nn.functional.logsigmoid(torch.stack((-z, z), dim=2))
        z = self._checked_logits(z)
        return z.log() if self.outputs == "probabilities" else z.log_softmax(2)

    def _checked_logits(self, outputs: torch.Tensor) -> torch.Tensor:
        if outputs.ndim < 3 or outputs.shape[2] < 2:
            raise ValueError(
                f"Ensemble: a member must return [batch, classes >= 2, ...], got {list(outputs.shape[1:])}; "
                "give outputs='binary' for one logit per sample, combine='mean' for regression"
            )
        return outputs if outputs.dtype == torch.float64 else outputs.float()

    def _weight_tensor(self, like: torch.Tensor) -> torch.Tensor:
        key = (like.device, like.dtype, like.ndim)
        if key not in self._weight_cache:
            shape = (self.m,) + (1,) * (like.ndim - 1)
            self._weight_cache[key] = self.weights.to(like.device, like.dtype).reshape(shape)
        return self._weight_cache[key]

    def combined(
        self, log_p: torch.Tensor, weights: Sequence[float] | None = None, temperature: float | None = None
    ) -> torch.Tensor:
        """Return ln p of the ensemble, [batch, classes, ...], from those of the members, [m, batch, classes, ...]."""
        t = self._temperature if temperature is None else temperature
        used = self._weights if weights is None else weights
        if self.combine == "logit":
            log_p = torch.stack([w * member for w, member in zip(used, log_p, strict=True) if w > 0]).sum(0)
            log_p = log_p.log_softmax(1)
        else:
            terms = [member + math.log(w) for w, member in zip(used, log_p, strict=True) if w > 0]
            log_p = torch.stack(terms).logsumexp(0)
        return log_p if t == 1.0 else (log_p / t).log_softmax(1)

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return probabilities [batch, classes, ...] (the weighted mean of the outputs with combine="mean").

        Float16 and bfloat16 outputs are combined, and returned, in float32.
        """
        outputs = self.member_outputs(*args, **kwargs)
        if self.combine == "mean":
            return self.mean(outputs)
        if self.combine == "logit" or self._temperature != 1.0 or self.outputs != "logits" or 0.0 in self._weights:
            return self.combined(self.log_probabilities(outputs)).exp()
        wide = self._checked_logits(outputs)
        return (wide.softmax(2) * self._weight_tensor(wide)).sum(0)

    def mean(self, outputs: torch.Tensor, weights: Sequence[float] | None = None) -> torch.Tensor:
        """Return the weighted mean of outputs [m, ...]."""
        wide = outputs if outputs.dtype == torch.float64 else outputs.float()
        used = self._weights if weights is None else weights
        return torch.stack([w * member for w, member in zip(used, wide, strict=True) if w > 0]).sum(0)

    def report(self, data: Any) -> EnsembleReport:
        """Measure the ensemble, each member, the last-m ensembles, and how much the members differ.

        Args:
            data: Test data: `(inputs, targets)` tensors, a data set, or an iterable of such batches.
        """
        from ._report import make_report

        return make_report(self, data)

    def last_m_curve(self, data: Any) -> list[Metrics]:
        """Return the metrics of the equally weighted ensembles of the last 1, 2, … m members, without temperature."""
        return list(self.report(data).last_m)

    def extra_repr(self) -> str:
        """Show what a print of the module shows."""
        return f"m={self.m}, combine={self.combine!r}, temperature={self._temperature:.4g}"


def _normalised(who: str, weights: Sequence[float] | torch.Tensor | None, m: int) -> tuple[float, ...]:
    if weights is None:
        return (1.0 / m,) * m
    values = [float(w) for w in (weights.tolist() if isinstance(weights, torch.Tensor) else weights)]
    if len(values) != m or not all(math.isfinite(w) and w >= 0 for w in values) or sum(values) <= 0:
        raise ValueError(f"{who}: weights must be {m} finite numbers >= 0, not all 0, got {_check.describe(values)}")
    total = math.fsum(values)
    return tuple(w / total for w in values)


__all__ = ["Combine", "Ensemble", "Outputs"]

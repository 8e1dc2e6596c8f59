"""What is made of the members of a run: ensembles, means, soups. Knows no optimizer and no hook."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from . import _average, _fit
from ._module import Combine, Ensemble, Outputs
from ._snapshot import Snapshot, State
from ._store import Store


class Collected:
    """Members in a store, of one model."""

    model: nn.Module
    store: Store

    @property
    def snapshots(self) -> list[Snapshot]:
        """Members, oldest first."""
        return self.store.snapshots

    def state_dicts(self) -> list[State]:
        """Return the weights of the healthy members, oldest first."""
        return [snapshot.state for snapshot in self.snapshots if snapshot.healthy]

    def ensemble(
        self,
        val_data: Any = None,
        fit: str = "auto",
        m: int | None = None,
        temperature: float | str = "auto",
        *,
        prior: float = 0.0,
        combine: Combine = "prob",
        outputs: Outputs = "logits",
        extract: Callable[[Any], torch.Tensor] | None = None,
    ) -> Ensemble:
        """Make an ensemble of the healthy members; everything that is fitted is fitted on `val_data`.

        Never give training data: the members have memorised it, and weights fitted there do worse than equal
            ones.

        Args:
            val_data: `(inputs, targets)` tensors, a data set, or an iterable of such batches. None fits
                nothing.
            fit: "auto" takes the better of "last-m" and "weights" by cross-validated NLL; "equal" weights all
                alike; "last-m" weights the last m alike (m by validation NLL unless given); "weights" finds
                the mixture weights of least validation NLL.
            m: Use only the last m members.
            temperature: "auto" fits it and keeps it if cross-validation says so, "fit" always fits, a number
                is used as it is; without `val_data` it is 1.
            prior: Pseudo-observations per member that pull fitted weights towards equal ones (Dirichlet).
            combine: "prob" averages probabilities, "logit" averages logits, "mean" averages outputs
                (regression).
            outputs: What a member returns: "logits" [batch, classes], "probabilities", or "binary" (one
                logit).
            extract: Takes the tensor out of what a member returns, for instance `lambda out: out.logits`.

        Returns:
            An `Ensemble`; its `fit_report` says what was chosen and why, and which members were left out.

        Raises:
            ValueError: No healthy member, or `fit` and the other arguments do not go together.
        """
        return _fit.make_ensemble(
            self.model,
            self.snapshots,
            val_data,
            _fit.Request(fit, m, temperature, prior, combine, outputs, extract),
        )

    def average(self, kind: str = "swa", data: Any = None, m: int | None = None) -> nn.Module:
        """Return a copy of the model that holds the mean of the members' weights.

        Args:
            kind: "swa" (all healthy members) or "lawa" (the last `m`).
            data: Training inputs on which BatchNorm statistics are computed anew; without it a model with
                BatchNorm gets the mean of the members' statistics, with a warning.
            m: How many of the last members; all by default, required by "lawa".

        References:
            Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", 2018,
            arXiv:1803.05407.
        """
        return _average.average(self.model, self._healthy(), kind=kind, data=data, m=m)

    def soup(
        self,
        val_data: Any,
        method: str = "greedy",
        *,
        data: Any = None,
        force: bool = False,
        tolerance: float = 0.02,
    ) -> nn.Module:
        """Return a copy of the model that holds a mean of members chosen on `val_data`; refuse it across a barrier.

        See `soup`: the report of what went in is the attribute `soup_report` of the returned module.
        """
        steps = [snapshot.step for snapshot in self.snapshots if snapshot.healthy]
        return _average.soup(
            self.model,
            self._healthy(),
            val_data,
            method,
            data=data,
            force=force,
            tolerance=tolerance,
            steps=steps,
        )

    def _healthy(self) -> list[State]:
        states = self.state_dicts()
        if not states:
            raise ValueError(
                f"{type(self).__name__}: no healthy snapshot yet; train over a cycle end, or call take() or finish()"
            )
        return states

"""Run all members once over a data set and keep what they said. Knows no fitting and no figures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from .. import _data
from .._preserve import random_state
from ._metrics import check_targets

if TYPE_CHECKING:
    from ._module import Ensemble

_CHUNK = 4_000_000  # numbers held in float64 at a time


@dataclass
class Predictions:
    """What m members said about n samples.

    Attributes:
        outputs: Raw outputs in the members' dtype, on the CPU: [m, n, classes], or [m, n, ...] for
            regression.
        targets: [n] class numbers (int64), or the regression targets in float64.
    """

    outputs: torch.Tensor
    targets: torch.Tensor

    @property
    def n(self) -> int:
        """Samples."""
        return self.outputs.shape[1]

    def chunks(self, ensemble: Ensemble) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield (ln p [m, k, classes], targets [k]) in float64."""
        width = max(1, _CHUNK // max(1, self.outputs[:, :1].numel()))
        for start in range(0, self.n, width):
            part = self.outputs[:, start : start + width].to(torch.float64)
            yield ensemble.log_probabilities(part), self.targets[start : start + width]

    def log_true(self, ensemble: Ensemble) -> torch.Tensor:
        """Return ln p_i(y_n) of every member and sample, [m, n] float64: all that weights are fitted on."""
        parts = [log_p.gather(2, y.expand(len(log_p), -1)[:, :, None])[:, :, 0] for log_p, y in self.chunks(ensemble)]
        return torch.cat(parts, dim=1)


def predict(who: str, ensemble: Ensemble, data: Any) -> Predictions:
    """Run the members of `ensemble` over `data`; generators are put back, gradients are off.

    Raises:
        TypeError, ValueError: `data` is no labelled data, is empty, or its targets do not fit the outputs.
    """
    outputs, targets = [], []
    with torch.no_grad(), random_state([data]):
        for inputs, truth in _data.labelled(who, data):
            moved = _data.to_device(inputs, ensemble.device)
            out = _data.call(ensemble.member_outputs, moved).cpu()
            if ensemble.combine == "mean":
                if out.shape[1:] != truth.shape:
                    shapes = f"{list(out.shape[1:])}, got {list(truth.shape)}"
                    raise ValueError(f"{who}: targets must have the shape of the outputs {shapes}")
                y = truth.cpu().to(torch.float64)
            else:
                out, y = _flat(who, ensemble, out, truth)
            outputs.append(out)
            targets.append(y)
    return Predictions(torch.cat(outputs, dim=1), torch.cat(targets))


def _flat(who: str, ensemble: Ensemble, out: torch.Tensor, truth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Bring outputs to [m, n, classes] and targets to [n]; positions of a sequence or an image count as samples."""
    if ensemble.outputs == "binary":
        out = out.reshape(len(out), -1)
        return out, check_targets(who, truth.reshape(-1), out.shape[1], 2)
    classes = ensemble.log_probabilities(out[:, :1]).shape[2]  # also checks the shape
    out = out.movedim(2, -1)
    if truth.shape != out.shape[1:-1]:
        raise ValueError(f"{who}: targets must have shape {list(out.shape[1:-1])}, got {list(truth.shape)}")
    out = out.reshape(len(out), -1, classes)
    return out, check_targets(who, truth.reshape(-1), out.shape[1], classes)

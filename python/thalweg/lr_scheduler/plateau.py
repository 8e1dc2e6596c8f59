"""torch-named ReduceLROnPlateau."""

from __future__ import annotations

from typing import Any

from torch.optim import lr_scheduler

from ..schedules.adaptive import Plateau
from ._planned import Restored


class ReduceLROnPlateau(Restored, lr_scheduler.ReduceLROnPlateau):
    r"""torch's ReduceLROnPlateau: the rate times `factor` when the metric has not improved for `patience` steps.

    Unlike torch's, a relative threshold is a share of \|best\|: with `best * (1 - threshold)` a negative metric counts
    as improved when it stands still or gets a little worse. Args, attributes and exceptions are otherwise those of
    `torch.optim.lr_scheduler.ReduceLROnPlateau`.

    Example:
        >>> import torch, thalweg as tw
        >>> opt = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> scheduler = tw.lr_scheduler.ReduceLROnPlateau(opt, patience=1, factor=0.5)
        >>> for loss in (-1.0, -1.0, -1.0):
        ...     scheduler.step(loss)
        >>> scheduler.get_last_lr()
        [0.5]
    """

    def _reset(self) -> None:
        super()._reset()
        self._remember_home()

    def _is_better(self, a: float, best: float) -> bool:
        if self.threshold < 0:  # no share of anything: torch's arithmetic
            absolute: Any = super()
            return bool(absolute._is_better(a, best))
        return Plateau(self.mode, threshold=self.threshold, threshold_mode=self.threshold_mode).is_better(a, best)

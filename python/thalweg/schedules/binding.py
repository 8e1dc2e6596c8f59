"""bind(): schedules of several hyper-parameters, per group, into any torch optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ._schedule import Schedule

if TYPE_CHECKING:
    from ..lr_scheduler import ScheduleLR


def bind(optimizer: Any, lr: Schedule | Sequence[Schedule | None] | None = None, **options: Any) -> ScheduleLR:
    """A torch LRScheduler that writes schedules into the param groups; `schedule.bind(optimizer)` is the short form.

    Args:
        optimizer: Any torch optimizer.
        lr: A schedule, or a list with one per group (None leaves a group alone); None: no learning rate is written.
        options: Other hyper-parameters by name, each a schedule or a list of them, and `relative`, `multiplier`,
            `history`, `last_epoch` as in `thalweg.lr_scheduler.ScheduleLR`.

    Returns:
        The scheduler.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: A group has no such hyper-parameter, or the number of schedules does not fit.

    Example:
        >>> import torch, thalweg as tw
        >>> opt = torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))], lr=1e-3)
        >>> ramp = tw.schedules.linear(0.0, total_steps=2, end_lr=0.1)
        >>> scheduler = tw.schedules.bind(opt, weight_decay=ramp, betas=(None, tw.schedules.constant(0.95)))
        >>> opt.step(); scheduler.step()
        >>> opt.param_groups[0]["weight_decay"], opt.param_groups[0]["betas"], opt.param_groups[0]["lr"]
        (0.05, (0.9, 0.95), 0.001)
    """
    from ..lr_scheduler import ScheduleLR  # above this layer

    return ScheduleLR(optimizer, lr, **options)

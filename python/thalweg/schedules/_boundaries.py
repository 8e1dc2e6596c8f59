"""Where the pieces and cycles of a schedule begin."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._schedule import Schedule


def beginnings(schedule: Schedule, n: int) -> set[int]:
    """Steps below n at which a piece or a cycle of `schedule` begins, 0 among them."""
    found = {0}
    if schedule._kind == "sequence":
        begin = 0
        for part in schedule._children[:-1]:
            length = part.total_steps or 0
            found.update(begin + k for k in beginnings(part, min(n - begin, length)))
            begin += length
            if begin >= n:
                return found
        found.update(begin + k for k in beginnings(schedule._children[-1], n - begin))
    elif schedule._kind == "repeat":
        period = schedule._children[0].total_steps or 1
        end = n if schedule.total_steps is None else min(n, schedule.total_steps)
        inner = beginnings(schedule._children[0], min(period, n))
        found.update(begin + k for begin in range(0, end, period) for k in inner if begin + k < n)
    elif schedule._kind == "every":
        period = dict(schedule._arguments)["period"]
        found.update(k * period for k in beginnings(schedule._children[0], -(-n // period)))
    elif schedule._kind == "advance":
        skipped = dict(schedule._arguments)["steps"]
        found.update(k - skipped for k in beginnings(schedule._children[0], n + skipped) if k > skipped)
    elif schedule._children:
        found.update(*(beginnings(part, n) for part in schedule._children))
    else:
        step = 0
        while step < n:
            found.add(step)
            index, position, length = schedule.plan.cycle_at(step)
            if index < 0:
                break
            step += length - position
    return found

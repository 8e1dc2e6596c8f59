"""Where the pieces and cycles of a schedule begin."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._schedule import Schedule


def beginnings(schedule: Schedule, n: int, offset: int = 0) -> list[int]:
    """Beginnings of pieces and cycles of `schedule`, which begins at `offset`, below n."""
    if offset >= n:
        return []
    found: list[int] = []
    if schedule._kind == "sequence":
        begin = offset
        for part in schedule._children:
            length = part.total_steps
            until = n if part is schedule._children[-1] or length is None else min(n, begin + length)
            found += [begin, *beginnings(part, until, begin)]
            begin += length or 0
        return [b for b in found if b < n]
    for part in schedule._children if schedule._kind != "repeat" else ():
        found += beginnings(part, n, offset)
    step = 0
    while offset + step < n:
        index, position, length = schedule.plan.cycle_at(step)
        if index < 0:
            break
        step += length - position
        found.append(offset + step)
    return [b for b in found if b < n]

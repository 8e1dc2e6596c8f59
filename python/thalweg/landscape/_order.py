"""Orders in which the points of a grid are evaluated. Knows only shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ._ledger import Indices


def progressive(shape: Sequence[int]) -> Indices:
    """Flat indices of a grid, coarse to fine: every 2^L-th place of each axis, then every 2^(L-1)-th, row by row.

    After the points of a level the grid is known at a quarter of the next level's points, so a picture of the whole
    is there early; the last level completes it.
    """
    places = np.indices(tuple(shape)).reshape(len(shape), -1)
    deepest = max(0, math.ceil(math.log2(max(*shape, 2))) - 1)
    level = np.full(places.shape[1], deepest)  # of a place: how many times its coordinates can be halved
    for axis in places:
        for power in range(deepest, 0, -1):
            odd = axis % (1 << power) != 0
            level[odd] = np.minimum(level[odd], power - 1)
    return np.argsort(-level, kind="stable").astype(np.int64)

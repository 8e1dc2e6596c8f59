"""What a run keeps where: in memory, in a journal, with other processes; and the identity that binds a journal to it."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor, nn

from .. import _check
from . import _walk, _weights
from ._claims import SharedLedger
from ._evaluation import Evaluation, How, Run, Start
from ._facts import facts, weights_hash
from ._journal import JournaledLedger
from ._ledger import Array, Indices, Ledger
from ._sharing import meeting
from .directions import Directions


class Keeping:
    """Makes the ledger of one run.

    Args:
        who: The function that the user called, for errors.
        resume: The journal, or None.
        share: See `Share`; True, False, a store or a Share.

    Raises:
        TypeError: None of these.
        RuntimeError: Nobody to share with.
    """

    def __init__(self, who: str, resume: str | os.PathLike[str] | None = None, share: Any = False) -> None:
        if resume is not None and not isinstance(resume, (str, os.PathLike)):
            raise TypeError(f"{who}: resume must be the path of a journal or None, got {_check.describe(resume)}")
        self._who, self._resume = who, None if resume is None else Path(resume)
        self._meeting = meeting(who, share)

    @property
    def quiet(self) -> bool:
        """Whether another process shows the progress."""
        return self._meeting is not None and bool(self._meeting.rank)

    def ledger(self, identity: Callable[[], Mapping[str, Any]]) -> Callable[[Indices, int], Ledger]:
        """What makes a ledger from an order and the number of columns; asks at once for the identity if one is needed."""
        if self._meeting is None and self._resume is None:
            return Ledger
        bound = identity()

        def made(order: Indices, columns: int) -> Ledger:
            if self._meeting is not None:
                return SharedLedger(self._who, order, columns, self._meeting, bound, self._resume)
            assert self._resume is not None
            return JournaledLedger(self._who, order, columns, self._resume, bound)

        return made


class Keeper:
    """Runs of one evaluator, bound to all that their sums depend on.

    Args:
        evaluation: Model and data.
        center: Values at the model's own weights as they are now.
    """

    def __init__(self, evaluation: Evaluation, center: dict[str, float]) -> None:
        self._evaluation = evaluation
        self._center = weights_hash(evaluation), center

    def run(
        self,
        start: Start,
        points: Array,
        how: How,
        keeping: Keeping,
        directions: Directions | None = None,
        ends: Sequence[nn.Module | Mapping[str, Tensor]] = (),
    ) -> Run:
        """Values after each of the moves that `start` prepares, with the conditions.

        Args:
            start: See Evaluation.run.
            points: [points, coordinates].
            how: See How; the ledger comes from `keeping`.
            keeping: Where sums are kept.
            directions: None for a line between two models.
            ends: These models.
        """
        conditions = facts(self._evaluation, directions)
        how.progress = how.progress and not keeping.quiet
        how.ledger = keeping.ledger(
            lambda: {**conditions, **self._functions(conditions["weights_hash"]), **_places(points, directions, ends)}
        )
        run = self._evaluation.run(start, points, how)
        return Run(run.values, {**conditions, **run.told}, run.done)

    def _functions(self, weights: str) -> dict[str, Any]:
        """The model and what is measured: their code shows in the values at the model's own weights."""
        evaluation = self._evaluation
        if self._center[0] != weights:
            self._center = weights, evaluation.run(lambda saved: _walk.Move(), np.empty((1, 0)), How()).first()
        found: dict[str, Any] = {"metrics": list(evaluation.measure.names)}
        if evaluation.tier != "exact":  # where all implementations have the same bits
            found["implementation"] = evaluation.implementation
        if not evaluation.draws:
            return {**found, "center": self._center[1]}
        cuda = (
            torch.cuda.get_rng_state(evaluation.device).numpy().tobytes() if evaluation.device.type == "cuda" else b""
        )
        others = random.getstate(), repr(np.random.get_state(legacy=False))  # noqa: NPY002
        return {**found, "random_state": _hash(torch.get_rng_state().numpy().tobytes(), cuda, repr(others).encode())}


def _places(
    points: Array, directions: Directions | None, ends: Sequence[nn.Module | Mapping[str, Tensor]]
) -> dict[str, Any]:
    """Where the points lie."""
    vectors = [] if directions is None else [*directions.vectors, *filter(None, [directions.origin])]
    return {
        "coordinates_hash": _hash(np.ascontiguousarray(points).tobytes()),
        "directions_hashes": [
            _hash(*(_weights.hash_of({"": tensor}).encode() for tensor in vector)) for vector in vectors
        ],
        "ends_hashes": [_weights.hash_of(_weights.state_of("Evaluator.line", end)) for end in ends],
    }


def _hash(*parts: bytes) -> str:
    digest = xxhash.xxh3_128()
    for part in parts:
        digest.update(part)
    return str(digest.hexdigest())

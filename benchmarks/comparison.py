"""What is said of times that were taken by turns. Knows no benchmark."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile; of one value three times that."""
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    return low, middle, high


def compared(row: str, case: str, peer_name: str, ours: Sequence[float], peer: Sequence[float]) -> dict[str, Any]:
    """A row of the results from seconds per call of both, by rounds."""
    # Round by round: a machine that slows down for a while slows both sides of a round.
    low, ratio, high = quartiles([theirs / mine for mine, theirs in zip(ours, peer, strict=True)])
    return {
        "row": row,
        "case": case,
        "peer": peer_name,
        "threads": torch.get_num_threads(),
        "rounds": len(ours),
        "ours_us": statistics.median(ours) * 1e6,
        "peer_us": statistics.median(peer) * 1e6,
        "ratio": ratio,
        "ratio_quartiles": [low, high],  # of the rounds
        "ours_spread": [min(ours) * 1e6, max(ours) * 1e6],
        "peer_spread": [min(peer) * 1e6, max(peer) * 1e6],
    }

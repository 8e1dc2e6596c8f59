"""Check: the runs behind the ensembles once more with another weight decay, all else equal. Judges nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from .config import Config
from .data import Split
from .range_part import Rates
from .runs import run_method

METHODS = ("step", "sgdr")  # what the NoCycle and the snapshot ensemble are made of


def run(
    config: Config, split_of: Callable[[int], Split], rates: Rates, done: Callable[[], None]
) -> dict[str, dict[str, list[float]]]:
    """Repeat step decay and SGDR with `config.other_weight_decay` in one setting; `done` is called after each run.

    Returns:
        Error and NLL on the test images, [seeds], of "sgdr", "nocycle", "snapshot" and "best_snapshot".
    """
    other = replace(config, weight_decay=config.other_weight_decay)
    found: dict[str, list[Any]] = {name: [] for name in ("sgdr", "nocycle", "snapshot", "best_snapshot")}
    for seed in range(config.seeds):
        split = split_of(seed)
        for method in METHODS:
            result = run_method(method, other, split, rates, seed)
            if method == "step":
                found["nocycle"].append(result["report"].ensemble)
            else:
                found["sgdr"].append(result["metrics"])
                found["snapshot"].append(result["report"].ensemble)
                found["best_snapshot"].append(result["best_snapshot"])
            done()
    return {
        name: {key: [getattr(m, key) for m in values] for key in ("error", "nll")} for name, values in found.items()
    }

"""The targets of the GPU rows, in one table, and whether a result meets them. Absolute ones are meant for an H200."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from peers import FOREACH, FUSED


@dataclass(frozen=True)
class Target:
    """A bound on one figure of a row.

    Args:
        figure: A key of the result: "ratio" (peer's time over ours), "slowdown" (ours over the peer's), "bandwidth_share"
            (of the copy's), "ours_us" (µs on the device), "points_per_second", "projected_minutes".
        sign: ">=" or "<=".
        bound: In the figure's unit.
        peer: Against whom; None: the figure is about ours alone.
    """

    figure: str
    sign: str
    bound: float
    peer: str | None = None


LOOP = "hand-written loop"
SEPARATE, MODELS, DEEPCOPY = "torch: separate passes", "a loop over the models", "copy.deepcopy"
REGISTRY = "other optimizers"  # every optimizer of the registry beyond SGD, Adam and AdamW

TARGETS: dict[str, tuple[Target, ...]] = {
    "adamw-large": (Target("bandwidth_share", ">=", 0.95), Target("ratio", ">=", 1.02, FUSED)),
    "adamw-small": (Target("ratio", ">=", 8.0, FUSED),),
    "adamw-small-graph": (Target("ours_us", "<=", 15.0),),
    "odd-sizes": (Target("slowdown", "<=", 1.03, "thalweg, aligned sizes"),),
    "many-groups": (Target("slowdown", "<=", 1.1, "thalweg, one group"),),
    "amp-ema": (Target("ratio", ">=", 1.5, SEPARATE),),
    "amp-ema-torch-scaler": (Target("ratio", ">=", 1.3, SEPARATE),),
    REGISTRY: (Target("ratio", ">=", 2.4, FOREACH),),
    "ensemble-mlp": (Target("ratio", ">=", 4.0, MODELS),),
    "ensemble-cnn": (Target("ratio", ">=", 4.0, MODELS),),
    "snapshot": (Target("ratio", ">=", 5.0, DEEPCOPY),),
    "landscape-mlp": (Target("points_per_second", ">=", 10_000.0),),
    "landscape-mlp-rounding": (Target("points_per_second", ">=", 10_000.0),),
    "landscape-resnet56-fp32": (Target("projected_minutes", "<=", 12.0),),
    "landscape-resnet56-rounding": (Target("projected_minutes", "<=", 12.0),),
    "landscape-resnet56-tf32": (Target("projected_minutes", "<=", 5.0),),
    "landscape-resnet56-bf16": (Target("projected_minutes", "<=", 3.0),),
}


def judge(key: str, result: dict[str, Any], first: bool) -> list[dict[str, Any]]:
    """Each target that this result can meet or miss, with its value.

    A target without a peer is judged once a row: with the `first` of its results.
    """
    verdicts = []
    for target in TARGETS.get(key, ()):
        if target.peer != result.get("peer") if target.peer else not first:
            continue
        value = 1 / result["ratio"] if target.figure == "slowdown" else result.get(target.figure)
        if value is None:
            continue
        met = value >= target.bound if target.sign == ">=" else value <= target.bound
        verdicts.append(
            {"figure": target.figure, "sign": target.sign, "bound": target.bound, "value": value, "met": bool(met)}
        )
    return verdicts

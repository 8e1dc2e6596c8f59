"""The conclusions below the landscape's figures, from the numbers in results.json."""

from __future__ import annotations

from typing import Any

import numpy as np

from .conclusions import title
from .config import SETTING_NAMES
from .words import Conclusion, number, plural, short


def path(found: dict[str, Any], setting: str) -> Conclusion:
    """Say how much of the path the plane shows, and what the snapshots' losses are."""
    pca = found["pca"]
    share, null = sum(pca["explained_variance"]), sum(pca["random_walk_null"])
    true, drawn = np.array(pca["snapshot_loss"]), np.array(pca["snapshot_plane_loss"])
    moved, first = np.array(pca["snapshot_distance"]), pca["start_distance"]
    shrinking = bool((np.diff(moved) < 0).all()) if len(moved) > 1 else False
    return Conclusion(
        "note",
        f"**{title(setting)}:** two directions hold {share:.0%} of the path's variance (a mere random walk would show "
        f"{null:.0%}). The loss at the snapshots themselves goes from {number(true[0])} to {number(true[-1])}; at their places in "
        f"the plane it is {number(drawn[0])} and {number(drawn[-1])}, as the first lies {number(pca['snapshot_off_plane'][0], 1)} "
        f"outside the plane. The first cycle moves the weights by {number(first, 1)}, each later one by "
        f"{number(float(moved.min()), 1)} to {number(float(moved.max()), 1)}"
        + (", less each time." if shrinking else "."),
    )


def random_plane(found: dict[str, Any]) -> Conclusion:
    """Compare how far the loss rises around the last snapshot in both settings."""
    parts = []
    for setting, one in found.items():
        ring = one["random"]
        parts.append(
            f"**{title(setting)}:** from {number(ring['center'])} at the last snapshot the loss rises to "
            f"{number(ring['border'])} on average at the border, where each filter is moved by its own norm or more"
        )
    rise = {setting: one["random"]["border"] - one["random"]["center"] for setting, one in found.items()}
    steep, other = sorted(rise, key=lambda setting: -rise[setting])
    ratio = rise[steep] / rise[other] if rise[other] > 0 else float("inf")
    centred = all(max(abs(one["random"]["lowest_x"]), abs(one["random"]["lowest_y"])) <= 0.1 for one in found.values())
    text = ". ".join(parts) + f". The rise is {ratio:.1f} times as large with {SETTING_NAMES[steep]}"
    text += ", and the lowest point lies at the snapshot in both." if centred else "."
    return Conclusion("note", text)


def barriers(found: dict[str, Any], setting: str) -> Conclusion:
    """Compare the barriers between snapshots with those to an independent run."""
    heights = np.array(found["barriers"])
    m = len(heights) - 1
    rows, columns = np.triu_indices(m, 1)
    inside = heights[:m, :m][rows, columns]
    worst = int(np.argmax(inside))
    outside = heights[m, :m]
    none = int((inside <= 0.01).sum())
    text = (
        f"**{title(setting)}:** the highest barrier between two snapshots is {number(float(inside[worst]))} (snapshots "
        f"{rows[worst] + 1} and {columns[worst] + 1}), and {none} of {plural(len(inside), 'pair')} have none above 0.01. To the run "
        f"from another start it is {number(float(outside.min()))} to {number(float(outside.max()))}"
    )
    share = float(inside[worst] / outside.min()) if outside.min() > 0 else float("inf")
    if share >= 0.5:
        text += (
            ". Between some snapshots the ridge is as high as half of that or more: they lie in basins of their own."
        )
    elif share >= 0.1:
        text += f". Between some snapshots there is a low ridge, {share:.0%} of the lowest of those."
    else:
        text += (
            f"; the highest between snapshots is {share:.1%} of the lowest of those. So the restarts did not throw this run "
            "into separate basins: its snapshots lie in one valley."
        )
    return Conclusion("note", text)


def sharpness(found: dict[str, Any], setting: str) -> Conclusion:
    """Say whether the end of a cycle is flatter or sharper than shortly after the restart."""
    sharp = found["sharpness"]
    pair = sharp["comparison"]
    before, after = float(np.mean(sharp["before"])), float(np.mean(sharp["after"]))
    words = {
        "helped": "flatter before the restart than after it",
        "hurt": "sharper before the restart than after it",
        "none": "not clearly different before and after a restart",
    }
    interval = (
        "" if pair["n"] < 2 else f", 95% interval of the difference {short(pair['low'])} to {short(pair['high'])}"
    )
    return Conclusion(
        "note",
        f"**{title(setting)}:** the place is {words[pair['verdict']]}: moving every filter by {sharp['rho']:.0%} of its norm raises "
        f"the loss by {short(before)} at the end of a cycle, and by {short(after)} when {sharp['updates_after']} updates have "
        f"passed since the restart (mean of {plural(pair['n'], 'restart')}{interval}).",
    )

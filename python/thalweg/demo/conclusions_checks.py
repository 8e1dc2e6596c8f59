"""How far the conclusions can be trusted: all comparisons judged together, and another weight decay. From results.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .conclusions import MEASURED, Results, pairs_of, questions
from .config import SETTING_NAMES, SETTINGS
from .runs import NAMES
from .stats import Paired, holm, paired
from .words import Conclusion, capital, interval, listed, plural, short

_WORDS = {"helped": "a clear gain", "none": "no clear difference", "hurt": "a clear loss"}
_CHECKED = (("snapshot", "sgdr"), ("snapshot", "nocycle"), ("snapshot", "best_snapshot"))
_MEASURES = {"error": "error", "nll": "NLL"}

Key = tuple[str, str, str, str]  # setting, a, b, measure


def all_pairs(results: Results) -> dict[Key, Paired]:
    """Return every comparison of the summary between two methods."""
    return {
        (setting, a, b, measure): pair
        for setting in SETTINGS
        for a, b in questions(results, setting)
        for measure, pair in pairs_of(results, setting, a, b).items()
    }


def corrected(results: Results) -> set[Key]:
    """Return the clear differences that stay clear after Holm's correction for all comparisons of the summary."""
    pairs = all_pairs(results)
    kept = holm([pair.p for pair in pairs.values()])
    return {key for (key, pair), stays in zip(pairs.items(), kept, strict=True) if stays and pair.verdict != "none"}


def together(results: Results) -> str:
    """Say how many clear differences are left when all comparisons are judged together."""
    pairs, kept = all_pairs(results), corrected(results)
    clear = sum(pair.verdict != "none" for pair in pairs.values())
    return (
        f"Each interval stands for itself: among {len(pairs)} comparisons (error and NLL counted singly) {clear} are clear, and "
        f"{len(kept)} of these stay clear when all are judged together by Holm's correction; they bear an asterisk in "
        "the tables near the end."
    )


def differences(results: Results, setting: str) -> list[tuple[str, ...]]:
    """Return rows (a - b, difference in error, in NLL) with 95% intervals; an asterisk marks what Holm's correction leaves."""
    kept = corrected(results)
    return [
        (
            f"{NAMES[a]} − {NAMES[b]}",
            *(
                interval(pair, measure) + (" *" if (setting, a, b, measure) in kept else "")
                for measure, pair in pairs_of(results, setting, a, b).items()
            ),
        )
        for a, b in questions(results, setting)
    ]


def other_rows(found: dict[str, Any], setting: str) -> list[tuple[str, ...]]:
    """Return rows (a - b, difference in error, in NLL) at the other weight decay."""
    values = found["methods"][setting]
    return [
        (f"{NAMES[a]} − {NAMES[b]}", *(interval(paired(values[a][m], values[b][m]), m) for m in MEASURED))
        for a, b in _CHECKED
    ]


def weight_decay(results: Results, setting: str) -> Conclusion:
    """Say which verdicts about the snapshot ensemble are the same at the other weight decay."""
    found = results["other_weight_decay"]
    values = found["methods"][setting]
    same: list[str] = []
    changed: list[str] = []
    for a, b in _CHECKED:
        now = pairs_of(results, setting, a, b)
        for measure, name in _MEASURES.items():
            before, after = now[measure].verdict, paired(values[a][measure], values[b][measure]).verdict
            if before == after:
                same.append(f"{name} against {NAMES[b]}")
            else:
                changed.append(f"{name} against {NAMES[b]}: {_WORDS[before]} becomes {_WORDS[after]}")
    return Conclusion("none" if changed else "helped", _told(setting, found["weight_decay"], same, changed))


def _told(setting: str, value: float, same: Sequence[str], changed: Sequence[str]) -> str:
    total = len(same) + len(changed)
    text = f"**{capital(SETTING_NAMES[setting])}:** with weight decay {short(value)}, "
    if not changed:
        return text + f"all {plural(total, 'verdict')} on the snapshot ensemble stay as they were."
    text += (
        f"{len(changed)} of {plural(total, 'verdict')} on the snapshot ensemble not confirmed: {'; '.join(changed)}."
    )
    text += " Do not rely on what is not confirmed."
    return text + (f" Unchanged: {listed(same)}." if same else "")

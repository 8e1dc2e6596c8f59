"""The conclusion below each figure and the summary, from the numbers in results.json. Knows no models and no figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .config import SETTING_NAMES, SETTINGS
from .runs import NAMES
from .stats import Paired, paired
from .words import (
    Conclusion,
    capital,
    combined,
    compared,
    comparison,
    listed,
    number,
    plural,
    short,
    shown,
    trend,
)

Results = dict[str, Any]
SINGLES = ("constant", "step", "cosine", "triangular")
MEASURED = ("error", "nll")
CURVES = {**NAMES, "sgdr": "SGDR"}


def title(setting: str) -> str:
    """Return how a sentence begins that is about one setting."""
    return capital(SETTING_NAMES[setting])


def pairs_of(results: Results, setting: str, a: str, b: str) -> dict[str, Paired]:
    """Compare two methods seed by seed in error and NLL."""
    values = results["methods"][setting]
    return {measure: paired(values[a][measure], values[b][measure]) for measure in MEASURED}


def best_single(results: Results, setting: str) -> str:
    """Return the single run with the lowest mean error, of those that take no snapshots."""
    values = results["methods"][setting]
    return min(SINGLES, key=lambda m: (float(np.mean(values[m]["error"])), float(np.mean(values[m]["nll"]))))


def versus(results: Results, setting: str, a: str, b: str) -> Conclusion:
    """Compare two methods in one setting, in words."""
    return comparison(SETTING_NAMES[setting], NAMES[a], NAMES[b], pairs_of(results, setting, a, b))


def questions(results: Results, setting: str) -> list[tuple[str, str]]:
    """Return the pairs of methods that the summary compares; "best" single means lowest mean test error, in hindsight."""
    best = best_single(results, setting)
    return [
        ("snapshot", "sgdr"),
        ("snapshot", best),
        ("snapshot", "nocycle"),
        ("sgdr", best),
        ("snapshot", "best_snapshot"),
        ("average", "snapshot"),
        ("fitted", "snapshot"),
    ]


def summary(results: Results) -> list[Conclusion]:
    """Return the comparisons that answer what helped, what did not and what hurt."""
    lines = [versus(results, setting, a, b) for setting in reversed(SETTINGS) for a, b in questions(results, setting)]
    return [*lines, saddle(results["saddle"])]


def ordered(lines: Sequence[Conclusion]) -> list[Conclusion]:
    """Return what helped first, then what was mixed, what made no clear difference, what hurt; else as given."""
    order = ("helped", "mixed", "none", "hurt", "note")
    return sorted(lines, key=lambda line: order.index(line.verdict))


def data(counts: dict[str, Any]) -> Conclusion:
    """Say what re-drawing did to the training labels."""
    return Conclusion(
        "note",
        f"{counts['redrawn']} of {counts['train']} training labels were re-drawn and {counts['wrong']} of them "
        f"({counts['wrong'] / counts['train']:.1%} of all) are wrong now; some draws hit the true class again. "
        f"The {counts['val']} validation and {counts['test']} test labels are untouched in both settings.",
    )


def range_test(found: dict[str, Any]) -> Conclusion:
    """Say which phases the range tests showed and what they suggest; `found` is per setting."""
    parts = []
    for setting in SETTINGS:
        result = found[setting]
        if result["suggestion"] is None:
            parts.append(f"**{title(setting)}:** no suggestion ({result['reason']}); usual rates are used instead.")
            continue
        ranges = {name: f"from {short(low)} to {short(high)}" for name, (low, high) in result["phases"].items()}
        missing = [name for name in ("flat", "descent", "divergence") if name not in ranges]
        phases = listed([f"{name} {where}" for name, where in ranges.items()])
        parts.append(
            f"**{title(setting)}:** {phases}{f' (not seen: {listed(missing)})' if missing else ''}; suggestion "
            f"{short(result['suggestion'])}, cyclical bounds {short(result['bounds'][0])} and {short(result['bounds'][1])}."
        )
    measured = all(found[setting]["suggestion"] is not None for setting in SETTINGS)
    if all(len(found[setting]["phases"]) == 3 for setting in SETTINGS):
        parts.append("Both tests show all three phases.")
    return Conclusion("helped" if measured else "none", " ".join(parts))


def curves(final: dict[str, Any], learnt: dict[str, Any]) -> Conclusion:
    """Say when validation error was lowest and where it ended, and how many wrong labels were learnt meanwhile.

    Args:
        final: Per setting and method the validation error by epoch.
        learnt: Per setting and method the share of the wrong training labels reproduced, by epoch; may lack a setting.
    """
    parts = []
    for setting in SETTINGS:
        last = {method: errors[-1] for method, errors in final[setting].items()}
        best, worst = (choose(last, key=lambda method: last[method]) for choose in (min, max))
        text = (
            f"**{title(setting)}:** the last epoch's validation error is between {shown(last[best], 'error')} "
            f"({CURVES[best]}) and {shown(last[worst], 'error')} ({CURVES[worst]})"
        )
        risen = [m for m, errors in final[setting].items() if errors[-1] > min(errors) + 0.02]
        if risen:
            lowest = min(min(errors) for errors in final[setting].values())
            text += (
                f"; {len(risen)} of {plural(len(last), 'run')} end more than 2 points above their own best epoch "
                f"(the best of all: {shown(lowest, 'error')})"
            )
        if learnt.get(setting):
            text += f"; {_memorised(final[setting], learnt[setting])}"
        parts.append(text + ".")
    return Conclusion("note", " ".join(parts) + " This is one seed; all of them follow below.")


def _memorised(errors: dict[str, Any], learnt: dict[str, Any]) -> str:
    """Say which share of the wrong labels the runs reproduce at their own best epoch and at the end."""
    best = [learnt[method][int(np.argmin(values))] for method, values in errors.items()]
    last = [learnt[method][-1] for method in errors]
    return (
        f"of the wrong training labels the networks reproduce {min(best):.0%} to {max(best):.0%} at their best epoch and "
        f"{min(last):.0%} to {max(last):.0%} at the end" + (": they memorise them" if min(last) > max(best) else "")
    )


def twin(found: dict[str, Any]) -> Conclusion:
    """Say how far thalweg's and torch's loss curves differ, in float64 and float32."""
    double, single = found["float64"], found["float32"]
    equal = double["max_difference"] < 1e-9
    rates = max(double["max_lr_difference"], single["max_lr_difference"])
    grown = single["max_difference"] > 100 * single["first_epoch"]
    return Conclusion(
        "helped" if equal else "hurt",
        f"In float64 the two curves differ by at most {short(double['max_difference'])} over all {double['steps']} updates: "
        + ("the same numbers up to rounding" if equal else "more than rounding explains")
        + f". In float32 they differ by at most {short(single['first_epoch'])} in the first epoch and "
        f"{short(single['max_difference'])} in the whole run"
        + (", as training amplifies the last bit of every float32 sum" if grown else "")
        + ". "
        + ("The learning rates are the same." if rates == 0 else f"The rates differ by at most {short(rates)}."),
    )


def methods(results: Results, setting: str) -> Conclusion:
    """Compare the snapshot ensemble with every single run of the same budget; the best of them decides the verdict."""
    words = {"helped": "clearly lower than", "none": "not clearly different from", "hurt": "clearly higher than"}
    parts = []
    for measure, name in (("error", "error"), ("nll", "NLL")):
        groups: dict[str, list[str]] = {}
        for method in (*SINGLES, "sgdr"):
            pair = pairs_of(results, setting, "snapshot", method)[measure]
            groups.setdefault(words[pair.verdict], []).append(NAMES[method])
        parts.append(f"Its {name} is " + "; it is ".join(f"{word} that of {listed(n)}" for word, n in groups.items()))
    values = results["methods"][setting]["snapshot"]
    error, nll = (shown(float(np.mean(values[measure])), measure) for measure in MEASURED)
    best = best_single(results, setting)
    verdict = combined(pair.verdict for pair in pairs_of(results, setting, "snapshot", best).values())
    return Conclusion(
        verdict,
        f"**{title(setting)}:** the snapshot ensemble has {error} test error and NLL {nll}. {'. '.join(parts)}.",
    )


def last_m(results: Results, setting: str) -> Conclusion:
    """Say how the ensembles change with the number of members, and whether one member alone would have done."""
    found = results["ensemble"][setting]
    error, nll = (np.mean(found["snapshot"]["last_m"][measure], axis=0).tolist() for measure in MEASURED)
    members = np.mean(found["snapshot"]["members"]["error"], axis=0).tolist()
    best = int(np.argmin(members))
    pairs = pairs_of(results, setting, "snapshot", "nocycle")
    alone = "less than" if members[best] < error[-1] else "no less than"
    return Conclusion(
        combined(pair.verdict for pair in pairs.values()),
        f"**{title(setting)}:** the snapshot ensemble's {trend(error, 'error')}; its {trend(nll, 'nll')}. In hindsight "
        f"the best single snapshot is number {best + 1} with {shown(members[best], 'error')} error, {alone} the whole ensemble. Against the NoCycle ensemble: "
        f"{'; '.join(compared(pair, measure) for measure, pair in pairs.items())}.",
    )


def off_diagonal(matrix: Any) -> tuple[float, float, float]:
    """Return the mean of a symmetric matrix off its diagonal, next to it, and farther away."""
    array = np.asarray(matrix, dtype=np.float64)
    rows, columns = np.triu_indices(len(array), 1)
    values, near = array[rows, columns], columns - rows == 1
    far = values[~near]
    return float(values.mean()), float(values[near].mean()), float(far.mean()) if len(far) else float("nan")


def diversity(results: Results, setting: str) -> Conclusion:
    """Say which ensemble's members differ more, and where."""
    found = results["ensemble"][setting]
    ours, theirs = (found[kind] for kind in ("snapshot", "nocycle"))
    correlation, near, far = off_diagonal(ours["correlation"])
    other = off_diagonal(theirs["correlation"])[0]
    differ = [off_diagonal(kind["disagreement"])[0] for kind in (ours, theirs)]
    last = [kind["disagreement"][-1][-2] for kind in (ours, theirs)]
    if correlation < other:
        text = "the restarts give more diversity"
    elif last[0] > last[1]:
        text = "NoCycle's members differ more on the whole, but the last two differ more with restarts"
    else:
        text = "the restarts give no more diversity"
    return Conclusion(
        "note",
        f"**{title(setting)}:** {text}. Mean correlation {number(correlation)} among snapshots and {number(other)} among "
        f"NoCycle members; {differ[0]:.1%} and {differ[1]:.1%} of the test images are classified differently by two members, "
        f"{last[0]:.1%} and {last[1]:.1%} by the last two. Neighbouring snapshots correlate {number(near)}, others {number(far)}.",
    )


def saddle(found: dict[str, Any]) -> Conclusion:
    """Say which learning rates left the plateau."""
    small, cyclical, mean, peak = (found[name] for name in ("small", "cyclical", "mean", "peak"))

    def tells(run: dict[str, Any]) -> str:
        if run["diverged"]:
            return "diverges"
        return f"leaves after {run['left']} updates" if run["left"] is not None else "is still there"

    left = cyclical["left"] is not None
    helped = left and small["left"] is None
    text = (
        f"**Saddle:** after {found['steps']} updates the small constant rate {tells(small)} on the plateau"
        if small["left"] is None and not small["diverged"]
        else f"**Saddle:** the small constant rate {tells(small)}"
    )
    text += f"; the cyclical one {tells(cyclical)}. A constant rate at the cycle's mean {tells(mean)}"
    if left and mean["left"] is not None:
        text += ", so what leaves the plateau is the larger rate, not the cycle itself"
    text += f"; held at the peak, the rate {tells(peak)}"
    if left and peak["diverged"]:
        text += ": the cycle can visit rates that would not be stable for long"
    return Conclusion("helped" if helped else "none" if left or small["left"] is None else "hurt", text + ".")


def timing(shares: dict[str, Any]) -> Conclusion:
    """Say what part of a training step schedule and optimizer take; these numbers change from run to run."""
    ours, theirs, fused = (shares[name] for name in ("thalweg", "torch", "torch fused"))
    ratio = theirs["update_us"] / ours["update_us"]
    best = min(theirs["update_us"], fused["update_us"]) / ours["update_us"]
    gradients = [entry["gradient_us"] for entry in (ours, theirs, fused)]
    spread = max(gradients) / min(gradients) - 1
    return Conclusion(
        "helped" if best > 1 else "hurt",
        f"**Step time:** optimizer and schedule take {theirs['share']:.1%} of a training step with torch ({theirs['update_us']:.0f} µs), "
        f"{fused['share']:.1%} with torch's fused SGD ({fused['update_us']:.0f} µs) and {ours['share']:.1%} with thalweg "
        f"({ours['update_us']:.0f} µs): thalweg needs 1/{ratio:.1f} of the default's time and 1/{best:.1f} of the faster one's. "
        f"The rest of the step is the same code in all three and differs by {spread:.0%}: so exact is this measurement.",
    )

"""Statistics and conclusions on numbers made by hand: helped, mixed, no clear difference, hurt, too few seeds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats as scipy_stats

from thalweg.demo import conclusions, conclusions_checks, conclusions_valley, saddle
from thalweg.demo.runs import TITLES
from thalweg.demo.stats import holm, mean_se, paired
from thalweg.demo.words import combined, compared, comparison, interval, number, short, trend

LOW, HIGH = [0.10, 0.11, 0.09, 0.10], [0.20, 0.22, 0.19, 0.20]


def test_paired_against_scipy(rng: np.random.Generator) -> None:
    for n in (2, 3, 5, 10):
        a, b = rng.normal(size=n), rng.normal(size=n) + 0.3
        found = paired(a.tolist(), b.tolist())
        expected = scipy_stats.ttest_rel(a, b)
        low, high = expected.confidence_interval(0.95)
        np.testing.assert_allclose(
            [found.t, found.p, found.low, found.high, found.mean],
            [expected.statistic, expected.pvalue, low, high, (a - b).mean()],
            rtol=1e-9,
        )
        assert (found.wins, found.ties, found.losses) == ((a < b).sum(), 0, (a > b).sum())


def test_verdicts() -> None:
    assert paired(LOW, HIGH).verdict == "helped"
    assert paired(HIGH, LOW).verdict == "hurt"
    assert paired([0.1, 0.2, 0.3], [0.2, 0.1, 0.31]).verdict == "none"
    assert paired(LOW[:2], HIGH[:2]).verdict == "none"  # two seeds make no claim, however clear they look
    assert paired(LOW[:1], HIGH[:1]).verdict == "none"
    same = paired(LOW, LOW)
    assert (same.verdict, same.ties, same.mean) == ("none", 4, 0.0)
    assert math.isnan(same.t)
    constant = paired([1.0, 2.0, 3.0], [2.0, 3.0, 4.0])
    assert constant.verdict == "helped"
    assert (constant.t, constant.p) == (-math.inf, 0.0)
    assert same.p == 1.0
    assert math.isnan(paired([1.0], [2.0]).p)


def test_holm_against_its_definition() -> None:
    assert holm([]) == []
    assert holm([0.04]) == [True]
    assert holm([0.04, 0.04]) == [False, False]  # 0.04 > 0.05 / 2
    assert holm([0.03, 0.01, 0.04]) == [False, True, False]  # 0.01 <= 0.05 / 3, then 0.03 > 0.05 / 2 ends it
    assert holm([0.02, 0.01, 0.04]) == [True, True, True]
    assert holm([math.nan, 0.02]) == [False, True]


def test_paired_refuses_lists_that_do_not_pair() -> None:
    for a, b in (([], []), ([1.0], [1.0, 2.0])):
        with pytest.raises(ValueError, match="paired: a and b must be lists of one positive length"):
            paired(a, b)


def test_mean_se() -> None:
    mean, se = mean_se([1.0, 2.0, 3.0, 4.0])
    assert mean == 2.5
    assert se == pytest.approx(math.sqrt(5 / 3) / 2)
    assert math.isnan(mean_se([1.0])[1])


def test_numbers_in_words() -> None:
    assert number(-0.0004, 3) == "0.000"
    assert number(-1.5, 1) == "−1.5"
    assert number(math.nan) == "unknown"
    assert number(-math.inf) == "−∞"
    assert short(0.000123) == "0.00012"
    assert short(1e-9) == "1e−09"


def test_combined_verdicts() -> None:
    assert combined(["helped", "none"]) == "helped"
    assert combined(["hurt", "none"]) == "hurt"
    assert combined(["helped", "hurt"]) == "mixed"
    assert combined(["none", "none"]) == "none"


def test_comparison_says_which_way_and_how_sure() -> None:
    helped = comparison("noisy labels", "a", "b", {"error": paired(LOW, HIGH), "nll": paired(LOW, HIGH)})
    assert helped.verdict == "helped"
    assert helped.text == (
        "**Noisy labels, a against b:** test error 10.0% against 20.2%, lower with 4 of 4 seeds; "
        "NLL 0.100 against 0.203, lower with 4 of 4 seeds."
    )
    hurt = comparison("plain digits", "a", "b", {"error": paired(HIGH, LOW)})
    assert hurt.verdict == "hurt"
    assert "20.2% against 10.0%, higher with 4 of 4 seeds" in hurt.text
    none = compared(paired([0.1, 0.2, 0.3], [0.2, 0.1, 0.3]), "error")
    assert none == "test error 20.0% against 20.0%, no clear difference (lower with 1 of 3 seeds, equal with 1)"
    mixed = comparison("x", "a", "b", {"error": paired(LOW, HIGH), "nll": paired(HIGH, LOW)})
    assert mixed.verdict == "mixed"
    assert "(only 2 seeds: too few for a claim)" in compared(paired(LOW[:2], HIGH[:2]), "error")


def test_interval_in_words() -> None:
    text = interval(paired(LOW, HIGH), "error")
    assert text.startswith("−10.2 (−1")
    assert interval(paired([0.1], [0.2]), "error") == "−10.0"


def test_trend() -> None:
    assert trend([0.3, 0.2, 0.1], "error").startswith("test error falls with every further member (30.0% alone, 10.0%")
    assert "falls with no further member" in trend([0.1, 0.2, 0.3], "nll")
    assert "falls with 1 of 2 further members and is lowest with the last 2" in trend([0.2, 0.1, 0.15], "nll")


def results(**changed: list[float]) -> dict[str, Any]:
    """Methods with equal numbers in both settings, but for those given."""
    same = [0.15, 0.16, 0.14, 0.15]
    values = {name: {"error": changed.get(name, same), "nll": changed.get(name, same)} for name in TITLES}
    member = [[0.2, 0.18, 0.16]] * 4
    kinds = {
        kind: {
            "members": {"error": member, "nll": member},
            "last_m": {"error": member, "nll": member},
            "correlation": np.full((3, 3), level).tolist(),
            "disagreement": np.full((3, 3), 1 - level).tolist(),
        }
        for kind, level in (("snapshot", 0.9), ("nocycle", 0.95))
    }
    runs = {"small": (None, False), "cyclical": (70, False), "mean": (71, False), "peak": (None, True)}
    descents = {name: {"left": left, "diverged": gone} for name, (left, gone) in runs.items()}
    return {
        "methods": {"plain": values, "noisy": values},
        "ensemble": {"plain": kinds, "noisy": kinds},
        "saddle": {"steps": 250, **descents},
    }


def test_summary_follows_the_numbers() -> None:
    for changed, verdict in ((LOW, "helped"), ([0.15, 0.155, 0.145, 0.15], "none"), (HIGH, "hurt")):
        found = results(snapshot=changed)
        line = conclusions.versus(found, "noisy", "snapshot", "sgdr")
        assert line.verdict == verdict
        assert line.text.startswith("**Noisy labels, the snapshot ensemble against the last SGDR snapshot alone:**")
        assert conclusions.methods(found, "plain").verdict == verdict
    lines = conclusions.ordered(conclusions.summary(results(snapshot=HIGH, fitted=LOW)))
    verdicts = [line.verdict for line in lines]
    assert verdicts == sorted(verdicts, key=["helped", "mixed", "none", "hurt"].index)
    assert {"helped", "none", "hurt"} <= set(verdicts)


def test_best_single_run_is_the_hardest_to_beat() -> None:
    found = results(cosine=LOW, snapshot=[0.12, 0.13, 0.11, 0.12])
    assert conclusions.best_single(found, "plain") == "cosine"
    assert conclusions.versus(found, "plain", "snapshot", "step").verdict == "helped"
    assert conclusions.methods(found, "plain").verdict == "hurt"
    assert ("snapshot", "cosine") in conclusions.questions(found, "plain")
    rows = conclusions_checks.differences(found, "plain")
    assert "the snapshot ensemble − the single cosine" in [row[0] for row in rows]


def test_comparisons_are_judged_together() -> None:
    found = results()
    assert conclusions_checks.corrected(found) == set()
    assert "among 28 comparisons (error and NLL counted singly) 0 are clear, and 0 of" in conclusions_checks.together(
        found
    )
    narrow = [0.140, 0.157, 0.132, 0.139]  # clear alone (p = 0.04), not among 28
    assert paired(narrow, [0.15, 0.16, 0.14, 0.15]).verdict == "helped"
    found = results(fitted=narrow, nocycle=[0.25, 0.26, 0.24, 0.2501])
    kept = conclusions_checks.corrected(found)
    assert {key[1:3] for key in kept} == {("snapshot", "nocycle")}
    assert f"8 are clear, and {len(kept)} of" in conclusions_checks.together(found)
    rows = {row[0]: row[1:] for row in conclusions_checks.differences(found, "plain")}
    assert all(cell.endswith(" *") for cell in rows["the snapshot ensemble − the NoCycle ensemble"])
    fitted = rows["the snapshot ensemble fitted on validation − the snapshot ensemble"]
    assert not any("*" in cell for cell in fitted)


def test_another_weight_decay_says_which_verdicts_hold() -> None:
    found = results(snapshot=LOW)
    found["other_weight_decay"] = {"weight_decay": 5e-4, "methods": results(snapshot=LOW)["methods"]}
    told = conclusions_checks.weight_decay(found, "noisy")
    assert told.verdict == "helped"
    assert told.text.startswith("**Noisy labels:** with weight decay 0.0005, all 6 verdicts")
    found["other_weight_decay"]["methods"] = results(snapshot=LOW, nocycle=LOW)["methods"]
    told = conclusions_checks.weight_decay(found, "plain")
    assert told.verdict == "none"
    assert "2 of 6 verdicts" in told.text
    assert "error against the NoCycle ensemble: a clear gain becomes no clear difference" in told.text
    assert "Unchanged: error against the last SGDR snapshot alone" in told.text


def test_curves_say_what_was_learnt_by_heart() -> None:
    errors = {"constant": [0.3, 0.05, 0.2], "sgdr": [0.3, 0.06, 0.15]}
    learnt = {"noisy": {"constant": [0.0, 0.1, 0.9], "sgdr": [0.0, 0.2, 0.8]}}
    told = conclusions.curves({"plain": errors, "noisy": errors}, learnt).text
    assert told.count("wrong training labels") == 1
    assert "2 of 2 runs end more than 2 points above their own best epoch (the best of all: 5.0%)" in told
    assert "reproduce 10% to 20% at their best epoch and 80% to 90% at the end: they memorise them" in told
    learnt["noisy"]["sgdr"] = [0.0, 0.2, 0.1]
    assert "memorise" not in conclusions.curves({"plain": errors, "noisy": errors}, learnt).text


def test_members_conclusion_names_a_better_single_member() -> None:
    found = results()
    found["ensemble"]["plain"]["snapshot"]["members"]["error"] = [[0.05, 0.2, 0.3]] * 4
    assert "number 1 with 5.0% error, less than the whole ensemble" in conclusions.last_m(found, "plain").text
    found["ensemble"]["plain"]["snapshot"]["members"]["error"] = [[0.5, 0.2, 0.3]] * 4
    assert "error, no less than the whole ensemble" in conclusions.last_m(found, "plain").text


def test_diversity_conclusion() -> None:
    assert "the restarts give more diversity" in conclusions.diversity(results(), "noisy").text
    swapped = results()
    both = swapped["ensemble"]["noisy"]
    both["snapshot"], both["nocycle"] = both["nocycle"], both["snapshot"]
    assert "the restarts give no more diversity" in conclusions.diversity(swapped, "noisy").text
    mean, near, far = conclusions.off_diagonal([[1, 0.9, 0.5], [0.9, 1, 0.8], [0.5, 0.8, 1]])
    assert (mean, near, far) == pytest.approx((2.2 / 3, 0.85, 0.5))


def test_saddle_conclusion() -> None:
    found = results()["saddle"]
    told = conclusions.saddle(found)
    assert told.verdict == "helped"
    assert "not the cycle itself" in told.text
    stuck, quick = {"left": None, "diverged": False}, {"left": 9, "diverged": False}
    assert conclusions.saddle({**found, "cyclical": stuck}).verdict == "none"
    assert conclusions.saddle({**found, "small": quick}).verdict == "none"
    assert conclusions.saddle({**found, "small": quick, "cyclical": stuck}).verdict == "hurt"


def test_range_test_conclusion() -> None:
    phases = {"flat": (1e-5, 1e-3), "descent": (1e-3, 0.1), "divergence": (1.0, 10.0)}
    good = {"suggestion": 0.01, "bounds": (1e-3, 0.1), "phases": phases, "reason": ""}
    both = conclusions.range_test({"plain": good, "noisy": good})
    assert both.verdict == "helped"
    assert "Both tests show all three phases" in both.text
    short_one = {**good, "phases": {"flat": phases["flat"], "descent": phases["descent"]}}
    assert "(not seen: divergence)" in conclusions.range_test({"plain": short_one, "noisy": good}).text
    none = {"suggestion": None, "bounds": None, "phases": {}, "reason": "the loss does not fall"}
    abstained = conclusions.range_test({"plain": none, "noisy": good})
    assert abstained.verdict == "none"
    assert "no suggestion (the loss does not fall)" in abstained.text


def test_twin_conclusion() -> None:
    single = {"max_difference": 0.04, "first_epoch": 1e-7, "max_lr_difference": 0.0, "steps": 9}
    equal = conclusions.twin({"float64": {**single, "max_difference": 1e-14}, "float32": single})
    assert equal.verdict == "helped"
    assert "the same numbers up to rounding" in equal.text
    assert conclusions.twin({"float64": {**single, "max_difference": 1e-3}, "float32": single}).verdict == "hurt"


def test_timing_conclusion() -> None:
    def share(update: float) -> dict[str, float]:
        return {"gradient_us": 900.0, "update_us": update, "share": update / (900 + update)}

    faster = {"torch": share(200), "torch fused": share(100), "thalweg": share(50)}
    assert conclusions.timing(faster).verdict == "helped"
    assert "1/4.0 of the default's time and 1/2.0 of the faster" in conclusions.timing(faster).text
    assert conclusions.timing({**faster, "thalweg": share(150)}).verdict == "hurt"
    assert "differs by 0%" in conclusions.timing(faster).text
    uneven = {**faster, "torch": {**share(200), "gradient_us": 990.0}}
    assert "differs by 10%" in conclusions.timing(uneven).text


def test_landscape_conclusions() -> None:
    heights = np.zeros((4, 4))
    heights[3, :3] = heights[:3, 3] = 1.0
    found: dict[str, Any] = {
        "barriers": heights,
        "random": {"center": 0.1, "border": 1.1, "lowest": 0.1, "lowest_x": 0.0, "lowest_y": 0.0},
        "sharpness": {
            "rho": 0.25,
            "before": LOW,
            "after": HIGH,
            "updates_after": 24,
            "comparison": paired(LOW, HIGH).to_dict(),
        },
    }
    assert "its snapshots lie in one valley" in conclusions_valley.barriers(found, "plain").text
    assert "flatter before the restart" in conclusions_valley.sharpness(found, "plain").text
    heights[0, 1] = heights[1, 0] = 0.9
    assert "basins of their own" in conclusions_valley.barriers(found, "plain").text
    heights[0, 1] = heights[1, 0] = 0.25
    assert "a low ridge, 25% of the lowest" in conclusions_valley.barriers(found, "plain").text
    reverse = {**found["sharpness"], "comparison": paired(HIGH, LOW).to_dict()}
    assert "sharper before the restart" in conclusions_valley.sharpness({**found, "sharpness": reverse}, "plain").text
    steep = {**found, "random": {**found["random"], "border": 4.1}}
    told = conclusions_valley.random_plane({"plain": found, "noisy": steep}).text
    assert "4.0 times as large with noisy labels" in told
    assert "the lowest point lies at the snapshot in both" in told


def test_saddle_runs_do_what_the_mathematics_says() -> None:
    runs = saddle.run()
    # Along x the update is x <- (1 - 25 lr) x; along y near 0 it grows by 1 + lr (1 - y^2) a step.
    small = runs["small"].path
    np.testing.assert_allclose(small[:, 0], 0.6 * (1 - 25 * saddle.SMALL) ** np.arange(len(small)), rtol=1e-9)
    y = [saddle.START[1]]
    for _ in range(saddle.STEPS):
        y.append(y[-1] + saddle.SMALL * y[-1] * (1 - y[-1] ** 2))
    np.testing.assert_allclose(small[:, 1], y, rtol=1e-9)
    assert runs["small"].left is None
    assert runs["cyclical"].left is not None
    assert runs["peak"].diverged  # 25 * 0.1 > 2
    height = saddle.surface(np.array([0.0, 0.6]), np.array([0.0, 0.02, 1.0]))
    np.testing.assert_allclose(height[0, 0], 0.25)
    np.testing.assert_allclose(height[2, 0], 0.0, atol=1e-15)
    np.testing.assert_allclose(height[1, 1], runs["small"].losses[0])

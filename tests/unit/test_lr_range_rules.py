"""Other packages' rules against the packages themselves, run once on the same losses (benchmarks/range_rules_golden.py)."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from thalweg._lr_range_analysis import OWN_RULES
from thalweg._lr_range_rules import RULES, peer_suggestions
from thalweg.lr_range import analyse

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "lr_range_rules.json").read_text())


@pytest.mark.parametrize("rule", sorted(GOLDEN["ramps"]))
def test_the_same_answer_as_the_package_itself(rule: str) -> None:
    answered = 0
    for case in GOLDEN["cases"]:
        wanted = case["answers"][rule]
        n = min(wanted["steps"], len(case["losses"]))
        lrs, losses = np.array(GOLDEN["ramps"][rule][:n]), np.array(case["losses"][:n])
        found = peer_suggestions(lrs, losses, GOLDEN["num_steps"]).get(rule)
        if wanted["suggestion"] is None:
            assert found is None
        else:
            assert found == pytest.approx(wanted["suggestion"], rel=1e-5)  # the packages count in float32
            answered += 1
    assert answered >= 20


def test_lightning_before_its_change_takes_the_index() -> None:
    """Its old rule has no package to ask: the steepest step of the average, first 10 and last point left out."""
    rng = np.random.default_rng(1)
    lrs = np.geomspace(1e-7, 1, 120)
    losses = 2.0 - 1.5 / (1 + np.exp(-(np.log10(lrs) + 3) * 4)) + 0.02 * rng.standard_normal(120)
    averages, average = [], 0.0
    for k, loss in enumerate(losses):
        average = 0.98 * average + 0.02 * loss
        averages.append(average / (1 - 0.98 ** (k + 2)))
    slopes = np.gradient(np.array(averages)[10:-1])
    assert peer_suggestions(lrs, losses, 120)["lightning<2.5.3"] == lrs[10 + int(np.argmin(slopes))]


@pytest.mark.parametrize("rule", [*OWN_RULES, *RULES])
def test_a_rule_is_what_the_suggestion_follows(rule: str) -> None:
    rng = np.random.default_rng(2)
    lrs = np.geomspace(1e-7, 10, 200)
    t = np.log10(lrs)
    losses = 2.3 - 1.8 / (1 + np.exp(-(t + 2.5) * 4)) + 0.2 * np.exp((t + 0.5) * 6) + 0.02 * rng.standard_normal(200)
    r = analyse(lrs, losses, rule=rule)
    assert r.rule == rule
    assert set(r.candidates) == {*OWN_RULES, *RULES}
    assert r.suggestion == r.candidates[rule]
    assert r.interval is not None
    assert r.interval[0] <= r.suggestion <= r.interval[1]
    assert r.phases == analyse(lrs, losses).phases


def test_the_interval_of_a_rule_is_its_own() -> None:
    """Lightning's rule is known to jump about at the low end: that shows in its interval, and not in ours."""
    rng = np.random.default_rng(3)
    lrs = np.geomspace(1e-7, 10, 100)
    losses = 2.3 - 1.8 / (1 + np.exp(-(np.log10(lrs) + 2.5) * 4)) + 0.05 * rng.standard_normal(100)
    assert analyse(lrs, losses, rule="lightning").decades > 5 * analyse(lrs, losses).decades


def test_no_answer_and_no_such_rule() -> None:
    lrs = np.geomspace(1e-3, 1, 14)
    losses = np.linspace(2, 1, 14) ** 3
    assert "lr_finder" not in analyse(lrs, losses).candidates  # it needs 17 points
    r = analyse(lrs, losses, rule="lr_finder")
    assert r.suggestion is None
    assert r.reason == "the rule 'lr_finder' has no answer for this curve"
    assert math.isnan(r.decades)
    with pytest.raises(ValueError, match="analyse: rule must be one of 'descent'.* got 'best'"):
        analyse(lrs, losses, rule="best")


def test_a_flat_curve_gets_no_answer_whatever_the_rule() -> None:
    losses = 1 + 0.01 * np.random.default_rng(4).standard_normal(100)
    r = analyse(np.geomspace(1e-6, 1, 100), losses, rule="valley")
    assert r.suggestion is None
    assert r.reason
    assert set(r.candidates) <= set(RULES)

"""Lengths in epochs, samples, tokens and shares: resolved once, refused before, described and composed like the rest."""

from __future__ import annotations

import json
import pickle
from fractions import Fraction
from typing import Any

import pytest

from thalweg import schedules as S
from thalweg.schedules import Schedule, Unresolved, from_dict, resolve

RATES: dict[str, Any] = {
    "steps_per_epoch": 391, "samples_per_step": 128, "tokens_per_step": 2048, "total_steps": 10_001
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("10ep", 3910), ("0.5 epochs", 196), ("1epoch", 391), ("100st", 100), ("1_000 steps", 1000), ("7step", 7),
        ("50_000sp", 391), ("1e6 samples", 7813), ("2_000_000tok", 977), ("1e6tokens", 488), ("3%", 300),
        ("12.5%", 1250), ("100%", 10_001), ("1ep+50st", 441), ("1ep + 10%", 1391), ("2.5e+3st", 2500), ("rest", 10_001),
    ],
)  # fmt: skip
def test_each_unit(text: str, steps: int) -> None:
    assert S.constant(0.1, text).resolve(**RATES) == S.constant(0.1, steps)


def test_rounding_is_to_the_nearest_whole_step_halves_up() -> None:
    for share in range(1, 100):
        exact = Fraction(share * 37, 100)
        steps = S.constant(0.1, f"{share}%").resolve(total_steps=37).total_steps if exact >= Fraction(1, 2) else 0
        assert steps == int(exact + Fraction(1, 2))
    assert S.warmup("0.1%", 0.1).resolve(total_steps=100).total_steps == 0


MIXED = (S.warmup("3%", 0.1) >> S.constant(0.1, "2ep") >> S.sgdr(0.1, "1ep", 2, total_steps="rest")) * 0.5


def test_mixed_units_in_one_schedule() -> None:
    steps = MIXED.resolve(steps_per_epoch=391, total_steps=10_001)
    same = (S.warmup(300, 0.1) >> S.constant(0.1, 782) >> S.sgdr(0.1, 391, 2, total_steps=8_919)) * 0.5
    assert steps == same
    assert steps.total_steps == 10_001
    assert resolve(MIXED, **RATES) == same
    assert resolve(same) is same
    assert MIXED.resolve(steps_per_epoch=391, total_steps="20ep").total_steps == 7820


@pytest.mark.parametrize(
    "schedule",
    [
        MIXED,
        S.multistep(0.1, ["30ep", "60ep", 40_000]),
        S.piecewise_linear([0, "10%", "100%"], [0.0, 0.1, 0.0]),
        S.one_cycle(0.1, "5ep").lr,
        S.one_cycle(0.1, "5ep").momentum,
        S.cosine(0.1, "5ep").clip(0.01).repeat(3),
        S.cosine(0.1, "1ep").after_warmup("10%", style="timm"),
        S.sgdr(0.1, 10, 2).every("1ep"),
        S.sgdr(0.1, 100).delay("1ep").advance("10st"),
        S.sgdr(0.1, 100).delay("1ep").stretch(2.0),
        S.wsd(0.1, "1%", "10%", "89%"),
        S.cyclic(0.1, 0.2, "1ep", S.cosine(1.0, "5ep"), "step"),
        S.cosine(0.1, "1ep") + S.constant(0.2),
        S.minimum(S.cosine(0.1, "1ep"), 0.05),
        S.cosine(0.1, "1ep").scale_batch(128, 256),
    ],
    ids=repr,
)
def test_a_schedule_that_waits(schedule: Schedule) -> None:
    assert isinstance(schedule, Unresolved)
    for use in (
        lambda: schedule(0), lambda: schedule.values(3), lambda: schedule.total_steps, lambda: schedule.boundaries(9),
        lambda: schedule.ascii(), lambda: schedule.plan, lambda: schedule.cycle(3), lambda: schedule.is_cycle_end(3),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"units that are not resolved; call \.resolve\(steps_per_epoch="):
            use()
    resolved = schedule.resolve(**RATES)
    assert not isinstance(resolved, Unresolved)
    assert resolved(5) >= 0
    again = from_dict(json.loads(json.dumps(schedule.to_dict())))
    assert again == schedule
    assert hash(again) == hash(schedule)
    assert again.resolve(**RATES) == resolved
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    assert schedule != resolved
    assert resolved != schedule
    names = {n: getattr(S, n) for n in dir(S)}
    assert eval(repr(schedule), {"__builtins__": {}}, names) == schedule


def test_values_of_a_resolved_schedule() -> None:
    assert S.multistep(0.1, ["30ep", "60ep", 30_000]).resolve(**RATES) == S.multistep(0.1, [11_730, 23_460, 30_000])
    assert S.cosine(0.1, "1ep").after_warmup("10%", style="timm").resolve(**RATES) == S.cosine(0.1, 391).after_warmup(
        1000, style="timm"
    )
    assert S.sgdr(0.1, 10, 2).every("1ep").resolve(**RATES).cycle_ends(20_000) == [3909, 11_729]
    bundle = S.one_cycle(0.1, "5ep").resolve(**RATES)
    assert bundle == S.one_cycle(0.1, 1955)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: S.cosine(0.1, "10"), "cosine: total_steps must be a number of steps or a text such as .*, got '10'"),
        (lambda: S.cosine(0.1, "ten epochs"), "cosine: total_steps .*got 'ten epochs'"),
        (lambda: S.cosine(0.1, "10 parsecs"), "cosine: total_steps"),
        (lambda: S.cosine(0.1, "-1ep"), "cosine: total_steps"),
        (lambda: S.cosine(0.1, "1ep++2st"), "cosine: total_steps"),
        (lambda: S.sgdr(0.1, 10).every(""), "every: period must be"),
        (lambda: S.multistep(0.1, "30ep"), "multistep: milestones must be a list"),
        (lambda: S.cosine(0.1, "1ep").resolve(), r"resolve: cosine: total_steps='1ep' needs steps_per_epoch; pass"),
        (lambda: S.cosine(0.1, "1sp").resolve(steps_per_epoch=3), "needs samples_per_step"),
        (lambda: S.cosine(0.1, "1tok").resolve(steps_per_epoch=3), "needs tokens_per_step"),
        (lambda: S.cosine(0.1, "1%").resolve(steps_per_epoch=3), "needs total_steps"),
        (lambda: S.cosine(0.1, "rest").resolve(steps_per_epoch=3), "needs total_steps"),
        (lambda: S.cosine(0.1, "1%").resolve(total_steps=3), "cosine: total_steps must be an integer >= 1, got 0"),
        (lambda: S.cosine(0.1, "1ep").resolve(steps_per_epoch=0), "resolve: steps_per_epoch"),
        (lambda: S.cosine(0.1, "1ep").resolve(steps_per_epoch=1, total_steps=-1), "resolve: total_steps"),
        (lambda: S.cosine(-1.0, "1ep").resolve(steps_per_epoch=9), "cosine: lr"),
        (lambda: S.sequence(S.cosine(0.1, "1ep"), 3), "sequence: part must be a Schedule"),
        (lambda: S.sgdr(0.1, "1ep").resolve(steps_per_epoch=9).values(), "no end"),
    ],
)
def test_bad_input(make: Any, match: str) -> None:
    with pytest.raises((TypeError, ValueError), match=match):
        make()


def test_binding_needs_steps() -> None:
    import torch

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    with pytest.raises(ValueError, match="units that are not resolved"):
        MIXED.bind(optimizer)
    assert optimizer.param_groups[0]["lr"] == 1.0
    assert MIXED.resolve(**RATES).bind(optimizer).get_last_lr() == [MIXED.resolve(**RATES)(0)]

"""`thalweg schedule`: expressions are read, never run; text, JSON and a figure come out."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from thalweg import schedules
from thalweg.cli import schedule as command
from thalweg.cli.schedule import parse
from thalweg.schedules import from_dict


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("constant(0.1)", schedules.constant(0.1)),
        (" cosine(0.1, total_steps=10) ", schedules.cosine(0.1, 10)),
        ("warmup(5, 0.1) >> sgdr(0.1, t_0=10, t_mult=2)", schedules.warmup(5, 0.1) >> schedules.sgdr(0.1, 10, 2)),
        ("2 * cosine(0.1, 10) * 0.5", schedules.cosine(0.1, 10) * 2 * 0.5),
        ("cosine(0.1, 10).repeat(3)", schedules.cosine(0.1, 10).repeat(3)),
        ("cosine(0.1, 10).clip(hi=0.05).delay(3)", schedules.cosine(0.1, 10).clip(hi=0.05).delay(3)),
        ("(cosine(0.1, 10) >> linear(0.1, 3)).stretch(2)", schedules.cosine(0.1, 20) >> schedules.linear(0.1, 6)),
        ("multistep(0.1, [1, 2], gamma=.5)", schedules.multistep(0.1, [1, 2], 0.5)),
        ("snapshot_cosine(0.1, 10, 2, split='even')", schedules.snapshot_cosine(0.1, 10, 2, "even")),
        ("one_cycle(0.1, 10)", schedules.one_cycle(0.1, 10).lr),
        ("one_cycle(0.1, 10).momentum", schedules.one_cycle(0.1, 10).momentum),
        ("table([0.1, 1e-3])", schedules.table([0.1, 1e-3])),
        ("cosine(0.1, 10) + 0.5", schedules.cosine(0.1, 10) + 0.5),
        ("minimum(cosine(0.1, 10), 0.05)", schedules.minimum(schedules.cosine(0.1, 10), 0.05)),
        ("sgdr(0.1, 3).every(5).advance(2)", schedules.sgdr(0.1, 3).every(5).advance(2)),
        ("cosine(0.1, 10).after_warmup(3, style='timm')", schedules.cosine(0.1, 10).after_warmup(3, style="timm")),
        ("wsd(0.1, 3, 5).decay_at(9)", schedules.wsd(0.1, 3, 5).decay_at(9)),
        (
            "cyclic(0.1, 0.2, 3, cosine(1.0, 9), 'step')",
            schedules.cyclic(0.1, 0.2, 3, schedules.cosine(1.0, 9), "step"),
        ),
        ("cosine(0.1, '3%') >> noise(0.1)", schedules.cosine(0.1, "3%") >> schedules.noise(0.1)),
    ],
)
def test_parse(text: str, expected: schedules.Schedule) -> None:
    assert parse(text) == expected
    assert parse(repr(expected)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0.1",
        "cosine",
        "cosine(",
        "cosine(0.1, 10",
        "cosine(0.1, 10) - 1",
        "cosine(0.1, 10).decay_at(5)",
        "1 + 1",
        "cosine(0.1, 10).bind(3)",
        "cosine(0.1, 10) >> 3",
        "sine(0.1, 10)",
        "cosine(0.1)",
        "cosine(0.1, 10, nonsense=3)",
        "cosine(-0.1, 10)",
        "cosine(0.1, x)",
        "cosine(0.1, 2 * 5)",
        "table([0.1] * 1000000000000)",
        "cosine(**{'lr': 0.1, 'total_steps': 10})",
        "cosine(*[0.1, 10])",
        "cosine(0.1, 10).to_dict()",
        "cosine(0.1, 10).__class__",
        "cosine(0.1, 10).plan",
        "cosine.__globals__",
        "__import__('os').system('true')",
        "(lambda: cosine(0.1, 10))()",
        "[cosine(0.1, 10) for _ in range(3)][0]",
        "open('/etc/passwd')",
        "one_cycle(0.1, 10) >> cosine(0.1, 10)",
        "cosine(0.1, 10) if True else cosine(0.2, 10)",
        "cosine(0.1, 10); cosine(0.1, 10)",
        "(" * 5_000 + "cosine(0.1, 10)" + ")" * 5_000,
        "constant(0.1, 1)" + ".clip(hi=1)" * 5_000,
    ],
    ids=lambda text: repr(text[:40]),
)
def test_parse_refuses(text: str) -> None:
    with pytest.raises((ValueError, TypeError)):
        parse(text)


def test_units_are_resolved_by_options(capsys: pytest.CaptureFixture[str]) -> None:
    text = "warmup('1ep', 0.1) >> cosine(0.1, 'rest')"
    assert run(text, "--json", "--steps-per-epoch", "5", "--total-steps", "30") == 0
    values = json.loads(capsys.readouterr().out)["values"]
    assert values == (schedules.warmup(5, 0.1) >> schedules.cosine(0.1, 25)).values().tolist()
    with pytest.raises(ValueError, match="needs steps_per_epoch"):
        run(text)


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    args: Any = parser.parse_args(["schedule", *arguments])
    return int(args.run(args))


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("sgdr(0.1, t_0=10, t_mult=2)", "--steps", "70") == 0
    out = capsys.readouterr().out
    assert "sgdr(lr=0.1, t_0=10, t_mult=2" in out
    assert "cycle ends (0-based steps): 9, 29, 69" in out
    assert "*" in out


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("warmup(5, 0.1) >> sgdr(0.1, t_0=10)", "--steps", "40", "--json") == 0
    described = json.loads(capsys.readouterr().out)
    expected = schedules.warmup(5, 0.1) >> schedules.sgdr(0.1, 10)
    assert from_dict(described["schedule"]) == expected
    assert described["values"] == expected.values(40).tolist()
    assert described["boundaries"] == [5, 15, 25, 35]
    assert described["cycle_ends"] == [14, 24, 34]
    assert described["total_steps"] is None


def test_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib").use("agg")
    path = tmp_path / "schedule.png"
    assert run("cosine(0.1, total_steps=100)", "--out", str(path)) == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    assert str(path) in capsys.readouterr().out

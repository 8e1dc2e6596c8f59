"""The command line: output, exit codes, one-line errors."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl
import pytest

mpl.use("Agg")

from thalweg import schedules
from thalweg.cli import main


def test_schedule_prints_a_picture_and_cycle_ends(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schedule", "warmup(5, 0.1) >> sgdr(0.1, t_0=10, t_mult=2)", "--steps", "75"]) == 0
    text = capsys.readouterr().out
    assert "cycle ends (0-based steps): 14, 34, 74" in text
    assert "*" in text


def test_schedule_json_holds_the_values(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schedule", "one_cycle(0.1, total_steps=20).momentum", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["values"] == schedules.one_cycle(0.1, total_steps=20).momentum.values().tolist()
    assert schedules.from_dict(data["schedule"]).total_steps == 20


def test_schedule_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(
            ["schedule", "2 * cosine(0.1, total_steps=30).repeat(2).clip(0.01, 0.09)", "--out", str(tmp_path / "s.png")]
        )
        == 0
    )
    assert (tmp_path / "s.png").stat().st_size > 3000
    mpl.pyplot.close("all")


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("__import__('os').system('true')", "not allowed"),
        ("cosine(0.1, total_steps=-3)", "total_steps must be an integer >= 1, got -3"),
        ("cosine(0.1)", "cosine"),
        ("cosines(0.1, 3)", "known are"),
        ("sgdr(0.1, t_0=10) >> cosine(0.1, 10)", "no end"),
        ("cosine(0.1, 10) >> 3", "cannot join"),
        ("cosine(0.1,", "cannot read"),
        ("3", "expected a schedule"),
        ("(lambda: 1)()", "not allowed"),
        ("cosine(0.1, 10).__class__", "not allowed"),
    ],
)
def test_schedule_refuses_what_is_no_schedule(expression: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schedule", expression]) == 1
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1, "one line"


def test_info_for_people_and_machines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--check"]) == 0
    assert "check" in capsys.readouterr().out
    assert main(["info", "--json"]) == 0
    assert {"thalweg", "torch", "cpu_isa", "cuda"} <= json.loads(capsys.readouterr().out).keys()


def test_wrong_usage_is_exit_code_two(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["nonsense"], ["schedule"]):
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        assert exit_.value.code == 2
    capsys.readouterr()

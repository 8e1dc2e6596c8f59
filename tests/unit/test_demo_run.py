"""The whole demo on a tiny budget: promised files, the same numbers twice, nothing left after errors and Ctrl-C."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from thalweg.cli import main
from thalweg.demo import run, run_demo, story
from thalweg.demo.config import config
from thalweg.demo.output import plain, staged

FIGURES = {
    "thalweg", "digits", "range_test", "schedules", "same_as_torch", "methods", "members", "diversity", "path",
    "random_plane", "barriers", "sharpness", "saddle", "step_time",
}  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("demo") / "new" / "out"
    threads, generator = torch.get_num_threads(), torch.get_rng_state()
    results = run_demo(folder, budget="smoke", progress=False)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), generator)
    return folder, results


def test_writes_what_it_promises_and_nothing_else(done: tuple[Path, dict[str, Any]]) -> None:
    folder, results = done
    assert {file.name for file in folder.iterdir()} == {"report.html", "results.json", *(f"{n}.png" for n in FIGURES)}
    for name in FIGURES:
        data = (folder / f"{name}.png").read_bytes()
        assert data.startswith(b"\x89PNG")
        assert len(data) > 5_000, name
    assert json.loads((folder / "results.json").read_text()) == results
    assert (folder / "report.html").stat().st_size < 12_000_000


def test_results_are_complete(done: tuple[Path, dict[str, Any]]) -> None:
    results = done[1]
    assert set(results) == {
        "format", "config", "data", "range_test", "methods", "ensemble", "twin", "landscape", "saddle", "conditions",
        "timings", "summary", "conclusions", "memorised", "other_weight_decay",
    }  # fmt: skip
    for setting in ("plain", "noisy"):
        assert list(results["methods"][setting]) == list(run.METHOD_ORDER)
        for values in results["methods"][setting].values():
            assert all(len(values[key]) == 2 for key in ("error", "nll", "brier", "ece"))
        members = results["ensemble"][setting]["snapshot"]
        assert [row[0] for row in members["last_m"]["error"]] == [row[-1] for row in members["members"]["error"]]
        assert [row[-1] for row in members["last_m"]["nll"]] == results["methods"][setting]["snapshot"]["nll"]
        last = [row[-1] for row in members["members"]["nll"]]
        assert last == pytest.approx(results["methods"][setting]["sgdr"]["nll"])
        last = [row[-1] for row in results["ensemble"][setting]["nocycle"]["members"]["nll"]]
        assert last == pytest.approx(results["methods"][setting]["step"]["nll"])
        other = results["other_weight_decay"]["methods"][setting]
        assert set(other) == {"sgdr", "nocycle", "snapshot", "best_snapshot"}
        assert all(len(values[key]) == 2 for values in other.values() for key in ("error", "nll"))
        assert other["snapshot"]["nll"] != results["methods"][setting]["snapshot"]["nll"]
    assert all(len(shares) == results["config"]["epochs"] for shares in results["memorised"].values())
    assert all(0 <= share <= 1 for shares in results["memorised"].values() for share in shares)
    assert results["twin"]["float64"]["max_difference"] < 1e-9
    assert len(results["summary"]) == 15
    assert {entry["verdict"] for entry in results["conclusions"]} <= {"helped", "mixed", "none", "hurt", "note"}


def test_report_holds_every_figure_and_conclusion(done: tuple[Path, dict[str, Any]]) -> None:
    folder, results = done
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert text.count("<img ") == len(FIGURES)
    assert text.count('class="plot"') == 3
    total = len(results["conclusions"]) + len(results["timings"]["conclusions"])
    assert text.count('<p class="conclusion') == total
    assert text.index("Range test") < text.index("Does the ensemble pay?") < text.index("Conditions and limits")


def test_two_runs_give_the_same_numbers(
    done: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def words_only(folder: Path, material: Any, progress: Any) -> None:
        material.results["summary"] = [line._asdict() for line in story.conclusions.summary(material.results)]
        (folder / "report.html").touch()

    monkeypatch.setattr(story, "write", words_only)
    again = run_demo(tmp_path / "again", budget="smoke", progress=False)
    first, second = copy.deepcopy(done[1]), copy.deepcopy(again)
    for results in (first, second):
        for key in ("timings", "conclusions"):
            results.pop(key, None)
        results["summary"] = sorted(line["text"] for line in results["summary"])
    assert first == second


def test_a_directory_with_files_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_measure", lambda *_: pytest.fail("work was begun"))
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(FileExistsError, match=r"demo: .* is not empty"):
        run_demo(tmp_path, budget="smoke")
    file = tmp_path / "mine.txt"
    with pytest.raises(NotADirectoryError, match="is not a directory"):
        run_demo(file, budget="smoke")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("broken")])
def test_nothing_is_left_after_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    calls = 0
    real = run.run_method

    def interrupted(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise error
        return real(*args)

    monkeypatch.setattr(run, "run_method", interrupted)
    threads = torch.get_num_threads()
    with pytest.raises(type(error)):
        run_demo(tmp_path / "a" / "b", budget="smoke", progress=False)
    assert calls == 2
    assert list(tmp_path.iterdir()) == []
    assert torch.get_num_threads() == threads


def test_command_line_refuses_a_full_directory_and_reports_ctrl_c(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    assert main(["demo", "--out", str(tmp_path), "--quick"]) == 1
    assert "is not empty" in capsys.readouterr().err

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "_measure", interrupt)
    assert main(["demo", "--out", str(tmp_path / "new"), "--quick"]) == 130
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    assert main(["demo", "--out", str(tmp_path / "new"), "--seeds", "0"]) == 1
    assert "demo: seeds must be an integer >= 1" in capsys.readouterr().err


def test_command_line_prints_a_table(
    done: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: dict[str, Any] = {}

    def ready(out: Path, **options: Any) -> dict[str, Any]:
        asked.update(options, out=out)
        return done[1]

    monkeypatch.setattr("thalweg.demo.run_demo", ready)
    assert main(["demo", "--out", "somewhere", "--full", "--overwrite"]) == 0
    assert asked == {"out": Path("somewhere"), "seeds": None, "budget": "full", "overwrite": True}
    printed = capsys.readouterr().out
    assert "snapshot ensemble" in printed
    assert f"{100 * sum(done[1]['methods']['plain']['step']['error']) / 2:.2f} %" in printed
    assert "somewhere/report.html" in printed


def test_staged_moves_files_at_the_end_and_can_overwrite(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with staged("test", target) as (folder, where):
        (folder / "a.txt").write_text("1")
        assert where == target
        assert not (target / "a.txt").exists()
    assert [path.name for path in target.iterdir()] == ["a.txt"]
    (target / "other.txt").write_text("mine")
    with pytest.raises(FileExistsError), staged("test", target):
        pytest.fail("must not begin")
    with staged("test", target, overwrite=True) as (folder, _):
        (folder / "a.txt").write_text("2")
    assert {path.name: path.read_text() for path in target.iterdir()} == {"a.txt": "2", "other.txt": "mine"}


def test_plain_makes_json(tmp_path: Path) -> None:
    value = {"a": torch.tensor([1.0, float("nan")]), 2: (float("inf"), None, True, "x")}
    assert plain(value) == {"a": [1.0, None], "2": [None, None, True, "x"]}


def test_budget_does_not_depend_on_the_machine() -> None:
    assert config("default") == config("default", 6)
    assert config("full") == config("default", 10)

"""The GPU benchmarks where no GPU is: every row goes its whole way with tiny sizes; results, targets, tables."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import thalweg as tw

FOLDER = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(FOLDER))  # its scripts import each other by name
try:
    gpu, facts, measure, optim, peers, report, rows, run_gpu, steps, targets = (
        importlib.import_module(name)
        for name in (
            "gpu",
            "gpu_conditions",
            "gpu_measure",
            "gpu_optim",
            "peers",
            "report",
            "gpu_rows",
            "run_gpu",
            "gpu_steps",
            "gpu_targets",
        )
    )
finally:
    sys.path.remove(str(FOLDER))

ROWS = gpu.all_rows(quick=True)
# What other versions and machines may lack; all else has to be there.
MAY_BE_ABSENT = (
    "ema_decay", "apex", "transformer_engine", "bitsandbytes",
    *(peer.module.partition(".")[0] for others in peers.PEERS.values() for peer in others), "torchvision",
)  # fmt: skip


@pytest.fixture
def one_thread() -> Iterator[None]:
    """The sizes of a dry run are not worth threads, which wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.key}: {row.what}")
def test_every_row_can_be_built_and_gives_the_reference_results(row: Any) -> None:
    results = rows.run_row(measure.Session(dry=True), row)
    assert results
    for result in results:
        if result["status"] == "absent":
            assert any(name in result["reason"] for name in MAY_BE_ABSENT), result
        else:
            assert result["status"] == "checked", result
    if any(result["status"] == "checked" for result in results):
        peers = {result.get("peer") for result in results}
        assert all(t.peer in peers for t in targets.TARGETS.get(row.key, ()) if t.peer and row.key != targets.REGISTRY)


def test_every_target_has_its_row() -> None:
    assert set(targets.TARGETS) - {targets.REGISTRY} <= {row.key for row in ROWS}


def test_every_optimizer_of_the_registry_has_a_row() -> None:
    for _, cls in peers.core_optimizers():
        assert any(row.what.startswith(f"{cls.__name__} ") for row in ROWS) or cls is tw.optim.Adam, cls


def test_tables_of_peers_and_options_name_optimizers_of_the_registry() -> None:
    assert {*peers.PEERS, *peers.OPTIONS} <= {name for name, _ in peers.core_optimizers()}


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", [name for name, _ in peers.core_optimizers()])
def test_a_part_of_a_tensor_stands_for_it_unless_norms_are_taken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optim, "PROBED", 5)
    make = dict(peers.core_optimizers())[name].__name__
    options = peers.OPTIONS.get(name, {})
    fight = steps.contest(measure.Session(dry=True), make, name, [100, 7], {}, **options)
    fight.check()


def contest(**changes: Any) -> Any:
    nothing: Callable[[], None] = lambda: None  # noqa: E731
    return rows.Contest(**{"ours": rows.Side(nothing), "peers": {}, "check": nothing, **changes})


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any) -> Any:
        raise error

    return fail


@pytest.mark.parametrize(
    ("build", "status", "reason"),
    [
        (raising(rows.Absent("there is no x.y here")), "absent", "there is no x.y here"),
        (raising(torch.OutOfMemoryError("too large\nmore")), "out of memory", "OutOfMemoryError: too large"),
        (raising(RuntimeError("lost")), "failed", "RuntimeError: lost"),
        (lambda _: contest(check=raising(AssertionError("1 is not 2"))), "wrong result", "1 is not 2"),
    ],
)
def test_a_bad_row_is_a_result(build: Any, status: str, reason: str) -> None:
    (result,) = rows.run_row(measure.Session(dry=True), rows.Row("key", "what", "case", build))
    assert (result["status"], result["reason"]) == (status, reason)
    assert result["row"] == "what"


def test_an_option_that_a_class_does_not_have_is_named() -> None:
    with pytest.raises(rows.Absent, match="SGD takes no speed"):
        rows.construct(torch.optim.SGD, [torch.nn.Parameter(torch.ones(1))], lr=0.1, speed=1)
    with pytest.raises(rows.Absent, match="there is no nowhere.Nothing here"):
        rows.need("nowhere", "Nothing")


def test_a_peer_that_cannot_be_built_leaves_the_others() -> None:
    sides, absent = rows.build_peers(
        {
            "good": lambda: rows.Side(print),
            "gone": raising(rows.Absent("why")),
            "big": raising(torch.OutOfMemoryError("x")),
        }
    )
    assert list(sides) == ["good"]
    assert absent == {"gone": "why", "big": "OutOfMemoryError: x"}


class Scripted(measure.Session):  # type: ignore[name-defined,misc]
    """A session whose clock says what the sides themselves say: seconds per call."""

    def block(self, run: Callable[[], float], calls: int) -> float:
        return run()

    def host_seconds(self, run: Callable[[], float]) -> float:
        return run() / 10

    def copy_bandwidth(self) -> float:
        return 1e9


def scripted_row(key: str, ours: float, peer: float, name: str) -> list[dict[str, Any]]:
    fight = contest(ours=rows.Side(lambda: ours), peers={name: rows.Side(lambda: peer)}, bytes=1000)
    results: list[dict[str, Any]] = rows.run_row(
        Scripted(seconds=0.0), rows.Row(key, "a step", "a case", lambda _: fight)
    )
    return results


def test_figures_and_targets_of_a_measured_row() -> None:
    (result,) = scripted_row("adamw-large", 2e-6, 3e-6, targets.FUSED)
    assert result["status"] == "measured"
    assert result["ours_us"] == pytest.approx(2)
    assert result["peer_us"] == pytest.approx(3)
    assert result["ratio"] == pytest.approx(1.5)
    assert result["ours_host_us"] == pytest.approx(0.2)
    assert result["bandwidth_share"] == pytest.approx(0.5)  # 1000 bytes in 2 µs of 1 GB/s
    assert result["rounds"] >= 5
    share, ratio = result["targets"]
    assert (share["figure"], share["met"]) == ("bandwidth_share", False)
    assert (ratio["figure"], ratio["met"]) == ("ratio", True)
    (slow,) = scripted_row("many-groups", 1.2e-6, 1e-6, "thalweg, one group")
    assert [(t["figure"], t["met"]) for t in slow["targets"]] == [("slowdown", False)]
    assert slow["targets"][0]["value"] == pytest.approx(1.2)


def test_by_turns_begins_each_round_with_another() -> None:
    order: list[str] = []
    runs = [lambda name=name: order.append(name) or 1e-3 for name in "abc"]
    Scripted(dry=True).by_turns(runs)
    assert order == list("abc" + "bca")


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    return tmp_path


def test_conditions_are_all_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THALWEG_COMMIT", "abc123")
    found = facts.conditions()
    assert found["commit"] == "abc123"
    assert 0 <= found["busy_share_before"] <= 1
    assert found["torch"] == torch.__version__
    assert facts.version_text(13010) == "13.1"
    monkeypatch.delenv("THALWEG_COMMIT")
    monkeypatch.setenv("PATH", "")  # no git, no nvidia-smi
    assert facts.commit() == "unknown"
    assert facts.nvidia_smi(facts.QUERY) == {}


def made_up() -> dict[str, Any]:
    machine = {
        "gpu": "Imaginary X1", "gpus": 2, "memory_gib": 8.0, "cuda_of_build": "13.0", "cuda_of_driver": "13.1",
        "cuda_of_torch": "13.0", "torch": "9.9", "python": "3.12", "host": "A host", "cores": 16, "busy_share_before": 0.01,
        "date": "2001-02-03", "commit": "unknown", "nvidia_smi": {"driver_version": "1.2", "clocks.sm": "100 MHz"},
    }  # fmt: skip
    lost = scripted_row("adamw-large", 3e-6, 2e-6, targets.FUSED)
    won = scripted_row("adamw-small", 1e-6, 9e-6, targets.FUSED)
    gone = [{"key": "amp", "row": "amp", "case": "large", "status": "absent", "reason": "there is no such class here"}]
    return {"conditions": machine, "rows": [*lost, *won, *gone]}


def test_gpu_table_of_a_result(results: Path) -> None:
    assert report.gpu_tables() == "Not yet measured on a GPU."
    assert "not yet run on a GPU" in report.gpu_state()
    (results / "imaginary-x1.json").write_text(json.dumps(made_up()))
    (results / "some-cpu.json").write_text(json.dumps({"conditions": {"cpu": "other"}, "rows": []}))
    text = report.gpu_tables()
    assert "Imaginary X1 (2 in the machine, 8.0 GiB), driver 1.2 for CUDA 13.1, built with CUDA 13.0" in text
    assert "clocks.sm 100 MHz" in text
    lines = [line for line in text.splitlines() if line.startswith("| a step")]
    assert len({line.count("|") for line in lines}) == 1
    assert "| 0.67 (0.67–0.67) |" in lines[0]  # where thalweg loses is shown, and not in bold
    assert "ratio ≥ 1.02: **missed** (0.667)" in lines[0]
    assert "| **9.00** (9.00–9.00) | ratio ≥ 8: met |" in lines[1]
    assert "- amp, large: absent (there is no such class here)" in text
    assert "have run on Imaginary X1" in report.gpu_state()


def test_a_file_is_replaced_at_once_and_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUT", str(tmp_path / "copies"))
    files = gpu.targets_for({"gpu": "Imaginary X1"}, str(tmp_path / "x.json"))
    assert files == [tmp_path / "x.json", tmp_path / "copies" / "x.json"]
    for file in files:
        gpu.write(file, {"rows": [1]})
        assert json.loads(file.read_text()) == {"rows": [1]}
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["x.json", "x.json"]


def test_the_program_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--dry-run", "--only", "sgd-large"]) == 0
    assert "checked: SGD momentum step, 10 x 16 Mi against torch fused" in capsys.readouterr().out
    assert gpu.main(["--dry-run", "--only", "no such row"]) == 1
    assert gpu.main(["--dry-run", "--only", "sgd-large", "--limit", "-1"]) == 1
    assert "not reached: SGD momentum step" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([]) == 2
    assert "found none" in capsys.readouterr().err


@pytest.mark.subprocess
def test_make_gpu_follows_its_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OUT", str(tmp_path / "copies"))
    code = "import sys, time; print('seen', flush=True); time.sleep(float(sys.argv[1])); sys.exit(3)"
    log = tmp_path / "logs" / "part.log"
    assert run_gpu.follow([sys.executable, "-c", code, "0"], 30, log) == 3
    assert log.read_text() == (tmp_path / "copies" / "part.log").read_text() == "seen\n"
    assert run_gpu.follow([sys.executable, "-c", code, "60"], 1) == 124
    assert capsys.readouterr().out.count("seen\n") == 2


def test_make_gpu_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_gpu, "TOOLS", ("no_such_module",))
    monkeypatch.setattr(run_gpu, "cuda_tool", lambda name: None)
    assert {"no_such_module", "nvcc"} <= set(run_gpu.missing())
    assert "numpy" not in run_gpu.missing()


def test_a_failed_test_run_does_not_hide_the_measurements(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []

    def follow(command: list[str], seconds: float, log: Path | None = None, **env: str) -> int:
        ran.append("tests" if "pytest" in command else "measurements")
        return int("pytest" in command)

    monkeypatch.setattr(run_gpu, "install", lambda seconds: 0)
    monkeypatch.setattr(run_gpu, "follow", follow)
    assert run_gpu.everything(["--quick"]) == 1
    assert ran == ["tests", "measurements"]
    text = capsys.readouterr().out
    assert "tests: failed with exit status 1" in text
    assert "benchmarks: passed" in text


def test_sanitizers_that_cannot_run_are_not_a_success(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run_gpu, "cuda_tool", lambda name: None)
    assert run_gpu.sanitize() == 2
    assert "compute-sanitizer is not here" in capsys.readouterr().err
    monkeypatch.setattr(run_gpu, "cuda_tool", lambda name: name)
    monkeypatch.setattr(run_gpu, "follow", lambda command, *_, **__: 1)
    assert run_gpu.sanitize() == 2
    assert "does not allow compute-sanitizer" in capsys.readouterr().err
    statuses = iter((0, 0, 86))  # the probe, memcheck, racecheck
    monkeypatch.setattr(run_gpu, "follow", lambda command, *_, **__: next(statuses))
    assert run_gpu.sanitize() == 1
    assert "memcheck: passed\nracecheck: failed with exit status 86" in capsys.readouterr().out

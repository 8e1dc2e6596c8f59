"""Journals: what comes back, what a kill leaves, what is refused."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

import thalweg as tw
from thalweg.landscape._journal import Journal, JournaledLedger, family, rank_path, read
from thalweg.landscape._journal_file import Header

IDENTITY = {"weights_hash": "abc", "batch_sizes": [32, 7], "directions": {"norm": "filter", "seed": 0}}
POINTS, COLUMNS = 60, 3


def _sums(rng: np.random.Generator, points: int = POINTS) -> npt.NDArray[np.float64]:
    """Any bits: NaN with payloads, infinities, denormals and zeros of both signs among them."""
    sums = rng.integers(-(2**63), 2**63 - 1, (points, COLUMNS)).view(np.float64)
    sums[:6] = np.array([np.nan, -np.inf, 0.0, -0.0, -1.5, 5e-324])[:, None]
    return sums


def _bits(values: npt.NDArray[np.float64]) -> bytes:
    return np.ascontiguousarray(values).tobytes()


def _ledger(path: Path, points: int = POINTS, identity: dict[str, object] = IDENTITY) -> JournaledLedger:
    return JournaledLedger("Evaluator.grid", np.arange(points)[::-1], COLUMNS, path, identity)


def _written(path: Path, sums: npt.NDArray[np.float64], count: int = POINTS) -> None:
    """A journal with its first `count` points in three records."""
    with _ledger(path, len(sums)) as ledger:
        while (left := count - int(ledger.done.sum())) and len(indices := ledger.next(min(left, -(-count // 3)))):
            ledger.add(indices, sums[indices])
            ledger.journal.commit()
        ledger.tell({"graph": True})


def test_every_bit_comes_back_and_only_the_rest_is_left(tmp_path: Path, rng: np.random.Generator) -> None:
    sums = _sums(rng)
    _written(tmp_path / "run.sqlite", sums, 37)
    with _ledger(tmp_path / "run.sqlite") as ledger:
        assert ledger.told == {"graph": True}
        left = ledger.next(POINTS)
        assert left.tolist() == list(range(POINTS - 37))[::-1]
        ledger.add(left, sums[left])
        assert not len(ledger.next(1))
    with _ledger(tmp_path / "run.sqlite") as ledger:
        assert not len(ledger.next(1))
        assert _bits(ledger.totals()) == _bits(sums)
    assert [p.name for p in tmp_path.iterdir()] == ["run.sqlite"], "one file after a clean end"


@pytest.mark.parametrize("metric", ["zero", "negative"])
def test_a_loss_of_zero_and_a_negative_metric_are_not_evaluated_again(tmp_path: Path, metric: str) -> None:
    """A peer takes values <= 0 for missing ones and computes them at every start."""
    calls = 0

    def counted(output: torch.Tensor, targets: torch.Tensor) -> float:
        nonlocal calls
        calls += 1
        return 0.0 if metric == "zero" else -2.5

    model, x = nn.Linear(3, 2), torch.randn(8, 3)
    with torch.no_grad():
        model.weight.zero_()
        model.bias.zero_()
    ev = tw.landscape.Evaluator(model, "mse", (x, torch.zeros(8, 2)), metrics=("loss", ("counted", counted)))
    directions = tw.landscape.random_directions(model, norm="none")
    first = ev.line(directions, (-1, 1, 5), resume=tmp_path / "run.sqlite")
    seen = calls
    again = ev.line(directions, (-1, 1, 5), resume=tmp_path / "run.sqlite")
    assert calls == seen
    assert first.values["loss"][2] == 0
    assert again.metadata == first.metadata
    for name, values in first.values.items():
        assert _bits(again.values[name]) == _bits(values)


def test_records_are_written_by_time_however_few(tmp_path: Path, rng: np.random.Generator) -> None:
    with _ledger(tmp_path / "run.sqlite") as ledger:
        for _ in range(2):
            time.sleep(0.3)
            ledger.add(ledger.next(1), _sums(rng)[:1])
            beside = sqlite3.connect(
                tmp_path / "copy.sqlite"
            )  # the file and what a killed process would leave beside it
            for ending in ("", "-wal"):
                (tmp_path / f"copy.sqlite{ending}").write_bytes((tmp_path / f"run.sqlite{ending}").read_bytes())
            assert beside.execute("SELECT count(*) FROM records").fetchone() == (int(ledger.done.sum()),)
            beside.close()


_HOLD = """
import sys, time, numpy as np
import stand_in
from pathlib import Path
from thalweg.landscape._journal import JournaledLedger
ledger = JournaledLedger("held", np.arange(4), 1, Path(sys.argv[1]), {})
ledger.add(ledger.next(2), np.array([[1.0], [2.0]]))
ledger.journal.commit()
print("open", flush=True)
time.sleep(600)
"""


@pytest.mark.subprocess
def test_a_second_process_is_refused_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(path)], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(RuntimeError, match=r"Evaluator.grid: another process works with .*run.sqlite; wait for it"):
            JournaledLedger("Evaluator.grid", np.arange(4), 1, path, {})
        with pytest.raises(RuntimeError, match="another process"):
            tw.landscape.merge([path], tmp_path / "out.sqlite")
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    with JournaledLedger("Evaluator.grid", np.arange(4), 1, path, {}) as ledger:
        assert ledger.done.tolist() == [True, True, False, False]
        assert ledger.sums[:2, 0].tolist() == [1.0, 2.0]


def test_the_same_process_cannot_open_it_twice(tmp_path: Path) -> None:
    with _ledger(tmp_path / "run.sqlite"), pytest.raises(RuntimeError, match="another process works with"):
        _ledger(tmp_path / "run.sqlite")


def test_flipped_bits_are_refused_or_do_not_matter(tmp_path: Path) -> None:
    rng = np.random.default_rng()
    sums, path = _sums(rng), tmp_path / "run.sqlite"
    _written(path, sums)
    sound = path.read_bytes()
    refused = 0
    used = np.flatnonzero(np.frombuffer(sound, np.uint8))  # most of what is zero is no part of anything
    for place in rng.choice(used, 300):
        damaged = bytearray(sound)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            content = read("Evaluator.grid", path, Header.of(IDENTITY, POINTS, COLUMNS))
        except ValueError as error:
            assert str(path) in str(error)
            assert "delete it" in str(error) or "another file" in str(error)
            refused += 1
        else:
            assert _bits(content.sums) == _bits(sums[content.indices])
            assert content.told == {"graph": True}
    assert refused > 100


@pytest.mark.parametrize("what", ["random", "empty", "text", "truncated", "other", "ours"])
def test_what_is_no_journal_is_refused_and_left_alone(tmp_path: Path, what: str) -> None:
    path, rng = tmp_path / "run.sqlite", np.random.default_rng()
    if what in ("truncated", "ours"):
        _written(path, _sums(rng))
        path.write_bytes(path.read_bytes()[:-5000])
        if what == "ours":  # the beginning alone
            path.write_bytes(path.read_bytes()[:100])
    elif what == "other":
        with sqlite3.connect(path) as file:
            file.execute("CREATE TABLE header (format)")
        file.close()
    else:
        path.write_bytes({"random": rng.bytes(5000), "empty": b"", "text": b"SQLite format 3\0"}[what])
    before = path.read_bytes()
    with pytest.raises(
        ValueError, match=r"Evaluator.grid: .*run.sqlite is (not a journal of thalweg|damaged).*delete it"
    ):
        _ledger(path)
    assert path.read_bytes() == before


def test_places_where_no_journal_can_be(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="is a directory; give the path of a file"):
        _ledger(tmp_path)
    with pytest.raises(FileNotFoundError, match="no directory .*; create it first"):
        _ledger(tmp_path / "none" / "run.sqlite")
    with pytest.raises(OSError, match=r"cannot write /proc/run.sqlite \(.*\); a journal needs a writable directory"):
        _ledger(Path("/proc/run.sqlite"))  # which refuses root, too
    with pytest.raises(TypeError, match="resume must be the path of a journal or None, got 3"):
        _evaluator().line(tw.landscape.random_directions(nn.Linear(3, 2)), resume=3)  # type: ignore[arg-type]


def test_another_run_is_refused_with_every_field(tmp_path: Path, rng: np.random.Generator) -> None:
    _written(tmp_path / "run.sqlite", _sums(rng))
    other = {**IDENTITY, "directions": {"norm": "layer", "seed": 0}, "threads": 4, "batch_sizes": [32]}
    with pytest.raises(ValueError, match="run.sqlite belongs to another run") as caught:
        _ledger(tmp_path / "run.sqlite", identity=other)
    text = str(caught.value)
    assert 'directions.norm: expected "layer", got "filter"' in text
    assert "threads: expected 4, got nothing" in text
    assert "batch_sizes: expected [32], got [32, 7]" in text
    assert "seed" not in text
    assert "weights_hash" not in text
    with pytest.raises(ValueError, match="points: expected 61, got 60"):
        _ledger(tmp_path / "run.sqlite", 61)


def test_a_journal_that_was_deleted_after_a_kill_does_not_come_back(tmp_path: Path, rng: np.random.Generator) -> None:
    """SQLite would take the -wal file that is left for the new file's own."""
    path, sums = tmp_path / "run.sqlite", _sums(rng)
    with _ledger(path) as ledger:
        ledger.add(ledger.next(5), sums[:5])
        ledger.journal.commit()
        left = (tmp_path / "run.sqlite-wal").read_bytes()
    path.unlink()
    (tmp_path / "run.sqlite-wal").write_bytes(left)
    with _ledger(path) as ledger:
        assert not ledger.done.any()


def test_merge_joins_the_journals_of_one_run(tmp_path: Path, rng: np.random.Generator) -> None:
    sums, header = _sums(rng), Header.of(IDENTITY, POINTS, COLUMNS)
    shares = np.array_split(rng.permutation(POINTS), 3)
    paths = [rank_path(tmp_path / "run.sqlite", rank) for rank in range(3)]
    for path, share in zip(paths, shares, strict=True):
        journal = Journal("test", path, header)
        for indices in (share, shares[0][:2]):  # two points are in all of them
            journal.add(indices, sums[indices])
        journal.close()
    assert family(tmp_path / "run.sqlite") == paths
    assert tw.landscape.merge(paths, tmp_path / "whole.sqlite") == tmp_path / "whole.sqlite"
    with _ledger(tmp_path / "whole.sqlite") as ledger:
        assert not len(ledger.next(1))
        assert _bits(ledger.totals()) == _bits(sums)
    with _ledger(tmp_path / "run.sqlite") as ledger:  # reads what processes left beside it
        assert not len(ledger.next(1))
        assert _bits(ledger.totals()) == _bits(sums)
    with pytest.raises(FileExistsError, match="whole.sqlite exists; choose another path"):
        tw.landscape.merge(paths, tmp_path / "whole.sqlite")


def test_merge_refuses_foreign_and_tells_of_differing_journals(tmp_path: Path, rng: np.random.Generator) -> None:
    sums = _sums(rng)
    _written(tmp_path / "a.sqlite", sums)
    with _ledger(tmp_path / "b.sqlite", identity={**IDENTITY, "weights_hash": "xyz"}):
        pass
    with pytest.raises(
        ValueError, match=r'landscape.merge: .*b.sqlite belongs .* weights_hash: expected "abc", got "xyz"'
    ):
        tw.landscape.merge([tmp_path / "a.sqlite", tmp_path / "b.sqlite"], tmp_path / "out.sqlite")
    assert not (tmp_path / "out.sqlite").exists()
    other = sums.copy()
    other[[7, 9], 1] = 0.25
    _written(tmp_path / "c.sqlite", other)
    with pytest.warns(UserWarning, match=r"c.sqlite has other values for 2 of the points"):
        tw.landscape.merge([tmp_path / "a.sqlite", tmp_path / "c.sqlite"], tmp_path / "out.sqlite")
    assert _bits(_ledger(tmp_path / "out.sqlite").sums) == _bits(sums)
    with pytest.raises(TypeError, match="paths must be a list of journals"):
        tw.landscape.merge(str(tmp_path / "a.sqlite"), tmp_path / "d.sqlite")
    with pytest.raises(FileNotFoundError, match="no journal .*none.sqlite"):
        tw.landscape.merge([tmp_path / "none.sqlite"], tmp_path / "d.sqlite")


def _evaluator(seed: int = 0, **options: object) -> tw.landscape.Evaluator:
    torch.manual_seed(seed)
    model, x = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2)), torch.randn(20, 3)
    return tw.landscape.Evaluator(model, "cross_entropy", (x, torch.arange(20) % 2), **options)  # type: ignore[arg-type]


def test_evaluators_refuse_the_journal_of_another_model_data_axis_or_loss(tmp_path: Path) -> None:
    ev, path = _evaluator(), tmp_path / "run.sqlite"
    directions = tw.landscape.random_directions(ev.model)
    ev.grid(directions, (-1, 1, 3), (-1, 1, 2), resume=path)
    with pytest.raises(ValueError, match="coordinates_hash"):
        ev.grid(directions, (-1, 1, 3), (-1, 2, 2), resume=path)
    with pytest.raises(ValueError, match=r"directions.seed: expected 1, got 0.*directions_hashes"):
        ev.grid(tw.landscape.random_directions(ev.model, seed=1), (-1, 1, 3), (-1, 1, 2), resume=path)
    with pytest.raises(ValueError, match="batch_sizes"):
        _evaluator(batch_size=7).grid(directions, (-1, 1, 3), (-1, 1, 2), resume=path)
    with pytest.raises(ValueError, match=r"center.*data_hash.*weights_hash"):
        _evaluator(seed=1).grid(directions, (-1, 1, 3), (-1, 1, 2), resume=path)
    other = tw.landscape.Evaluator(
        ev.model, nn.CrossEntropyLoss(label_smoothing=0.1), (torch.randn(2, 3), torch.arange(2))
    )
    with pytest.raises(ValueError, match=r"center.loss: expected .*, got .*data_hash.*samples: expected 2, got 20"):
        other.grid(directions, (-1, 1, 3), (-1, 1, 2), resume=path)
    with torch.no_grad():
        next(ev.model.parameters())[0, 0] += 1
    with pytest.raises(ValueError, match="weights_hash"):
        ev.grid(directions, (-1, 1, 3), (-1, 1, 2), resume=path)


def test_the_random_state_belongs_to_a_run_that_draws(tmp_path: Path) -> None:
    ev, path = _evaluator(train_mode=True), tmp_path / "run.sqlite"
    directions = tw.landscape.random_directions(ev.model)
    torch.manual_seed(5)
    line = ev.line(directions, (-1, 1, 4), resume=path)
    torch.manual_seed(5)
    assert _bits(ev.line(directions, (-1, 1, 4), resume=path).values["loss"]) == _bits(line.values["loss"])
    torch.manual_seed(6)
    with pytest.raises(ValueError, match="random_state"):
        ev.line(directions, (-1, 1, 4), resume=path)


def test_lines_between_models_resume_and_know_their_ends(tmp_path: Path) -> None:
    ev, path = _evaluator(), tmp_path / "run.sqlite"
    a, b, c = (_evaluator(seed).model for seed in (1, 2, 3))
    line = ev.line((a, b), (0, 1, 5), resume=path)
    assert _bits(ev.line((a, b), (0, 1, 5), resume=path).values["loss"]) == _bits(line.values["loss"])
    with pytest.raises(ValueError, match="ends_hashes"):
        ev.line((a, c), (0, 1, 5), resume=path)

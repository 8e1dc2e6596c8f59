"""Shared ledgers: processes of one run as threads around one store; what becomes of those that fail, hang or vanish."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.distributed as dist
from torch import nn

import thalweg as tw
from thalweg.landscape._claims import SharedLedger
from thalweg.landscape._journal import family
from thalweg.landscape._sharing import Meeting, meeting

POINTS, COLUMNS = 300, 2
ORDER = np.random.default_rng(3).permutation(POINTS)
SUMS = np.random.default_rng(4).standard_normal((POINTS, COLUMNS))
Opener = Callable[..., SharedLedger]


def _opener(store: Any, path: Path | None = None, lease: float = 30.0, world: int | None = None) -> Opener:
    def opened(
        rank: int | None = None, identity: dict[str, Any] | None = None, place: Path | None = path
    ) -> SharedLedger:
        return SharedLedger("test", ORDER, COLUMNS, Meeting(store, rank, world, lease), identity or {"a": 1}, place)

    return opened


def _evaluate(ledger: SharedLedger, size: int = 7, seconds: float = 0.0) -> list[int]:
    """What this process evaluated, until all is done."""
    own: list[int] = []
    with ledger:
        while len(indices := ledger.next(size)):
            time.sleep(seconds)
            ledger.add(indices, SUMS[indices])
            ledger.tell({"graph": True})
            own += indices.tolist()
        assert ledger.totals().tobytes() == SUMS.tobytes()
        assert ledger.told == {"graph": True}
    return own


def _together(works: list[Callable[[], list[int]]]) -> list[list[int]]:
    """What each of several processes evaluated."""
    found: list[list[int]] = [[] for _ in works]
    errors: list[BaseException] = []

    def run(i: int) -> None:
        try:
            found[i] = works[i]()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return found


@pytest.fixture(params=["hash", "tcp", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "tcp":
        return dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    return dist.HashStore() if request.param == "hash" else dist.FileStore(str(tmp_path / "store"), 1)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_processes_evaluate_every_point_once_and_all_have_all(store: Any, count: int) -> None:
    opener = _opener(store)
    ledgers = [opener() for _ in range(count)]
    shares = _together([lambda i=i: _evaluate(ledgers[i], 5, 0.003 * (i + 1)) for i in range(count)])
    assert sorted([*itertools.chain(*shares)]) == list(range(POINTS))
    assert count == 1 or max(map(len, shares)) < POINTS


def test_points_come_in_order_and_in_blocks_of_the_size_asked_for() -> None:
    with _opener(dist.HashStore())() as ledger:
        got = [ledger.next(size).tolist() for size in (1, 5, 100)]
        assert [len(part) for part in got] == [1, 5, 100]
        assert [*itertools.chain(*got)] == ORDER[:106].tolist()
        ledger.add(np.arange(POINTS), SUMS)


def test_many_points_are_claimed_in_blocks_and_given_in_any_size() -> None:
    order = np.random.default_rng().permutation(10_000)
    store = dist.HashStore()
    seen: list[int] = []
    with SharedLedger("test", order, 1, Meeting(store), {}) as ledger:
        for size in (1, 1, 1000, 3, 2000):
            indices = ledger.next(size)
            assert 0 < len(indices) <= size
            ledger.add(indices, indices[:, None].astype(float))
            seen += indices.tolist()
        while len(indices := ledger.next(4096)):
            ledger.add(indices, indices[:, None].astype(float))
            seen += indices.tolist()
        assert seen == order.tolist()
        assert ledger.totals()[:, 0].tolist() == list(range(10_000))


def test_an_order_that_grows_is_shared_round_by_round() -> None:
    """As in a refinement: what comes next depends on the sums of all that came before."""
    store = dist.HashStore()

    def work(seconds: float) -> list[int]:
        own: list[int] = []
        with SharedLedger("test", np.arange(POINTS), COLUMNS, Meeting(store, lease=30.0), {}) as ledger:
            ledger.order = ORDER[:50]
            for end in (120, 123, 220, None):
                while len(indices := ledger.next(9)):
                    time.sleep(seconds)
                    ledger.add(indices, SUMS[indices])
                    own += indices.tolist()
                assert ledger.totals()[ledger.order].tobytes() == SUMS[ledger.order].tobytes()
                assert ledger.done[ledger.order].all()  # and perhaps more: others may be further
                if end is not None:
                    ledger.order = np.concatenate([ledger.order, ORDER[len(ledger.order) : end]])
        return own

    shares = _together([lambda seconds=0.001 * i: work(seconds) for i in range(3)])
    assert sorted([*itertools.chain(*shares)]) == sorted(ORDER[:220].tolist()), "each once, and no more"


def test_the_first_word_about_a_run_counts() -> None:
    opener = _opener(dist.HashStore())
    with opener() as first, opener(rank=1) as second:
        first.tell({"implementation": "program"})
        second.tell({"implementation": "loop"})
        assert second.told == {"implementation": "program"}
        second.tell({"implementation": "loop", "graph": True})
        first.tell({"implementation": "program", "graph": False})
        assert first.told == second.told == {"implementation": "program", "graph": True}
        with opener(rank=2) as third:
            assert third.told == first.told, "known before the first point"
            third.add(ORDER, SUMS)
        first.next(1)


def test_a_failed_process_is_replaced_at_once(caplog: pytest.LogCaptureFixture) -> None:
    opener = _opener(dist.HashStore())
    with pytest.raises(ZeroDivisionError), opener() as failing:
        lost = failing.next(20).tolist()
        raise ZeroDivisionError("at a point")
    started = time.monotonic()
    assert sorted(_evaluate(opener())) == list(range(POINTS))
    assert time.monotonic() - started < 5, "the lease is 30 s"
    assert lost
    assert "ZeroDivisionError: at a point" in caplog.text


def test_what_a_failing_process_had_done_is_not_done_again() -> None:
    opener = _opener(dist.HashStore())
    with pytest.raises(KeyboardInterrupt), opener() as failing:
        done = failing.next(20)
        failing.add(done, SUMS[done])
        raise KeyboardInterrupt
    assert sorted(_evaluate(opener())) == sorted(set(range(POINTS)) - set(done.tolist()))


def test_a_silent_process_is_replaced_after_its_lease() -> None:
    opener = _opener(dist.HashStore(), lease=0.5)
    silent = opener()
    lost = silent.next(20).tolist()
    silent._board._closed.set()  # as a killed process: no sign of life, no goodbye
    started = time.monotonic()
    own = _evaluate(opener())
    assert 0.4 < time.monotonic() - started < 5
    assert sorted(own) == list(range(POINTS))
    assert set(own[-len(lost) :]) == set(lost), "what was claimed comes last"


def test_one_of_several_takes_over() -> None:
    opener = _opener(dist.HashStore(), lease=0.5)
    silent = opener()
    silent.next(60)
    silent._board._closed.set()
    shares = _together([lambda: _evaluate(opener(), 5, 0.01) for _ in range(3)])
    assert sorted([*itertools.chain(*shares)]) == list(range(POINTS)), "each point once"


def test_a_process_that_lives_and_hangs_holds_nobody_up() -> None:
    opener = _opener(dist.HashStore(), lease=0.3)
    with opener() as hanging:
        lost = hanging.next(3).tolist()
        started = time.monotonic()
        own: list[int] = []
        with opener() as other:
            while len(indices := other.next(50)):
                other.add(indices, SUMS[indices])
                own += indices.tolist()
            assert other.totals().tobytes() == SUMS.tobytes()
            other._rank = 1  # the first process waits for the others' goodbyes
        assert time.monotonic() - started < 10
        assert set(lost) <= set(own)
        assert not len(hanging.next(1)), "it hears that all is done"
        assert hanging.totals().tobytes() == SUMS.tobytes()


def test_a_process_that_dies_between_two_requests_leaves_no_gap() -> None:
    """Counted up, but no owner; a number for a result, but no result."""
    store = dist.HashStore()
    opener = _opener(store, lease=0.5)
    with opener() as dying:
        dying._board.take(9)
        store.add("results", 1)
        dying._rank = 1
        dying._board._closed.set()
        assert sorted(_evaluate(opener(rank=1))) == list(range(POINTS))
        dying.next(1)


def test_other_settings_are_refused() -> None:
    opener = _opener(dist.HashStore())
    with opener(identity={"seed": 3, "bn": "frozen"}) as first:
        with pytest.raises(
            ValueError, match="the work of the other processes belongs to another run: seed: expected 4, got 3"
        ):
            opener(identity={"seed": 4, "bn": "frozen"})
        first.add(ORDER, SUMS)


def test_a_rank_with_a_foreign_journal_stops_and_the_others_do_not_wait(tmp_path: Path) -> None:
    for rank in range(2):
        (tmp_path / str(rank)).mkdir()
    foreign = SharedLedger(
        "test", ORDER, COLUMNS, Meeting(dist.HashStore(), 1), {"a": 2}, tmp_path / "1" / "run.sqlite"
    )
    with foreign:
        foreign.add(ORDER, SUMS)
    opener = _opener(dist.HashStore(), world=2)
    started = time.monotonic()

    def second() -> list[int]:
        with pytest.raises(ValueError, match=r"test: .*run.rank1.sqlite belongs to another run: a: expected 1, got 2"):
            opener(1, place=tmp_path / "1" / "run.sqlite")
        return []

    first, _ = _together([lambda: _evaluate(opener(0, place=tmp_path / "0" / "run.sqlite")), second])
    assert len(first) == POINTS
    assert time.monotonic() - started < 10, "ranks wait for each other up to 30 s"


def _journals(folder: Path, shares: list[npt.NDArray[np.int64]]) -> None:
    """What processes left that were stopped before the end."""
    opener = _opener(dist.HashStore(), folder / "run.sqlite")
    for rank, share in enumerate(shares):
        with pytest.raises(KeyboardInterrupt), opener(rank) as ledger:
            ledger.add(share, SUMS[share])
            ledger.tell({"graph": True})
            raise KeyboardInterrupt


@pytest.mark.parametrize("world", [1, 2, 4])
def test_any_number_of_processes_goes_on_from_what_three_left(tmp_path: Path, world: int) -> None:
    shares = np.array_split(np.random.default_rng().permutation(POINTS), 5)
    _journals(tmp_path, shares[:3])
    assert [p.name for p in family(tmp_path / "run.sqlite")] == [f"run.rank{i}.sqlite" for i in range(3)]
    opener = _opener(dist.HashStore(), tmp_path / "run.sqlite", world=world)
    own = _together([lambda rank=rank: _evaluate(opener(rank), 3, 0.002) for rank in range(world)])
    assert sorted([*itertools.chain(*own)]) == sorted(np.concatenate(shares[3:]).tolist())
    again = _opener(dist.HashStore(), tmp_path / "run.sqlite", world=1)
    assert _evaluate(again(0)) == [], "complete"


def test_processes_without_a_common_file_system_share_what_their_files_hold(tmp_path: Path) -> None:
    shares = np.array_split(np.random.default_rng().permutation(POINTS), 3)
    _journals(tmp_path, shares[:2])
    for rank in range(2):
        (tmp_path / str(rank)).mkdir()
        (tmp_path / f"run.rank{rank}.sqlite").rename(tmp_path / str(rank) / f"run.rank{rank}.sqlite")
    opener = _opener(dist.HashStore(), world=2)
    work = [lambda rank=rank: _evaluate(opener(rank, place=tmp_path / str(rank) / "run.sqlite")) for rank in range(2)]
    assert sorted([*itertools.chain(*_together(work))]) == sorted(shares[2].tolist())


@pytest.mark.filterwarnings("ignore")
def test_a_store_that_dies_is_a_clear_error_and_the_journal_keeps_the_work(tmp_path: Path) -> None:
    server = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    client = dist.TCPStore("127.0.0.1", server.port, is_master=False)
    opener = _opener(client, tmp_path / "run.sqlite", lease=0.5)
    started = time.monotonic()
    gone = pytest.raises(RuntimeError, match=r"test: the store that .* is gone.*start again, with the same resume=")
    with gone, opener() as ledger:
        done = ledger.next(40)
        del server
        time.sleep(0.6)
        ledger.add(done, SUMS[done])
        ledger.next(40)
    assert time.monotonic() - started < 10
    left = _evaluate(_opener(dist.HashStore(), tmp_path / "run.sqlite")())
    assert sorted(left) == sorted(set(range(POINTS)) - set(done.tolist()))


def test_whom_a_run_is_shared_with(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    model = nn.Linear(3, 2)
    ev = tw.landscape.Evaluator(model, "mse", (torch.randn(5, 3), torch.randn(5, 2)))
    directions = tw.landscape.random_directions(model)
    with pytest.raises(
        RuntimeError, match="Evaluator.grid: share=True needs processes to share with; start the program"
    ):
        ev.grid(directions, share=True)
    with pytest.raises(TypeError, match="share must be True"):
        ev.line(directions, share="127.0.0.1")
    with pytest.raises(TypeError, match="Share: store must be a torch.distributed.Store or None, got 3"):
        tw.landscape.Share(3)
    with pytest.raises(ValueError, match="Share: lease must be a finite number > 0"):
        tw.landscape.Share(lease=0)
    plain = ev.line(directions, (-1, 1, 9))
    store = dist.HashStore()
    for share in (store, tw.landscape.Share(store, lease=9)):  # two runs, two parts of the store
        line = ev.line(directions, (-1, 1, 9), share=share)
        assert line.values["loss"].tobytes() == plain.values["loss"].tobytes()
        assert line.metadata == plain.metadata
    found = meeting("test", tw.landscape.Share(store, lease=9))
    assert found is not None
    assert (found.rank, found.world, found.lease) == (None, None, 9)

"""Files: round trips, damage, locks, retention, kills. Nothing damaged may ever load."""

from __future__ import annotations

import gc
import json
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from thalweg.ensemble import Disk, Ensemble, SnapshotCollector, SnapshotError


def setup(seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def collect(path: Path, steps: int, keep_last: int | None = None) -> tuple[SnapshotCollector, nn.Module]:
    model, optimizer = setup()
    snaps = SnapshotCollector(model, optimizer, store=Disk(path, keep_last), when="every:1")
    train(model, optimizer, steps)
    return snaps, model


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(4, 3)).square().sum().backward()
        optimizer.step()


def files(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.glob("*.safetensors"))


class Everything(nn.Module):
    """Tied weights, every dtype, a scalar, an empty tensor, a transposed one, a non-finite one that is not floating."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 3, bias=False)
        self.b = nn.Linear(3, 3, bias=False)
        self.b.weight = self.a.weight
        self.low = nn.Parameter(torch.randn(2, 3).to(torch.bfloat16))
        self.strided = nn.Parameter(torch.randn(4, 2).t())
        for name, dtype in {"i": torch.int64, "u": torch.uint8, "f16": torch.float16, "f64": torch.float64}.items():
            self.register_buffer(name, (torch.rand(5) * 100).to(dtype))
        self.register_buffer("flag", torch.tensor([True, False]))
        self.register_buffer("scalar", torch.tensor(3.5))
        self.register_buffer("empty", torch.zeros(0, 4))
        self.register_buffer("tied_buffer", self.scalar)


def test_round_trip(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = Everything()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    snaps = SnapshotCollector(model, optimizer, store=Disk(tmp_path), when="manual")
    snaps.take()
    snaps.close()
    loaded = Disk(tmp_path).load()[0]
    assert loaded.to_dict() == snaps.snapshots[0].to_dict() == {"step": 0, "cycle": 0, "lr": 0.1, "healthy": True}
    state = loaded.state
    assert list(state) == list(model.state_dict())
    for name, value in model.state_dict().items():
        assert state[name].dtype == value.dtype
        assert torch.equal(state[name], value), name
    assert state["a.weight"] is state["b.weight"]
    assert state["scalar"] is state["tied_buffer"]
    other = Everything()
    other.load_state_dict(state)
    assert torch.equal(other.low, model.low)
    foreign = safetensors.torch.load_file(tmp_path / files(tmp_path)[0])  # any reader can open it
    assert torch.equal(foreign["low"], model.low)
    assert "b.weight" not in foreign


def test_members_are_copies_at_their_time(tmp_path: Path) -> None:
    model, optimizer = setup()
    snaps = SnapshotCollector(model, optimizer, store=Disk(tmp_path), when="manual")
    snaps.take()
    before = model[0].weight.detach().clone()
    train(model, optimizer, 3)
    assert torch.equal(snaps.snapshots[0].state["0.weight"], before)
    assert not torch.equal(model[0].weight, before)


def test_ensemble_in_another_process(tmp_path: Path) -> None:
    snaps, _ = collect(tmp_path, 3)
    snaps.close()
    x = torch.randn(5, 3)
    states = [snapshot.state for snapshot in Disk(tmp_path).load()]
    assert torch.equal(Ensemble(setup(9)[0], states)(x), snaps.ensemble()(x))


def test_every_flipped_bit_and_every_truncation_is_found(tmp_path: Path) -> None:
    collect(tmp_path, 1)
    path = tmp_path / files(tmp_path)[0]
    good = path.read_bytes()
    expected = Disk(tmp_path).load()[0].state
    rng = random.Random(0)
    places = {
        *(rng.randrange(len(good) * 8) for _ in range(500)),
        *range(64),
        *range(len(good) * 8 - 64, len(good) * 8),
    }
    header = int.from_bytes(good[:8], "little")
    places |= {rng.randrange(8 * (8 + header)) for _ in range(1500)}
    for place in places:
        bad = bytearray(good)
        bad[place // 8] ^= 1 << place % 8
        path.write_bytes(bad)
        with pytest.raises(SnapshotError, match=path.name):
            Disk(tmp_path).load()
    for length in {
        *range(20),
        8 + header - 1,
        8 + header,
        len(good) - 1,
        *(rng.randrange(len(good)) for _ in range(50)),
    }:
        path.write_bytes(good[:length])
        with pytest.raises(SnapshotError, match=path.name):
            Disk(tmp_path).load()
    for tail in (b"\0", b"more"):
        path.write_bytes(good + tail)
        with pytest.raises(SnapshotError, match=path.name):
            Disk(tmp_path).load()
    path.write_bytes(good)
    assert all(torch.equal(value, expected[name]) for name, value in Disk(tmp_path).load()[0].state.items())


def test_a_damaged_tensor_is_named(tmp_path: Path) -> None:
    snaps, _ = collect(tmp_path, 2)
    path = tmp_path / files(tmp_path)[0]
    content = bytearray(path.read_bytes())
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    place = 8 + int.from_bytes(content[:8], "little") + header["2.weight"]["data_offsets"][0]
    content[place] ^= 4
    path.write_bytes(content)
    with pytest.raises(SnapshotError, match=r"tensor '2.weight' is damaged"):
        snaps.snapshots[0].state
    with pytest.raises(SnapshotError, match="damaged"):
        snaps.ensemble()
    with pytest.warns(UserWarning, match=r"'2.weight' is damaged.*left out"):
        assert [s.step for s in Disk(tmp_path).load(skip_damaged=True)] == [2]


def test_foreign_files_and_pickles_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "snapshot-00000005.safetensors"
    path.write_bytes(pickle.dumps({"weight": [1.0]}))
    with pytest.raises(SnapshotError, match="not a safetensors file"):
        Disk(tmp_path).load()
    safetensors.torch.save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(SnapshotError, match="no snapshot of thalweg"):
        Disk(tmp_path).load()
    path.write_bytes((1 << 62).to_bytes(8, "little") + b"{}")
    with pytest.raises(SnapshotError, match="not a safetensors file"):
        Disk(tmp_path).load()
    (tmp_path / "notes.txt").write_text("mine")
    path.unlink()
    assert Disk(tmp_path).load() == []


def test_another_runs_files_are_never_touched(tmp_path: Path) -> None:
    first, _ = collect(tmp_path, 2)
    first.close()
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    with pytest.raises(FileExistsError, match="snapshots of another run"):
        collect(tmp_path, 1)
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before
    (tmp_path / "snapshot-00000001.safetensors").write_bytes(b"mine")
    (tmp_path / "snapshot-00000002.safetensors").unlink()
    with pytest.raises(FileExistsError):
        collect(tmp_path, 1)
    assert (tmp_path / "snapshot-00000001.safetensors").read_bytes() == b"mine"


def test_keep_last(tmp_path: Path) -> None:
    (tmp_path / "snapshot-mine.safetensors").write_bytes(b"x")
    (tmp_path / "other.safetensors").write_bytes(b"x")
    snaps, _ = collect(tmp_path, 7, keep_last=3)
    assert [s.step for s in snaps.snapshots] == [5, 6, 7]
    kept = [f"snapshot-{step:08d}.safetensors" for step in (5, 6, 7)]
    assert files(tmp_path) == sorted(["other.safetensors", "snapshot-mine.safetensors", *kept])


def test_keep_last_deletes_only_after_the_successor_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snaps, model = collect(tmp_path, 2, keep_last=2)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        train(model, snaps.optimizer, 1)
    assert files(tmp_path) == ["snapshot-00000001.safetensors", "snapshot-00000002.safetensors"]
    assert sorted(p.name for p in (tmp_path / ".thalweg").iterdir()) == ["lock"]
    assert [s.step for s in snaps.snapshots] == [1, 2]


def test_on_error_warn_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizer = setup()
    snaps = SnapshotCollector(model, optimizer, store=Disk(tmp_path), when="every:1", on_error="warn")
    train(model, optimizer, 1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        with pytest.warns(UserWarning, match="no snapshot of step 2"):
            train(model, optimizer, 1)
    train(model, optimizer, 1)
    assert [s.step for s in snaps.snapshots] == [1, 3]
    assert len(files(tmp_path)) == 2


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    first, _ = collect(tmp_path, 1)
    with pytest.raises(BlockingIOError, match="another collector writes"):
        collect(tmp_path, 1)
    state = first.state_dict()
    first.close()
    model, optimizer = setup()
    second = SnapshotCollector(model, optimizer, store=Disk(tmp_path), when="every:1")
    second.load_state_dict(state)
    train(model, optimizer, 1)
    assert [s.step for s in second.snapshots] == [1, 2]
    second.close()


def test_only_rank_0_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizer = setup()
    monkeypatch.setattr("thalweg.ensemble._store._rank", lambda: 1)
    follower = SnapshotCollector(model, optimizer, store=Disk(tmp_path, 2), when="every:1")
    monkeypatch.undo()
    writer = SnapshotCollector(model, optimizer, store=Disk(tmp_path, 2), when="every:1")
    train(model, optimizer, 3)
    assert len(files(tmp_path)) == 2
    assert [s.to_dict() for s in follower.snapshots] == [s.to_dict() for s in writer.snapshots]
    assert torch.equal(follower.state_dicts()[0]["0.weight"], writer.state_dicts()[0]["0.weight"])


def test_a_forgotten_store_frees_its_lock(tmp_path: Path) -> None:
    store = Disk(tmp_path)
    store.begin("run")
    del store
    gc.collect()
    Disk(tmp_path).begin("run")


def test_stale_unfinished_files_are_swept(tmp_path: Path) -> None:
    hidden = tmp_path / ".thalweg"
    hidden.mkdir()
    (hidden / "snapshot-00000003.safetensors.abcd").write_bytes(b"half")
    Disk(tmp_path).load()
    assert (hidden / "snapshot-00000003.safetensors.abcd").exists()  # a reader sweeps nothing
    collect(tmp_path, 1)
    assert sorted(p.name for p in hidden.iterdir()) == ["lock"]


def test_resume_from_disk(tmp_path: Path) -> None:
    snaps, _ = collect(tmp_path, 5, keep_last=3)
    state = json.loads(json.dumps(snaps.state_dict()))  # all of it is plain
    train(snaps.model, snaps.optimizer, 1)
    snaps.close()
    model, optimizer = setup()
    again = SnapshotCollector(model, optimizer, store=Disk(tmp_path, 3), when="every:1")
    with pytest.warns(UserWarning, match=r"no longer holds the snapshots of steps \[3\]"):
        again.load_state_dict(state)
    train(model, optimizer, 1)
    assert [s.step for s in again.snapshots] == [4, 5, 6]
    assert len(files(tmp_path)) == 3
    again.close()
    empty = SnapshotCollector(model, optimizer, store=Disk(tmp_path / "elsewhere"), when="every:1")
    with pytest.raises(FileNotFoundError, match="holds none of the 3 listed snapshots"):
        empty.load_state_dict(state)
    path = tmp_path / files(tmp_path)[0]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="left out"), pytest.raises(SnapshotError, match=path.name):
        SnapshotCollector(model, optimizer, store=Disk(tmp_path, 3), when="every:1").load_state_dict(state)


def test_bad_paths(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotADirectoryError, match="not a directory"):
        Disk(tmp_path / "file")
    with pytest.raises(TypeError, match="path must be a path"):
        Disk(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="keep_last must be an integer >= 1, got 0"):
        Disk(tmp_path, keep_last=0)
    with pytest.raises(FileNotFoundError, match="no directory"):
        Disk(tmp_path / "missing").load()
    with pytest.raises(OSError, match="Disk: cannot create directory"):
        collect(tmp_path / "file" / "below", 1)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_unwritable_directory(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    with pytest.raises(PermissionError, match="cannot write into"):
        collect(locked, 1)
    assert list(locked.iterdir()) == []


KILLS = """
import os, random, signal, sys, time, torch
from pathlib import Path
from thalweg.ensemble import Disk, SnapshotCollector

def write(path, pipe):
    model = torch.nn.Linear(500, 1000)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    snaps = SnapshotCollector(model, optimizer, store=Disk(path, keep_last=2), when="every:1")
    for k in range(1, 100000):
        for p in model.parameters():
            p.data.fill_(k)
            p.grad = torch.zeros_like(p)
        optimizer.step()
        os.write(pipe, k.to_bytes(8, "little"))

torch.set_num_threads(1)
rng = random.Random(0)
for round_ in range(10):
    path = Path(sys.argv[1]) / str(round_)
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        write(path, write_end)
    os.close(write_end)
    first = os.read(read_end, 8)
    time.sleep(rng.uniform(0.0, 0.12))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    rest = b""
    while block := os.read(read_end, 65536):
        rest += block
    os.close(read_end)
    acknowledged = int.from_bytes((first + rest)[-8:], "little")
    members = Disk(path).load()
    assert 1 <= len(members) <= 3, members
    assert members[-1].step >= acknowledged, (members, acknowledged)
    for member in members:
        assert all(bool((value == member.step).all()) for value in member.state.values()), member
    print("killed after", acknowledged)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_kill_at_any_time(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLS, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("killed after") == 10

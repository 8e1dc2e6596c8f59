"""`thalweg landscape run`, `merge` and `info` of journals: the user's own model and data, errors, resuming."""

from __future__ import annotations

import json
import logging
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import thalweg as tw
from thalweg.cli import landscape_options, main

_MODULE = """
import torch
from torch import nn

NUMBER = 3
calls = 0

class Squared(nn.Module):
    def forward(self, output, targets):
        return (output - targets[:, None]).square().mean()

def net():
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))

def pair():
    return torch.randn(24, 4), torch.arange(24) % 3

def loader():
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*pair()), batch_size=5)

def own_loss(model, batch):
    global calls
    calls += 1
    return nn.functional.cross_entropy(model(batch[0]), batch[1])

def largest(output, targets):
    return output.amax(1)
"""
NEEDED = ["--model", "nets_of_test:net", "--data", "nets_of_test:pair"]
GRID = ["--x", "-1:1:5", "--y", "-.5:1.5:3"]


@pytest.fixture(autouse=True)
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nets_of_test.py").write_text(_MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])  # the current directory comes from the command
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "nets_of_test", raising=False)


def _run(*arguments: str) -> int:
    return main(["landscape", "run", *NEEDED, *arguments])


def test_a_grid_is_what_the_evaluator_gives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--metrics", "loss,accuracy,nets_of_test:largest", "--norm", "layer", "--seed", "7", "--ignore", "none"]
    assert _run(*GRID, *options, "--bn", "batch", "--batch-size", "10", "--out", "s.npz") == 0
    assert "surface of shape 3 x 5" in capsys.readouterr().out
    surface = tw.landscape.load("s.npz")
    assert isinstance(surface, tw.landscape.Surface)
    nets = sys.modules["nets_of_test"]
    torch.manual_seed(7)
    model = nets.net()
    ev = tw.landscape.Evaluator(
        model, "cross_entropy", nets.pair(), metrics=("loss", "accuracy", nets.largest), bn="batch", batch_size=10
    )
    directions = tw.landscape.random_directions(model, norm="layer", seed=7, ignore=None)
    expected = ev.grid(directions, (-1, 1, 5), (-0.5, 1.5, 3), progress=False)
    assert surface.metadata == json.loads(json.dumps(expected.metadata))
    assert surface.values.keys() == {"loss", "accuracy", "largest"}
    for name, values in expected.values.items():
        np.testing.assert_array_equal(surface.values[name], values)


@pytest.mark.parametrize("y", [[], ["--y", "none"]])
def test_without_y_it_is_a_line(y: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("--x", "-1:1:6", *y, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["kind"], told["shape"]) == ("line", [6])
    assert told["metadata"]["directions"]["norm"] == "filter"


def test_losses_of_ones_own_and_loaders(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["landscape", "run", "--model", "nets_of_test:net", "--data", "nets_of_test:loader", "--x", "0:1:2", "--loss", "nets_of_test:own_loss", "--json"]) == 0  # fmt: skip
    assert json.loads(capsys.readouterr().out)["metadata"]["batch_sizes"] == [5, 4]
    assert _run("--x", "0:1:2", "--loss", "nets_of_test:Squared", "--json") == 0
    assert json.loads(capsys.readouterr().out)["ranges"]["loss"][0] > 0


def test_resume_merge_and_info(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loss = ["--loss", "nets_of_test:own_loss"]
    assert _run(*GRID, *loss, "--resume", "run.sqlite", "--out", "a.npz") == 0
    nets = sys.modules["nets_of_test"]
    first = nets.calls
    assert _run(*GRID, *loss, "--resume", "run.sqlite", "--out", "b.npz") == 0
    assert nets.calls - first == first - 15, "all but the points of the grid"
    a, b = (tw.landscape.load(name) for name in ("a.npz", "b.npz"))
    assert a.values["loss"].tobytes() == b.values["loss"].tobytes()
    assert a.metadata == b.metadata
    assert main(["landscape", "merge", "run.sqlite", "--out", "whole.sqlite"]) == 0
    assert "wrote whole.sqlite: 15 of 15 points" in capsys.readouterr().out
    assert main(["landscape", "info", "whole.sqlite"]) == 0
    assert "journal: 15 of 15 points" in capsys.readouterr().out
    assert main(["landscape", "info", "whole.sqlite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metadata"]["weights_hash"] == a.metadata["weights_hash"]
    assert _run(*GRID, *loss, "--seed", "1", "--resume", "run.sqlite") == 1
    assert "directions.seed: expected 1, got 0" in capsys.readouterr().err
    assert main(["landscape", "merge", "run.sqlite", "a.npz", "--out", "c.sqlite"]) == 1
    assert "a.npz is not a journal of thalweg" in capsys.readouterr().err


def test_options_are_those_of_the_evaluator(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--style", "li2018", "--norm", "dfilter", "--ignore", "none", "--train-mode", "--bn", "batch"]
    assert _run(*GRID, *options, "--out", "s.npz") == 0
    nets = sys.modules["nets_of_test"]
    torch.manual_seed(0)
    model = nets.net()
    ev = tw.landscape.Evaluator(model, "cross_entropy", nets.pair(), bn="batch", train_mode=True)
    directions = tw.landscape.random_directions(model, norm="dfilter", style="li2018", ignore=None)
    expected = ev.grid(directions, (-1, 1, 5), (-0.5, 1.5, 3), progress=False)
    surface = tw.landscape.load("s.npz")
    assert surface.metadata == json.loads(json.dumps(expected.metadata))
    np.testing.assert_array_equal(surface.values["loss"], expected.values["loss"])
    capsys.readouterr()


def test_tiers_and_what_is_said_before_the_work(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    level = logging.getLogger("thalweg.landscape").level
    assert _run(*GRID, "--out", "exact.npz") == 0
    said = capsys.readouterr()
    assert re.fullmatch(
        r"landscape: exact tier, loop \(loop: \S+ ms for the first point\): 15 points, about \S+ s\n", said.err
    )
    quick = ["--tier", "rounding", "--implementation", "program"]
    assert _run(*GRID, *quick, "--out", "quick.npz") == 0
    assert capsys.readouterr().err.startswith("landscape: rounding tier, program (")
    a, b = (tw.landscape.load(name).values["loss"] for name in ("exact.npz", "quick.npz"))
    np.testing.assert_allclose(b, a, rtol=1e-5)
    rough = ["--tier", "approximate", "--precision", "bf16", "--implementation", "loop"]
    assert _run(*GRID, *rough, "--out", "rough.npz") == 0
    metadata = tw.landscape.load("rough.npz").metadata
    assert (metadata["tier"], metadata["precision"]) == ("approximate", "bf16")
    assert metadata["error_probe"]["largest_absolute"] > 0
    capsys.readouterr()
    monkeypatch.setenv("RANK", "1")
    assert _run(*GRID) == 0
    assert capsys.readouterr() == ("", ""), "the first process speaks"
    log = logging.getLogger("thalweg.landscape")
    assert (log.level, log.handlers, log.propagate) == (level, [], True)


def test_volumes_refined_grids_and_streamed_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(*GRID, "--z", "-1:0:2", "--out", "v.npz", "--preview", "v.png") == 0
    assert "volume of shape 2 x 3 x 5" in capsys.readouterr().out
    volume = tw.landscape.load("v.npz")
    assert isinstance(volume, tw.landscape.Volume)
    assert main(["landscape", "plot", "v.npz", "--out", "slices.png"]) == 0
    assert main(["landscape", "plot", "v.npz", "--out", "slices.html"]) == 1
    assert "a volume is drawn as .png" in capsys.readouterr().err
    assert _run("--x", "-1:1:17", "--y", "-1:1:17", "--refine", "0.2", "--preview", "r.png", "--out", "r.npz") == 0
    surface = tw.landscape.load("r.npz")
    assert isinstance(surface, tw.landscape.Surface)
    assert surface.metadata["refine"] == 0.2
    assert surface.evaluated is not None
    assert 9 <= surface.evaluated.sum() < 289
    assert "up to 289 points, about" in capsys.readouterr().err
    for name in ("v.png", "slices.png", "r.png"):
        assert Path(name).read_bytes().startswith(b"\x89PNG")
    assert main(["landscape", "run", "--model", "nets_of_test:net", "--data", "nets_of_test:loader", "--x", "0:1:2", "--memory-budget", "0.1K", "--json"]) == 0  # fmt: skip
    assert json.loads(capsys.readouterr().out)["metadata"]["streamed"] is True


@pytest.mark.parametrize(
    ("text", "number"),
    [("512", 512), ("4G", 4 << 30), ("1.5GiB", 3 << 29), ("64 mb", 64 << 20), ("2T", 2 << 40), ("1k", 1024)],
)
def test_bytes(text: str, number: int) -> None:
    assert landscape_options._bytes(text) == number


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--y", "none", "--z", "0:1:2"], "--z needs --y"),
        (["--y", "none", "--refine", "0.1"], "--refine is for grids"),
        (["--z", "0:1:2", "--refine", "0.1"], "--refine is for grids"),
        (["--y", "none", "--preview", "p.png"], "--preview is for grids and volumes"),
        (["--preview", "p.html"], "--preview must end in .png"),
        (["--precision", "bf16"], "tier='approximate' and precision go together"),
        (["--norm", "dfilter"], "norm must be one of"),
        (["--model", "nets_of_test"], "--model must be module:callable such as nets:trained, got 'nets_of_test'"),
        (["--model", "nets_of_test:none"], "--model: module 'nets_of_test' has no 'none'"),
        (["--model", "no_such_module:net"], "cannot import 'no_such_module'"),
        (["--data", "nets_of_test:NUMBER"], "nets_of_test:NUMBER must be callable, got int"),
        (["--out", "s.png"], "--out must end in .npz, got 's.png'"),
        (["--x", "none"], "--x must be first:last:number"),
        (["--metrics", "loss,nonsense"], "metric must be one of"),
        (["--x", "0:1:0"], "x[2] must be an integer >= 1"),
        (["--resume", "nets_of_test.py"], "nets_of_test.py is not a journal of thalweg"),
        (["--device", "cuda"], "torch finds no CUDA device"),
    ],
)
def test_errors_are_one_line(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    if "cuda" in arguments and torch.cuda.is_available():
        arguments, text = ["--bn", "batch", "--x", "none"], "--x must be"
    assert _run("--x", "0:1:3", "--y", "0:1:2", *arguments) == 1
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1
    assert error.startswith("thalweg landscape: error: ")


def test_wrong_usage_is_exit_code_two(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = ["--x", "-1:1"], ["--y", "a:b:c"], ["--norm", "filters"], ["--x"], ["--memory-budget", "4X"]
    for arguments in (*wrong, ["--batch-size", "few"], ["--tier", "fast"]):
        with pytest.raises(SystemExit) as caught:
            _run(*arguments)
        assert caught.value.code == 2
    assert "expected first:last:number such as -1:1:51, got '-1:1'" in (err := capsys.readouterr().err)
    assert "expected bytes such as 512M or 4G, got '4X'" in err
    assert "expected a number of samples or tune, got 'few'" in err

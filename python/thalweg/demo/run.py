"""run_demo: does the parts in order, gathers their numbers, writes report, numbers and figures."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from .. import __version__, _core
from .._extras import require
from ..lr_range import RangeTestResult
from . import check_part, landscape_part, range_part, saddle, story, timing
from .config import SETTINGS, Config, config
from .data import Split, load
from .output import plain, staged, write_json
from .range_part import Rates
from .runs import METHODS, Pictures, run_method, torch_twin
from .training import Curve

FORMAT = 1
THREADS = 1  # the steps are too small to gain from more; a fixed number keeps the sums the same on every machine
_ENSEMBLE_KINDS = {"step": "nocycle", "sgdr": "snapshot"}
_EXTRA_METHODS = ("best_snapshot", "average", "fitted")
METHOD_ORDER = (*METHODS, "best_snapshot", "average", "nocycle", "snapshot", "fitted")
# Seconds of one core each part takes: only for the estimate that the progress bar shows.
_RUN, _RANGE, _TWIN, _VALLEY, _TIMING, _REPORT = 1.15, 0.4, 1.0, 8.0, 1.5, 14.0


@dataclass(eq=False)
class Material:
    """Everything that was measured: numbers for results.json, and what only the figures need.

    Attributes:
        config: The sizes.
        results: The numbers, by part.
        splits: Images of seed 0, per setting.
        ranges: Range tests, per setting.
        pictures: Curves and weights of seed 0, per setting.
        twins: Loss curves of thalweg and torch, per dtype.
        valleys: Landscapes, per setting.
        descents: The four runs on the saddle.
    """

    config: Config
    results: dict[str, Any]
    splits: dict[str, Split] = field(default_factory=dict)
    ranges: dict[str, RangeTestResult] = field(default_factory=dict)
    pictures: dict[str, Pictures] = field(default_factory=dict)
    twins: dict[str, dict[str, Curve]] = field(default_factory=dict)
    valleys: dict[str, landscape_part.Valley] = field(default_factory=dict)
    descents: dict[str, saddle.Descent] = field(default_factory=dict)


class _Progress:
    """One bar over the whole demo, in estimated seconds; notes how long each part really took."""

    def __init__(self, sizes: Config, shown: bool) -> None:
        runs = sizes.seeds * (len(METHODS) + len(check_part.METHODS))
        total = len(SETTINGS) * (_RANGE + runs * _RUN + _VALLEY) + 4 * _TWIN + _TIMING + _REPORT
        layout = "{desc}: {percentage:3.0f}%|{bar}| {elapsed} < {remaining}"
        self.bar = tqdm(total=total, desc="thalweg demo", bar_format=layout, disable=None if shown else True)
        self.seconds: dict[str, float] = {}
        self.began = time.perf_counter()

    @contextmanager
    def part(self, name: str, text: str) -> Iterator[None]:
        self.bar.set_description_str(text)
        began = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

    def done(self, estimate: float) -> None:
        self.bar.update(min(estimate, self.bar.total - self.bar.n))


def run_demo(
    out: str | os.PathLike[str],
    *,
    seeds: int | None = None,
    budget: str = "default",
    overwrite: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Run the whole demo and write report.html, results.json and PNG figures into `out`.

    What is computed is fixed by the arguments, never by the speed of the machine: two runs with the same arguments on
    the same machine give the same results.json but for its key "timings".

    Args:
        out: Directory, absent or empty. It stays as it was, or absent, unless everything succeeds.
        seeds: Paired repetitions of all training runs; by default 6, or 10 with budget "full". At least 3 are needed
            for claims.
        budget: "default", "full", or "smoke" (a few seconds, for tests; its numbers mean nothing).
        overwrite: Allow files in `out` to be replaced.
        progress: Show a progress bar when standard error is a terminal.

    Returns:
        What results.json holds.

    Raises:
        FileExistsError: `out` is not empty.
        ImportError: The extra is missing; install "thalweg[demo]".
        ValueError: `seeds` or `budget` is out of range.
        OSError: `out` cannot be written.
    """
    sizes = config(budget, seeds)
    for module in ("sklearn", "scipy", "matplotlib", "plotly"):
        require(module, "the demo")
    threads = torch.get_num_threads()
    with staged("demo", out, overwrite=overwrite) as (folder, _):
        bar = _Progress(sizes, progress)
        torch.set_num_threads(THREADS)
        try:
            material = _measure(sizes, bar)
            with bar.part("report", "figures and report"):
                story.write(folder, material, bar.done)
            _finish(folder, material, bar)
        finally:
            torch.set_num_threads(threads)
            bar.bar.close()
    results: dict[str, Any] = plain(material.results)
    return results


def _finish(folder: Path, material: Material, bar: _Progress) -> None:
    bar.done(bar.bar.total)
    timings = material.results["timings"]
    timings["parts_seconds"] = bar.seconds
    timings["total_seconds"] = time.perf_counter() - bar.began
    write_json(folder / "results.json", material.results)


def _measure(sizes: Config, bar: _Progress) -> Material:
    """Do parts (a) to (e)."""
    material = Material(sizes, {"format": FORMAT, "config": asdict(sizes)})
    results = material.results
    rates: dict[str, Rates] = {}
    with bar.part("range_test", "range test"):
        for setting in SETTINGS:
            split = material.splits[setting] = _split(setting, sizes, 0)
            found = material.ranges[setting] = range_part.run(sizes, split, 0)
            rates[setting] = range_part.rates(found)
            bar.done(_RANGE)
    results["data"] = _counts(material.splits["noisy"])
    results["range_test"] = {s: _range_numbers(material.ranges[s], rates[s]) for s in SETTINGS}
    results["methods"], results["ensemble"] = {}, {}
    for setting in SETTINGS:
        with bar.part("runs", f"training, {setting}"):
            _repeat(material, setting, rates[setting], bar)
    learnt = material.pictures["noisy"].learnt
    results["memorised"] = {method: shares.tolist() for method, shares in learnt.items()}
    results["other_weight_decay"] = {"weight_decay": sizes.other_weight_decay, "methods": {}}
    for setting in SETTINGS:
        with bar.part("check", f"another weight decay, {setting}"):
            results["other_weight_decay"]["methods"][setting] = check_part.run(
                sizes, partial(_split, setting, sizes), rates[setting], partial(bar.done, _RUN)
            )
    with bar.part("twin", "torch beside thalweg"):
        results["twin"] = _twin(material, rates["noisy"], bar)
    results["landscape"] = {}
    seconds = {}
    for setting in SETTINGS:
        with bar.part("landscape", f"landscape, {setting}"):
            valley = landscape_part.run(
                sizes,
                material.splits[setting],
                rates[setting],
                material.pictures[setting],
                lambda share: bar.done(share * _VALLEY),
            )
        material.valleys[setting] = valley
        results["landscape"][setting] = {k: v for k, v in valley.results.items() if k != "seconds"}
        seconds[setting] = valley.results["seconds"]
    with bar.part("saddle", "saddle"):
        material.descents = saddle.run()
        results["saddle"] = {"steps": saddle.STEPS, **{n: _descent(d) for n, d in material.descents.items()}}
    with bar.part("timing", "time of a step"):
        step = timing.measure(sizes, material.splits["plain"])
        bar.done(_TIMING)
    results["conditions"] = _conditions()
    points = 2 * sizes.grid**2
    results["timings"] = {
        "step": step,
        "landscape_points_per_second": {s: points / seconds[s] for s in SETTINGS},
    }
    return material


def _split(setting: str, sizes: Config, seed: int) -> Split:
    noise = sizes.noise if setting == "noisy" else 0.0
    return load(noise, train_size=sizes.train_size, val_size=sizes.val_size, seed=seed)


def _counts(noisy: Split) -> dict[str, int]:
    return {
        "train": len(noisy.y_train),
        "val": len(noisy.y_val),
        "test": len(noisy.y_test),
        "redrawn": int(noisy.redrawn.sum()),
        "wrong": int((noisy.y_train != noisy.true_train).sum()),
    }


def _range_numbers(found: RangeTestResult, rates: Rates) -> dict[str, Any]:
    left_out = ("smoothed", "curves")
    return {**{k: v for k, v in found.to_dict().items() if k not in left_out}, "rates": asdict(rates)}


def _repeat(material: Material, setting: str, rates: Rates, bar: _Progress) -> None:
    """Train every method with every seed; fill results["methods"] and results["ensemble"]."""
    sizes = material.config
    found: dict[str, list[Any]] = {name: [] for name in METHOD_ORDER}
    reports: dict[str, list[Any]] = {"snapshot": [], "nocycle": []}
    tuned: list[dict[str, Any]] = []
    for seed in range(sizes.seeds):
        split = material.splits[setting] if seed == 0 else _split(setting, sizes, seed)
        pictures = material.pictures.setdefault(setting, Pictures()) if seed == 0 else None
        for method in METHODS:
            result = run_method(method, sizes, split, rates, seed, pictures)
            found[method].append(result["metrics"])
            if kind := _ENSEMBLE_KINDS.get(method):
                reports[kind].append(result["report"])
                found[kind].append(result["report"].ensemble)
            if method == "sgdr":
                for name in _EXTRA_METHODS:
                    found[name].append(result[name])
                tuned.append({key: result[key] for key in ("weights", "temperature", "best_index")})
            bar.done(_RUN)
    material.results["methods"][setting] = {
        name: {key: [getattr(m, key) for m in values] for key in ("error", "nll", "brier", "ece")}
        for name, values in found.items()
    }
    material.results["ensemble"][setting] = {
        **{kind: _ensemble_numbers(entries) for kind, entries in reports.items()},
        "fitted": tuned,
    }


def _ensemble_numbers(reports: list[Any]) -> dict[str, Any]:
    """Return members and last-m [seeds][m], and the diversity matrices as means over the seeds."""
    return {
        **{
            part: {key: [[getattr(m, key) for m in getattr(r, part)] for r in reports] for key in ("error", "nll")}
            for part in ("members", "last_m")
        },
        "correlation": np.mean([r.correlation.numpy() for r in reports], axis=0).tolist(),
        "disagreement": np.mean([r.disagreement.numpy() for r in reports], axis=0).tolist(),
        "steps": list(reports[0].steps),
    }


def _twin(material: Material, rates: Rates, bar: _Progress) -> dict[str, Any]:
    sizes, found = material.config, {}
    for name, dtype in (("float32", torch.float32), ("float64", torch.float64)):
        curves = material.twins[name] = torch_twin(sizes, material.splits["noisy"], rates, 0, dtype)
        bar.done(2 * _TWIN)
        difference = np.abs(curves["thalweg"].losses - curves["torch"].losses)
        found[name] = {
            "steps": len(difference),
            "max_difference": float(difference.max()),
            "first_epoch": float(difference[: sizes.steps_per_epoch].max()),
            "max_lr_difference": float(np.abs(curves["thalweg"].lrs - curves["torch"].lrs).max()),
        }
    return found


def _descent(run: saddle.Descent) -> dict[str, Any]:
    return {"title": run.title, "left": run.left, "diverged": run.diverged, "last_loss": float(run.losses[-1])}


def _conditions() -> dict[str, Any]:
    packages = ("torch", "numpy", "scikit-learn", "scipy", "matplotlib", "plotly")
    return {
        "thalweg": __version__,
        "python": platform.python_version(),
        **{package: metadata.version(package) for package in packages},
        "platform": platform.platform(),
        "cpu_isa": _core.isa_active(),
        "cpus": os.cpu_count(),
        "threads": THREADS,
    }

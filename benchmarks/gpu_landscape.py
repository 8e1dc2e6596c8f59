"""GPU rows of the landscape: points per second of an MLP and of ResNet-56 against a good loop on the same device."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import thalweg as tw
from gpu_measure import Session, precision
from gpu_nets import resnet56, settle_batchnorm
from gpu_rows import Contest, Row, Side
from gpu_targets import LOOP
from landscape_nets import Array, Vectors, mlp

GRID = 51 * 51  # points of the projected plane
GROUPED = 8  # points from which the rounding tier evaluates several at once
# The share by which losses may differ from the float64 ones: what the format's own rounding does to a deep network.
TOLERANCE = {"fp32": 1e-4, "tf32": 1e-2, "bf16": 5e-2}


def hand_written(model: nn.Module, x: Tensor, y: Tensor, vectors: Vectors, points: Array, batch: int) -> Array:
    """What a careful person writes for a GPU: all resident, multi-tensor updates, losses kept there until the end."""
    model.eval()
    params = [p.detach() for p in model.parameters()]
    weights = [p.clone() for p in params]
    losses = torch.zeros(len(points), dtype=torch.float64, device=x.device)
    with torch.inference_mode():
        for i, (a, b) in enumerate(points.tolist()):
            torch._foreach_copy_(params, weights)
            torch._foreach_add_(params, vectors[0], alpha=a)
            torch._foreach_add_(params, vectors[1], alpha=b)
            for xb, yb in zip(x.split(batch), y.split(batch), strict=True):
                losses[i] += nn.functional.cross_entropy(model(xb), yb) * len(yb)
        torch._foreach_copy_(params, weights)
    return losses.cpu().numpy() / len(y)


def in_float64(model: nn.Module, x: Tensor, y: Tensor, vectors: Vectors, points: Array) -> Array:
    """The same losses in float64, from the float32 weights and directions."""
    wide = [[d.double() for d in vector] for vector in vectors]
    return hand_written(copy.deepcopy(model).double(), x.double(), y, wide, points, len(y))


def fastest_batch(run: Callable[[int], Any], session: Session, sizes: Sequence[int]) -> int:
    """The batch size at which the loop is fastest, each tried twice; both sides use it."""
    times = {}
    for size in sizes:
        for _ in range(1 if session.dry else 2):  # the first time at a size also chooses algorithms and memory
            session.synchronize()
            started = time.perf_counter()
            run(size)
            session.synchronize()
            times[size] = time.perf_counter() - started
    return min(times, key=times.__getitem__)


@dataclass(frozen=True)
class Case:
    """A network with its data, and how many points a call of ours and of the loop evaluates."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]  # of a sample
    samples: int
    points: int
    loop_points: int
    batches: tuple[int, ...]  # the loop's fastest is taken
    precision: str = "fp32"
    rounds: int | None = None
    tier: str = "exact"


def landscape(session: Session, case: Case) -> Contest:
    """Points per second in the plane of two filter-normalised directions."""
    name = case.precision
    torch.manual_seed(0)
    samples = session.number(case.samples, 2)
    batches = [min(b, samples) for b in case.batches][: session.number(len(case.batches), 1)]
    model = case.build().to(session.device)
    x, y = (
        torch.randn(samples, *case.shape, device=session.device),
        torch.randint(0, 10, (samples,), device=session.device),
    )
    settle_batchnorm(model, x[: batches[0]])
    directions = tw.landscape.random_directions(model, seed=1)
    vectors = [[d.to(x.device) for d in vector] for vector in directions.vectors]
    least = 2 if case.tier == "exact" else GROUPED
    coords = np.random.default_rng(0).uniform(-1, 1, (session.number(case.points, least), 2))
    short = coords[: session.number(case.loop_points, 2)]
    switch: Callable[[], AbstractContextManager[None]] = lambda: precision(session, name)  # noqa: E731

    def loop(batch: int, points: Array = short) -> Array:
        with switch():
            return hand_written(model, x, y, vectors, points, batch)

    best = fastest_batch(lambda size: loop(size, short[:1]), session, batches)
    # The exact tier has the loop's batches; the other its own, which hold several points' activations.
    make = partial(
        tw.landscape.Evaluator,
        model,
        "cross_entropy",
        tier=case.tier,
        batch_size=best if case.tier == "exact" else None,
    )
    with switch():
        evaluator = make(data=(x, y))

    def ours() -> Any:
        with switch():
            return evaluator.points(directions, coords)

    def check() -> None:
        few = slice(min(best, 1_000))  # of the samples: float64 is slow
        near = np.concatenate([np.zeros((1, 2)), coords[: least - 1] * 0.1])  # where losses are a network's, not noise
        with precision(session, "fp32"):
            expected = in_float64(model, x[few], y[few], vectors, near)
        with switch():
            found = make(data=(x[few], y[few])).points(directions, near).values["loss"]
        np.testing.assert_allclose(found, expected, rtol=TOLERANCE[name])
        with switch():  # all samples, against the loop
            result = evaluator.points(directions, short if case.tier == "exact" else coords)
        np.testing.assert_allclose(result.values["loss"][: len(short)], loop(best), rtol=TOLERANCE[name])
        more["error"] = float(np.max(np.abs(found - expected) / expected))  # against float64
        more["graph"] = str(result.metadata.get("graph", "not said"))
        more["choice"] = str(evaluator.choice)

    more: dict[str, Any] = {
        "samples": samples,
        "points": len(coords),
        "batch": best,
        "precision": name,
        "tier": case.tier,
    }
    peers = {LOOP: Side(lambda: loop(best), len(short))}
    return Contest(Side(ours, len(coords)), peers, check, more=more, figures=rates, rounds=case.rounds)


def rates(seconds: float) -> dict[str, float]:
    """What seconds per point mean for a whole plane."""
    return {"points_per_second": 1 / seconds, "projected_minutes": GRID * seconds / 60}


def rows(quick: bool) -> Iterator[Row]:
    """All rows of this file; `quick` times a quarter of ResNet-56's points."""
    mlp_case = Case(mlp, (784,), 10_000, 4_096, 512, (10_000, 5_000, 2_500))
    points = 16 if quick else 64
    resnet = Case(resnet56, (3, 32, 32), 50_000, points, points // 4, (1_000, 2_500, 5_000, 10_000), rounds=2)
    cases = {
        "mlp": ("landscape, fp32", mlp_case),
        "mlp-rounding": ("landscape, rounding tier, fp32", replace(mlp_case, tier="rounding")),
        **{
            f"resnet56-{name}": (f"landscape, {name}, {points} points timed", replace(resnet, precision=name))
            for name in TOLERANCE
        },
        "resnet56-rounding": (
            f"landscape, rounding tier, fp32, {points} points timed",
            replace(resnet, tier="rounding"),
        ),
    }
    for key, (what, case) in cases.items():
        about = "MLP, 10,000 samples" if case.build is mlp else "ResNet-56, 50,000 images"
        yield Row(f"landscape-{key}", what, about, lambda s, c=case: landscape(s, c))

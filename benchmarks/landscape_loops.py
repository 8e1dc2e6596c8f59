"""How a plane is evaluated without a package: four ways in plain torch, each also at its best settings."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.data import DataLoader, TensorDataset

from landscape_nets import Array, Problem

Setting = TypeVar("Setting")
cross_entropy = nn.functional.cross_entropy


def hand_written(
    problem: Problem, points: Array, batch: int, forward: Callable[[Tensor], Tensor] | None = None
) -> Array:
    """What a careful person writes: data resident, inference mode, in-place update, one sync per point."""
    forward = problem.model if forward is None else forward
    params = list(problem.model.parameters())
    weights = [p.detach().clone() for p in params]
    losses = np.empty(len(points))
    with torch.inference_mode():
        for i, (a, b) in enumerate(points.tolist()):
            for p, w, u, v in zip(params, weights, *problem.vectors, strict=True):
                p.copy_(w).add_(u * a).add_(v * b)
            total = torch.zeros((), dtype=torch.float64)
            for xb, yb in zip(problem.x.split(batch), problem.y.split(batch), strict=True):
                total += cross_entropy(forward(xb), yb) * len(yb)
            losses[i] = total.item() / len(problem.y)
        for p, w in zip(params, weights, strict=True):
            p.copy_(w)
    return losses


def with_loader(problem: Problem, points: Array, loader: DataLoader[tuple[Tensor, ...]]) -> Array:
    """What people write: a pass over a DataLoader per point, and a number fetched from every batch."""
    model = copy.deepcopy(problem.model)
    losses = np.empty(len(points))
    for i, (a, b) in enumerate(points.tolist()):
        for p, w, u, v in zip(model.parameters(), problem.model.parameters(), *problem.vectors, strict=True):
            p.data = w.data + a * u + b * v
        total = 0.0
        with torch.no_grad():
            for xb, yb in loader:
                total += cross_entropy(model(xb), yb).item() * len(yb)
        losses[i] = total / len(problem.y)
    return losses


def loader_of(problem: Problem, workers: int = 0, batch: int = 128) -> DataLoader[tuple[Tensor, ...]]:
    """The data behind a DataLoader; workers, where there are any, stay from pass to pass."""
    return DataLoader(TensorDataset(problem.x, problem.y), batch, num_workers=workers, persistent_workers=workers > 0)


def stacked(problem: Problem, points: Array, batch: int, chunk: int) -> Array:
    """`torch.func.vmap` over the weights of `chunk` points."""
    names = [name for name, _ in problem.model.named_parameters()]
    weights = [p.detach() for p in problem.model.parameters()]
    buffers = dict(problem.model.named_buffers())

    def outputs(params: dict[str, Tensor], xb: Tensor) -> Tensor:
        return functional_call(problem.model, {**params, **buffers}, (xb,))

    losses = []
    with torch.inference_mode():
        for some in torch.from_numpy(points).to(weights[0].dtype).split(chunk):
            a, b = some.unbind(1)
            params = {
                name: w + torch.tensordot(a[:, None], u[None], 1) + torch.tensordot(b[:, None], v[None], 1)
                for name, w, u, v in zip(names, weights, *problem.vectors, strict=True)
            }
            total = torch.zeros(len(some), dtype=torch.float64)
            for xb, yb in zip(problem.x.split(batch), problem.y.split(batch), strict=True):
                scores = torch.vmap(outputs, in_dims=(0, None))(params, xb)  # [chunk, batch, classes]
                each = cross_entropy(scores.flatten(0, 1), yb.repeat(len(some)), reduction="none")
                total += each.view(len(some), -1).sum(1)
            losses.append(total / len(problem.y))
    return torch.cat(losses).numpy()


def compiled(problem: Problem) -> Callable[[Tensor], Tensor]:
    """The network through `torch.compile`, for the hand-written loop; every batch size is compiled for itself."""
    return torch.compile(problem.model, dynamic=False)


def in_float64(problem: Problem, points: Array) -> Array:
    """The losses in float64, from the float32 weights, directions and data."""
    return hand_written(problem.doubled(), points, 500)


def fastest(run: Callable[[Setting], object], settings: Sequence[Setting], passes: int = 3) -> Setting:
    """The setting with the shortest run: the best of some passes each, by turns."""
    times = dict.fromkeys(settings, np.inf)
    for _ in range(passes):
        for setting in settings:
            started = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                run(setting)
            times[setting] = min(times[setting], time.perf_counter() - started)
    return min(times, key=times.__getitem__)

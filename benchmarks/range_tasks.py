"""Four small real tasks of the range test's evidence: data of scikit-learn, a network, a loss, training at one rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

STEPS = 200  # of one training run
GRID = [10.0 ** (-5 + k / 2) for k in range(13)]  # 1e-5 to 10
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "SGD": lambda parameters, lr: torch.optim.SGD(parameters, lr=lr, momentum=0.9),
    "AdamW": lambda parameters, lr: torch.optim.AdamW(parameters, lr=lr),
}


def gaussian_nll(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean negative log-likelihood, in nats; output[:, 0] is the mean, output[:, 1] the logarithm of the deviation."""
    mean, log_sd = output.unbind(1)
    return (log_sd + 0.5 * ((target - mean) * (-log_sd).exp()).square()).mean() + 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True)
class Task:
    """One task. `relative` says that its loss is positive, so that ratios of losses mean something."""

    name: str
    dataset: str
    batch: int
    net: Callable[[], nn.Module]
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    relative: bool = True


def _mlp(inputs: int, hidden: int, outputs: int) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def _cnn() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


TASKS = (
    Task("digits CNN", "digits", 32, _cnn, nn.functional.cross_entropy),
    Task("digits MLP", "digits", 64, _mlp(64, 32, 10), nn.functional.cross_entropy),
    Task("breast cancer MLP", "breast_cancer", 32, _mlp(30, 32, 2), nn.functional.cross_entropy),
    Task("diabetes Gaussian NLL", "diabetes", 32, _mlp(10, 8, 2), gaussian_nll, relative=False),
)


@cache
def _table(dataset: str) -> tuple[torch.Tensor, torch.Tensor]:
    import sklearn.datasets

    x, y = getattr(sklearn.datasets, f"load_{dataset}")(return_X_y=True)
    x = torch.tensor(x, dtype=torch.float32)
    if dataset == "diabetes":
        y = torch.tensor(y, dtype=torch.float32)
        return x, (y - y.min()) / (y.max() - y.min())  # the loss of a good fit is negative on this scale
    return x, torch.tensor(y)


@cache
def split(task: Task) -> tuple[TensorDataset, TensorDataset]:
    """Training and held-out samples (2:1), the same for every seed, standardised by the training samples."""
    x, y = _table(task.dataset)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    train, held = order[len(x) // 3 :], order[: len(x) // 3]
    mean, sd = x[train].mean(0), x[train].std(0).clamp_min(1e-6)
    if task.dataset == "digits":
        mean, sd = torch.tensor(8.0), torch.tensor(8.0)
    x = (x - mean) / sd
    return TensorDataset(x[train], y[train]), TensorDataset(x[held], y[held])


def loader(task: Task, data: TensorDataset, seed: int) -> DataLoader[Any]:
    """Shuffled whole batches, drawn by index lists (fast) in an order that `seed` fixes."""
    generator = torch.Generator().manual_seed(seed)
    sampler = BatchSampler(RandomSampler(data, generator=generator), task.batch, drop_last=True)
    return DataLoader(data, sampler=sampler, batch_size=None, generator=generator)


def endless(batches: DataLoader[Any]) -> Iterator[Any]:
    while True:
        yield from batches


def start(task: Task, optimizer: str, seed: int, lr: float) -> tuple[nn.Module, torch.optim.Optimizer, DataLoader[Any]]:
    """A fresh network, its optimizer and its training batches."""
    torch.manual_seed(seed)
    model = task.net()
    return model, OPTIMIZERS[optimizer](model.parameters(), lr), loader(task, split(task)[0], seed)


def train(task: Task, optimizer: str, seed: int, lr: float, steps: int = STEPS, anneal: bool = False) -> nn.Module:
    """Train at a constant rate (or one that falls linearly to 0)."""
    model, opt, batches = start(task, optimizer, seed, lr)
    for k, (x, y) in zip(range(steps), endless(batches), strict=False):
        if anneal:
            opt.param_groups[0]["lr"] = lr * (1 - k / steps)
        opt.zero_grad()
        loss = task.loss(model(x), y)
        loss.backward()
        opt.step()
        if k % 20 == 0 and not math.isfinite(loss.item()):
            break
    return model


def held_out(task: Task, model: nn.Module) -> float:
    """Loss of the held-out samples; infinite where it is not a number."""
    x, y = split(task)[1].tensors
    model.eval()
    with torch.no_grad():
        loss = task.loss(model(x), y).item()
    return loss if math.isfinite(loss) else math.inf

"""One training run: the same batches for every method of a seed. Knows any optimizer, no schedule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy


@dataclass(frozen=True, eq=False)
class Curve:
    """What one run recorded: per update, the loss of the batch before it and the learning rate it used; both [steps]."""

    losses: npt.NDArray[np.float64]
    lrs: npt.NDArray[np.float64]


def batch_order(train_size: int, batch_size: int, steps: int, seed: int) -> list[Tensor]:
    """Return `steps` index tensors: shuffled passes over the training images, from a generator of their own."""
    generator = torch.Generator().manual_seed(seed)
    batches: list[Tensor] = []
    while len(batches) < steps:
        rows = torch.randperm(train_size, generator=generator)
        batches += rows[: train_size // batch_size * batch_size].view(-1, batch_size).unbind()
    return batches[:steps]


def train(
    model: nn.Module,
    data: tuple[Tensor, Tensor],
    optimizer: torch.optim.Optimizer,
    order: list[Tensor],
    *,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
    after_step: Callable[[int], None] | None = None,
) -> Curve:
    """Train on the batches of `order` with cross-entropy.

    Args:
        model: The network, trained in place.
        data: Training inputs and labels.
        optimizer: Steps the model; one with a schedule inside needs no scheduler.
        order: Index tensor of each batch.
        scheduler: torch's scheduler, stepped after each update.
        after_step: Called with the number of updates done; it may look at the model in eval mode.

    Returns:
        The recorded curve.
    """
    inputs, labels = data
    losses, lrs = torch.empty(len(order), dtype=torch.float64), np.empty(len(order))
    model.train()
    for k, rows in enumerate(order):
        loss = cross_entropy(model(inputs[rows]), labels[rows])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        lrs[k] = optimizer.param_groups[0]["lr"]
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        losses[k] = loss.detach()
        if after_step is not None:
            after_step(k + 1)
            model.train()
    return Curve(losses.numpy(), lrs)


@torch.no_grad()
def probabilities(model: nn.Module, inputs: Tensor) -> Tensor:
    """Return the class probabilities of `inputs` [n, ...] in eval mode, float64 [n, classes]; the mode stays eval."""
    logits: Tensor = model.eval()(inputs)
    return logits.double().softmax(1)

"""Put back what evaluation must not change: random generators, train/eval modes. Knows torch, not the core."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn


def generators_of(sources: Iterable[Any]) -> list[torch.Generator]:
    """The generators of data loaders and of their samplers."""
    return [
        generator
        for source in sources
        for holder in (source, getattr(source, "sampler", None), getattr(source, "batch_sampler", None))
        if isinstance(generator := getattr(holder, "generator", None), torch.Generator)
    ]


@contextmanager
def random_state(sources: Iterable[Any] = ()) -> Iterator[None]:
    """Restore the generators of torch (all devices in use), numpy and `random`, and those found in `sources`.

    A DataLoader draws a seed from a generator each time it is iterated, also without shuffling: reading data
    alone changes what the training draws next. `sources` are data loaders; their own and their samplers'
    generators count.
    """
    generators = generators_of(sources)
    own = [generator.get_state() for generator in generators]
    cpu = torch.get_rng_state()
    in_use = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    cuda = torch.cuda.get_rng_state_all() if in_use else None
    legacy = np.random.get_state()  # noqa: NPY002 - the state that users' code may draw from
    python = random.getstate()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
        for generator, state in zip(generators, own, strict=True):
            generator.set_state(state)


@contextmanager
def modes(model: nn.Module) -> Iterator[None]:
    """Restore the train/eval flag of every submodule, one by one: `train()` would overwrite layers that are frozen."""
    flags = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, flag in flags:
            module.training = flag


def unwrap(model: nn.Module) -> nn.Module:
    """Return the user's module inside torch.compile's and DistributedDataParallel's wrappers."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, nn.parallel.DistributedDataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner

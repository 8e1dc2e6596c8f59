"""What the benchmarks compare: our optimizers from the registry, torch's forms of them, and other packages' classes."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import thalweg as tw

LR = 1e-3
FUSED, FOREACH, FOR_LOOP = "torch fused", "torch foreach", "torch for-loop"
FORMS: dict[str, dict[str, bool]] = {FUSED: {"fused": True}, FOREACH: {"foreach": True}, FOR_LOOP: {"foreach": False}}
Make = Callable[[Sequence[nn.Parameter]], torch.optim.Optimizer]


@dataclass(frozen=True)
class Peer:
    """A class of another package that computes the same as ours.

    Args:
        package: Its name where packages are installed from.
        module: From where it is imported.
        name: The class.
        options: What it needs beside `params` and `lr` to compute what ours does with OPTIONS.
        attributes: What is set on the optimizer for the same reason.
    """

    package: str
    module: str
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def build(self, params: Sequence[nn.Parameter]) -> Any:
        """The optimizer, ready to step; ImportError where the package is not installed."""
        made = getattr(importlib.import_module(self.module), self.name)
        known = inspect.signature(made).parameters  # older releases have no foreach form
        options = {key: value for key, value in self.options.items() if key in known or key != "foreach"}
        optimizer = made(params, lr=LR, **options)
        for key, value in self.attributes.items():
            setattr(optimizer, key, value)
        if hasattr(optimizer, "train"):  # the schedule-free ones begin with the average in the parameters
            optimizer.train()
        return optimizer


# Options of ours, beside lr, where the defaults are not the common ground of all peers.
OPTIONS: dict[str, dict[str, Any]] = {
    "sgd": {"momentum": 0.9},
    "ademamix": {"alpha": 5.0},  # the paper's
    # pytorch_optimizer has no bias correction, decays weights before the norms are taken, and scales without decay too.
    "lamb": {"weight_decay": 0.0, "bias_correction": False, "always_adapt": True},
    "lars": {"momentum": 0.9, "always_adapt": True},
}

# What people would take instead, by core name. All keep float32 states. Optimizers with 8-bit states (bitsandbytes,
# torchao) move fewer bytes and compute something else, so they are no peers here.
PEERS: dict[str, tuple[Peer, ...]] = {
    "lion": (Peer("lion-pytorch", "lion_pytorch", "Lion"), Peer("pytorch-optimizer", "pytorch_optimizer", "Lion")),
    "adan": (
        Peer("timm", "timm.optim", "Adan", {"foreach": True}),
        Peer("pytorch-optimizer", "pytorch_optimizer", "Adan"),
    ),
    "ademamix": (Peer("pytorch-optimizer", "pytorch_optimizer", "AdEMAMix", {"alpha": 5.0}),),
    "lamb": (
        # Without its own clipping of all gradients, which is a pass of its own.
        Peer("timm", "timm.optim", "Lamb", {**OPTIONS["lamb"], "max_grad_norm": None, "foreach": True}),
        # It divides the step by the first bias correction unless told so, and clamps the norm of the weights to 10,
        # which no version of the paper does.
        Peer("pytorch-optimizer", "pytorch_optimizer", "Lamb", {"adam_debias": True}, {"clamp": float("inf")}),
    ),
    # pytorch_optimizer's LARS leaves tensors of one dimension, which these are, as they are.
    "lars": (Peer("timm", "timm.optim", "Lars", {**OPTIONS["lars"], "foreach": True}),),
    "sgd_schedule_free": (Peer("schedulefree", "schedulefree", "SGDScheduleFree"),),
    "adamw_schedule_free": (Peer("schedulefree", "schedulefree", "AdamWScheduleFree"),),
}


def core_optimizers() -> Iterator[tuple[str, type[tw.optim.FusedOptimizer]]]:
    """The registry's optimizers: (core name, class in thalweg.optim)."""
    classes = {c.core_name: c for c in vars(tw.optim).values() if hasattr(c, "core_name")}
    yield from ((name, classes[name]) for name in sorted(tw._core.optimizers()))


def torch_forms(
    cls: type[torch.optim.Optimizer] | None, options: Mapping[str, Any], labels: Sequence[str] = (FUSED, FOREACH)
) -> dict[str, Make]:
    """Torch's class with these options, in those of the forms that it has."""
    known = inspect.signature(cls).parameters if cls else ()
    return {
        label: lambda params, form=FORMS[label]: cls(params, **options, **form)
        for label in labels
        if set(FORMS[label]) <= set(known)
    }


def two_phase(core_name: str) -> bool:
    """Whether the update of an element depends on norms of its tensor."""
    return bool(tw._core.optimizers()[core_name]["two_phase"])


def bytes_per_step(optimizer: torch.optim.Optimizer) -> int:
    """What a step must move: parameter, gradient and states read, parameter and states written. Call it after a step.

    A two-phase optimizer reads all of them once more before it writes: it needs the norms of its update.
    """
    again = isinstance(optimizer, tw.optim.FusedOptimizer) and two_phase(optimizer.core_name)
    total = 0
    for group in optimizer.param_groups:
        for p in group["params"]:
            states = [v for v in optimizer.state[p].values() if isinstance(v, Tensor) and v.shape == p.shape]
            own, kept = p.numel() * p.element_size(), sum(v.numel() * v.element_size() for v in states)
            total += 3 * own + 2 * kept + (2 * own + kept if again else 0)
    return total


def same(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
    """Compare all elements of two lists of parameters."""
    a, b = (torch.cat([p.detach().reshape(-1) for p in params]) for params in (ours, theirs))
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)

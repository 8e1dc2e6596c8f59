"""Optimizers as sides of a GPU row: parameters with gradients, ours, torch's and others', and the float64 reference."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gpu_measure import Session
from gpu_rows import Side, need
from peers import LR

PROBED = 1 << 20  # elements of a tensor that are compared with the float64 reference


def parameters(session: Session, sizes: Sequence[int], seed: int = 0) -> list[nn.Parameter]:
    """Tensors of these numbers of elements, each an allocation of its own, with gradients; the same for one seed."""
    generator = torch.Generator(session.device).manual_seed(seed)
    params = [nn.Parameter(torch.randn(n, generator=generator, device=session.device)) for n in sizes]
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator, device=session.device)
    return params


def in_groups(params: Sequence[nn.Parameter], decay: Callable[[int], float]) -> list[dict[str, Any]]:
    """One param group per parameter, with its weight decay."""
    return [{"params": [p], "weight_decay": decay(i)} for i, p in enumerate(params)]


def capturable(session: Session) -> dict[str, Any]:
    """The option without which torch refuses a capture; it refuses the option on a CPU."""
    return {"capturable": True} if session.cuda else {}


# ---- peers --------------------------------------------------------------------------------------------------


def other_adamw() -> dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]]:
    """AdamW of other packages, where they are installed; with torch's default weight decay."""
    options = {"lr": LR, "weight_decay": 1e-2}
    return {
        "apex": lambda params: need("apex.optimizers", "FusedAdam")(params, adam_w_mode=True, **options),
        "transformer_engine": lambda params: need("transformer_engine.pytorch.optimizers", "FusedAdam")(
            params, adam_w_mode=True, **options
        ),
        "bitsandbytes": lambda params: need("bitsandbytes.optim", "AdamW32bit")(params, **options),
    }


class ForeachLion(torch.optim.Optimizer):
    """Lion (Chen et al., arXiv 2302.06675, algorithm 2) as torch would write it with foreach; torch has none."""

    def __init__(self, params: Iterable[Tensor], lr: float, betas: tuple[float, float], weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            params = group["params"]
            grads = [p.grad for p in params]
            for p in params:
                self.state[p].setdefault("exp_avg", torch.zeros_like(p))
            averages = [self.state[p]["exp_avg"] for p in params]
            b1, b2 = group["betas"]
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
            signs = torch._foreach_lerp(averages, grads, 1 - b1)
            torch._foreach_sign_(signs)
            torch._foreach_add_(params, signs, alpha=-group["lr"])
            torch._foreach_lerp_(averages, grads, 1 - b2)


# ---- comparing --------------------------------------------------------------------------------------------------


def references() -> dict[str, Any]:
    """The float64 references that the tests use too."""
    folder = str(Path(__file__).parents[1] / "tests")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    found: dict[str, Any] = importlib.import_module("reference").REFERENCES
    return found


class Probe:
    """Parts of the first, middle and last tensor as they are now, to be stepped in float64 later.

    A part of a tensor stands for the whole where elements do not depend on each other; tensors of up to PROBED
    elements are taken `whole`, and so are all where the update depends on norms.
    """

    def __init__(self, params: Sequence[nn.Parameter], whole: bool = False) -> None:
        self.picks = sorted({0, len(params) // 2, len(params) - 1})
        self.part = None if whole else PROBED
        self.start = [self._of(params[i]) for i in self.picks]
        self.grads = [self._of(_grad(params[i])) for i in self.picks]

    def _of(self, tensor: Tensor) -> np.ndarray[Any, Any]:
        return tensor.detach().reshape(-1)[: self.part].double().cpu().numpy()

    def check(
        self,
        params: Sequence[nn.Parameter],
        core_name: str,
        steps: int,
        lr: Callable[[int], float] = lambda k: LR,
        scale: float = 1.0,
        **options: Any,
    ) -> None:
        """Raise AssertionError unless `params` are where `steps` updates with `scale` times the gradients lead."""
        for at, pick in enumerate(self.picks):
            reference, value = references()[core_name](**options), self.start[at]
            for k in range(steps):
                value = reference.step(value, self.grads[at] * scale, lr(k))
            np.testing.assert_allclose(self._of(params[pick]), value, rtol=1e-5, atol=1e-6)


def _grad(param: nn.Parameter) -> Tensor:
    assert param.grad is not None
    return param.grad


def clip_scale(params: Sequence[nn.Parameter], max_norm: float) -> float:
    """What torch's clip_grad_norm_ multiplies the gradients with, in float64."""
    total = sum(float(_grad(p).double().square().sum()) for p in params) ** 0.5
    return min(1.0, max_norm / (total + 1e-6))


def stepping(optimizer: torch.optim.Optimizer) -> Side:
    """A side that steps."""
    return Side(optimizer.step)

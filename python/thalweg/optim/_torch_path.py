"""A step done by torch's class of the same name: for what the core cannot hold (sparse, complex, differentiable, traced).

Knows no update rule. The groups and the state are shared with torch's class, so that later steps may go either way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adagrad
from torch.optim.optimizer import Optimizer

from ._checks import DEFAULTS


class NeedsTorch(Exception):
    """The core cannot take this step and torch can; the text says why."""


# How many dispatch modes (make_fx, FakeTensorMode, ...) watch torch's operations: they would miss what the core did.
watchers: Callable[[], int] = torch._C._len_torch_dispatch_stack


def why_torch_only(group: dict[str, Any]) -> str | None:
    """What makes torch do every step of an optimizer with this group; None where nothing does."""
    if group.get("differentiable"):
        return "differentiable=True"
    if len(set(map(id, group["params"]))) < len(group["params"]):
        return "a parameter stands twice in a group"
    return None


def why_torch(param: Tensor, torch_class: type[Optimizer] | None) -> str | None:
    """What makes torch step this parameter; None where it is the core's, or torch refuses it too."""
    if torch_class is None or param.grad is None:
        return None
    if param.layout == torch.strided and param.grad.layout == torch.sparse_coo and torch_class in (SGD, Adagrad):
        return "has a sparse gradient"
    if type(param).__torch_dispatch__ is not torch._C._disabled_torch_dispatch_impl:
        return f"is a {type(param).__name__}, whose operations are its own"
    if param.is_complex() and param.layout == param.grad.layout == torch.strided:
        return f"has dtype {param.dtype}"
    return None


def step_as_torch(optimizer: Any, torch_class: type[Optimizer] | None, why: str) -> bool:
    """Do one step by `torch_class` on the optimizer's own groups and state.

    Args:
        optimizer: The optimizer whose step it is.
        torch_class: torch's class with the same groups and state, or None where torch has none.
        why: What the core cannot do, for the error text.

    Returns:
        False when a GradScaler found infinities, and nothing was done.

    Raises:
        RuntimeError: torch has no such class, or the step has parts that only the core knows.
    """
    who = type(optimizer).__name__
    if torch_class is None:
        raise RuntimeError(f"{who}: {why}, which thalweg does not step and torch has no {who}")
    own = [name for name, default in DEFAULTS.items() if name != "seed" and getattr(optimizer, name) != default]
    own += ["thalweg.amp.GradScaler"] if optimizer._found_inf_out is not None else []
    if own:
        raise RuntimeError(
            f"{who}: {why}, so torch does the step, which knows no {', '.join(own)}; leave that out, or use what torch "
            "has for it, as torch.nn.utils.clip_grad_norm_ and torch.amp.GradScaler"
        )
    if optimizer._table is not None and optimizer._table.capturing():
        raise RuntimeError(f"{who}: {why}, so torch does the step, which cannot be captured; step outside the graph")
    found_inf, grad_scale = (optimizer.__dict__.get(name) for name in ("found_inf", "grad_scale"))
    if found_inf is not None and float(found_inf) != 0:
        return False
    peer = torch_class.__new__(torch_class)
    peer.__dict__.update(optimizer.__dict__)
    peer.__dict__.update(found_inf=None, grad_scale=None)
    if grad_scale is not None:  # as GradScaler.unscale_() does for optimizers that do not know the scale
        with torch.no_grad():
            for group in optimizer.param_groups:
                for grad in (p.grad for p in group["params"] if p.grad is not None):
                    grad.div_(torch.as_tensor(grad_scale, device=grad.device))
    step = torch_class.step
    # torch wraps `step` for hooks when the first object of a class is made; ours have been called already
    (step.__wrapped__ if getattr(step, "hooked", False) else step)(peer)  # type: ignore[attr-defined]
    return True

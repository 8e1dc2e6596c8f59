"""Loss scaling for float16 training: torch's GradScaler with the inf check folded into the step's own norm pass."""

from __future__ import annotations

from typing import Any

import torch
from torch.amp.grad_scaler import OptState

from .optim import FusedOptimizer

__all__ = ["GradScaler"]


class GradScaler(torch.amp.GradScaler):
    r"""As `torch.amp.GradScaler`; a thalweg optimizer looks for infinities itself, in the pass that reads the norm.

    The loss is scaled by :math:`s`, the step divides it out: :math:`g = \nabla (s L) / s`. A gradient that is not
    finite makes the step a no-op: parameters, state, schedule and step counters stay, and `update()` lowers :math:`s`.
    torch's own scaler passes over all gradients once more and writes them; here they are read once together with the
    clipping norm and stay scaled. Any other optimizer, and one whose gradients were unscaled by hand, is stepped as
    torch does it.

    Args:
        device: "cuda" or "cpu".
        init_scale: First scale :math:`s`.
        growth_factor: The scale is multiplied by it after `growth_interval` steps without infinities; > 1.
        backoff_factor: The scale is multiplied by it after a step with infinities; < 1.
        growth_interval: Steps.
        enabled: False makes everything a no-op.

    Raises:
        RuntimeError: `step` is called twice without `update`, or with a closure.

    Example:
        >>> import torch, thalweg as tw
        >>> model = torch.nn.Linear(3, 1)
        >>> opt = tw.optim.SGD(model.parameters(), lr=0.1, max_grad_norm=1.0)
        >>> scaler = tw.amp.GradScaler("cpu", init_scale=1024.0)
        >>> scaler.scale(model(torch.ones(2, 3)).sum()).backward()
        >>> scaler.step(opt)
        >>> scaler.update()
        >>> scaler.get_scale()
        1024.0

    References:
        Micikevicius et al.: Mixed precision training, arXiv 1710.03740, section 3.2.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._found: dict[int, torch.Tensor] = {}  # per optimizer: 1 where its last step was skipped

    def step(self, optimizer: torch.optim.Optimizer, *args: Any, **kwargs: Any) -> float | None:
        """Step the optimizer unless a gradient is infinite or NaN; see torch.amp.GradScaler.step."""
        if not self._enabled or not isinstance(optimizer, FusedOptimizer):
            return super().step(optimizer, *args, **kwargs)
        state = self._per_optimizer_states[id(optimizer)]
        scale = self._scale
        if state["stage"] is not OptState.READY or scale is None or not self._one_device(optimizer, scale.device):
            return super().step(optimizer, *args, **kwargs)
        if args or "closure" in kwargs:
            raise RuntimeError("GradScaler: closures are not supported; call backward() before step()")
        found = self._found.get(id(optimizer))
        if found is None or found.device != scale.device:
            found = self._found[id(optimizer)] = torch.zeros((), dtype=torch.float32, device=scale.device)
        own = getattr(optimizer, "grad_scale", None)  # the user may have set one, as torch allows
        optimizer.grad_scale = scale if own is None else scale * own  # type: ignore[attr-defined]
        optimizer._found_inf_out = found
        try:
            optimizer.step(**kwargs)
        finally:
            del optimizer.grad_scale  # type: ignore[attr-defined]
            optimizer._found_inf_out = None
        state["found_inf_per_device"] = {found.device: found}
        state["stage"] = OptState.STEPPED
        return None

    @staticmethod
    def _one_device(optimizer: FusedOptimizer, device: torch.device) -> bool:
        """Tell whether all gradients lie where the scale does, and there are any."""
        devices = {p.grad.device for group in optimizer.param_groups for p in group["params"] if p.grad is not None}
        return devices == {device}

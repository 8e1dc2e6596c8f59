"""A state_dict as torch's classes write and read it: where counters lie, types, what a first step has not made yet."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ._requests import REGISTRY, CoreRequests


def as_torch_keeps_them(optimizer: CoreRequests, state: dict[str, Any]) -> None:
    """On a device: `step` on the host unless fused or capturable, no state before the first step that was done."""
    devices = {p.device for p in optimizer.state if isinstance(p, Tensor) and p.device in optimizer._clocks}
    if not devices:
        return
    groups = {i: group for group in state["param_groups"] for i in group["params"]}
    params = [p for group in optimizer.param_groups for p in group["params"]]
    entries = {
        i: entry
        for i, entry in state["state"].items()
        if isinstance(i, int)
        and params[i].device in devices
        and not (groups[i].get("fused") or groups[i].get("capturable"))
    }
    counted = [i for i in entries if isinstance(entries[i].get("step"), Tensor)]
    if counted:  # one copy from each device instead of one per parameter
        for device in devices:
            there = [i for i in counted if params[i].device == device]
            if there:
                values = torch.stack([entries[i]["step"].reshape(()) for i in there]).cpu()
                for i, value in zip(there, values.unbind(), strict=True):
                    state["state"][i] = {**entries[i], "step": value.clone()}
    fresh = [i for i in state["state"] if isinstance(i, int) and params[i] in optimizer._counts]
    for i in fresh:
        if float(optimizer._counts[params[i]]) == 0:
            state["state"][i] = {**state["state"][i], **dict.fromkeys(REGISTRY[optimizer.core_name]["state_names"])}


def undo_casts(optimizer: CoreRequests, state_dict: dict[str, Any]) -> None:
    """Give states back the type that they were saved in: torch casts them to that of a 16-bit parameter."""
    saved_ids = [i for group in state_dict["param_groups"] for i in group["params"]]
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for i, param in zip(saved_ids, params, strict=True):
        for name, value in state_dict["state"].get(i, {}).items():
            loaded = optimizer.state.get(param, {}).get(name)
            if isinstance(value, Tensor) and isinstance(loaded, Tensor) and loaded.dtype != value.dtype:
                optimizer.state[param][name] = value.detach().to(loaded.device, copy=True)


def steps_of(optimizer: CoreRequests) -> list[int]:
    """The `step` of every parameter that has one; hooks may have put other things among the states."""
    entries = [entry for entry in optimizer.state.values() if isinstance(entry, dict)]
    return [int(float(entry["step"])) for entry in entries if entry.get("step") is not None]

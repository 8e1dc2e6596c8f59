"""Parameters that a mesh of processes shares (DTensors, as FSDP2 makes them): local tensors, gradients, norms over all.

What the core's TensorTable asks of Python about them (see cpp/bindings/tensor_table.hpp). A process that asks for a
collective does so in a step and for a parameter where all others do. Knows no update rule.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

MAX_CLASSES = 8  # kMaxNormClasses in cpp/include/thalweg/step.hpp


def is_dtensor(value: Any) -> bool:
    """Tell whether this is a DTensor, without loading torch.distributed.tensor."""
    loaded = sys.modules.get("torch.distributed.tensor")
    return loaded is not None and type(value) is loaded.DTensor


def local_of(tensor: Any) -> Tensor:
    """Return the tensor that has the memory: a DTensor's local one, any other itself."""
    if not is_dtensor(tensor):
        return tensor  # type: ignore[no-any-return]
    with torch.no_grad():
        return tensor.to_local()  # type: ignore[no-any-return]


def sharded_alike(one: Any, two: Any) -> bool:
    """Tell whether two DTensors have the same part of the same shape in every process."""
    return bool(
        one.shape == two.shape
        and one.device_mesh == two.device_mesh
        and one.placements == two.placements
        and getattr(one._spec, "shard_order", None) == getattr(two._spec, "shard_order", None)
    )


class MeshRequests(Optimizer):
    """The part of an optimizer that answers the core about DTensors."""

    # Beside class 0, whose tensors every process has as a whole: the groups of processes over which the squares of the
    # gradients are added, all groups of their mesh, and where the tensors of its collectives lie.
    _mesh_classes: dict[tuple[str, ...], tuple[list[Any], list[Any], str]]
    _shared: dict[torch.device, tuple[Tensor, Tensor, list[int]]]  # see _shared_sums

    def _name_of(self, param: Tensor) -> str:
        raise NotImplementedError

    def _mesh_place(self, param: Any) -> tuple[int, int]:
        """Return the class of a DTensor and which of its different shards this process has."""
        mesh, groups, shard = param.device_mesh, {}, 0
        for dim, placement in enumerate(param.placements):
            if placement.is_partial():
                raise RuntimeError(
                    f"{type(self).__name__}: {self._name_of(param)} has placements {param.placements}; expected Shard "
                    "and Replicate, as the sum of a Partial one is not there to be updated. Redistribute it first"
                )
            if not placement.is_replicate() and mesh.size(dim) > 1:
                group = mesh.get_group(dim)
                groups[group.group_name] = group
                shard = shard * mesh.size(dim) + mesh.get_local_rank(dim)
        if not groups:
            return 0, 0
        names = tuple(sorted(groups))
        every = [mesh.get_group(dim) for dim in range(mesh.ndim) if mesh.size(dim) > 1]
        self._mesh_classes.setdefault(names, ([groups[name] for name in names], every, mesh.device_type))
        index = 1 + list(self._mesh_classes).index(names)
        if index >= MAX_CLASSES:
            raise RuntimeError(
                f"{type(self).__name__}: {self._name_of(param)} is sharded over another set of processes than the "
                f"parameters before it; expected at most {MAX_CLASSES - 1} such sets. Give some an optimizer of their own"
            )
        return index, shard

    def _aligned_grad(self, param: Any) -> Tensor:
        """Return the gradient of a DTensor, sharded as it is and complete; puts it in the place of another one."""
        who, grad = f"{type(self).__name__}: {self._name_of(param)}", param.grad
        if not is_dtensor(grad) or grad.device_mesh != param.device_mesh:
            got = f"one on {grad.device_mesh}" if is_dtensor(grad) else f"a {type(grad).__name__}"
            raise RuntimeError(
                f"{who} is a DTensor on {param.device_mesh}, its gradient {got}; expected a DTensor on the same mesh. "
                "Make one with DTensor.from_local, or let backward() do it"
            )
        with torch.no_grad():
            if not sharded_alike(grad, param):
                grad = grad.redistribute(param.device_mesh, param.placements)
                if not sharded_alike(grad, param):
                    raise RuntimeError(
                        f"{who} has placements {param.placements}, its gradient {param.grad.placements}, which cannot "
                        "be brought into that order of shards; distribute both in the same way"
                    )
            local = grad.to_local()
            if hasattr(local, "wait"):  # a collective may still be under way
                layout = {"shape": grad.shape, "stride": grad.stride()}
                grad = type(grad).from_local(local.wait(), grad.device_mesh, grad.placements, run_check=False, **layout)
        if grad is not param.grad:
            param.grad = grad
        return grad  # type: ignore[no-any-return]

    def _sharded_alike(self, one: Any, two: Any) -> bool:
        return sharded_alike(one, two)

    def _as_sharded(self, param: Any, name: str, value: Any) -> Tensor:
        """A loaded state tensor in the form of its parameter: sharded alike, or both plain tensors."""
        if is_dtensor(param) != is_dtensor(value):
            raise ValueError(
                f"{type(self).__name__}: state {name!r} of {self._name_of(param)} must be a {type(param.data).__name__} "
                f"as its parameter, got a {type(value).__name__}; load it with "
                "torch.distributed.checkpoint.state_dict.set_optimizer_state_dict"
            )
        if is_dtensor(param) and not sharded_alike(param, value):
            return value.redistribute(param.device_mesh, param.placements)  # type: ignore[no-any-return]
        return value  # type: ignore[no-any-return]

    def _sum_over_mesh(self, numbers: list[list[float]]) -> list[list[float]]:
        """Of each class but 0 the sums of its numbers over its processes: the same in all of them."""
        return [
            _all_reduce(torch.tensor(own, dtype=torch.float64, device=device), groups).tolist()
            for own, (groups, _, device) in zip(numbers, self._mesh_classes.values(), strict=False)
        ]

    def _shared_sums(self, param: Tensor, slots: list[int]) -> tuple[Tensor, Tensor]:
        """On the device of `param`: a number per class, and two zeros for each of the classes' slots."""
        kept = self._shared.get(param.device)
        if kept is None or kept[2] != slots:
            sizes = (len(slots), 2 * sum(slots))
            squares, measured = (torch.zeros(n, dtype=torch.float64, device=param.device) for n in sizes)
            kept = self._shared[param.device] = (squares, measured, slots)
        kept[1].zero_()
        return kept[:2]

    def _add_shared(self, param: Tensor, measured: bool) -> None:
        """Turn the squares, or what was measured, into sums over the processes of each class, on the current stream."""
        squares, numbers, slots = self._shared[param.device]
        parts = torch.split(numbers, [2 * n for n in slots]) if measured else torch.split(squares, 1)
        for part, (groups, _, _) in zip(parts[1:], self._mesh_classes.values(), strict=False):
            _all_reduce(part, groups)

    def _found_anywhere(self, found_inf: Tensor) -> Tensor:
        """What a GradScaler found in any process: torch's looks at the mesh of the first gradient alone."""
        for _, every, device in self._mesh_classes.values():
            seen = found_inf.to(device, copy=True)
            found_inf = _all_reduce(seen, every, torch.distributed.ReduceOp.MAX).to(found_inf.device)
        return found_inf


def _all_reduce(value: Tensor, groups: Iterable[Any], op: Any = None) -> Tensor:
    for group in groups:
        torch.distributed.all_reduce(value, torch.distributed.ReduceOp.SUM if op is None else op, group=group)
    return value

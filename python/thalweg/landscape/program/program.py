"""The program runs: one batch at several points. What its steps are is decided in `build`. Knows no loss and no engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from . import operations
from .build import Plan, State, plan
from .trace import attribute_of, module_of
from .values import Value, each_of

Terms = Sequence[Tensor | None]


class Program:
    """A model over points (c_1, c_2, …) with weights W_0 + Σ c_j D_j.

    Args:
        model: In the mode of its evaluation, BatchNorm frozen; stays as it is.
        terms: For every parameter that moves, by name, its [1 + directions] terms; None where a direction is zero.
        reuse: Whether products of weights and inputs that all points share are computed once and kept.

    Raises:
        Refused: The model cannot be traced, or its weights are not all of one type, float32 or float64.
    """

    def __init__(self, model: nn.Module, terms: Mapping[str, Terms], reuse: bool = True) -> None:
        self._plan: Plan = plan(model, terms, reuse)
        self._shared: dict[int, dict[fx.Node, Any]] = {}

    @property
    def reuses(self) -> bool:
        """Whether any layer keeps products."""
        return any(layer is not None for layer in self._plan.frontier.values())

    @property
    def weightbytes_of(self) -> int:
        """Memory of the weights at one point."""
        return self._plan.basis.shape[1] * self._plan.basis.element_size()

    def prepare(self, index: int, inputs: Any) -> int:
        """Compute what all points share of batch number `index`, before `outputs`; returns the bytes that it takes."""
        traced, values = self._plan.traced, {}
        for node in traced.graph.nodes:
            if node in self._plan.vary:
                continue
            if node.op == "placeholder":
                values[node] = inputs
            elif node.op == "get_attr":
                values[node] = attribute_of(traced, node)
            else:
                values[node] = operations.call(node, module_of(traced, node), values.__getitem__)
        frontier = self._plan.frontier.items()
        shared = {n: values[n] if made is None else made(values[n.all_input_nodes[0]]) for n, made in frontier}
        self._shared[index] = shared
        known = {node for node in shared if node.op in ("placeholder", "get_attr")}  # the user's own memory
        return sum(bytes_of(value) for node, value in shared.items() if node not in known)

    @property
    def loops(self) -> bool:
        """Whether convolutions go through the points one by one."""
        return self._plan.loops

    def width(self, index: int) -> int:
        """Bytes of the largest value of batch number `index` at one point."""
        widest = 0

        def seen(value: Value) -> None:
            nonlocal widest
            widest = max([widest, *(bytes_of(entry) for entry in each_of(value))])

        basis = self._plan.basis
        point = torch.zeros(1, len(basis) - 1, dtype=basis.dtype, device=basis.device)
        self._run(index, self.at(point), seen)
        return widest

    def at(self, coordinates: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients [points, terms] and all weights [points, entries] for points [points, directions]."""
        basis = self._plan.basis
        coordinates = coordinates.to(basis)
        coefficients = torch.cat([torch.ones_like(coordinates[:, :1]), coordinates], dim=1)
        return coefficients, coefficients @ basis

    def outputs(self, index: int, at: tuple[Tensor, Tensor]) -> list[Any]:
        """The model's outputs for batch number `index`, one per point."""
        return each_of(self._run(index, at))

    def _run(self, index: int, at: tuple[Tensor, Tensor], seen: Callable[[Value], object] = id) -> Value:
        shared = self._shared[index]
        state = State({n: shared[n] for n, made in self._plan.frontier.items() if made is None}, shared, *at)
        out: Value = None
        for node, step, over in self._plan.steps:
            out = state.values[node] = step(state)
            seen(out)
            for source in over:
                state.values.pop(source, None)
        return out


def bytes_of(value: Any) -> int:
    """Memory of a value: a tensor, products that are kept, or several of them."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    terms = getattr(value, "terms", None)
    if terms is not None:
        return bytes_of(terms)
    return sum(map(bytes_of, value)) if isinstance(value, (tuple, list)) else 0

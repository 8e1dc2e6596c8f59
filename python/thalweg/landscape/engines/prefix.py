"""The plain engine on a model whose first layers stand still: their outputs are computed once per batch and kept.

The same operations on the same numbers as the model's own forward pass, so the same bits.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, fx

from .._cells import HostCells
from ..program import operations
from ..program.program import bytes_of
from ..program.trace import Refused, attribute_of, graph_of, module_of, varying, writes_in_place
from . import Array, Done, Task
from .loop import Loop


class Prefixed(Loop):
    """See Engine.

    Args:
        task: What a point is.
        moving: Addresses of the weights that move.
        room: Bytes that the kept outputs may take.

    Raises:
        Refused: The model cannot be traced, no layer stands still at its beginning, or the room is too small.
    """

    def __init__(self, task: Task, moving: Iterable[int], room: int) -> None:
        super().__init__(task)
        self._trusted: bool | None = None  # None: not compared yet
        self._traced = graph_of(task.model)
        self._vary = varying(self._traced, moving)
        nodes = list(self._traced.graph.nodes)
        layers = [n for n in nodes if n not in self._vary and n.op == "call_module"]
        if not any(list(module_of(self._traced, n).parameters()) for n in layers):  # type: ignore[union-attr]
            raise Refused("every layer moves from the first on")
        self._suffix = [node for node in nodes if node in self._vary]
        if not self._suffix:
            raise Refused("nothing moves")
        needed = {source for node in self._suffix for source in node.all_input_nodes if source not in self._vary}
        own = {node for node in needed if node.op in ("placeholder", "get_attr")}  # the user's memory
        self._kept: list[dict[fx.Node, Any]] = []
        for batch in task.batches:
            self._kept.append(self._prefix(nodes, batch.inputs, needed))
            room -= sum(bytes_of(value) for node, value in self._kept[-1].items() if node not in own)
            if room < 0:
                raise Refused("the outputs that would be kept take more memory than there is room for")

    def _prefix(self, nodes: list[fx.Node], inputs: Any, needed: set[fx.Node]) -> dict[fx.Node, Any]:
        values: dict[fx.Node, Any] = {}
        for node in nodes:
            if node not in self._vary:
                values[node] = self._value(node, inputs, values)
        return {node: values[node] for node in needed}

    def _value(self, node: fx.Node, inputs: Any, values: dict[fx.Node, Any]) -> Any:
        if node.op == "placeholder":
            return inputs
        if node.op == "get_attr":
            return attribute_of(self._traced, node)
        careful = node in self._vary and writes_in_place(self._traced, node)

        def value_of(source: fx.Node) -> Any:
            value = values[source]
            return value.clone() if careful and source not in self._vary and isinstance(value, Tensor) else value

        return operations.call(node, module_of(self._traced, node), value_of)

    def evaluate(self, points: Array, done: Done) -> Array:
        """See Engine; the first point is evaluated in both ways, and a model that differs is left as it is."""
        if self._trusted is None:
            first = Loop(self._task).evaluate(points[:1], lambda: None)
            self._trusted = first.tobytes() == super().evaluate(points[:1], lambda: None).tobytes()
        return super().evaluate(points, done) if self._trusted else Loop(self._task).evaluate(points, done)

    def _add(self, cells: HostCells) -> None:
        for kept, batch in zip(self._kept, self._task.batches, strict=True):
            values = dict(kept)
            for node in self._suffix:
                values[node] = self._value(node, None, values)
            self._task.measure.add_output(values[self._suffix[-1]], batch, cells)

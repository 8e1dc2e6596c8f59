"""What follows a layer and can be done while its output is written: a sum with another value, max(x, 0).

Knows nodes, no numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import fx

from . import operations
from .trace import module_of


class End(NamedTuple):
    """What a layer does to its output.

    Attributes:
        added: A value that is there before the layer, or None.
        relu: Whether max(x, 0) comes last.
        merged: The nodes that this saves, each with the one whose value it has.
    """

    added: fx.Node | None = None
    relu: bool = False
    merged: Mapping[fx.Node, fx.Node] = {}


def end_of(traced: fx.GraphModule, layer: fx.Node, last: fx.Node, vary: set[fx.Node]) -> End:
    """What can be done with a layer's output; `last` is the node that has it: the layer, or a norm that went into it."""
    merged: dict[fx.Node, fx.Node] = {}
    added, node = None, _only_user(last)
    if node is not None and operations.is_sum(node) and node.target not in operations.IN_PLACE:
        others = [arg for arg in node.args if isinstance(arg, fx.Node) and arg is not last]
        if len(others) == 1 and others[0] in vary and others[0] < layer:
            added, merged[node] = others[0], last
            last, node = node, _only_user(node)
    if node is not None and operations.is_relu(module_of(traced, node), node):
        merged[node] = last
        return End(added, True, merged)
    return End(added, False, merged)


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None

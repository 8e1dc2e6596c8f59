"""Operations with a faster form of the same numbers, and the general one: the model's own, point by point.

Knows values and nodes of a graph, no weights.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from .values import Each, Stacked, Value, each_of, mapped

_RELU = {torch.relu, nn.functional.relu, "relu"}
IN_PLACE = {operator.iadd, "add_"}
_ADD = {torch.add, operator.add, "add", *IN_PLACE}


def has_hooks(module: nn.Module) -> bool:
    """Tell whether a call of the module does more than its forward pass."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def is_relu(module: nn.Module | None, node: fx.Node) -> bool:
    """Tell whether a node is max(x, 0) of one input."""
    if module is not None:
        return type(module) is nn.ReLU and not has_hooks(module)
    return node.target in _RELU and len(node.all_input_nodes) == 1


def is_sum(node: fx.Node) -> bool:
    """Tell whether a node is x + y of two values of the graph, without a scale."""
    two = len(node.args) == 2 and all(isinstance(arg, fx.Node) for arg in node.args)
    return node.op in ("call_function", "call_method") and node.target in _ADD and two and not node.kwargs


def is_halving_pool(module: nn.Module | None) -> bool:
    """Tell whether a module takes the maximum of squares of 2 x 2 that do not overlap."""
    if type(module) is not nn.MaxPool2d or has_hooks(module):
        return False
    plain = not module.ceil_mode and not module.return_indices
    pairs = (module.kernel_size, module.stride, module.padding, module.dilation)
    return plain and [tuple(p) if isinstance(p, tuple) else (p, p) for p in pairs] == [(2, 2), (2, 2), (0, 0), (1, 1)]


def relu(value: Stacked | Each, owned: bool) -> Stacked | Each:
    """max(x, 0), into the same memory where nobody else needs it."""
    return mapped(torch.Tensor.relu_ if owned else torch.relu, value)


def added(first: Value, second: Value, owned: int | None) -> Stacked | Each:
    """X + y of equal shapes, into the memory of the operand number `owned`."""
    if owned == 1:
        first, second = second, first
    if isinstance(first, Stacked) and isinstance(second, Stacked):
        return Stacked(_sum(first.tensor, second.tensor, owned is not None))
    return [_sum(a, b, owned is not None) for a, b in zip(each_of(first), each_of(second), strict=True)]


def _sum(a: Tensor, b: Tensor, owned: bool) -> Tensor:
    return a.add_(b) if owned and a.shape == b.shape and a.dtype == b.dtype else a + b


def halved(value: Stacked | Each) -> Stacked | Each:
    """Maxima of the squares; as maxima of slices, which torch does several times faster than its pooling."""
    return mapped(_halved, value)


def _halved(x: Tensor) -> Tensor:
    high, wide = x.shape[-2] // 2 * 2, x.shape[-1] // 2 * 2
    rows = torch.maximum(x[..., 0:high:2, :wide], x[..., 1:high:2, :wide])
    return torch.maximum(rows[..., 0::2], rows[..., 1::2])


def call(node: fx.Node, function: Callable[..., Any] | None, value_of: Callable[[fx.Node], Any]) -> Any:
    """What the model itself does at this node, with the values of other nodes; `function` stands for a module."""
    args = fx.node.map_arg(node.args, value_of)
    kwargs = fx.node.map_arg(node.kwargs, value_of)
    if node.op == "output":
        return args[0]
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    target = function if node.op == "call_module" else node.target
    return target(*args, **kwargs)  # type: ignore[operator, misc]


def stand_in(module: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """The module with other weights, by name; the module itself is not touched, so that threads may do so at once."""
    made = copy.copy(module)
    own = {name: value for name, value in weights.items() if "." not in name}
    made.__dict__["_parameters"] = {**module._parameters, **own}
    if isinstance(module, nn.RNNBase):  # keeps its weights a second time
        names = module._flat_weights_names
        made.__dict__["_flat_weights"] = [made._parameters[name] for name in names]
    inner: dict[str, nn.Module | None] = {}
    for place, child in module._modules.items():
        below = {n.removeprefix(f"{place}."): w for n, w in weights.items() if n.startswith(f"{place}.")}
        inner[place] = stand_in(child, below) if below and child is not None else child
    made.__dict__["_modules"] = inner
    return made


def at_every_point(
    node: fx.Node,
    functions: Sequence[Callable[..., Any] | None],
    values: dict[fx.Node, Value],
    vary: set[fx.Node],
    careful: bool,
) -> Each:
    """The node's own operation for one point after the other; `careful` spares what all points share from writes."""
    each = {source: each_of(values[source]) for source in node.all_input_nodes if source in vary}

    def at(point: int) -> Any:
        def value_of(source: fx.Node) -> Any:
            if source in each:
                return each[source][point]
            shared = values[source]
            return shared.clone() if careful and isinstance(shared, Tensor) else shared

        return call(node, functions[point], value_of)

    return [at(point) for point in range(len(functions))]

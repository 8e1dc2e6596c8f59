"""The model as a graph of operations, and which of them depend on the point. Knows no numbers."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, fx, nn

from ..._preserve import random_state


class Refused(Exception):
    """Why a model or a run cannot be a program; the message says it to the user."""


def graph_of(model: nn.Module) -> fx.GraphModule:
    """The operations of the model in its present mode; its modules are the user's own, not copies.

    Raises:
        Refused: The forward pass takes other than one input, or follows values of tensors.
    """
    try:
        with random_state(), _attributes(model):  # tracing is a call of the forward pass
            traced = fx.GraphModule(model, fx.Tracer().trace(model))
    except Exception as error:  # whatever a forward pass does with stand-ins for tensors
        raise Refused(
            f"torch.fx cannot trace the model: {(str(error).splitlines() or [type(error).__name__])[0]}"
        ) from None
    if sum(node.op == "placeholder" for node in traced.graph.nodes) != 1:
        raise Refused("the model takes other than one input")
    return traced


@contextmanager
def _attributes(model: nn.Module) -> Iterator[None]:
    """What the forward pass sets on modules is as before afterwards."""
    before = [(module, dict(module.__dict__)) for module in model.modules()]
    try:
        yield
    finally:
        for module, attributes in before:
            for name in module.__dict__.keys() - attributes.keys():
                del module.__dict__[name]
            module.__dict__.update(attributes)


def module_of(traced: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """The module that a node calls."""
    return traced.get_submodule(str(node.target)) if node.op == "call_module" else None


def attribute_of(traced: fx.GraphModule, node: fx.Node) -> Any:
    """What a node reads off the model."""
    return operator.attrgetter(str(node.target))(traced)


def parameters_of(traced: fx.GraphModule, node: fx.Node) -> list[Tensor]:
    """The parameters that a node reads itself."""
    module = module_of(traced, node)
    if module is not None:
        return list(module.parameters())
    if node.op == "get_attr":
        value = attribute_of(traced, node)
        return [value] if isinstance(value, nn.Parameter) else []
    return []


def varying(traced: fx.GraphModule, moving: Iterable[int]) -> set[fx.Node]:
    """The nodes whose values depend on the point; `moving` has the data pointers of the weights that move."""
    found: set[fx.Node] = set()
    pointers = set(moving)
    for node in traced.graph.nodes:
        reads = any(p.data_ptr() in pointers for p in parameters_of(traced, node))
        if reads or any(source in found for source in node.all_input_nodes):
            found.add(node)
    return found


def writes_in_place(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Tell whether a node may write into what it reads."""
    module = module_of(traced, node)
    if module is not None:
        return any(bool(getattr(part, "inplace", False)) for part in module.modules())
    if node.op == "call_method":
        return str(node.target).endswith("_")
    name = getattr(node.target, "__name__", "")
    in_place = (
        getattr(operator, name, None) is node.target and name.startswith("i") and name not in ("index", "inv", "invert")
    )
    return (
        in_place
        or bool(node.kwargs.get("inplace"))
        or "out" in node.kwargs
        or (name.endswith("_") and not name.endswith("__"))
    )

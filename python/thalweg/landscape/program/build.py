"""From a traced model to the steps of a program: what is shared, what is folded, which form each operation has.

Knows values and layers; nothing is computed here but the numbers of folded layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from . import operations, winograd
from .affine import NORMS, Affine, as_flat, is_affine
from .fusion import End, end_of
from .trace import Refused, graph_of, module_of, parameters_of, varying, writes_in_place
from .values import Each, Stacked, Value, each_of

Terms = Sequence[Tensor | None]  # [1 + directions] of one parameter: W_0, D_1, …
_REUSE = 16  # inputs of an output from which adding stored products is cheaper than computing them


@dataclass
class State:
    """One batch at some points.

    Attributes:
        values: Of nodes, those that are still needed.
        shared: What the batch has for all points, by node.
        coefficients: [points, 1 + directions], the first is 1.
        weights: [points, entries] all weights that move, one after the other.
    """

    values: dict[fx.Node, Value]
    shared: Mapping[fx.Node, Any]
    coefficients: Tensor
    weights: Tensor


Step = Callable[[State], Value]
Flatten = Callable[[Tensor], tuple[Tensor, Callable[[Tensor], Tensor]]]


@dataclass
class Plan:
    """What a program does.

    Attributes:
        traced: The model's graph.
        vary: Nodes whose values depend on the point.
        frontier: What has to be known of a batch before: values of nodes (None), or what becomes of a node's input.
        steps: Nodes in order, how each is computed, and which values nobody needs afterwards.
        basis: [1 + directions, entries] terms of all weights that move.
        loops: Whether convolutions go through the points one by one.
    """

    traced: fx.GraphModule
    vary: set[fx.Node]
    frontier: dict[fx.Node, Callable[[Tensor], Any] | None]
    steps: list[tuple[fx.Node, Step, list[fx.Node]]]
    basis: Tensor
    loops: bool


def plan(model: nn.Module, terms: Mapping[str, Terms], reuse: bool) -> Plan:
    """See Program."""
    params = dict(model.named_parameters())
    by_address = {params[name].data_ptr(): value for name, value in terms.items()}
    kinds = {value[0].dtype for value in terms.values()}  # type: ignore[union-attr]
    if len(kinds) != 1 or not kinds <= {torch.float32, torch.float64}:
        raise Refused(f"the weights that move are {', '.join(sorted(map(str, kinds)))}, not all float32 or all float64")
    return _Builder(graph_of(model), by_address, reuse).plan()


@dataclass
class _Builder:
    """Everything that is decided about a graph."""

    traced: fx.GraphModule
    terms: Mapping[int, Terms]  # by address
    reuse: bool
    vary: set[fx.Node] = field(default_factory=set)
    layers: dict[fx.Node, Affine] = field(default_factory=dict)
    products: set[fx.Node] = field(default_factory=set)  # layers whose products are kept
    merged: dict[fx.Node, fx.Node] = field(default_factory=dict)  # a node -> the one that does its work
    ends: dict[fx.Node, End] = field(default_factory=dict)  # of layers that the core's kernel computes
    fresh: set[fx.Node] = field(default_factory=set)  # values in memory that nobody else has
    flats: list[list[Tensor]] = field(default_factory=list)  # [parameters][1 + directions]
    size: int = 0

    def plan(self) -> Plan:
        nodes = list(self.traced.graph.nodes)
        self.vary = varying(self.traced, self.terms)
        for node in nodes:
            self._find(node)
        norms = {layer: norm for norm, layer in self.merged.items()}
        for node, layer in self.layers.items():
            if node not in self.products and winograd.suits(layer):
                self.ends[node] = end_of(self.traced, node, norms.get(node, node), self.vary)
                self.merged.update(self.ends[node].merged)
        varying_nodes = [node for node in nodes if node in self.vary]
        steps = [(node, self._step(node)) for node in varying_nodes]
        frontier: dict[fx.Node, Callable[[Tensor], Any] | None] = {}
        for node in varying_nodes:
            if node in self.products:
                frontier[node] = self.layers[node].products
            else:
                frontier.update(dict.fromkeys(source for source in node.all_input_nodes if source not in self.vary))
        last = {source: node for node in varying_nodes for source in node.all_input_nodes}
        over = {node: [source for source, user in last.items() if user is node] for node in varying_nodes}
        basis = torch.stack([torch.cat(list(row)) for row in zip(*self.flats, strict=True)]) if self.flats else None
        if basis is None:  # every weight that moves is in kept products
            some = next(iter(self.terms.values()))
            basis = torch.zeros(len(some), 0, dtype=some[0].dtype, device=some[0].device)  # type: ignore[union-attr]
        loops = any(layer.is_convolution and node not in self.products for node, layer in self.layers.items())
        return Plan(self.traced, self.vary, frontier, [(n, step, over[n]) for n, step in steps], basis, loops)

    # ---- layers ---------------------------------------------------------------------------------------------

    def _find(self, node: fx.Node) -> None:
        """Layers with weights of their own, whose products are kept, norms that go into them."""
        module = module_of(self.traced, node)
        if node not in self.vary or len(node.all_input_nodes) != 1:
            return
        source = node.all_input_nodes[0]
        if is_affine(module):
            assert module is not None
            bias = [] if module.bias is None else self._terms_of(module.bias)  # type: ignore[arg-type]
            self.layers[node] = layer = Affine(module, self._terms_of(module.weight), bias)  # type: ignore[arg-type]
            first = source not in self.vary
            if self.reuse and first and layer.weights[0][0].numel() >= _REUSE:  # type: ignore[index]
                self.products.add(node)
        elif type(module) in NORMS and source in self.layers and len(source.users) == 1:
            assert module is not None
            frozen = not module.training and module.running_mean is not None and not operations.has_hooks(module)
            if frozen and not any(p.data_ptr() in self.terms for p in module.parameters()):
                self.layers[source].fold(module)
                self.merged[node] = source

    def _terms_of(self, parameter: Tensor) -> list[Tensor | None]:
        directions = len(next(iter(self.terms.values()))) - 1
        own = self.terms.get(parameter.data_ptr())
        return [parameter.detach()] + [None] * directions if own is None else list(own)

    def _slot(self, terms: Terms, as_flat: Flatten = as_flat) -> Callable[[State], Tensor]:
        """A place among the weights that move; gives [points, *shape]."""
        flats, view = [], None
        for term in terms:
            flat, view = as_flat(terms[0] if term is None else term)  # type: ignore[arg-type]
            flats.append(torch.zeros_like(flat) if term is None else flat)
        begin, self.size = self.size, self.size + flats[0].numel()
        end = self.size
        self.flats.append(flats)
        assert view is not None
        return lambda state: view(state.weights[:, begin:end])

    # ---- steps ----------------------------------------------------------------------------------------------

    def _step(self, node: fx.Node) -> Step:
        module = module_of(self.traced, node)
        source = node.all_input_nodes[0] if node.all_input_nodes else node
        if node in self.merged:
            same = self.merged[node]
            if same in self.fresh:
                self.fresh.add(node)
            return lambda state: state.values[same]
        if node in self.layers:
            self.fresh.add(node)
            return self._layer(node, source)
        if source in self.vary and operations.is_relu(module, node):
            owned = self._owned(source)
            self.fresh.add(node)
            return lambda state: operations.relu(state.values[source], owned)
        if source in self.vary and operations.is_halving_pool(module):
            self.fresh.add(node)
            return lambda state: operations.halved(state.values[source])
        if operations.is_sum(node) and all(arg in self.vary for arg in node.args):
            first, second = (arg for arg in node.args if isinstance(arg, fx.Node))
            return self._sum(first, second, node)
        return self._general(node, module)

    def _owned(self, node: fx.Node) -> bool:
        """Whether the only reader of a value may write into it."""
        return node in self.fresh and len(node.users) == 1

    def _layer(self, node: fx.Node, source: fx.Node) -> Step:
        layer = self.layers[node]
        if node in self.products:
            return lambda state: state.shared[node].at(state.coefficients)
        if node in self.ends:
            return self._convolution(layer, source, self.ends[node])
        if not any(term is not None for term in (*layer.weights[1:], *layer.biases[1:])):
            return self._fixed(layer, source)
        weights = self._slot(layer.weights)
        biases = self._slot(layer.biases) if layer.biases else None
        shared = source not in self.vary

        def step(state: State) -> Value:
            x = state.values[source]
            x = [x] * len(state.coefficients) if shared else x
            return layer.at_points(x, weights(state), None if biases is None else biases(state))

        return step

    def _convolution(self, layer: Affine, source: fx.Node, end: End) -> Step:
        """By the core's kernel, with what follows."""
        weights = self._slot(layer.weights, winograd.as_flat)
        biases = self._slot(layer.biases) if layer.biases else None
        shared = source not in self.vary

        def step(state: State) -> Value:
            count = len(state.coefficients)
            x = [state.values[source]] * count if shared else each_of(state.values[source])
            bias = [None] * count if biases is None else biases(state)
            added = [None] * count if end.added is None else each_of(state.values[end.added])
            return [winograd.convolved(*each, end.relu) for each in zip(x, weights(state), bias, added, strict=True)]

        return step

    def _fixed(self, layer: Affine, source: fx.Node) -> Step:
        """A layer whose weights stand still behind one whose weights move."""
        weight, bias = layer.weights[0], layer.biases[0] if layer.biases else None
        assert weight is not None

        def step(state: State) -> Value:
            x = state.values[source]
            if isinstance(x, Stacked) and not layer.is_convolution:
                return Stacked(layer.apply(x.tensor, weight, bias))
            return [layer.apply(part, weight, bias) for part in each_of(x)]

        return step

    def _sum(self, first: fx.Node, second: fx.Node, node: fx.Node) -> Step:
        owned = 0 if self._owned(first) else 1 if self._owned(second) else None
        if first is second or node.target in operations.IN_PLACE:
            return self._general(node, None)
        self.fresh.add(node)
        return lambda state: operations.added(state.values[first], state.values[second], owned)

    def _general(self, node: fx.Node, module: nn.Module | None) -> Step:
        """The model's own operation at every point, with the weights of that point where it has any that move."""
        careful = writes_in_place(self.traced, node)
        if node.op == "get_attr":
            slot = self._slot(self.terms[parameters_of(self.traced, node)[0].data_ptr()])
            return lambda state: list(slot(state).unbind(0))
        moved: dict[str, Callable[[State], Tensor]] = {}
        if module is not None:
            named = {name: p for name, p in module.named_parameters() if p.data_ptr() in self.terms}
            moved = {name: self._slot(self.terms[p.data_ptr()]) for name, p in named.items()}

        def step(state: State) -> Each:
            functions: list[Any] = [module] * len(state.coefficients)
            if moved and module is not None:
                weights = {name: slot(state) for name, slot in moved.items()}
                functions = [
                    operations.stand_in(module, {n: w[i] for n, w in weights.items()}) for i in range(len(functions))
                ]
            return operations.at_every_point(node, functions, {**state.shared, **state.values}, self.vary, careful)

        return step

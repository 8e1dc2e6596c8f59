"""Gradient descent with momentum and with averaging."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ._base import Array, Reference


class SgdReference(Reference, name="sgd"):
    """Sutskever et al. 2013, torch's form."""

    cases: ClassVar = [
        {},
        {"weight_decay": 0.1, "maximize": True},
        {"momentum": 0.9},
        {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.05},
        {"momentum": 0.8, "nesterov": True, "maximize": True},
    ]
    defaults: ClassVar = {"momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False}
    rosenbrock_lr = 0.0016

    def update(self, p: Array, g: Array, lr: float) -> Array:
        o = self.o
        g = g + o["weight_decay"] * p
        if o["momentum"]:
            first = "momentum_buffer" not in self.states
            buffer = g if first else o["momentum"] * self.states["momentum_buffer"] + (1 - o["dampening"]) * g
            self.states["momentum_buffer"] = np.asarray(buffer)
            g = g + o["momentum"] * buffer if o["nesterov"] else buffer
        return p - lr * g


class AsgdReference(Reference, name="asgd"):
    """Bottou 2010's averaged SGD, torch's form: eta of a step comes from the lr of the step before."""

    cases: ClassVar = [
        {},
        {"weight_decay": 0.1, "maximize": True},
        {"lambd": 0.1, "alpha": 0.5, "t0": 20},
        {"lambd": 0.0, "t0": 0},
    ]
    still: ClassVar = {"weight_decay": 0, "lambd": 0}
    defaults: ClassVar = {"lambd": 1e-4, "alpha": 0.75, "t0": 1e6, "weight_decay": 0.0}
    rosenbrock_lr = 0.0016
    eta: float | None = None
    mu = 1.0

    def resume(self, p: Array, states: dict[str, Array], t: int) -> None:
        super().resume(p, states, t)
        self.eta, self.mu = (float(states[name]) for name in ("eta", "mu"))

    def update(self, p: Array, g: Array, lr: float) -> Array:
        o = self.o
        eta = lr if self.eta is None else self.eta
        g = g + o["weight_decay"] * p
        p = p * (1 - o["lambd"] * eta) - eta * g
        mean = self.states.get("ax", np.zeros_like(p))
        self.states["ax"] = np.asarray(p if self.mu == 1 else mean + self.mu * (p - mean))
        self.eta = lr / (1 + o["lambd"] * lr * self.t) ** o["alpha"]
        self.mu = 1 / max(1.0, self.t - o["t0"])
        return p


class LarsReference(Reference, name="lars"):
    """You et al. 2017, algorithm 1, with the learning rate outside the buffer; the ratio is 1 where a norm is 0."""

    cases: ClassVar = [
        {},
        {"momentum": 0.9, "weight_decay": 0.1, "trust_coeff": 0.05},
        {"momentum": 0.9, "dampening": 0.3, "trust_coeff": 0.05, "always_adapt": True, "maximize": True},
        {"momentum": 0.8, "nesterov": True, "weight_decay": 0.05, "trust_coeff": 0.02, "trust_clip": True},
    ]
    defaults: ClassVar = {
        "momentum": 0.0,
        "dampening": 0.0,
        "weight_decay": 0.0,
        "nesterov": False,
        "trust_coeff": 0.001,
        "eps": 1e-8,
        "trust_clip": False,
        "always_adapt": False,
    }
    rosenbrock_lr = 0.0016

    def update(self, p: Array, g: Array, lr: float) -> Array:
        o = self.o
        ratio = 1.0
        if o["weight_decay"] != 0 or o["always_adapt"]:
            of_p, of_g = (float(np.sqrt((x * x).sum())) for x in (p, g))
            if of_p > 0 and of_g > 0:
                ratio = o["trust_coeff"] * of_p / (of_g + o["weight_decay"] * of_p + o["eps"])
            if o["trust_clip"]:
                ratio = min(ratio / lr, 1.0)
        g = ratio * (g + o["weight_decay"] * p)
        if o["momentum"]:
            first = "momentum_buffer" not in self.states
            buffer = g if first else o["momentum"] * self.states["momentum_buffer"] + (1 - o["dampening"]) * g
            self.states["momentum_buffer"] = np.asarray(buffer)
            g = g + o["momentum"] * buffer if o["nesterov"] else buffer
        return p - lr * g

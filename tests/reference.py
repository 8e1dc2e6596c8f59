"""float64 NumPy references: every registered optimizer written out once more, from its paper. Independent of the core."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]


class Reference:
    """One tensor's optimizer: step(p, g, lr) returns the new p; states under torch's names."""

    def __init__(self, **options: Any) -> None:
        self.o = options
        self.t = 0
        self.states: dict[str, Array] = {}

    def step(self, p: Array, g: Array, lr: float) -> Array:
        self.t += 1
        if self.o.get("maximize"):
            g = -g
        return self.update(p, g, lr)

    def update(self, p: Array, g: Array, lr: float) -> Array:
        raise AssertionError("each optimizer writes its own")

    def state(self, name: str, like: Array) -> Array:
        return self.states.setdefault(name, np.zeros_like(like))


class SgdReference(Reference):
    """Sutskever et al. 2013, torch's form."""

    def update(self, p: Array, g: Array, lr: float) -> Array:
        o = {"momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False, **self.o}
        g = g + o["weight_decay"] * p
        if o["momentum"]:
            first = "momentum_buffer" not in self.states
            buffer = g if first else o["momentum"] * self.states["momentum_buffer"] + (1 - o["dampening"]) * g
            self.states["momentum_buffer"] = buffer
            g = g + o["momentum"] * buffer if o["nesterov"] else buffer
        return p - lr * g


class AdamReference(Reference):
    """Kingma & Ba 2014, algorithm 1, with L2 decay; AMSGrad of Reddi et al. 2018 as torch has it."""

    decoupled = False

    def update(self, p: Array, g: Array, lr: float) -> Array:
        o = {
            "betas": (0.9, 0.999),
            "eps": 1e-8,
            "weight_decay": 0.01 if self.decoupled else 0.0,
            "amsgrad": False,
            **self.o,
        }
        b1, b2 = o["betas"]
        if self.decoupled:
            p = p * (1 - lr * o["weight_decay"])
        else:
            g = g + o["weight_decay"] * p
        m = self.states["exp_avg"] = b1 * self.state("exp_avg", p) + (1 - b1) * g
        v = self.states["exp_avg_sq"] = b2 * self.state("exp_avg_sq", p) + (1 - b2) * g**2
        if o["amsgrad"]:
            v = self.states["max_exp_avg_sq"] = np.maximum(self.state("max_exp_avg_sq", p), v)
        return p - lr * (m / (1 - b1**self.t)) / (np.sqrt(v / (1 - b2**self.t)) + o["eps"])


class AdamWReference(AdamReference):
    """Loshchilov & Hutter 2017, algorithm 2."""

    decoupled = True


REFERENCES: dict[str, type[Reference]] = {"sgd": SgdReference, "adam": AdamReference, "adamw": AdamWReference}

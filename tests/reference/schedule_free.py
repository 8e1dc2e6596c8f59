"""The schedule-free method with x written out; p is y. The packages never form x while training."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ._base import Array, Reference


class ScheduleFreeReference(Reference):
    """Defazio et al. 2024, equations 1 to 4, weights of section 4: z moves, x averages z, y lies between."""

    weight_sum = 0.0
    lr_max = 0.0

    def resume(self, p: Array, states: dict[str, Array], t: int) -> None:
        super().resume(p, states, t)
        b = self.between()
        self.states["x"] = (p - (1 - b) * self.states["z"]) / b
        self.weight_sum, self.lr_max = (float(states[name]) for name in ("weight_sum", "lr_max"))

    def between(self) -> float:
        raise AssertionError("each optimizer says how near y is to x")

    def direction(self, y: Array, g: Array) -> Array:
        raise AssertionError("each optimizer writes its own")

    def update(self, p: Array, g: Array, lr: float) -> Array:
        b, warmup = self.between(), self.o["warmup_steps"]
        z = self.states.get("z", p)
        x = self.states.get("x", p)
        if self.t < warmup:
            lr = lr * self.t / warmup
        self.lr_max = max(self.lr_max, lr)
        weight = self.t ** self.o["r"] * self.lr_max ** self.o["weight_lr_power"]
        self.weight_sum += weight
        share = weight / self.weight_sum if self.weight_sum else 0.0
        z = self.states["z"] = np.asarray(z - lr * self.direction(p, g))
        x = self.states["x"] = np.asarray((1 - share) * x + share * z)
        return (1 - b) * z + b * x


class SgdScheduleFreeReference(ScheduleFreeReference, name="sgd_schedule_free"):
    """Schedule-free SGD with L2 decay at y."""

    cases: ClassVar = [
        {},
        {"weight_decay": 0.1, "maximize": True},
        {"momentum": 0.5, "warmup_steps": 10, "r": 1.5},
        {"warmup_steps": 5, "weight_lr_power": 0.0},
    ]
    defaults: ClassVar = {
        "momentum": 0.9,
        "weight_decay": 0.0,
        "warmup_steps": 0,
        "r": 0.0,
        "weight_lr_power": 2.0,
    }
    rosenbrock_lr = 0.003

    def between(self) -> float:
        return float(self.o["momentum"])

    def direction(self, y: Array, g: Array) -> Array:
        return g + self.o["weight_decay"] * y


class AdamWScheduleFreeReference(ScheduleFreeReference, name="adamw_schedule_free"):
    """Algorithm 1 of the paper."""

    cases: ClassVar = [
        {},
        {"weight_decay": 0.1, "maximize": True},
        {"betas": (0.5, 0.9), "eps": 1e-3, "warmup_steps": 10, "r": 1.5},
        {"warmup_steps": 5, "weight_lr_power": 0.0},
    ]
    defaults: ClassVar = {
        "betas": (0.9, 0.999),
        "eps": 1e-8,
        "weight_decay": 0.0,
        "warmup_steps": 0,
        "r": 0.0,
        "weight_lr_power": 2.0,
    }
    rosenbrock_lr = 0.05

    def between(self) -> float:
        return float(self.o["betas"][0])

    def direction(self, y: Array, g: Array) -> Array:
        b2 = self.o["betas"][1]
        v = self.average("exp_avg_sq", g**2, b2)
        return g / (np.sqrt(v / (1 - b2**self.t)) + self.o["eps"]) + self.o["weight_decay"] * y

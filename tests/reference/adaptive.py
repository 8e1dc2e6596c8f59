"""Step sizes of each element's own that are no Adam."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ._base import Array, Reference


class AdagradReference(Reference, name="adagrad"):
    """Duchi et al. 2011, diagonal form."""

    cases: ClassVar = [
        {},
        {"weight_decay": 0.1, "maximize": True},
        {"lr_decay": 0.1, "initial_accumulator_value": 0.5, "eps": 1e-3},
    ]
    defaults: ClassVar = {"lr_decay": 0.0, "weight_decay": 0.0, "initial_accumulator_value": 0.0, "eps": 1e-10}
    rosenbrock_lr = 1.5

    def update(self, p: Array, g: Array, lr: float) -> Array:
        o = self.o
        g = g + o["weight_decay"] * p
        before = self.states.get("sum", np.full_like(p, o["initial_accumulator_value"]))
        total = self.states["sum"] = np.asarray(before + g**2)
        return p - lr / (1 + (self.t - 1) * o["lr_decay"]) * g / (np.sqrt(total) + o["eps"])


class AdadeltaReference(Reference, name="adadelta"):
    """Zeiler 2012, algorithm 1, scaled by lr."""

    cases: ClassVar = [
        {},
        {"weight_decay": 0.1, "maximize": True},
        {"rho": 0.5, "eps": 1e-3},
        {"rho": 0.0},
        {"rho": 1.0},
    ]
    defaults: ClassVar = {"rho": 0.9, "eps": 1e-6, "weight_decay": 0.0}
    rosenbrock_lr = 0.3

    def update(self, p: Array, g: Array, lr: float) -> Array:
        o = self.o
        g = g + o["weight_decay"] * p
        v = self.average("square_avg", g**2, o["rho"])
        steps = self.states.get("acc_delta", np.zeros_like(p))
        delta = np.sqrt(steps + o["eps"]) / np.sqrt(v + o["eps"]) * g
        self.average("acc_delta", delta**2, o["rho"])
        return p - lr * delta


class RmspropReference(Reference, name="rmsprop"):
    """Hinton 2012; centered as Graves 2013, whose variance is never negative."""

    cases: ClassVar = [
        {},
        {"weight_decay": 0.1, "maximize": True},
        {"momentum": 0.9, "alpha": 0.5},
        {"centered": True, "eps": 1e-3},
        {"centered": True, "momentum": 0.5, "weight_decay": 0.01, "eps": 1e-4},
    ]
    defaults: ClassVar = {"alpha": 0.99, "eps": 1e-8, "weight_decay": 0.0, "momentum": 0.0, "centered": False}
    rosenbrock_lr = 0.005

    def update(self, p: Array, g: Array, lr: float) -> Array:
        o = self.o
        g = g + o["weight_decay"] * p
        v = self.average("square_avg", g**2, o["alpha"])
        if o["centered"]:
            v = np.maximum(v - self.average("grad_avg", g, o["alpha"]) ** 2, 0)
        move = g / (np.sqrt(v) + o["eps"])
        if o["momentum"]:
            move = o["momentum"] * self.states.get("momentum_buffer", np.zeros_like(p)) + move
            self.states["momentum_buffer"] = np.asarray(move)
        return p - lr * move


class RpropReference(Reference, name="rprop"):
    """Riedmiller & Braun 1993 in the form of Igel & Huesken 2000 (iRprop-), as torch has it."""

    cases: ClassVar = [{}, {"maximize": True}, {"etas": (0.3, 1.5), "step_sizes": (1e-3, 0.1)}]
    still: ClassVar = {}
    defaults: ClassVar = {"etas": (0.5, 1.2), "step_sizes": (1e-6, 50)}
    rosenbrock_lr = 0.01

    def update(self, p: Array, g: Array, lr: float) -> Array:
        shrink, grow = self.o["etas"]
        agree = np.sign(g * self.states.get("prev", np.zeros_like(p)))
        size = self.states.get("step_size", np.full_like(p, lr))
        size = np.where(agree > 0, size * grow, np.where(agree < 0, size * shrink, size))
        size = self.states["step_size"] = np.clip(size, *self.o["step_sizes"])
        g = self.states["prev"] = np.where(agree < 0, np.zeros_like(g), g)
        return p - np.sign(g) * size


class LionReference(Reference, name="lion"):
    """Chen et al. 2023, program 1."""

    cases: ClassVar = [
        {},
        {"weight_decay": 0.1, "maximize": True},
        {"betas": (0.5, 0.8)},
        {"betas": (0.0, 0.0)},
    ]
    defaults: ClassVar = {"betas": (0.9, 0.99), "weight_decay": 0.0}
    rosenbrock_lr = 0.003

    def update(self, p: Array, g: Array, lr: float) -> Array:
        b1, b2 = self.o["betas"]
        u = np.sign(b1 * self.states.get("exp_avg", np.zeros_like(p)) + (1 - b1) * g)
        self.average("exp_avg", g, b2)
        return p * (1 - lr * self.o["weight_decay"]) - lr * u

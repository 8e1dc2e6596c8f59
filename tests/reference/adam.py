"""Adam and what came of it."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from ._base import Array, Reference


class AdamReference(Reference, name="adam"):
    """Kingma & Ba 2014, algorithm 1, with L2 decay; AMSGrad of Reddi et al. 2018 as torch has it."""

    cases: ClassVar = [
        {},
        {"amsgrad": True},
        {"weight_decay": 0.1, "maximize": True},
        {"betas": (0.5, 0.9), "eps": 1e-3, "amsgrad": True, "weight_decay": 0.01},
        {"betas": (0.0, 0.0)},
    ]
    defaults: ClassVar = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "amsgrad": False}
    rosenbrock_lr = 0.05
    decoupled = False

    def update(self, p: Array, g: Array, lr: float) -> Array:
        o = self.o
        b1, b2 = o["betas"]
        if self.decoupled:
            p = p * (1 - lr * o["weight_decay"])
        else:
            g = g + o["weight_decay"] * p
        m = self.average("exp_avg", g, b1)
        v = self.average("exp_avg_sq", g**2, b2)
        if o["amsgrad"]:
            v = self.states["max_exp_avg_sq"] = np.maximum(self.states.get("max_exp_avg_sq", np.zeros_like(p)), v)
        return p - lr * (m / (1 - b1**self.t)) / (np.sqrt(v / (1 - b2**self.t)) + o["eps"])


class AdamWReference(AdamReference, name="adamw"):
    """Loshchilov & Hutter 2017, algorithm 2."""

    defaults: ClassVar = {**AdamReference.defaults, "weight_decay": 0.01}
    decoupled = True


class NAdamReference(Reference, name="nadam"):
    """Dozat 2016 with the momentum schedule of its section 3; mu_product as torch keeps it."""

    cases: ClassVar = [
        {},
        {"weight_decay": 0.1, "maximize": True},
        {"weight_decay": 0.1, "decoupled_weight_decay": True},
        {"betas": (0.5, 0.9), "eps": 1e-3, "momentum_decay": 0.1},
        {"betas": (0.0, 0.0)},
    ]
    defaults: ClassVar = {
        "betas": (0.9, 0.999),
        "eps": 1e-8,
        "weight_decay": 0.0,
        "momentum_decay": 4e-3,
        "decoupled_weight_decay": False,
    }
    rosenbrock_lr = 0.02
    product = 1.0

    def resume(self, p: Array, states: dict[str, Array], t: int) -> None:
        super().resume(p, states, t)
        self.product = float(states["mu_product"])

    def update(self, p: Array, g: Array, lr: float) -> Array:
        o = self.o
        b1, b2 = o["betas"]
        if o["decoupled_weight_decay"]:
            p = p * (1 - lr * o["weight_decay"])
        else:
            g = g + o["weight_decay"] * p
        now, after = (b1 * (1 - 0.5 * 0.96 ** (t * o["momentum_decay"])) for t in (self.t, self.t + 1))
        self.product *= now
        m = self.average("exp_avg", g, b1)
        v = self.average("exp_avg_sq", g**2, b2)
        ahead = (1 - now) / (1 - self.product) * g + after / (1 - self.product * after) * m
        return p - lr * ahead / (np.sqrt(v / (1 - b2**self.t)) + o["eps"])


class RAdamReference(Reference, name="radam"):
    """Liu et al. 2019, algorithm 2; eps beside the uncorrected root as torch has it, rectified from rho > 5 on."""

    cases: ClassVar = [
        {},
        {"weight_decay": 0.1, "maximize": True},
        {"weight_decay": 0.1, "decoupled_weight_decay": True},
        {"betas": (0.5, 0.9), "eps": 1e-3},
        {"betas": (0.0, 0.5)},
    ]
    defaults: ClassVar = {
        "betas": (0.9, 0.999),
        "eps": 1e-8,
        "weight_decay": 0.0,
        "decoupled_weight_decay": False,
    }
    rosenbrock_lr = 0.01

    def update(self, p: Array, g: Array, lr: float) -> Array:
        o = self.o
        b1, b2 = o["betas"]
        if o["decoupled_weight_decay"]:
            p = p * (1 - lr * o["weight_decay"])
        else:
            g = g + o["weight_decay"] * p
        m = self.average("exp_avg", g, b1) / (1 - b1**self.t)
        v = self.average("exp_avg_sq", g**2, b2)
        longest = 2 / (1 - b2) - 1
        length = longest - 2 * self.t * b2**self.t / (1 - b2**self.t)
        if length <= 5:
            return p - lr * m
        rect = math.sqrt((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length))
        return p - lr * rect * math.sqrt(1 - b2**self.t) * m / (np.sqrt(v) + o["eps"])


class AdamaxReference(Reference, name="adamax"):
    """Kingma & Ba 2014, algorithm 2; eps beside the gradient as torch has it."""

    cases: ClassVar = [
        {},
        {"weight_decay": 0.1, "maximize": True},
        {"betas": (0.5, 0.9), "eps": 1e-3},
        {"betas": (0.0, 0.0)},
    ]
    defaults: ClassVar = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}
    rosenbrock_lr = 0.1

    def update(self, p: Array, g: Array, lr: float) -> Array:
        o = self.o
        b1, b2 = o["betas"]
        g = g + o["weight_decay"] * p
        m = self.average("exp_avg", g, b1)
        u = np.maximum(b2 * self.states.get("exp_inf", np.zeros_like(p)), np.abs(g) + o["eps"])
        self.states["exp_inf"] = np.asarray(u)
        return p - lr / (1 - b1**self.t) * m / u


class AdanReference(Reference, name="adan"):
    """Xie et al. 2022, algorithm 1 with 1 - beta for beta; bias corrections and no_prox of the authors' code."""

    cases: ClassVar = [
        {},
        {"weight_decay": 0.1, "maximize": True},
        {"weight_decay": 0.1, "no_prox": True},
        {"betas": (0.5, 0.8, 0.9), "eps": 1e-3},
        {"betas": (0.0, 0.0, 0.0)},
    ]
    defaults: ClassVar = {"betas": (0.98, 0.92, 0.99), "eps": 1e-8, "weight_decay": 0.0, "no_prox": False}
    rosenbrock_lr = 0.005

    def update(self, p: Array, g: Array, lr: float) -> Array:
        o, t = self.o, self.t
        b1, b2, b3 = o["betas"]
        difference = g + self.states.get("neg_pre_grad", -g)
        self.states["neg_pre_grad"] = -g
        m = self.average("exp_avg", g, b1) / (1 - b1**t)
        v = self.average("exp_avg_diff", difference, b2) / (1 - b2**t)
        n = self.average("exp_avg_sq", (g + b2 * difference) ** 2, b3) / (1 - b3**t)
        update = lr * (m + b2 * v) / (np.sqrt(n) + o["eps"])
        if o["no_prox"]:
            return p * (1 - lr * o["weight_decay"]) - update
        return (p - update) / (1 + lr * o["weight_decay"])


class AdEMAMixReference(Reference, name="ademamix"):
    """Pagliardini et al. 2024, algorithm 1, warm-ups of appendix A.1; decay as AdamW's."""

    cases: ClassVar = [
        {},
        {"weight_decay": 0.1, "maximize": True},
        {"betas": (0.5, 0.9, 0.99), "eps": 1e-3, "alpha": 5.0, "beta3_warmup": 30, "alpha_warmup": 40},
        {"alpha": 0.0},
    ]
    defaults: ClassVar = {
        "betas": (0.9, 0.999, 0.9999),
        "alpha": 2.0,
        "beta3_warmup": None,
        "alpha_warmup": None,
        "eps": 1e-8,
        "weight_decay": 0.0,
    }
    rosenbrock_lr = 0.06

    def update(self, p: Array, g: Array, lr: float) -> Array:
        o, t = self.o, self.t
        b1, b2, b3 = o["betas"]
        alpha, b3_now = o["alpha"], b3
        if o["alpha_warmup"] and t < o["alpha_warmup"]:
            alpha = alpha * t / o["alpha_warmup"]
        if o["beta3_warmup"] and t < o["beta3_warmup"]:
            done = t / o["beta3_warmup"]
            first, last = (math.log(0.5) / math.log(b + 1e-8) - 1 for b in (b1, b3))
            b3_now = 0.5 ** (1 / ((1 - done) * first + done * last + 1))
        p = p * (1 - lr * o["weight_decay"])
        fast = self.average("exp_avg_fast", g, b1) / (1 - b1**t)
        slow = self.average("exp_avg_slow", g, b3_now)
        v = self.average("exp_avg_sq", g**2, b2) / (1 - b2**t)
        return p - lr * (fast + alpha * slow) / (np.sqrt(v) + o["eps"])


class LambReference(Reference, name="lamb"):
    """You et al. 2019, algorithm 2, with the ratio 1 where a norm is 0 or nothing decays."""

    cases: ClassVar = [
        {},
        {"weight_decay": 0.1, "maximize": True, "trust_clip": True},
        {"weight_decay": 0.0},
        {"weight_decay": 0.0, "always_adapt": True},
        {"betas": (0.5, 0.9), "eps": 1e-3, "bias_correction": False},
    ]
    defaults: ClassVar = {
        "betas": (0.9, 0.999),
        "eps": 1e-6,
        "weight_decay": 0.01,
        "bias_correction": True,
        "trust_clip": False,
        "always_adapt": False,
    }
    rosenbrock_lr = 0.02

    def update(self, p: Array, g: Array, lr: float) -> Array:
        o = self.o
        b1, b2 = o["betas"]
        first, second = (1 - b1**self.t, 1 - b2**self.t) if o["bias_correction"] else (1.0, 1.0)
        m = self.average("exp_avg", g, b1) / first
        v = self.average("exp_avg_sq", g**2, b2) / second
        u = m / (np.sqrt(v) + o["eps"]) + o["weight_decay"] * p
        ratio = 1.0
        if o["weight_decay"] != 0 or o["always_adapt"]:
            of_p, of_u = (float(np.sqrt((x * x).sum())) for x in (p, u))
            ratio = of_p / of_u if of_p > 0 and of_u > 0 else 1.0
        if o["trust_clip"]:
            ratio = min(ratio, 1.0)
        return p - lr * ratio * u

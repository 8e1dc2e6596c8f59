"""The torch-named schedulers beside torch's own, step by step, over random arguments."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler, swa_utils

import thalweg as tw

Build = Callable[[Any, torch.optim.Optimizer], Any]  # (module with the classes, optimizer) -> scheduler


class Torch:
    """torch's classes under the names that thalweg.lr_scheduler has."""

    SWALR = swa_utils.SWALR

    def __getattr__(self, name: str) -> Any:
        return getattr(lr_scheduler, name)


TORCH, OURS = Torch(), tw.lr_scheduler


class Decay:
    """A function of the step that has a state."""

    def __init__(self, gamma: float) -> None:
        self.gamma = gamma

    def __call__(self, step: int) -> float:
        return self.gamma**step


def arguments(name: str, rng: np.random.Generator, groups: int) -> dict[str, Any]:
    """Random arguments of a class, with values at which nothing degenerates."""
    gamma, few, many = float(rng.uniform(0.6, 1.1)), int(rng.integers(1, 6)), int(rng.integers(8, 40))
    low, high = sorted(rng.uniform(1e-3, 1.0, 2).tolist())
    per_group = [high * (1 + i) for i in range(groups)]
    if name == "OneCycleLR":
        three = bool(rng.integers(2))
        return {
            "max_lr": per_group, "total_steps": many, "pct_start": float(rng.uniform(0.3, 0.5)),
            "anneal_strategy": str(rng.choice(["cos", "linear"])), "three_phase": three,
            "cycle_momentum": bool(rng.integers(2)), "div_factor": float(rng.uniform(2, 30)),
        }  # fmt: skip
    if name == "CyclicLR":
        return {
            "base_lr": low, "max_lr": per_group, "step_size_up": few, "step_size_down": int(rng.integers(1, 9)),
            "mode": str(rng.choice(["triangular", "triangular2", "exp_range"])), "gamma": 0.97,
            "cycle_momentum": bool(rng.integers(2)),
        }  # fmt: skip
    return {
        "LambdaLR": {"lr_lambda": Decay(gamma)},
        "MultiplicativeLR": {"lr_lambda": [lambda step: 1 - 1 / (step + 3)] * groups},
        "StepLR": {"step_size": few, "gamma": gamma},
        "MultiStepLR": {"milestones": rng.integers(0, 30, few).tolist(), "gamma": gamma},
        "ConstantLR": {"factor": low, "total_iters": few},
        "LinearLR": {"start_factor": low, "end_factor": min(high, 1.0), "total_iters": many},
        "ExponentialLR": {"gamma": gamma},
        "PolynomialLR": {"total_iters": many, "power": float(rng.uniform(0.3, 3))},
        "CosineAnnealingLR": {"T_max": int(rng.integers(2, 40)), "eta_min": float(rng.choice([0.0, 1e-3]))},
        "CosineAnnealingWarmRestarts": {"T_0": few, "T_mult": int(rng.integers(1, 4)), "eta_min": 1e-4},
        "SWALR": {"swa_lr": low, "anneal_epochs": few, "anneal_strategy": str(rng.choice(["cos", "linear"]))},
    }[name]


NAMES = [
    "LambdaLR", "MultiplicativeLR", "StepLR", "MultiStepLR", "ConstantLR", "LinearLR", "ExponentialLR", "PolynomialLR",
    "CosineAnnealingLR", "CosineAnnealingWarmRestarts", "CyclicLR", "OneCycleLR", "SWALR",
]  # fmt: skip
RECURSIVE = NAMES[1:9]  # those whose factors multiply in torch too


def optimizer_of(groups: int, tensor: bool = False, kind: Any = torch.optim.SGD) -> torch.optim.Optimizer:
    rates = [0.5 * (1 + i) for i in range(groups)]
    made = [
        {"params": [torch.nn.Parameter(torch.ones(2))], "lr": torch.tensor(lr, dtype=torch.float64) if tensor else lr}
        for lr in rates
    ]
    return kind(made, lr=0.1, **({"momentum": 0.9} if kind is torch.optim.SGD else {}))


def seen(optimizer: torch.optim.Optimizer) -> list[list[float]]:
    """Everything that a scheduler may write."""
    return [
        [float(g["lr"]), float(g["betas"][0] if "betas" in g else g.get("momentum", 0.0))]
        for g in optimizer.param_groups
    ]


def check(ours: torch.optim.Optimizer, peer: torch.optim.Optimizer, step: int) -> None:
    np.testing.assert_allclose(seen(ours), seen(peer), rtol=1e-9, atol=1e-13, err_msg=f"step {step}")


def side_by_side(build: Build, steps: int, groups: int = 1, tensor: bool = False, kind: Any = torch.optim.SGD) -> None:
    optimizers = [optimizer_of(groups, tensor, kind) for _ in range(2)]
    rates = [group["lr"] for group in optimizers[0].param_groups]
    ours, peer = (build(module, optimizer) for module, optimizer in zip((OURS, TORCH), optimizers, strict=True))
    check(*optimizers, 0)
    for step in range(1, steps + 1):
        for optimizer, scheduler in zip(optimizers, (ours, peer), strict=True):
            optimizer.step()
            for one in scheduler if isinstance(scheduler, list) else [scheduler]:
                one.step()
        check(*optimizers, step)
        if not isinstance(ours, list):
            np.testing.assert_allclose(ours.get_last_lr(), [lr for lr, _ in seen(optimizers[0])], rtol=0)
            assert getattr(ours, "last_epoch", 0) == getattr(peer, "last_epoch", 0)
    if tensor:
        assert all(group["lr"] is rate for group, rate in zip(optimizers[0].param_groups, rates, strict=True))


def length_of(name: str, options: dict[str, Any]) -> int:
    return int(options["total_steps"]) - 1 if name == "OneCycleLR" else 70


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("tensor", [False, True])
def test_every_class(name: str, groups: int, tensor: bool, rng: np.random.Generator) -> None:
    for _ in range(3):
        options = arguments(name, rng, groups)
        side_by_side(lambda m, o: getattr(m, name)(o, **options), length_of(name, options), groups, tensor)  # noqa: B023


@pytest.mark.parametrize("name", ["CyclicLR", "OneCycleLR"])
def test_beta1_is_cycled(name: str, rng: np.random.Generator) -> None:
    options = {**arguments(name, rng, 2), "cycle_momentum": True, "base_momentum": [0.8, 0.7], "max_momentum": 0.93}
    side_by_side(lambda m, o: getattr(m, name)(o, **options), length_of(name, options), 2, kind=torch.optim.AdamW)


@pytest.mark.parametrize("first", RECURSIVE)
@pytest.mark.parametrize("second", RECURSIVE)
@pytest.mark.parametrize("chained", [False, True])
def test_pairs_on_one_optimizer(first: str, second: str, chained: bool) -> None:
    """Stepped by hand and by a ChainedScheduler, ours within torch's chain included."""
    rng = np.random.default_rng([NAMES.index(first), NAMES.index(second), chained])
    options = [arguments(first, rng, 2), arguments(second, rng, 2)]

    def build(module: Any, optimizer: torch.optim.Optimizer) -> Any:
        made = [getattr(module, n)(optimizer, **o) for n, o in zip((first, second), options, strict=True)]
        return module.ChainedScheduler(made) if chained else made

    side_by_side(build, 50, 2)
    if chained:
        side_by_side(
            lambda m, o: lr_scheduler.ChainedScheduler(
                [getattr(m, n)(o, **a) for n, a in zip((first, second), options, strict=True)]
            ),
            50,
            2,
        )


@pytest.mark.parametrize("first", [name for name in NAMES if name not in ("OneCycleLR", "SWALR")])
@pytest.mark.parametrize("second", [name for name in NAMES if name not in ("OneCycleLR", "CyclicLR")])
@pytest.mark.parametrize("container", ["ours", "torch's"])
def test_one_after_the_other(first: str, second: str, container: str) -> None:
    rng = np.random.default_rng([NAMES.index(first), NAMES.index(second), container == "ours"])
    options = [arguments(first, rng, 2), arguments(second, rng, 2)]
    at = int(rng.integers(1, 12))

    def build(module: Any, optimizer: torch.optim.Optimizer) -> Any:
        made = [getattr(module, n)(optimizer, **o) for n, o in zip((first, second), options, strict=True)]
        holder = module if container == "ours" else TORCH
        return holder.SequentialLR(optimizer, made, [at])

    side_by_side(build, 40, 2)


@pytest.mark.filterwarnings("ignore:Detected call")  # torch's own, where a chain is the first part
def test_nested_containers(rng: np.random.Generator) -> None:
    """A chain of decays first, then two more, as torch's tests nest them."""
    options = {name: arguments(name, rng, 2) for name in NAMES}

    def build(module: Any, optimizer: torch.optim.Optimizer) -> Any:
        def one(name: str) -> Any:
            return getattr(module, name)(optimizer, **options[name])

        chain = module.ChainedScheduler([one("LinearLR"), one("ConstantLR"), one("StepLR")])
        return module.SequentialLR(optimizer, [chain, one("CosineAnnealingLR"), one("ExponentialLR")], [9, 20])

    side_by_side(build, 45, 2)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "SWALR"])
def test_jumps_with_their_warning(name: str, rng: np.random.Generator) -> None:
    """`step(epoch)` uses torch's closed forms; MultiplicativeLR has none and goes on from where it is."""
    options = arguments(name, rng, 2)
    last = length_of(name, options)
    epochs = rng.integers(0, last, 12).tolist()
    optimizers = [optimizer_of(2), optimizer_of(2)]
    schedulers = [getattr(m, name)(o, **options) for m, o in zip((OURS, TORCH), optimizers, strict=True)]
    warned = name != "CosineAnnealingWarmRestarts"
    for epoch in epochs:
        if name == "CosineAnnealingWarmRestarts" and options["T_mult"] > 1:
            epoch += 0.25  # torch misses whole restarts, see test_lr_scheduler_differences.py
        for optimizer, scheduler in zip(optimizers, schedulers, strict=True):
            optimizer.step()
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                scheduler.step(epoch)
            assert [str(w.message) for w in caught] == [lr_scheduler.EPOCH_DEPRECATION_WARNING] * warned
        check(*optimizers, epoch)


@pytest.mark.parametrize("edit", ["by hand", "plateau"])
@pytest.mark.parametrize("name", ["StepLR", "LinearLR", "CosineAnnealingLR", "PolynomialLR", "CyclicLR", "LambdaLR"])
def test_what_others_write_is_kept_as_by_torch(name: str, edit: str, rng: np.random.Generator) -> None:
    options = arguments(name, rng, 2)
    metrics = rng.uniform(0.5, 1.0, 40)
    optimizers = [optimizer_of(2), optimizer_of(2)]
    schedulers = [getattr(m, name)(o, **options) for m, o in zip((OURS, TORCH), optimizers, strict=True)]
    plateaus = [m.ReduceLROnPlateau(o, patience=2) for m, o in zip((OURS, TORCH), optimizers, strict=True)]
    for step, metric in enumerate(metrics):
        for optimizer, scheduler, plateau in zip(optimizers, schedulers, plateaus, strict=True):
            optimizer.step()
            scheduler.step()
            if edit == "plateau":
                plateau.step(metric)
            elif step == 11:
                optimizer.param_groups[1]["lr"] *= 0.3
        check(*optimizers, step)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("direction", ["to torch", "from torch"])
def test_states_move_in_the_middle(name: str, direction: str, rng: np.random.Generator) -> None:
    """Both states through a file, into objects made with other arguments; the walk goes on as if nothing happened."""
    options = arguments(name, rng, 2)
    source, target = (OURS, TORCH) if direction == "to torch" else (TORCH, OURS)
    whole, first, second = optimizer_of(2), optimizer_of(2), optimizer_of(2)
    through = getattr(source, name)(whole, **options)
    before = getattr(source, name)(first, **options)
    end = length_of(name, options)
    for _ in range(end // 2):
        for optimizer, scheduler in ((whole, through), (first, before)):
            optimizer.step()
            scheduler.step()
    other = {**arguments(name, rng, 2), **({"lr_lambda": options["lr_lambda"]} if "lr_lambda" in options else {})}
    if "cycle_momentum" in options:
        other["cycle_momentum"] = options["cycle_momentum"]
    if name == "CyclicLR":
        other |= {key: options[key] for key in ("step_size_up", "step_size_down")}
    after = getattr(target, name)(second, **other)
    file = io.BytesIO()
    torch.save({"scheduler": before.state_dict(), "optimizer": first.state_dict()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    second.load_state_dict(state["optimizer"])
    after.load_state_dict(state["scheduler"])
    assert set(after.state_dict()) == set(before.state_dict())
    for step in range(end // 2, end):
        check(second, whole, step)
        for optimizer, scheduler in ((whole, through), (second, after)):
            optimizer.step()
            scheduler.step()
    check(second, whole, end)


@pytest.mark.filterwarnings("ignore:Detected call")
def test_containers_states_move(rng: np.random.Generator) -> None:
    options = {name: arguments(name, rng, 2) for name in NAMES}

    def build(module: Any, optimizer: torch.optim.Optimizer) -> Any:
        parts = [getattr(module, n)(optimizer, **options[n]) for n in ("LinearLR", "StepLR", "CosineAnnealingLR")]
        chain = module.ChainedScheduler(parts[:2])
        return module.SequentialLR(optimizer, [chain, parts[2]], [8])

    for source, target in ((OURS, TORCH), (TORCH, OURS)):
        for at in (3, 8, 20):
            whole, first, second = optimizer_of(2), optimizer_of(2), optimizer_of(2)
            through, before = build(source, whole), build(source, first)
            for _ in range(at):
                for optimizer, scheduler in ((whole, through), (first, before)):
                    optimizer.step()
                    scheduler.step()
            after = build(target, second)
            second.load_state_dict(first.state_dict())
            after.load_state_dict(copy.deepcopy(before.state_dict()))
            for step in range(at, 30):
                check(second, whole, step)
                for optimizer, scheduler in ((whole, through), (second, after)):
                    optimizer.step()
                    scheduler.step()


def test_plateau_on_positive_metrics(rng: np.random.Generator) -> None:
    for _ in range(10):
        options = {
            "mode": str(rng.choice(["min", "max"])), "factor": 0.5, "patience": int(rng.integers(0, 4)),
            "threshold": 0.05, "threshold_mode": str(rng.choice(["rel", "abs"])), "cooldown": int(rng.integers(0, 3)),
            "min_lr": [0.0, 0.2], "eps": float(rng.choice([1e-8, 0.03])),
        }  # fmt: skip
        optimizers = [optimizer_of(2), optimizer_of(2)]
        ours, peer = (m.ReduceLROnPlateau(o, **options) for m, o in zip((OURS, TORCH), optimizers, strict=True))
        for step, metric in enumerate(rng.uniform(0.5, 1.0, 60)):
            metric = float("nan") if step % 13 == 7 else metric
            ours.step(metric)
            peer.step(metric)
            check(*optimizers, step)
            assert ours.state_dict() == peer.state_dict()


# ---- exceptions ----------------------------------------------------------------------------------------------


def bad_calls() -> list[tuple[str, dict[str, Any]]]:
    return [
        ("LambdaLR", {"lr_lambda": [lambda k: 1.0]}),
        ("MultiplicativeLR", {"lr_lambda": 3}),
        ("ConstantLR", {"factor": 1.5}),
        ("LinearLR", {"start_factor": 0.0}),
        ("LinearLR", {"end_factor": -0.1}),
        ("StepLR", {"step_size": 2, "last_epoch": 3}),
        ("CosineAnnealingWarmRestarts", {"T_0": 0}),
        ("CosineAnnealingWarmRestarts", {"T_0": 2, "T_mult": 0.5}),
        ("CosineAnnealingWarmRestarts", {"T_0": 2, "eta_min": "low"}),
        ("CyclicLR", {"base_lr": 0.1, "max_lr": [1.0] * 3}),
        ("CyclicLR", {"base_lr": 0.1, "max_lr": 1.0, "mode": "square"}),
        ("OneCycleLR", {"max_lr": 0.1}),
        ("OneCycleLR", {"max_lr": 0.1, "total_steps": 0}),
        ("OneCycleLR", {"max_lr": 0.1, "epochs": 2, "steps_per_epoch": -1}),
        ("OneCycleLR", {"max_lr": 0.1, "total_steps": 9, "pct_start": 1.1}),
        ("OneCycleLR", {"max_lr": 0.1, "total_steps": 9, "anneal_strategy": "square"}),
        ("ReduceLROnPlateau", {"factor": 1.0}),
        ("ReduceLROnPlateau", {"mode": "best"}),
        ("ReduceLROnPlateau", {"min_lr": [0.1]}),
        ("SWALR", {"swa_lr": 0.1, "anneal_epochs": -1}),
        ("SWALR", {"swa_lr": 0.1, "anneal_strategy": "square"}),
        ("StepLR", {"step_size": 2, "verbose": True}),
    ]


@pytest.mark.parametrize(("name", "options"), bad_calls(), ids=lambda value: value if isinstance(value, str) else "")
def test_exceptions_of_constructors(name: str, options: dict[str, Any]) -> None:
    raised = []
    for module in (OURS, TORCH):
        with pytest.raises(Exception) as caught:
            getattr(module, name)(optimizer_of(2), **options)
        raised.append((type(caught.value), str(caught.value)))
    assert raised[0] == raised[1]


def container_calls() -> list[Callable[[Any, Any, Any], Any]]:
    return [
        lambda m, a, b: m.SequentialLR(a, [], []),
        lambda m, a, b: m.SequentialLR(a, [m.StepLR(a, 1)], [3]),
        lambda m, a, b: m.SequentialLR(a, [m.StepLR(a, 1), m.StepLR(b, 1)], [3]),
        lambda m, a, b: m.SequentialLR(a, [m.ReduceLROnPlateau(a), m.StepLR(a, 1)], [3]),
        lambda m, a, b: m.SequentialLR(a, [object()], []),
        lambda m, a, b: m.ChainedScheduler([]),
        lambda m, a, b: m.ChainedScheduler([m.StepLR(a, 1), m.StepLR(b, 1)]),
        lambda m, a, b: m.ChainedScheduler([m.StepLR(a, 1), m.ReduceLROnPlateau(a)]),
        lambda m, a, b: m.StepLR("optimizer", 1),
        lambda m, a, b: m.CyclicLR(torch.optim.Rprop([torch.nn.Parameter(torch.ones(1))]), 0.1, 1.0),
        lambda m, a, b: m.OneCycleLR(a, 0.1, total_steps=3).step(5),
        lambda m, a, b: m.CosineAnnealingWarmRestarts(a, 3).step(-1),
        lambda m, a, b: m.LRScheduler(a),
    ]


@pytest.mark.filterwarnings("ignore:The epoch parameter", "ignore:Detected call")
@pytest.mark.parametrize("call", container_calls())
def test_exceptions_of_containers_and_steps(call: Callable[[Any, Any, Any], Any]) -> None:
    raised = []
    for module in (OURS, TORCH):
        a, b = optimizer_of(1), optimizer_of(1)
        with pytest.raises(Exception) as caught:
            call(module, a, b)
        raised.append((type(caught.value), str(caught.value)))
    assert raised[0] == raised[1]

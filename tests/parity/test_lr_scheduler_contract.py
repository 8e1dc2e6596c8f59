"""The torch-named schedulers as objects: types, copies, cycles of references, tensor rates, subclasses, optimizers."""

from __future__ import annotations

import copy
import gc
import inspect
import pickle
import sys
import warnings
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler, swa_utils

import thalweg as tw
from thalweg import lr_scheduler as ours

NAMES = [*(name for name in lr_scheduler.__all__ if name != "LRScheduler"), "SWALR"]


def peer_of(name: str) -> Any:
    return getattr(swa_utils if name == "SWALR" else lr_scheduler, name)


def sgd(lr: Any = 0.5, groups: int = 1, **options: Any) -> torch.optim.SGD:
    made = [{"params": [torch.nn.Parameter(torch.ones(1))]} for _ in range(groups)]
    return torch.optim.SGD(made, lr=lr, **{"momentum": 0.9, **options})


def build(name: str, optimizer: torch.optim.Optimizer) -> Any:
    """A scheduler whose arguments pickle."""
    if name == "SequentialLR":
        return ours.SequentialLR(optimizer, [build("LinearLR", optimizer), build("StepLR", optimizer)], [4])
    if name == "ChainedScheduler":
        return ours.ChainedScheduler([build("LinearLR", optimizer), build("StepLR", optimizer)])
    return getattr(ours, name)(optimizer, *arguments_of(name))


def arguments_of(name: str) -> tuple[Any, ...]:
    arguments: dict[str, tuple[Any, ...]] = {
        "LambdaLR": (tw.schedules.cosine(1.0, 20),),
        "MultiplicativeLR": (tw.schedules.constant(0.9),),
        "StepLR": (3, 0.5),
        "MultiStepLR": ([3, 8], 0.5),
        "ExponentialLR": (0.9,),
        "CosineAnnealingLR": (20,),
        "CosineAnnealingWarmRestarts": (4, 2),
        "CyclicLR": (0.1, 0.7, 5),
        "OneCycleLR": (0.7, 40),
        "SWALR": (0.1,),
    }
    return arguments.get(name, ())


def advance(optimizer: torch.optim.Optimizer, scheduler: Any, steps: int) -> list[list[float]]:
    out = []
    for k in range(steps):
        out.append([float(group["lr"]) for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step(*([1.0 + k] if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau) else []))
    return out


@pytest.mark.parametrize("name", NAMES)
def test_every_class_is_torchs_with_its_constructor(name: str) -> None:
    cls, peer = getattr(ours, name), peer_of(name)
    assert issubclass(cls, peer)
    assert issubclass(cls, lr_scheduler.LRScheduler)
    assert (cls.__name__, cls.__qualname__) == (name, name)
    assert list(inspect.signature(cls).parameters.values()) == list(inspect.signature(peer).parameters.values())
    assert ours.LRScheduler is lr_scheduler.LRScheduler
    scheduler = build(name, sgd())
    if name not in ("SequentialLR", "ChainedScheduler"):
        reference = peer(sgd(), *arguments_of(name))
        assert set(vars(scheduler)) == set(vars(reference))  # nothing of ours in the attributes or the state
        if not issubclass(cls, (lr_scheduler.LambdaLR, lr_scheduler.MultiplicativeLR)):
            assert set(scheduler.state_dict()) == set(reference.state_dict())


@pytest.mark.parametrize("name", ["LambdaLR", "MultiplicativeLR"])
def test_a_schedule_is_a_function_with_a_state_that_saves(name: str) -> None:
    """torch's raises AttributeError for a function without `__dict__`."""
    optimizer = sgd()
    scheduler = build(name, optimizer)
    advance(optimizer, scheduler, 3)
    state = pickle.loads(pickle.dumps(scheduler.state_dict()))
    assert state["lr_lambdas"] == [None]
    other = build(name, sgd())
    other.load_state_dict(state)
    assert other.lr_lambdas == scheduler.lr_lambdas == list(arguments_of(name))
    assert advance(other.optimizer, other, 9) == advance(optimizer, scheduler, 9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_copies_go_on_alone(name: str, how: str) -> None:
    optimizer = sgd(groups=2)
    scheduler = build(name, optimizer)
    advance(optimizer, scheduler, 5)
    twin = copy.deepcopy(scheduler) if how == "deepcopy" else pickle.loads(pickle.dumps(scheduler))
    assert twin.optimizer is not optimizer
    right = advance(optimizer, scheduler, 20)
    assert advance(twin.optimizer, twin, 20) == right


@pytest.mark.parametrize("name", NAMES)
def test_no_reference_cycles(name: str) -> None:
    def run() -> list[Any]:
        optimizer = sgd(groups=2)
        scheduler = build(name, optimizer)
        advance(optimizer, scheduler, 5)
        return [weakref.ref(scheduler), weakref.ref(optimizer)]

    gc.collect()
    gc.disable()
    try:
        assert [ref() for ref in run()] == [None, None]
    finally:
        gc.enable()


@pytest.mark.parametrize("name", ["StepLR", "CyclicLR", "OneCycleLR"])
def test_steps_leak_nothing(name: str) -> None:
    """The numbers, lists and tuples that a step writes are let go by the next one."""
    optimizer = torch.optim.AdamW(
        [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": 0.1 * (1 + i)} for i in range(3)]
    )
    arguments = {"StepLR": (5, 0.9), "CyclicLR": (0.1, [0.5, 0.6, 0.7], 5), "OneCycleLR": (0.7, 10**6)}[name]
    scheduler = getattr(ours, name)(optimizer, *arguments)
    optimizer.step()
    for _ in range(100):
        scheduler.step()
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(5000):
        scheduler.step()
    gc.collect()
    assert sys.getallocatedblocks() - before < 500


@pytest.mark.parametrize("name", [name for name in NAMES if name != "ReduceLROnPlateau"])
def test_tensor_rates_are_filled_and_never_aliased(name: str) -> None:
    rate = torch.tensor(0.5, dtype=torch.float64)
    optimizer, plain = sgd(rate), sgd(0.5)
    scheduler, other = build(name, optimizer), build(name, plain)
    lr = optimizer.param_groups[0]["lr"]
    for k in range(25):
        np.testing.assert_allclose(
            advance(optimizer, scheduler, 1), advance(plain, other, 1), rtol=1e-14, err_msg=str(k)
        )
        assert optimizer.param_groups[0]["lr"] is lr
        (last,) = scheduler.get_last_lr()
        assert last is not lr
        assert last == lr
        last.fill_(9.0)  # the user's to change


def test_a_group_may_have_a_number_and_another_a_tensor() -> None:
    optimizer = sgd(0.5, groups=2)
    optimizer.param_groups[1]["lr"] = tensor = torch.tensor(0.25)
    scheduler = ours.CosineAnnealingLR(optimizer, 20)
    rates = np.array(advance(optimizer, scheduler, 15))
    np.testing.assert_allclose(rates[:, 0], 0.5 * np.cos(np.pi * np.arange(15) / 40) ** 2, rtol=1e-14)
    np.testing.assert_allclose(rates[:, 1], 0.25 * np.cos(np.pi * np.arange(15) / 40) ** 2, rtol=1e-7)
    assert optimizer.param_groups[1]["lr"] is tensor


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_thalwegs_own_optimizers(name: str) -> None:
    optimizer = getattr(tw.optim, name)([torch.nn.Parameter(torch.ones(3))], lr=0.5)
    scheduler = ours.SequentialLR(
        optimizer, [ours.LinearLR(optimizer, 0.1, total_iters=4), ours.CosineAnnealingLR(optimizer, 10)], [4]
    )
    rates = np.array(advance(optimizer, scheduler, 14))[:, 0]
    np.testing.assert_allclose(rates[:4], 0.5 * (0.1 + 0.9 * np.arange(4) / 4), rtol=1e-14)
    np.testing.assert_allclose(rates[4:], 0.5 * np.cos(np.pi * np.arange(10) / 20) ** 2, rtol=1e-14)


def test_arguments_may_change_on_the_way() -> None:
    """As torch's, the schedulers read their attributes at each step."""
    for name, change in (
        ("StepLR", {"gamma": 0.25, "step_size": 2}),
        ("ExponentialLR", {"gamma": 0.5}),
        ("CyclicLR", {"max_lrs": [0.9]}),
    ):
        pair = [sgd(), sgd()]
        schedulers: list[Any] = [build(name, pair[0])]
        schedulers.append(peer_of(name)(pair[1], *arguments_of(name)))
        for optimizer, scheduler in zip(pair, schedulers, strict=True):
            advance(optimizer, scheduler, 5)
            for attribute, value in change.items():
                setattr(scheduler, attribute, value)
        rates = [advance(optimizer, scheduler, 12) for optimizer, scheduler in zip(pair, schedulers, strict=True)]
        np.testing.assert_allclose(rates[0], rates[1], rtol=1e-12, err_msg=name)


def test_milestones_and_base_rates_may_be_edited_in_place() -> None:
    pair = [sgd(), sgd()]
    schedulers: list[Any] = [m.MultiStepLR(o, [3, 9], 0.5) for m, o in zip((ours, lr_scheduler), pair, strict=True)]
    for optimizer, scheduler in zip(pair, schedulers, strict=True):
        advance(optimizer, scheduler, 5)
        scheduler.milestones[7] = 2
    rates = [advance(optimizer, scheduler, 8) for optimizer, scheduler in zip(pair, schedulers, strict=True)]
    np.testing.assert_allclose(rates[0], rates[1], rtol=1e-12)
    optimizer = sgd()
    waves = ours.CosineAnnealingWarmRestarts(optimizer, 4)
    advance(optimizer, waves, 3)
    waves.base_lrs[0] = 1.0
    assert advance(optimizer, waves, 2)[1] == [1.0]


@pytest.mark.parametrize("lr", [0.5, torch.tensor(0.5)], ids=["number", "tensor"])
def test_a_subclass_with_its_own_get_lr_is_asked(lr: Any) -> None:
    class Halved(ours.StepLR):
        def get_lr(self) -> list[Any]:
            return [rate / 2 for rate in super().get_lr()]

    class Own(ours.ExponentialLR):
        def get_lr(self) -> list[Any]:
            return [1 / (1 + self.last_epoch) for _ in self.base_lrs]

    optimizer = sgd(lr if isinstance(lr, float) else lr.clone())
    assert advance(optimizer, Halved(optimizer, 100), 5) == [[0.25], [0.125], [0.0625], [0.03125], [0.015625]]
    optimizer = sgd(lr if isinstance(lr, float) else lr.clone())
    np.testing.assert_allclose(advance(optimizer, Own(optimizer, 0.9), 4), [[1], [1 / 2], [1 / 3], [1 / 4]], rtol=1e-7)


def test_what_has_no_curve_is_left_to_torch() -> None:
    cases: list[tuple[str, dict[str, Any]]] = [
        ("CosineAnnealingLR", {"T_max": 7.5}),
        ("CosineAnnealingLR", {"T_max": 7, "eta_min": 2.0}),
        ("CosineAnnealingWarmRestarts", {"T_0": 4, "eta_min": 2.0}),
        ("PolynomialLR", {"total_iters": 5, "power": 0.0}),
        ("ExponentialLR", {"gamma": -0.5}),
        ("MultiStepLR", {"milestones": []}),
        ("CyclicLR", {"base_lr": 0.7, "max_lr": 0.1, "step_size_up": 2.5}),
        ("CyclicLR", {"base_lr": 0.1, "max_lr": 0.7, "step_size_up": 3, "scale_fn": lambda x: 1 / x}),
        ("OneCycleLR", {"max_lr": torch.tensor(0.7), "total_steps": 30}),
    ]
    for name, options in cases:
        pair = [sgd(), sgd()]
        made = [m(o, **options) for m, o in zip((getattr(ours, name), peer_of(name)), pair, strict=True)]
        rates = [advance(optimizer, scheduler, 25) for optimizer, scheduler in zip(pair, made, strict=True)]
        np.testing.assert_allclose(rates[0], rates[1], rtol=1e-9, err_msg=name)


def test_get_lr_warns_outside_of_a_step() -> None:
    scheduler = build("StepLR", sgd())
    with pytest.warns(UserWarning, match="To get the last learning rate computed by the scheduler"):
        assert scheduler.get_lr() == [0.5]


@pytest.mark.parametrize("name", ["StepLR", "CosineAnnealingLR", "OneCycleLR"])
def test_the_order_of_calls_is_watched(name: str) -> None:
    optimizer = sgd()
    scheduler = build(name, optimizer)
    with pytest.warns(UserWarning, match="before `optimizer.step"):
        scheduler.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        advance(optimizer, scheduler, 3)


def test_a_plateau_refuses_a_list_that_does_not_fit_the_groups() -> None:
    optimizer = sgd(groups=2)
    scheduler = ours.ReduceLROnPlateau(optimizer, patience=0, min_lr=[1e-5, 1e-4])
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))]})
    scheduler.step(1.0)
    with pytest.raises(RuntimeError, match="The number of param groups in the `optimizer`"):
        scheduler.step(1.3)


def test_a_chain_or_sequence_jumps_to_its_beginning_only() -> None:
    for name in ("ChainedScheduler", "SequentialLR"):
        with pytest.raises(ValueError, match=f"{name}: expected a jump to step 0, got 3"):
            build(name, sgd())._update_lr(3)


@pytest.mark.parametrize("container", ["SequentialLR", "ChainedScheduler"])
@pytest.mark.parametrize("at", [2, 4, 9, 14])
def test_torchs_containers_restore_ours_alone(container: str, at: int) -> None:
    """Only the part whose turn it is writes its rate: those before it are overwritten, those after it wait."""

    def make(optimizer: torch.optim.Optimizer) -> Any:
        parts = [
            ours.LinearLR(optimizer, 0.1, total_iters=4),
            ours.CosineAnnealingLR(optimizer, 9),
            ours.ExponentialLR(optimizer, 0.9),
        ]
        if container == "ChainedScheduler":
            return lr_scheduler.ChainedScheduler(parts)
        return lr_scheduler.SequentialLR(optimizer, parts, [4, 12])

    whole, first, second = sgd(), sgd(), sgd()
    right = advance(whole, make(whole), 20)
    before = make(first)
    advance(first, before, at)
    after = make(second)
    after.load_state_dict(before.state_dict())
    np.testing.assert_allclose(advance(second, after, 20 - at), right[at:], rtol=1e-12)

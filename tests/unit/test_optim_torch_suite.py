"""What torch's own optimizer tests ask of state_dicts, groups, hooks and copies; torch's class is the oracle."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.stateless import _reparametrize_module
from torch.optim._stateless import swap_in_optimizer_params_and_state

import thalweg as tw

sys.path.insert(0, str(Path(__file__).parents[1]))
from parity.optimizer_cases import CLASSES, NAMES, class_of, fullest, torch_of
from reference import REFERENCES

PAIRS = [
    pytest.param(class_of(name), torch_of(name), fullest(name), id=CLASSES[name]) for name in NAMES if torch_of(name)
]
TENSOR_HYPERS = [
    pytest.param(*pair.values, hyper, id=f"{pair.id}-{hyper}")
    for pair in PAIRS
    for hyper in ("lr", "weight_decay", "betas")
    if hyper in inspect.signature(pair.values[0]).parameters
]


def params() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(s, generator=generator)) for s in ((4, 3), (5,), ())]


def step(optimizer: torch.optim.Optimizer, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)
    optimizer.step()


def same_as_torch(use: Callable[[Any, list[nn.Parameter]], Any], ours: Any, theirs: Any) -> None:
    a, b = params(), params()
    assert use(ours, a) == use(theirs, b)
    torch.testing.assert_close(a, b, rtol=4e-7, atol=4e-7)


@pytest.mark.parametrize(("ours", "theirs", "options"), PAIRS)
def test_groups_edited_by_hand(ours: Any, theirs: Any, options: dict[str, Any]) -> None:
    def use(kind: Any, values: list[nn.Parameter]) -> Any:
        optimizer = kind(values[:1], lr=0.1, **options)
        step(optimizer, 0)
        optimizer.param_groups.append({**optimizer.param_groups[0], "params": values[1:2], "lr": 0.05})
        step(optimizer, 1)
        optimizer.param_groups[0]["params"].append(values[2])
        step(optimizer, 2)
        optimizer.param_groups.reverse()
        step(optimizer, 3)
        kept = optimizer.state_dict()["param_groups"]
        optimizer.param_groups.pop()
        step(optimizer, 4)
        return [(group["lr"], group["params"]) for group in kept]

    same_as_torch(use, ours, theirs)


def test_schedules_stay_with_their_groups_when_others_go() -> None:
    values = params()
    slow, fast = tw.schedules.linear(0.1, total_steps=10), tw.schedules.linear(1.0, total_steps=10)
    momentum = tw.schedules.linear(0.5, total_steps=10, end_lr=0.9)
    groups = [{"params": values[:1], "lr": slow}, {"params": values[1:2], "lr": fast, "momentum": momentum}]
    optimizer = tw.optim.SGD(groups, lr=0.3)
    step(optimizer, 0)
    del optimizer.param_groups[0]
    optimizer.param_groups.append({**optimizer.param_groups[0], "params": values[2:], "lr": 0.25, "momentum": 0.0})
    step(optimizer, 1)
    assert optimizer.schedules == (fast, None)
    assert [(g["lr"], g["momentum"]) for g in optimizer.param_groups] == [(fast(2), momentum(2)), (0.25, 0.0)]
    again = tw.optim.SGD([{"params": [p]} for p in values[1:]], lr=0.3)
    again.load_state_dict(optimizer.state_dict())
    assert again.schedules == (fast, None)
    assert again.schedule_step == 2


@pytest.mark.parametrize(("ours", "theirs", "options"), PAIRS)
def test_state_dict_hooks_may_add_and_replace(ours: Any, theirs: Any, options: dict[str, Any]) -> None:
    def use(kind: Any, values: list[nn.Parameter]) -> Any:
        optimizer, seen = kind(values, lr=0.1, **options), []
        step(optimizer, 0)
        optimizer.register_state_dict_pre_hook(lambda o: o.state.update(note="before"))
        optimizer.register_state_dict_post_hook(lambda o, s: {**s, "state": {**s["state"], "more": True}})
        saved = optimizer.state_dict()
        optimizer.register_load_state_dict_pre_hook(lambda o, s: seen.append("first"))
        optimizer.register_load_state_dict_pre_hook(lambda o, s: seen.append("prepended"), prepend=True)
        optimizer.register_load_state_dict_post_hook(lambda o: seen.append(("loaded", "more" in o.state)))
        optimizer.load_state_dict(saved)
        step(optimizer, 1)
        return sorted(map(str, saved["state"])), seen

    same_as_torch(use, ours, theirs)


@pytest.mark.parametrize(("ours", "theirs", "options"), PAIRS)
def test_older_and_named_state_dicts_load(ours: Any, theirs: Any, options: dict[str, Any]) -> None:
    def use(kind: Any, values: list[nn.Parameter]) -> Any:
        optimizer = kind([(f"p{i}", p) for i, p in enumerate(values)], lr=0.1, **options)
        step(optimizer, 0)
        file = io.BytesIO()
        torch.save(optimizer.state_dict(), file)
        file.seek(0)
        saved = torch.load(file, weights_only=True)
        for group in saved["param_groups"]:
            for late in ("maximize", "foreach", "fused", "differentiable", "capturable", "decoupled_weight_decay"):
                group.pop(late, None)
        for entry in saved["state"].values():
            if "step" in entry:
                entry["step"] = int(entry["step"])
        again = kind(values, lr=9.0, **options)
        again.load_state_dict(saved)
        step(again, 1)
        steps = [again.state[p].get("step") for p in values]
        return again.param_groups[0]["lr"], [None if s is None else (float(s), s.dtype, s.shape) for s in steps]

    same_as_torch(use, ours, theirs)


@pytest.mark.parametrize(("ours", "theirs", "options"), PAIRS)
@pytest.mark.parametrize("copier", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_copies_have_every_public_attribute(ours: Any, theirs: Any, options: dict[str, Any], copier: Any) -> None:
    optimizer = ours(params(), lr=0.1, **options)
    step(optimizer, 0)
    clone = copier(optimizer)
    public = [{k for k in vars(o) if not k.startswith("_")} for o in (optimizer, clone)]
    assert public[0] == public[1]
    assert repr(clone) == repr(optimizer)
    for o in (optimizer, clone):
        step(o, 1)
    torch.testing.assert_close(clone.param_groups[0]["params"], optimizer.param_groups[0]["params"], rtol=0, atol=0)


@pytest.mark.parametrize("how", ["pickle", "state_dict", "group"])
def test_decoupled_decay_of_adam_survives(how: str) -> None:
    def use(kind: Any, values: list[nn.Parameter]) -> None:
        decoupled = {"weight_decay": 0.5, "decoupled_weight_decay": True}
        if how == "group":
            optimizer = kind([{"params": values, **decoupled}], lr=0.1)
        else:
            first = kind(values, lr=0.1, **decoupled)
            step(first, 0)
            if how == "pickle":
                optimizer = pickle.loads(pickle.dumps(first))
            else:
                optimizer = kind(values, lr=0.1)
                optimizer.load_state_dict(first.state_dict())
        step(optimizer, 1)
        with torch.no_grad():
            for p, q in zip(values, optimizer.param_groups[0]["params"], strict=True):
                p.copy_(q)

    same_as_torch(use, tw.optim.Adam, torch.optim.Adam)


def test_decay_of_two_kinds_is_refused_and_adamw_stays_decoupled() -> None:
    values = params()
    optimizer = tw.optim.Adam(values[:1], weight_decay=0.5)
    with pytest.raises(ValueError, match="Adam: decoupled_weight_decay must be the same in all groups"):
        optimizer.add_param_group({"params": values[1:], "decoupled_weight_decay": True})
    step(optimizer, 0)

    def use(kind: Any, values: list[nn.Parameter]) -> None:
        other = kind(values[:1], weight_decay=0.5)
        other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        step(other, 1)

    same_as_torch(use, tw.optim.AdamW, torch.optim.AdamW)


@pytest.mark.parametrize(("ours", "theirs", "options", "hyper"), TENSOR_HYPERS)
def test_tensor_hyper_parameters(ours: Any, theirs: Any, options: dict[str, Any], hyper: str) -> None:
    def use(kind: Any, values: list[nn.Parameter]) -> Any:
        given = {"lr": torch.tensor([0.1]), "weight_decay": torch.tensor(0.1)}
        given["betas"] = (torch.tensor(0.9), torch.tensor(0.99))  # type: ignore[assignment]
        optimizer = kind(values, **{"lr": 0.1, **options, hyper: given[hyper]})
        for k in range(3):
            step(optimizer, k)
        value = optimizer.param_groups[0][hyper]
        return value is given[hyper] or value == given[hyper]

    same_as_torch(use, ours, theirs)


@pytest.mark.parametrize("kind", [torch.optim.SGD, tw.optim.SGD])
@pytest.mark.parametrize(
    ("group", "error", "text"),
    [
        ([nn.Parameter(torch.ones(1))], TypeError, "param_group must be a dict, but got <class 'list'>"),
        ({"params": {nn.Parameter(torch.ones(1))}}, TypeError, "ordered collections"),
        ({"params": [nn.Parameter(torch.ones(1)) * 2]}, ValueError, "non-leaf"),
        ({"params": [3]}, TypeError, "can only optimize Tensors"),
        ({"params": [("name", nn.Parameter(torch.ones(1)))]}, ValueError, "with/without names"),
        ({"lr": 0.1}, KeyError, "params"),
    ],
)
def test_bad_groups_are_torchs_errors(kind: Any, group: Any, error: type[Exception], text: str) -> None:
    optimizer = kind(params(), lr=0.1)
    with pytest.raises(error, match=text):
        optimizer.add_param_group(group)
    assert len(optimizer.param_groups) == 1
    step(optimizer, 0)


@pytest.mark.parametrize(("ours", "theirs", "options"), PAIRS)
def test_swapped_and_assigned_parameters(ours: Any, theirs: Any, options: dict[str, Any]) -> None:
    options = {
        **options,
        **REFERENCES[ours.core_name].still,
    }  # torch's decay would change a gradient in the parameter's own memory

    def use(kind: Any, values: list[nn.Parameter]) -> None:
        optimizer = kind(values, lr=0.1, **options)
        step(optimizer, 0)
        values[0].grad = None
        torch.utils.swap_tensors(values[0], nn.Parameter(torch.ones(4, 3)))
        step(optimizer, 1)
        values[1].data = values[1].data.clone()
        for p in values:
            p.grad = None
        for p in values[1:]:
            p.grad = torch.full((), 0.5).expand(p.shape)  # no memory of its own
        optimizer.step()
        for p in values:
            p.grad = p.detach()  # the parameter's own memory
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)  # zeroes the parameters too
        step(optimizer, 2)

    same_as_torch(use, ours, theirs)


@pytest.mark.parametrize(("ours", "theirs", "options"), PAIRS)
def test_a_functional_swap_steps_what_was_swapped_in(ours: Any, theirs: Any, options: dict[str, Any]) -> None:
    results: list[list[Tensor]] = []
    for kind in (ours, theirs):
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        optimizer = kind(model.parameters(), lr=0.1, **options)
        step(optimizer, 0)
        inside = {n: torch.full_like(p, 0.5, requires_grad=True) for n, p in model.named_parameters()}
        state = copy.deepcopy(optimizer.state_dict())
        before = [p.detach().clone() for p in model.parameters()]
        with _reparametrize_module(model, inside), swap_in_optimizer_params_and_state(optimizer, inside, state):
            step(optimizer, 1)
        torch.testing.assert_close(list(model.parameters()), before, rtol=0, atol=0)
        step(optimizer, 2)
        results.append(
            [*inside.values(), *model.parameters(), *(v for s in state["state"].values() for v in s.values())]
        )
    torch.testing.assert_close(results[0], results[1], rtol=4e-7, atol=4e-7)


def test_parameters_on_meta_are_refused() -> None:
    with torch.device("meta"):
        model = nn.Linear(3, 2)
        optimizer = tw.optim.AdamW(model.parameters(), lr=0.1, fused=True)
        for p in model.parameters():
            p.grad = torch.empty_like(p)
    with pytest.raises(RuntimeError, match="AdamW: parameter 0 of group 0 is on meta"):
        optimizer.step()
    assert not optimizer.state


@pytest.mark.parametrize("ours", [tw.optim.SGD, tw.optim.AdamW])
def test_schedules_outlive_a_functional_swap(ours: Any) -> None:
    model = nn.Linear(3, 2)
    schedule = tw.schedules.cosine(0.1, total_steps=10)
    optimizer = ours(model.parameters(), lr=schedule, **({"momentum": 0.9} if ours is tw.optim.SGD else {}))
    step(optimizer, 0)
    inside = {n: torch.zeros_like(p, requires_grad=True) for n, p in model.named_parameters()}
    with swap_in_optimizer_params_and_state(optimizer, inside, copy.deepcopy(super_state_dict(optimizer))):
        assert optimizer.schedules == (schedule,)
    step(optimizer, 1)
    assert optimizer.schedules == (schedule,)
    assert optimizer.param_groups[0]["lr"] == schedule(2)


def super_state_dict(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The swap asks for the keys of the groups: no description of schedules among them."""
    return torch.optim.Optimizer.state_dict(optimizer)


def test_a_load_hook_has_the_last_word_about_types() -> None:
    values = [p.to(torch.bfloat16) for p in params()]
    values = [nn.Parameter(p.detach()) for p in values]
    donor = tw.optim.AdamW(values, state_dtype=torch.float32)
    step(donor, 0)
    receiver = tw.optim.AdamW([nn.Parameter(p.detach().clone()) for p in values], state_dtype=torch.float32)

    def only_zeros(_: Any, saved: dict[str, Any]) -> dict[str, Any]:
        state = {i: {k: torch.zeros_like(v) for k, v in entry.items()} for i, entry in saved["state"].items() if i}
        return {**saved, "state": state}

    receiver.register_load_state_dict_pre_hook(only_zeros)
    receiver.load_state_dict(donor.state_dict())
    assert len(receiver.state) == len(values) - 1, "no empty entry where nothing was loaded"
    for entry in receiver.state.values():
        assert entry["exp_avg"].dtype == torch.float32
        assert not entry["exp_avg"].any()


@pytest.mark.parametrize("base", [tw.optim.SGD, tw.optim.AdamW])
def test_hooks_of_a_subclass_with_its_own_step_run_once(base: Any) -> None:
    class Counting(base):  # type: ignore[misc]
        def step(self, closure: Any = None) -> Any:
            seen.append("step")
            return super().step(closure)

    seen: list[str] = []
    p = nn.Parameter(torch.ones(2))
    optimizer = Counting([p], lr=0.5)
    optimizer.register_step_pre_hook(lambda *_: seen.append("pre"))
    optimizer.register_step_post_hook(lambda *_: seen.append("post"))
    p.grad = torch.ones(2)
    optimizer.step()
    assert seen == ["pre", "step", "post"]
    base([p], lr=0.5).step()
    assert len(seen) == 3


def test_the_warning_of_a_foreign_write_names_the_callers_line() -> None:
    p = nn.Parameter(torch.ones(2))
    optimizer = tw.optim.SGD([p], lr=tw.schedules.constant(0.5))
    p.grad = torch.ones(2)
    optimizer.step()
    optimizer.param_groups[0]["lr"] = 0.1
    with pytest.warns(UserWarning, match="set from outside to 0.1") as caught:
        optimizer.step()
    assert caught[0].filename == __file__


@pytest.mark.parametrize("ours", [tw.optim.SGD, tw.optim.AdamW])
def test_steps_inside_backward(ours: Any) -> None:
    """One optimizer per parameter, stepped by the hook that follows its gradient."""
    results = []
    for inside in (True, False):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
        optimizers = {p: ours([p], lr=tw.schedules.linear(0.1, total_steps=9)) for p in model.parameters()}

        def update(p: Tensor, optimizers: dict[Tensor, Any] = optimizers) -> None:
            optimizers[p].step()
            optimizers[p].zero_grad()

        for p in model.parameters() if inside else ():
            p.register_post_accumulate_grad_hook(update)
        for _ in range(5):
            model(torch.ones(2, 4)).square().mean().backward()
            for p in () if inside else model.parameters():
                update(p)
        results.append(list(model.parameters()))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["number", "tensor"])
@pytest.mark.parametrize("ours", [tw.optim.SGD, tw.optim.AdamW])
def test_a_step_that_only_makes_states_leaves_the_schedule_alone(ours: Any, kind: str) -> None:
    """What torch.distributed.checkpoint does to a fresh optimizer before it asks for its state_dict."""
    schedule = tw.schedules.cosine(0.1, total_steps=10)
    values = params()
    start = [p.detach().clone() for p in values]
    own = {"momentum": 0.9} if ours is tw.optim.SGD else {"capturable": kind == "tensor"}
    optimizer = ours(values, lr=schedule, **own)
    rate = optimizer.param_groups[0]["lr"]
    optimizer.param_groups[0]["lr"] = torch.tensor(0.0) if isinstance(rate, Tensor) else 0.0
    for p in values:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    optimizer.param_groups[0]["lr"] = rate
    assert optimizer.schedules == (schedule,)
    assert optimizer.schedule_step == 0
    assert float(optimizer.param_groups[0]["lr"]) == schedule(0)
    assert len(optimizer.state) == len(values)
    torch.testing.assert_close(values, start, rtol=0, atol=0)
    step(optimizer, 1)
    assert float(optimizer.param_groups[0]["lr"]) == schedule(1)

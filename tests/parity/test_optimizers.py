"""Every registered optimizer against float64 and against torch; the same bits on every instruction set."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import thalweg as tw

sys.path.insert(0, str(Path(__file__).parents[1]))
from parity.optimizer_cases import CASES, CLASSES, IDS, REGISTRY, class_of, parameters, tensors, torch_of
from reference import REFERENCES

LR, STEPS = 1e-2, 50


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    """Also the default type, so that torch keeps the numbers of a state in it."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(before)


def gradients(start: list[torch.Tensor], seed: int) -> Iterator[list[torch.Tensor | None]]:
    """Fresh ones for every step; one tensor has none in step 2, and the scale varies over decades."""
    generator = torch.Generator().manual_seed(seed)
    for k in range(STEPS):
        grads = [torch.randn(t.shape, generator=generator, dtype=torch.float64) for t in start]
        yield [
            None if k == 2 and i == 3 else (g * 10.0 ** ((i + k) % 5 - 3)).to(t.dtype)
            for i, (g, t) in enumerate(zip(grads, start, strict=True))
        ]


def stepped(make: Any, options: dict[str, Any], start: list[torch.Tensor]) -> list[np.ndarray]:
    params = parameters(start)
    groups = [{"params": params[:3]}, {"params": params[3:4], "lr": LR}, {"params": params[4:]}]
    optimizer = make(groups, lr=LR, **options)
    for grads in gradients(start, 5):
        for p, g in zip(params, grads, strict=True):
            p.grad = g
        optimizer.step()
    return [p.detach().double().numpy() for p in params]


def referred(name: str, options: dict[str, Any], start: list[torch.Tensor], dtype: Any) -> list[np.ndarray]:
    oracles = [REFERENCES[name](dtype, **options) for _ in start]
    values = [p.double().numpy() for p in start]
    for grads in gradients(start, 5):
        for i, (oracle, g) in enumerate(zip(oracles, grads, strict=True)):
            if g is not None:
                values[i] = oracle.step(values[i], g.double().numpy(), LR)
    return [v.astype(np.float64) for v in values]


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_is_as_close_to_float64_as_its_peer(isa: str, name: str, options: dict[str, Any], dtype: torch.dtype) -> None:
    """The error is at most 1.5 times the peer's own, over 50 steps, plus a few roundings.

    The peer is torch's class, and where torch has none the reference itself in the parameters' type.
    """
    start = tensors(11, dtype)
    exact = referred(name, options, start, np.float64)
    if torch_of(name) is not None:
        theirs = stepped(torch_of(name), options, start)
    else:
        theirs = referred(name, options, start, {torch.float32: np.float32, torch.float64: np.float64}[dtype])
    eps = torch.finfo(dtype).eps
    scale = 1 + max(float(np.abs(e).max()) for e in exact if e.size)
    for a, b, e in zip(stepped(class_of(name), options, start), theirs, exact, strict=True):
        if e.size:
            error, peer = (np.abs(x - e).max() for x in (a, b))
            assert error <= 1.5 * peer + 8 * eps * scale
            assert error < 400 * eps * scale


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_bits_do_not_depend_on_instruction_set_or_threads(
    name: str, options: dict[str, Any], dtype: torch.dtype
) -> None:
    results = []
    before, threads = tw._core.isa_active(), torch.get_num_threads()
    sizes = (1, 7, 70_003)  # above the size from which threads are used
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(n, generator=generator).to(dtype) for n in sizes]
    start[2][:4] = torch.tensor([float("inf"), -float("inf"), 1e-42, -1e-42])  # infinities and denormals
    grads = [[torch.randn(n, generator=generator).to(dtype) for n in sizes] for _ in range(3)]
    grads[1][2][5:8] = torch.tensor([float("inf"), 1e-43, float("nan")])
    try:
        for isa in tw._core.isa_supported():
            for count in (1, 2, 3):
                tw._core.isa_force(isa)
                torch.set_num_threads(count)
                params = parameters(start)
                optimizer = class_of(name)(params, lr=0.1, **options)
                for step in grads:
                    for p, g in zip(params, step, strict=True):
                        p.grad = g.clone()
                    optimizer.step()
                states = [v for p in params for k, v in sorted(optimizer.state.get(p, {}).items()) if k != "step"]
                results.append([t.detach().numpy().copy() for t in (*params, *states)])
    finally:
        tw._core.isa_force(before)
        torch.set_num_threads(threads)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)  # NaN equals NaN
            assert np.array_equal(np.signbit(a[~np.isnan(a)]), np.signbit(b[~np.isnan(b)]))


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_splitting_or_permuting_a_tensor_changes_nothing(name: str, options: dict[str, Any]) -> None:
    """A two-phase optimizer scales by the norms of a tensor: its parts go their own ways, each as if it were alone, and
    a permutation changes the order in which the squares are added, in float64."""
    two_phase = REGISTRY[name]["two_phase"]
    generator = torch.Generator().manual_seed(1)
    whole = torch.randn(1000, generator=generator)
    order = torch.randperm(1000, generator=generator)
    forms = [[whole], [whole[:333], whole[333:]], [whole[order]], [whole[:333]], [whole[333:]]]
    params = [parameters(form) for form in forms]
    optimizers = [class_of(name)(p, lr=0.1, **options) for p in params]
    for _ in range(5):
        g = torch.randn(1000, generator=generator)
        grads = ([g], [g[:333], g[333:]], [g[order]], [g[:333]], [g[333:]])
        for optimizer, form, parts in zip(optimizers, params, grads, strict=True):
            for p, part in zip(form, parts, strict=True):
                p.grad = part.clone()
            optimizer.step()
    one, halves, permuted, first, second = ([p.detach() for p in form] for form in params)
    assert torch.equal(torch.cat(halves), torch.cat([*first, *second]))
    if two_phase:
        eps = torch.finfo(torch.float32).eps
        torch.testing.assert_close(one[0][order], permuted[0], rtol=8 * eps, atol=8 * eps)
    else:
        assert torch.equal(one[0], torch.cat(halves))
        assert torch.equal(one[0][order], permuted[0])


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_zero_gradient_and_zero_decay_is_the_identity(name: str, options: dict[str, Any]) -> None:
    p = torch.nn.Parameter(torch.randn(100, generator=torch.Generator().manual_seed(0)))
    start = p.detach().clone()
    optimizer = class_of(name)([p], lr=0.1, **{**options, **REFERENCES[name].still})
    for _ in range(3):
        p.grad = torch.zeros(100)
        optimizer.step()
    assert torch.equal(p, start)


def test_flush_to_zero_of_the_caller_is_neither_obeyed_nor_changed() -> None:
    starts = [torch.full((70_000,), 1e-40) for _ in range(2)]
    grads = [torch.full((70_000,), 1e-41) for _ in range(2)]

    def update(start: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
        p = torch.nn.Parameter(start)
        p.grad = grad
        tw.optim.SGD([p], lr=1.0).step()
        return p.detach()

    expected, tiny = update(starts[0], grads[0]), torch.tensor([1e-40])
    assert torch.set_flush_denormal(True)
    try:
        flushed = update(starts[1], grads[1])
        still_flushing = float((tiny * 1).sum()) == 0
    finally:
        torch.set_flush_denormal(False)
    assert still_flushing, "the caller's own setting must still hold"
    assert torch.equal(flushed, expected)
    assert float(expected[0]) > 0


def test_registry_classes_and_references_are_in_step() -> None:
    """Adding an optimizer is four edits: functor, registry line, Python class, reference."""
    assert set(REGISTRY) == set(REFERENCES) == set(CLASSES)
    for name, info in REGISTRY.items():
        kept = {key for mask in info["variants"] for key in mask}
        assert kept == set(info["state_names"]), f"{name}: a state that no variant keeps"
        defaults = class_of(name)([torch.nn.Parameter(torch.zeros(1))]).defaults
        for key, value in REFERENCES[name].defaults.items():
            assert value == defaults[key], f"{name}: the reference's default {key} is not that of the class"

"""Every registered optimizer against torch.optim and the float64 reference; the same bits on every instruction set."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import thalweg as tw

sys.path.insert(0, str(Path(__file__).parents[1]))
from reference import REFERENCES

SIZES = (0, 1, 3, 17, 1023, 4097)
CLASSES = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("sgd", {}),
    ("sgd", {"weight_decay": 0.1, "maximize": True}),
    ("sgd", {"momentum": 0.9}),
    ("sgd", {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.05}),
    ("sgd", {"momentum": 0.8, "nesterov": True, "maximize": True}),
    *(
        (name, options)
        for name in ("adam", "adamw")
        for options in (
            {},
            {"amsgrad": True},
            {"weight_decay": 0.1, "maximize": True},
            {"betas": (0.5, 0.9), "eps": 1e-3, "amsgrad": True, "weight_decay": 0.01},
            {"betas": (0.0, 0.0)},
        )
    ),
]
IDS = [f"{name}-{'-'.join(options) or 'plain'}" for name, options in CASES]


def tensors(seed: int, dtype: torch.dtype) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, generator=generator, dtype=torch.float64).to(dtype) for n in SIZES]


def run(optimizer: torch.optim.Optimizer, params: list[torch.nn.Parameter], steps: int, seed: int) -> None:
    """Steps with fresh gradients; one tensor has none in step 2, and the gradient's scale varies over decades."""
    generator = torch.Generator().manual_seed(seed)
    for k in range(steps):
        for i, p in enumerate(params):
            g = torch.randn(p.shape, generator=generator, dtype=torch.float64) * 10.0 ** ((i + k) % 5 - 3)
            p.grad = None if k == 2 and i == 3 else g.to(p.dtype)
        optimizer.step()


def reference(
    name: str, options: dict[str, Any], start: list[torch.Tensor], steps: int, seed: int, lr: float
) -> list[np.ndarray]:
    generator = torch.Generator().manual_seed(seed)
    oracles = [REFERENCES[name](**options) for _ in start]
    values = [p.double().numpy() for p in start]
    for k in range(steps):
        for i, oracle in enumerate(oracles):
            g = torch.randn(values[i].shape, generator=generator, dtype=torch.float64) * 10.0 ** ((i + k) % 5 - 3)
            if not (k == 2 and i == 3):
                values[i] = oracle.step(values[i], g.to(start[i].dtype).double().numpy(), lr)
    return values


def groups(params: list[torch.nn.Parameter], lr: float) -> list[dict[str, Any]]:
    return [{"params": params[:3]}, {"params": params[3:4], "lr": lr}, {"params": params[4:]}]


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_is_as_close_to_float64_as_torch(isa: str, name: str, options: dict[str, Any], dtype: torch.dtype) -> None:
    """Our error against the reference is at most 1.5 times torch's own, over 50 steps, plus a few roundings."""
    lr, steps = 1e-2, 50
    start = tensors(11, dtype)
    ours, theirs = ([torch.nn.Parameter(t.clone()) for t in start] for _ in range(2))
    run(getattr(tw.optim, CLASSES[name])(groups(ours, lr), lr=lr, **options), ours, steps, 5)
    run(getattr(torch.optim, CLASSES[name])(groups(theirs, lr), lr=lr, **options), theirs, steps, 5)
    exact = reference(name, options, start, steps, 5, lr)
    eps = torch.finfo(dtype).eps
    scale = 1 + max((float(np.abs(e).max()) for e in exact if e.size), default=0)
    for a, b, e in zip(ours, theirs, exact, strict=True):
        if not e.size:
            continue
        error, peer = (np.abs(t.detach().double().numpy() - e).max() for t in (a, b))
        assert error <= 1.5 * peer + 8 * eps * scale
        assert error < 400 * eps * scale


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
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
                params = [torch.nn.Parameter(t.clone()) for t in start]
                optimizer = getattr(tw.optim, CLASSES[name])(params, lr=0.1, **options)
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
    generator = torch.Generator().manual_seed(1)
    whole = torch.randn(1000, generator=generator)
    order = torch.randperm(1000, generator=generator)
    forms = [[whole], [whole[:333], whole[333:]], [whole[order]]]
    params = [[torch.nn.Parameter(t.clone()) for t in form] for form in forms]
    optimizers = [getattr(tw.optim, CLASSES[name])(p, lr=0.1, **options) for p in params]
    for _ in range(5):
        g = torch.randn(1000, generator=generator)
        for form, parts in zip(params, ([g], [g[:333], g[333:]], [g[order]]), strict=True):
            for p, part in zip(form, parts, strict=True):
                p.grad = part.clone()
        for optimizer in optimizers:
            optimizer.step()
    assert torch.equal(params[0][0], torch.cat([p.detach() for p in params[1]]))
    assert torch.equal(params[0][0][order], params[2][0])


@pytest.mark.parametrize("name", sorted(tw._core.optimizers()))
def test_zero_gradient_and_zero_decay_is_the_identity(name: str) -> None:
    p = torch.nn.Parameter(torch.randn(100))
    start = p.detach().clone()
    optimizer = getattr(tw.optim, CLASSES[name])([p], lr=0.1, weight_decay=0)
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
    registered = set(tw._core.optimizers())
    classes = {c.core_name for c in vars(tw.optim).values() if isinstance(c, type) and hasattr(c, "core_name")}
    assert registered == set(REFERENCES) == classes == set(CLASSES)

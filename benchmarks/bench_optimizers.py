"""Every optimizer of the registry against torch's forms of it and against other packages' classes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from peers import (
    FOR_LOOP,
    FOREACH,
    FUSED,
    LR,
    OPTIONS,
    PEERS,
    Make,
    bytes_per_step,
    core_optimizers,
    same,
    torch_forms,
    two_phase,
)

CASES: dict[str, list[int]] = {"1 x 10 M": [10_000_000], "160 x 64": [64] * 160}
# Multiples of one gradient: where an element is near zero, the sign of its average is still not left to rounding.
FACTORS = (1.0, -0.5, 2.0)
# Elements of a tensor up to which norms are compared: the peers add squares in float32, torch on a CPU one after another,
# which for 10 M is wrong in the fourth digit.
NORMS = 100_000


def contests() -> list[Any]:
    """(core name, class, peer's name, how it is built): torch's fused form, else both others, then the packages.

    Without a fused kernel torch takes its for-loop on a CPU; which of the two is faster differs among optimizers.
    """
    found = []
    for core_name, cls in core_optimizers():
        forms = torch_forms(cls.torch_class, {"lr": LR, **OPTIONS.get(core_name, {})}, (FUSED, FOREACH, FOR_LOOP))
        sides = {FUSED: forms[FUSED]} if FUSED in forms else dict(forms)
        sides |= {peer.package: peer.build for peer in PEERS.get(core_name, ())}
        found += [pytest.param(core_name, cls, *side, id=f"{cls.__name__}, {side[0]}") for side in sides.items()]
    return found


def parameters(sizes: Sequence[int]) -> tuple[list[nn.Parameter], list[torch.Tensor]]:
    """Tensors of these sizes and gradients for them; the same at every call."""
    generator = torch.Generator().manual_seed(0)
    params = [nn.Parameter(torch.randn(n, generator=generator)) for n in sizes]
    return params, [torch.randn(n, generator=generator) for n in sizes]


def checked(
    sizes: Sequence[int], core_name: str, cls: Any, make: Make, compares: bool = True
) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    """Ours and the peer after a step per factor from the same start, all elements compared."""
    (mine, grads), (theirs, _) = parameters(sizes), parameters(sizes)
    ours, peer = cls(mine, lr=LR, **OPTIONS.get(core_name, {})), make(theirs)
    for factor in FACTORS:
        for optimizer, params in ((ours, mine), (peer, theirs)):
            for p, g in zip(params, grads, strict=True):
                p.grad = g * factor  # some peers write to it
            optimizer.step()
    if compares:
        same(mine, theirs)
    return ours, peer


@pytest.mark.filterwarnings("ignore")  # of torch's and the packages' own deprecations
@pytest.mark.parametrize(("core_name", "cls", "peer_name", "make"), contests())
@pytest.mark.parametrize("case", list(CASES))
def test_optimizer(
    against: Callable[..., None], copy_bandwidth: Callable[[], float], thread_count: int, case: str, core_name: str,
    cls: Any, peer_name: str, make: Make, request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    timed = not request.config.getoption("benchmark_disable")
    sizes = CASES[case] if timed else [min(n, 1000) for n in CASES[case][:20]]
    try:
        if two_phase(core_name):
            checked([min(n, NORMS) for n in sizes], core_name, cls, make)
        ours, peer = checked(sizes, core_name, cls, make, compares=not two_phase(core_name))
    except ImportError as error:
        pytest.skip(f"{peer_name} is not here: {error}")
    elements, moved = sum(sizes), bytes_per_step(ours)
    more: dict[str, Any] = {}
    if timed and elements > 1_000_000:
        bandwidth = copy_bandwidth()
        more = {"copy_gb_s": bandwidth / 1e9, "bandwidth_share": lambda s: moved / s / bandwidth}
    against(
        f"{cls.__name__} step", case, peer_name, ours.step, peer.step, table="optimizers", elements=elements,
        bytes_per_parameter=moved / elements, seconds=2.0, **more,
    )  # fmt: skip

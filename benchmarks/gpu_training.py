"""GPU rows of training: loss scaling, clipping, update and average in one pass; a whole step in one CUDA graph."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

import thalweg as tw
from gpu_measure import Session
from gpu_nets import small_cnn
from gpu_optim import Probe, capturable, clip_scale, parameters
from gpu_rows import Contest, Row, Side, build_peers, construct, need
from gpu_targets import SEPARATE
from peers import LR, bytes_per_step, same

STEPS, MAX_NORM, EMA = 3, 1.0, 0.999
# GPT-2 small: the token and position tables, 12 layers, the last norm; 124 M elements in 148 tensors
WIDTH = 768
LAYER = [n * WIDTH for n in (1, 1, 3 * WIDTH, 3, WIDTH, 1, 1, 1, 4 * WIDTH, 4, 4 * WIDTH, 1)]
GPT2 = [50_257 * WIDTH, 1_024 * WIDTH, *LAYER * 12, WIDTH, WIDTH]


def scaler_of(session: Session, cls: Any) -> Any:
    """A scaler that has seen a loss.

    The scale is 1 and stays so: torch's passes write the gradients in place, with any other scale these would shrink
    from step to step. The bytes that move are the same.
    """
    scaler = construct(cls, session.device.type, init_scale=1.0, growth_interval=1 << 30)
    scaler.scale(torch.ones((), device=session.device))
    return scaler


def amp_step(scaler: Any, optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    """Unscaling, clipping and the average are the optimizer's."""

    def run() -> None:
        scaler.step(optimizer)
        scaler.update()

    return run


def separate_passes(session: Session, params: list[nn.Parameter], averages: list[Tensor]) -> Callable[[], None]:
    """What a torch user writes; `averages` is empty where there is no average of the weights."""
    optimizer = torch.optim.AdamW(params, lr=LR, fused=True)
    scaler = scaler_of(session, torch.amp.GradScaler)
    decays = itertools.chain([0.0], itertools.repeat(EMA))  # the first update copies, as in torch.optim.swa_utils

    def run() -> None:
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(params, MAX_NORM)
        scaler.step(optimizer)
        scaler.update()
        if averages:
            with torch.no_grad():
                torch._foreach_lerp_(averages, params, 1 - next(decays))

    return run


def averages_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """The averages that a thalweg optimizer keeps: the one state of every parameter that is named after them."""
    states = [optimizer.state[p] for group in optimizer.param_groups for p in group["params"]]
    names = {name for state in states for name in state if "ema" in name}
    assert len(names) == 1, f"expected one state with 'ema' in its name, got {sorted(names)} of {sorted(states[0])}"
    (name,) = names
    return [state[name] for state in states]


def amp(session: Session, scaler_module: str, average: bool) -> Contest:
    """A scaler, clipping, AdamW and, if asked, an average of the weights, against torch's separate passes."""
    sizes = session.sizes(GPT2)
    mine, theirs = parameters(session, sizes), parameters(session, sizes)
    probe, clip = Probe(mine), clip_scale(mine, MAX_NORM)
    options = {"ema_decay": EMA} if average else {}
    ours = construct(need("thalweg.optim", "AdamW"), mine, lr=LR, max_grad_norm=MAX_NORM, **options)
    run = amp_step(scaler_of(session, need(scaler_module, "GradScaler")), ours)
    averages = [p.detach().clone() for p in theirs] if average else []
    peers, absent = build_peers({SEPARATE: lambda: Side(separate_passes(session, theirs, averages))})
    for _ in range(STEPS):
        run()

    def check() -> None:
        probe.check(mine, "adamw", STEPS, scale=clip)
        for side in peers.values():
            for _ in range(STEPS):
                side.run()
            same(mine, theirs)
        if average:
            same(averages_of(ours), averages)

    moved = bytes_per_step(ours) + 4 * sum(sizes)  # the norm reads the gradients once more
    return Contest(Side(run), peers, check, moved, absent, {"elements": sum(sizes)})


# ---- a whole training step ---------------------------------------------------------------------------------------

EAGER, GRAPH = "torch eager, fused AdamW + OneCycleLR", "torch's own graph, tensor lr + OneCycleLR"
WARM_UP = 3  # steps before torch's graph


def captured_training(session: Session) -> Contest:
    """Forward, backward, 1cycle and AdamW of a small CNN: one graph, against torch eager and torch's own graph."""
    torch.manual_seed(0)
    rows, total = session.number(256, 8), 10**6
    x = torch.randn(rows, 3, 32, 32, device=session.device)
    y = torch.randint(0, 10, (rows,), device=session.device)
    start = small_cnn().to(session.device)
    models = [copy.deepcopy(start) for _ in range(3)]
    optimizer = tw.optim.AdamW(models[0].parameters(), lr=tw.schedules.one_cycle(LR, total_steps=total).lr)
    loss_fn = nn.CrossEntropyLoss()
    if session.cuda:
        step = need("thalweg.graphs", "capture_step")(models[0], loss_fn, optimizer, (x, y))
        ours = lambda: step((x, y))  # noqa: E731
    else:
        ours = training_step(models[0], optimizer, x, y)
    peers, absent = build_peers(
        {
            EAGER: lambda: torch_eager(models[1], x, y, total),
            GRAPH: lambda: torch_graph(session, models[2], x, y, total),
        }
    )

    def check() -> None:
        for _ in range(STEPS + WARM_UP):
            loss = ours()
        for name, side in peers.items():
            for _ in range(STEPS + (0 if name == GRAPH else WARM_UP)):
                other = side.run()
            torch.testing.assert_close(loss, other, rtol=1e-3, atol=0.0)

    return Contest(Side(ours), peers, check, absent=absent, more={"batch": rows})


def training_step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> Callable[[], Tensor]:
    """One eager step; returns the loss before it."""

    def run() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return run


def one_cycle(optimizer: torch.optim.Optimizer, total: int) -> Any:
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=total, cycle_momentum=False)


def torch_eager(model: nn.Module, x: Tensor, y: Tensor, total: int) -> Side:
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, fused=True)
    step, scheduler = training_step(model, optimizer, x, y), one_cycle(optimizer, total)

    def run() -> Tensor:
        loss = step()
        scheduler.step()
        return loss

    return Side(run)


def torch_graph(session: Session, model: nn.Module, x: Tensor, y: Tensor, total: int) -> Side:
    lr = torch.tensor(LR, device=session.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, fused=True, **capturable(session))
    places = x.clone(), y.clone()  # what the graph reads; a batch is copied there, as ours does
    step, scheduler = training_step(model, optimizer, *places), one_cycle(optimizer, total)
    loss = torch.zeros((), device=session.device)
    replay = session.graph(lambda: loss.copy_(step()), scheduler.step, WARM_UP)

    def run() -> Tensor:
        for place, value in zip(places, (x, y), strict=True):
            place.copy_(value)
        replay()
        return loss

    return Side(run)


def rows() -> Iterator[Row]:
    """All rows of this file."""
    for average in (True, False):
        what, key = ("clip + AdamW + EMA", "amp-ema") if average else ("clip + AdamW", "amp")
        for words, module, suffix in (
            ("thalweg.amp.GradScaler", "thalweg.amp", ""),
            ("torch's GradScaler", "torch.amp", "-torch-scaler"),
        ):
            yield Row(
                key + suffix, f"{words} + {what}", f"GPT-2 small, {sum(GPT2) / 1e6:.0f} M",
                lambda s, m=module, a=average: amp(s, m, a),
            )  # fmt: skip
    yield Row("training-step", "training step with 1cycle, captured", "small CNN, batch 256", captured_training)

"""GPU rows of the optimizer step: large and small tensors, odd sizes, many groups, graphs, every optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

import thalweg as tw
from gpu_measure import Session
from gpu_optim import (
    ForeachLion,
    Probe,
    capturable,
    in_groups,
    other_adamw,
    parameters,
    stepping,
)
from gpu_rows import Contest, Row, Side, build_peers, construct, need
from gpu_targets import REGISTRY
from peers import (
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

MI = 1 << 20
LARGE, SMALL, TINY = [16 * MI] * 10, [1024] * 1000, [64] * 10_000
TENSOR_LR, CONSTANT = "torch fused, tensor lr, graph + scheduler", "thalweg, constant lr, graph"
STEPS = 3  # before results are compared


def contest(
    session: Session, name: str, core_name: str, sizes: Sequence[int], peers: Mapping[str, Make], **options: Any
) -> Contest:
    """One eager step of ours against peers, after STEPS steps that lead everybody to the same float64 values."""
    sizes = session.sizes(sizes)
    mine = parameters(session, sizes)
    probe = Probe(mine, whole=two_phase(core_name))
    ours = construct(need("thalweg.optim", name), mine, lr=LR, **options)
    theirs: dict[str, list[nn.Parameter]] = {}

    def build(peer: str, make: Make) -> Side:
        params = parameters(session, sizes)
        side = stepping(make(params))
        theirs[peer] = params
        return side

    sides, absent = build_peers({peer: lambda p=peer, m=make: build(p, m) for peer, make in peers.items()})
    for _ in range(STEPS):
        ours.step()

    def check() -> None:
        probe.check(mine, core_name, STEPS, **options)
        for peer, params in theirs.items():
            for _ in range(STEPS):
                for p, q in zip(params, mine, strict=True):
                    p.grad.copy_(q.grad)  # some peers write to it
                sides[peer].run()
            same(mine, params)

    return Contest(stepping(ours), sides, check, bytes_per_step(ours), absent, {"elements": sum(sizes)})


def torch_contest(session: Session, name: str, sizes: Sequence[int], **options: Any) -> Contest:
    """Against torch's class of the same name, with the same options."""
    peers = torch_forms(getattr(torch.optim, name), {"lr": LR, **options})
    return contest(session, name, name.lower(), sizes, peers, **options)


def adamw_large(session: Session) -> Contest:
    peers = torch_forms(torch.optim.AdamW, {"lr": LR})
    if session.cuda:
        peers["torch capturable"] = lambda params: torch.optim.AdamW(params, lr=LR, **capturable(session))
    return contest(session, "AdamW", "adamw", LARGE, {**peers, **other_adamw()})


def new_addresses(session: Session) -> Contest:
    """Gradients that stand elsewhere at every step, as after zero_grad(set_to_none=True); both sides pay the exchange."""
    built = torch_contest(session, "AdamW", SMALL)
    return Contest(
        Side(_exchanging(session, built.ours)),
        {name: Side(_exchanging(session, side)) for name, side in built.peers.items()},
        built.check,
        built.bytes,
        built.absent,
        built.more,
    )


def _exchanging(session: Session, side: Side) -> Callable[[], None]:
    optimizer = side.run.__self__  # type: ignore[attr-defined]  # a bound step
    params = [p for group in optimizer.param_groups for p in group["params"]]
    here = [p.grad for p in params]
    there = [grad.clone() for grad in here]

    def run() -> None:
        nonlocal here, there
        here, there = there, here
        for p, grad in zip(params, here, strict=True):
            p.grad = grad
        optimizer.step()

    return run


def scheduled_graph(session: Session, sizes: Sequence[int]) -> Contest:
    """A replayed step with the schedule inside; torch needs its scheduler between the replays."""
    sizes = session.sizes(sizes)
    schedule = tw.schedules.sgdr(LR, t_0=10)  # changes at every step, for ever
    replays, warm_up = 3, 3
    mine, fixed, theirs = (parameters(session, sizes) for _ in range(3))
    probe = Probe(mine)
    ours = construct(need("thalweg.optim", "AdamW"), mine, lr=schedule)
    replay = session.graph(ours.step, warm_up=warm_up)

    def constant() -> Side:
        return Side(session.graph(tw.optim.AdamW(fixed, lr=LR).step, warm_up=warm_up))

    def torchs() -> Side:
        lr = torch.tensor(LR, device=session.device)
        peer = torch.optim.AdamW(theirs, lr=lr, fused=True, **capturable(session))
        scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(peer, T_0=10)
        return Side(session.graph(peer.step, scheduler.step, warm_up))

    peers, absent = build_peers({TENSOR_LR: torchs, CONSTANT: constant})

    def check() -> None:
        for _ in range(replays):
            replay()
            for side in peers.values():
                side.run()
        probe.check(mine, "adamw", warm_up + replays, schedule)
        if CONSTANT in peers:
            probe.check(fixed, "adamw", warm_up + replays)
        if TENSOR_LR in peers:
            same(mine, theirs)
        if hasattr(ours, "sync"):
            ours.sync()
        assert ours.schedule_step == warm_up + replays, ours.schedule_step
        assert ours.param_groups[0]["lr"] == schedule(warm_up + replays), ours.param_groups[0]["lr"]

    return Contest(Side(replay), peers, check, bytes_per_step(ours), absent, {"elements": sum(sizes)})


def odd_sizes(session: Session) -> Contest:
    """Tensors whose number of elements is no multiple of 4, against aligned ones; torch's loss beside it."""
    odd, aligned = [MI + 1] * 200, [MI] * 200
    built = contest(session, "AdamW", "adamw", odd, {FUSED: torch_forms(torch.optim.AdamW, {"lr": LR})[FUSED]})
    params = parameters(session, session.sizes(aligned))
    even = construct(tw.optim.AdamW, params, lr=LR)
    own_probe, check = Probe(params), built.check

    def check_both() -> None:
        check()
        for _ in range(STEPS):
            even.step()
        own_probe.check(params, "adamw", STEPS)

    theirs = parameters(session, session.sizes(aligned))
    built.peers["thalweg, aligned sizes"] = stepping(even)
    built.peers["torch fused, aligned sizes"] = stepping(torch.optim.AdamW(theirs, lr=LR, fused=True))
    built.check = check_both
    return built


def many_groups(session: Session) -> Contest:
    """465 param groups of one tensor each, against one group."""
    sizes = session.sizes([64 * 1024] * 465)
    grouped, single, theirs = (parameters(session, sizes) for _ in range(3))
    decay = lambda i: 0.01 if i % 2 == 0 else 0.02  # noqa: E731  # the probed tensors have even numbers
    probe = Probe(grouped)
    ours = construct(need("thalweg.optim", "AdamW"), in_groups(grouped, decay), lr=LR)
    one = tw.optim.AdamW(single, lr=LR, weight_decay=0.01)
    peer = torch.optim.AdamW(in_groups(theirs, decay), lr=LR, fused=True)

    for _ in range(STEPS):
        for optimizer in (ours, one, peer):
            optimizer.step()

    def check() -> None:
        probe.check(grouped, "adamw", STEPS, weight_decay=0.01)
        probe.check(single, "adamw", STEPS, weight_decay=0.01)
        same(grouped, theirs)

    return Contest(
        stepping(ours),
        {"thalweg, one group": stepping(one), "torch fused, 465 groups": stepping(peer)},
        check,
        bytes_per_step(ours),
        more={"elements": sum(sizes)},
    )


def registered(session: Session, core_name: str, cls: type[tw.optim.FusedOptimizer]) -> Contest:
    """An optimizer of the registry, against torch's forms of it and other packages' classes, where they are installed."""
    options = OPTIONS.get(core_name, {})
    peers: dict[str, Make] = {peer.package: peer.build for peer in PEERS.get(core_name, ())}
    if cls is tw.optim.Lion:
        defaults = cls([nn.Parameter(torch.ones(1))]).defaults
        lion = {key: defaults[key] for key in ("betas", "weight_decay")}
        peers = {FOREACH: lambda params: ForeachLion(params, LR, **lion), **peers}
    forms = (FOREACH,) if core_name == "adagrad" and session.cuda else (FUSED, FOREACH)  # torch fuses it on CPUs alone
    peers = {**torch_forms(cls.torch_class, {"lr": LR, **options}, forms), **peers}
    return contest(session, cls.__name__, core_name, LARGE, peers, **options)


def rows() -> Iterator[Row]:
    """All rows of this file."""
    yield Row("adamw-large", "AdamW step", "10 x 16 Mi", adamw_large)
    yield Row("sgd-large", "SGD momentum step", "10 x 16 Mi", lambda s: torch_contest(s, "SGD", LARGE, momentum=0.9))
    yield Row("adamw-small", "AdamW step", "1,000 x 1,024", lambda s: torch_contest(s, "AdamW", SMALL))
    yield Row("adamw-small-moving", "AdamW step, gradients at new addresses", "1,000 x 1,024", new_addresses)
    yield Row(
        "adamw-small-graph", "AdamW graph replay + schedule", "1,000 x 1,024", lambda s: scheduled_graph(s, SMALL)
    )
    yield Row("adamw-tiny", "AdamW step", "10,000 x 64", lambda s: torch_contest(s, "AdamW", TINY))
    yield Row("adamw-tiny-graph", "AdamW graph replay + schedule", "10,000 x 64", lambda s: scheduled_graph(s, TINY))
    yield Row("odd-sizes", "AdamW step, odd sizes", "200 x (1 Mi + 1)", odd_sizes)
    yield Row("many-groups", "AdamW step, one group per tensor", "465 x 64 Ki", many_groups)
    for core_name, cls in core_optimizers():
        if core_name not in ("sgd", "adam", "adamw"):
            yield Row(REGISTRY, f"{cls.__name__} step", "10 x 16 Mi", lambda s, n=core_name, c=cls: registered(s, n, c))

"""GPU rows of the ensembles: members that predict together against a loop, a snapshot to disk against a deep copy."""

from __future__ import annotations

import copy
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

import thalweg as tw
from gpu_measure import Session, precision
from gpu_nets import small_cnn
from gpu_rows import Contest, Row, Side
from gpu_targets import DEEPCOPY, MODELS
from landscape_nets import mlp

MEMBERS = 8


def forward(session: Session, build: Callable[[], nn.Module], shape: tuple[int, ...]) -> Contest:
    """The mean of 8 members' probabilities for one batch."""
    torch.manual_seed(0)
    models = [build().to(session.device).eval() for _ in range(MEMBERS)]
    ensemble = tw.ensemble.Ensemble(models[0], [model.state_dict() for model in models])
    x = torch.randn(session.number(256, 8), *shape, device=session.device)

    def together() -> Tensor:
        with torch.inference_mode():
            out: Tensor = ensemble(x)
            return out

    def loop() -> Tensor:
        with torch.inference_mode():
            return torch.stack([model(x).softmax(1) for model in models]).mean(0)

    def check() -> None:
        wide = [copy.deepcopy(model).double() for model in models]
        with torch.inference_mode():
            expected = torch.stack([model(x.double()).softmax(1) for model in wide]).mean(0)
        with precision(session, "fp32"):  # what is timed uses torch's defaults, on both sides
            for found in (together(), loop()):
                torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6)

    return Contest(Side(together), {MODELS: Side(loop)}, check, more={"members": MEMBERS, "batch": len(x)})


def snapshot(session: Session) -> Contest:
    """How long the stream of the training stands still while a checked file is written, against a copy in memory."""
    torch.manual_seed(0)
    width = session.number(1024, 8)
    model = nn.Sequential(*[nn.Linear(width, width) for _ in range(24)]).to(session.device)
    optimizer = tw.optim.SGD(model.parameters(), lr=0.1)
    folder = tempfile.mkdtemp()
    store = tw.ensemble.Disk(folder, keep_last=1)
    collector = tw.ensemble.SnapshotCollector(model, optimizer, store=store, when="manual")
    weakref.finalize(collector, shutil.rmtree, folder)

    def check() -> None:
        collector.take()
        (member,) = collector.snapshots
        state = member.state
        for name, value in model.state_dict().items():
            assert torch.equal(state[name].cpu(), value.cpu()), name

    elements = sum(p.numel() for p in model.parameters())
    peers = {DEEPCOPY: Side(lambda: copy.deepcopy(model))}
    return Contest(Side(collector.take), peers, check, more={"elements": elements}, rounds=5)


def rows() -> Iterator[Row]:
    """All rows of this file."""
    for key, what, build, shape in (("mlp", "MLP", mlp, (784,)), ("cnn", "small CNN", small_cnn, (3, 32, 32))):
        yield Row(
            f"ensemble-{key}", f"ensemble of {MEMBERS}, forward", f"{what}, batch 256",
            lambda s, b=build, x=shape: forward(s, b, x),
        )  # fmt: skip
    yield Row("snapshot", "snapshot to disk: stall of the stream", "25 M, 48 tensors", snapshot)

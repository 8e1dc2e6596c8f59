"""`thalweg info`: versions, instruction sets, CUDA, and a self-check."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
from typing import Any

import torch

from .. import _core

_OPTIONAL = ("matplotlib", "plotly", "scikit-learn")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `info`."""
    parser = subparsers.add_parser("info", help="what this installation and machine have")
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    parser.add_argument("--check", action="store_true", help="also run one real optimizer step and compare with torch")
    parser.set_defaults(run=run)


def collect() -> dict[str, Any]:
    """Everything `thalweg info` prints."""
    return {
        "thalweg": _core.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "openmp": _core.openmp_compiled(),
        "cpu_isa": {
            "active": _core.isa_active(),
            "supported": _core.isa_supported(),
            "compiled": _core.isa_compiled(),
        },
        "cuda": _core.cuda_info(),
        "optimizers": sorted(_core.optimizers()),
        "optional": {name: _version(name) for name in _OPTIONAL},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def self_check() -> float:
    """Largest difference between ten AdamW steps of thalweg and of torch on one random tensor."""
    from ..optim import AdamW

    generator = torch.Generator().manual_seed(0)
    start = torch.randn(1000, generator=generator)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    a, b = AdamW([ours], lr=0.01), torch.optim.AdamW([theirs], lr=0.01)
    for _ in range(10):
        ours.grad = torch.randn(1000, generator=generator)
        theirs.grad = ours.grad.clone()
        a.step()
        b.step()
    return float((ours - theirs).detach().abs().max())


def run(args: argparse.Namespace) -> int:
    """Print the information; exit code 1 when the self-check fails."""
    info = collect()
    ok = True
    if args.check:
        difference = self_check()
        ok = difference < 1e-6
        info["check"] = {"ok": ok, "max_difference_to_torch": difference}
    if args.json:
        print(json.dumps(info, indent=2))
        return 0 if ok else 1
    isa, cuda = info["cpu_isa"], info["cuda"]
    cuda_line = f"{cuda['device_count']} device(s), runtime {cuda['runtime_version']}, driver {cuda['driver_version']}"
    lines = {
        "thalweg": info["thalweg"],
        "Python": info["python"],
        "torch": f"{info['torch']}, {info['threads']} thread(s)",
        "platform": info["platform"],
        "CPU": f"{isa['active']} in use; this machine can run {', '.join(isa['supported'])}",
        "OpenMP": "yes" if info["openmp"] else "no",
        "CUDA": (cuda_line if cuda["compiled"] else "not built") + (f" ({cuda['detail']})" if cuda["detail"] else ""),
        "optimizers": ", ".join(info["optimizers"]),
        **{name: version or "not installed" for name, version in info["optional"].items()},
    }
    if args.check:
        check = info["check"]
        lines["check"] = f"{'ok' if ok else 'FAILED'}: AdamW is within {check['max_difference_to_torch']:.1e} of torch"
    width = max(map(len, lines))
    for name, value in lines.items():
        print(f"{name:<{width}}  {value}")
    return 0 if ok else 1

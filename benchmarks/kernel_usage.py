"""What every CUDA kernel needs on a multiprocessor: registers, shared memory, stack, spills; exit status 1 on a spill.

Each .cu is compiled again with the very flags of a configured build (compile_commands.json) and ptxas asked to say what
it did: the finished module knows its stack, but not how much of it is spilled registers.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

COMPILED = re.compile(r"ptxas info\s*: Compiling entry function '(?P<symbol>\w+)' for '(?P<arch>\w+)'")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"ptxas info\s*: Used (\d+) registers(.*)")
SHARED = re.compile(r"(\d+) bytes smem")


@dataclass(frozen=True)
class Usage:
    """One kernel on one architecture; bytes, but for the registers of a thread."""

    kernel: str
    arch: str
    registers: int
    shared: int
    stack: int
    spill_stores: int
    spill_loads: int


def parse(text: str) -> list[Usage]:
    """Read what `ptxas -v` says about entry functions; functions that a kernel calls are not kernels."""
    found: list[Usage] = []
    parts = COMPILED.split(text)  # before, symbol, arch, text, symbol, arch, text, ...
    for symbol, arch, rest in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        # ptxas describes the functions that the kernel calls too; the kernel's own properties come first.
        stack, used = STACK.search(rest), USED.search(rest)
        if stack is None or used is None:
            raise ValueError(f"kernel_usage: ptxas did not describe {symbol} as expected, got:\n{rest}")
        shared = SHARED.search(used.group(2))
        frame, stores, loads = (int(n) for n in stack.groups())
        found.append(
            Usage(symbol, arch, int(used.group(1)), int(shared.group(1)) if shared else 0, frame, stores, loads)
        )
    return found


def readable(symbols: list[str]) -> list[str]:
    """C++ names without namespaces and parameters; the symbols themselves where c++filt is not installed."""
    if shutil.which("c++filt") is None or not symbols:
        return symbols
    done = subprocess.run(["c++filt"], input="\n".join(symbols), capture_output=True, text=True, check=True)
    names = [re.sub(r"\(anonymous namespace\)::|thalweg::(cuda::)?", "", name) for name in done.stdout.splitlines()]
    return [re.sub(r"^void |\(.*$", "", name) for name in names]


def compile_again(entry: dict[str, str], folder: Path) -> str:
    """What ptxas says about one .cu; `entry` is its element of compile_commands.json."""
    command = shlex.split(entry["command"])
    command[command.index("-o") + 1] = str(folder / (Path(entry["file"]).name + ".o"))
    done = subprocess.run([*command, "-Xptxas=-v"], cwd=entry["directory"], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"kernel_usage: {entry['file']} does not compile:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def usage_of(build: Path) -> list[Usage]:
    """All kernels of a configured build folder."""
    entries = json.loads((build / "compile_commands.json").read_text())
    sources = [entry for entry in entries if entry["file"].endswith(".cu") and "nvcc" in entry["command"].split()[0]]
    if not sources:
        raise ValueError(f"kernel_usage: no .cu is compiled by nvcc in {build}; configure it with -DTHALWEG_CUDA=ON")
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        found = [u for text in pool.map(lambda e: compile_again(e, Path(folder)), sources) for u in parse(text)]
    names = readable([usage.kernel for usage in found])
    return sorted((Usage(name, *list(vars(u).values())[1:]) for name, u in zip(names, found, strict=True)), key=str)


def table(usages: list[Usage]) -> str:
    """One line per kernel and architecture."""
    lines = [f"{'registers':>9} {'shared':>7} {'stack':>6} {'spill st':>8} {'spill ld':>8}  kernel"]
    lines += [
        f"{u.registers:>9} {u.shared:>7} {u.stack:>6} {u.spill_stores:>8} {u.spill_loads:>8}  {u.kernel} ({u.arch})"
        for u in usages
    ]
    return "\n".join(lines)


def main() -> int:
    """Print the table of the build folder that is named; 1 if a kernel spills."""
    if len(sys.argv) != 2:
        print("kernel_usage: expected one argument, a build folder configured with nvcc", file=sys.stderr)
        return 2
    usages = usage_of(Path(sys.argv[1]))
    print(table(usages))
    spilling = [u.kernel for u in usages if u.spill_stores or u.spill_loads]
    if spilling:
        print(f"kernel_usage: registers are spilled by {', '.join(spilling)}", file=sys.stderr)
    return int(bool(spilling))


if __name__ == "__main__":
    sys.exit(main())

"""The layers of DESIGN as a test: who may include and import whom."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CPP = ROOT / "cpp"
PACKAGE = ROOT / "python" / "thalweg"

# Python layers, lowest first; a module imports its own layer and those below. Helpers (_check …) are below all.
LAYERS = [
    {"_core", "_check", "_extras", "_assets", "_data", "_files", "_preserve", "_criterion", "_capture", "_testing"},
    {"schedules"},
    {"lr_scheduler", "optim"},
    {
        "amp",
        "graphs",
        "lr_range",
        "_lr_range_analysis",
        "_lr_range_curve",
        "_lr_range_forms",
        "_lr_range_ramp",
        "_lr_range_read",
        "_lr_range_record",
        "_lr_range_result",
        "_lr_range_rules",
        "_lr_range_run",
        "_lr_range_state",
        "ensemble",
        "landscape",
    },
    {"plot", "report"},
    {"demo"},
    {"cli", "__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def includes(path: Path) -> list[str]:
    return re.findall(r'^\s*#include\s+[<"]([^>"]+)[>"]', path.read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize(
    "path", sorted(CPP.rglob("*.[ch]pp")) + sorted(CPP.rglob("*.cu*")), ids=lambda p: str(p.relative_to(CPP))
)
def test_cpp_includes(path: Path) -> None:
    folder = path.relative_to(CPP).parts[0]
    for name in includes(path):
        about = f"{path.relative_to(ROOT)} includes {name}"
        if folder == "include":
            assert not re.match(r"(Python\.h|pybind11|torch|ATen|omp\.h|cuda|cub/)", name), about
        if folder in ("cpu", "cuda"):
            assert not re.match(r"(pybind11|Python\.h|torch)", name), about
            assert not name.startswith(("../cpu", "../cuda")), about
        if folder == "cpu":
            assert not name.startswith("cuda"), about
        if folder == "bindings":
            assert "cpu/" not in name, about
            assert "cuda/" not in name, about
            assert not name.startswith("cuda"), about


def imported(path: Path) -> set[str]:
    """First parts of thalweg's own modules that are imported at module level (TYPE_CHECKING blocks aside)."""
    tree = ast.parse(path.read_text())
    depth = len(path.relative_to(PACKAGE).parts)
    found = set()
    for node in tree.body:
        for inner in [node] if not isinstance(node, (ast.Try, ast.With)) else ast.walk(node):
            if isinstance(inner, ast.ImportFrom) and inner.level >= depth:
                names = [inner.module] if inner.module else [alias.name for alias in inner.names]
                found |= {name.partition(".")[0] for name in names}
            if isinstance(inner, ast.ImportFrom) and (inner.module or "").startswith("thalweg."):
                found.add(inner.module.split(".")[1])
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_python_imports(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own == "__init__":
        return
    assert own in LEVEL, f"{own} has no layer: give it one in this test and in the design"
    for name in imported(path):
        if name not in (own, "__version__"):
            assert LEVEL[name] <= LEVEL[own], f"{path.relative_to(ROOT)} imports {name}, a layer above"


def test_files_say_what_they_are_and_stay_short() -> None:
    """Every source file begins with what it is; files over 300 lines say why there."""
    for path in [*CPP.rglob("*.[ch]pp"), *CPP.rglob("*.cu"), *PACKAGE.rglob("*.py")]:
        text = path.read_text()
        assert text.startswith(("//", '"""')), f"{path.relative_to(ROOT)} does not begin with what it is"
        lines = text.count("\n")
        assert lines <= 300 or "lines because" in text[:2000], f"{path.relative_to(ROOT)} has {lines} lines"


def test_every_public_name_has_a_docstring_with_an_example() -> None:
    import inspect

    import thalweg as tw

    missing = []
    for module in (tw.schedules, tw.optim, tw.amp, tw.graphs, tw.lr_scheduler, tw.ensemble, tw.landscape, tw):
        for name, value in vars(module).items():
            if name not in getattr(module, "__all__", [name]):
                continue
            if name.startswith("_") or not (inspect.isfunction(value) or inspect.isclass(value)):
                continue
            if not (value.__module__ or "").startswith("thalweg") or value.__module__.endswith("_core"):
                continue
            doc = inspect.getdoc(value) or ""
            if not doc.strip():
                missing.append(f"{module.__name__}.{name}: no docstring")
            elif inspect.isfunction(value) and name not in ("project", "build", "rate", "rates") and ">>>" not in doc:
                missing.append(f"{module.__name__}.{name}: no example")
    assert not missing, "\n".join(missing)

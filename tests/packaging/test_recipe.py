"""The recipe of CONTRIBUTING.md, followed to the letter on a copy of the tree: it builds and passes the parity battery."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STEP = re.compile(r"^`([\w/.]+)`, (new|changed|at the end):\n\n```\w+\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])  # pip's cmake stands there
# An editable installation finds its own thalweg before any path is asked.
RUNNER = """
import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in type(finder).__module__]
import pytest, thalweg
assert thalweg.__file__.startswith(sys.argv[1]), thalweg.__file__
sys.exit(pytest.main(sys.argv[2:]))
"""


def follow(text: str, tree: Path) -> list[str]:
    """Do every edit of the recipe in `tree`; the files that were touched."""
    steps = STEP.findall(text)
    for name, kind, code in steps:
        path = tree / name
        if kind == "new":
            assert not path.exists(), f"{name} is there already"
            path.write_text(code)
        elif kind == "at the end":
            path.write_text(path.read_text() + "\n\n" + code)
        else:
            for hunk in code.split("@@\n"):
                lines = hunk.splitlines()
                old, new = ("\n".join(line[1:] for line in lines if line[0] in signs) for signs in (" -", " +"))
                assert path.read_text().count(old) == 1, f"{name} has not exactly one place like\n{old}"
                path.write_text(path.read_text().replace(old, new))
    return [name for name, _, _ in steps]


def missing() -> list[str]:
    tools = [name for name in ("cmake", "ninja", "c++") if shutil.which(name, path=PATH) is None]
    return tools + [name for name in ("pybind11",) if importlib.util.find_spec(name) is None]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what the build and the tests read."""
    for name in ("cpp", "python", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for name in ("CMakeLists.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def run(*command: str, tree: Path) -> str:
    env = {key: value for key, value in os.environ.items() if key != "THALWEG_TEST_MODULES"}
    env |= {"PATH": PATH, "PYTHONPATH": os.pathsep.join([str(tree / "python"), env.get("PYTHONPATH", "")])}
    done = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.subprocess
@pytest.mark.skipif(bool(missing()), reason=f"building needs {', '.join(missing())}")
def test_the_recipe_builds_and_passes_the_battery(tree: Path) -> None:
    touched = follow((ROOT / "CONTRIBUTING.md").read_text(), tree)
    assert len(touched) == 5, touched
    # The other optimizers are compiled by other tests; without them this takes a third of the time.
    registry = tree / "cpp/include/thalweg/optimizers/registry.hpp"
    text, count = re.subn(r"(TypeList<Sgd, Signum)\b[^>]*>;", r"\1>;", registry.read_text())
    assert count == 1
    registry.write_text(text)

    pybind11 = run(sys.executable, "-m", "pybind11", "--cmakedir", tree=tree).strip()
    run(
        "cmake", "-B", "build", "-G", "Ninja", "-DTHALWEG_CUDA=OFF", "-DTHALWEG_INPLACE=ON", "-DTHALWEG_WERROR=ON",
        f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11}", tree=tree,
    )  # fmt: skip
    run("cmake", "--build", "build", "--parallel", "2", "--target", "_core", tree=tree)
    battery = sorted(str(path) for path in (tree / "tests/parity").glob("test_optimizers*.py"))
    passed = run(
        sys.executable, "-c", RUNNER, str(tree), "-q", "-x", "-p", "no:cacheprovider", "-k", "signum",
        "python/thalweg/optim/signum.py", *battery, tree=tree,
    )  # fmt: skip
    found = re.search(r"(\d+) passed", passed)
    assert found is not None, passed
    assert int(found[1]) > 50, f"expected the whole battery, got\n{passed}"


@pytest.mark.parametrize(
    "edit", ["`a.txt`, changed:\n\n```diff\n-two\n+three\n```\n", "`a.txt`, new:\n\n```cpp\nx\n```\n"]
)
def test_a_recipe_that_has_fallen_behind_is_seen(tmp_path: Path, edit: str) -> None:
    (tmp_path / "a.txt").write_text("one\n")
    with pytest.raises(AssertionError, match=r"a\.txt"):
        follow(edit, tmp_path)

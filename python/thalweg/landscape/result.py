"""Results of the evaluator: values with coordinates and conditions, saved as .npz with JSON metadata."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from .. import _check
from .directions import Directions
from .planes import project
from .trajectory import Trajectory

if TYPE_CHECKING:
    from ..plot.landscape import LinePlots, SurfacePlots

FORMAT = 1
Array = npt.NDArray[np.float64]


@dataclass
class Points:
    """Values at a list of coordinates.

    Attributes:
        coordinates: [points, directions].
        values: Per metric one array [points], float64.
        metadata: Conditions: directions, hash of the weights, samples, batches, threads, versions.
        timings: Seconds; kept apart, because they differ from run to run.
    """

    coordinates: Array
    values: dict[str, Array]
    metadata: dict[str, Any]
    timings: dict[str, float] = field(default_factory=dict)


@dataclass
class Line:
    """Values along a line.

    Attributes:
        alphas: [n] coordinates.
        values: Per metric one array [n], float64.
        metadata: Conditions, as of `Points`.
        timings: Seconds.
    """

    alphas: Array
    values: dict[str, Array]
    metadata: dict[str, Any]
    timings: dict[str, float] = field(default_factory=dict)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a .npz file, whole or not at all; `load` reads it."""
        return _save(path, "line", {"alphas": self.alphas}, self)

    @property
    def plot(self) -> LinePlots:
        """Figures: `line.plot(ax=None, metric="loss")`."""
        from ..plot.landscape import LinePlots  # above this layer

        return LinePlots(self)


@dataclass
class Surface:
    """Values on a grid; rows are y, columns are x.

    Attributes:
        x: [nx] coordinates along the first direction.
        y: [ny] coordinates along the second direction.
        values: Per metric one array [ny, nx], float64; NaN and infinity stay as they came.
        metadata: Conditions: directions, hash of the weights, samples, batches, threads, versions.
        timings: Seconds.
        directions: The directions, None after loading from a file.
        origin: The weights at (0, 0), None after loading from a file.
    """

    x: Array
    y: Array
    values: dict[str, Array]
    metadata: dict[str, Any]
    timings: dict[str, float] = field(default_factory=dict)
    directions: Directions | None = None
    origin: tuple[Tensor, ...] | None = None

    def minimum(self, metric: str = "loss") -> tuple[float, float, float]:
        """(x, y, value) of the smallest finite value on the grid."""
        values = self.metric(metric)
        if not np.isfinite(values).any():
            raise ValueError(f"Surface.minimum: {metric} has no finite value")
        row, column = np.unravel_index(np.nanargmin(np.where(np.isfinite(values), values, np.nan)), values.shape)
        return float(self.x[column]), float(self.y[row]), float(values[row, column])

    def metric(self, name: str) -> Array:
        """The values of a metric, by name."""
        if name not in self.values:
            raise ValueError(f"Surface: metric must be one of {', '.join(self.values)}, got {_check.describe(name)}")
        return self.values[name]

    def project(self, trajectory: Trajectory) -> tuple[Array, Array]:
        """Coordinates [points, 2] of a trajectory in the plane, and distances [points] from it.

        Raises:
            ValueError: The surface came from a file, without its directions.
        """
        if self.directions is None or self.origin is None:
            raise ValueError("Surface.project: a surface from a file has no directions; project before saving")
        states = [list(point.values()) for point in trajectory.points]
        coordinates, distances = project(self.directions, self.origin, states)
        return coordinates.numpy(), distances.numpy()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a .npz file with JSON metadata, whole or not at all; `load` reads it."""
        return _save(path, "surface", {"x": self.x, "y": self.y}, self)

    @property
    def plot(self) -> SurfacePlots:
        """Figures: `plot.contour()`, `plot.heatmap()`, `plot.surface()`."""
        from ..plot.landscape import SurfacePlots  # above this layer

        return SurfacePlots(self)

    def to_html(self, path: str | os.PathLike[str], metric: str = "loss") -> Path:
        """Write one self-contained interactive page (plotly)."""
        return self.plot.html(path, metric)


def _save(path: str | os.PathLike[str], kind: str, arrays: Mapping[str, Array], result: Line | Surface) -> Path:
    """Write to a temporary name beside the target and rename."""
    target = Path(path)
    if target.suffix != ".npz":
        raise ValueError(f"{type(result).__name__}.save: path must end in .npz, got {target.name!r}")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{type(result).__name__}.save: no directory {target.parent}")
    header = {"format": FORMAT, "kind": kind, "metadata": result.metadata, "timings": result.timings}
    payload = {f"values/{name}": array for name, array in result.values.items()}
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **arrays, **payload, header=np.array(json.dumps(header)))  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return target


def load(path: str | os.PathLike[str]) -> Line | Surface:
    """Read a Line or Surface from a .npz file; never unpickles.

    Args:
        path: A file of `Line.save` or `Surface.save`.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Damaged, or not written by thalweg.

    Example:
        >>> import tempfile, numpy as np, thalweg as tw
        >>> line = tw.landscape.Line(np.arange(3.0), {"loss": np.ones(3)}, {})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     tw.landscape.load(line.save(folder + "/line.npz")).alphas
        array([0., 1., 2.])
    """
    try:
        with Path(path).open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            header = json.loads(str(file["header"]))
            arrays = {name: file[name] for name in file.files if name != "header"}
        if header["format"] != FORMAT:
            raise ValueError(f"expected format {FORMAT}, got {header['format']}")
        values = {n.removeprefix("values/"): a for n, a in arrays.items() if n.startswith("values/")}
        if header["kind"] == "line":
            return Line(arrays["alphas"], values, header["metadata"], header["timings"])
        return Surface(arrays["x"], arrays["y"], values, header["metadata"], header["timings"])
    except (KeyError, ValueError, zipfile.BadZipFile, EOFError, TypeError) as error:
        raise ValueError(f"landscape.load: {path} is not a landscape of thalweg, or is damaged: {error}") from None

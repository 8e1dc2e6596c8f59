"""Results of the evaluator: values with coordinates and conditions, saved as .npz with JSON metadata."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from .. import _check
from .._files import write_whole
from ._hdf5 import SUFFIXES, read_values, write_values
from ._refine import filled
from .directions import Directions
from .planes import project
from .trajectory import Trajectory

if TYPE_CHECKING:
    from ..plot.landscape import LinePlots, SurfacePlots, VolumePlots

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

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a .npz file with JSON metadata, whole or not at all; `load` reads it."""
        return _save(path, "points", {"coordinates": self.coordinates}, self)


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

    def to_hdf5(self, path: str | os.PathLike[str]) -> Path:
        """Write an HDF5 file in the layout of Li et al.'s code, whole or not at all; `load` reads it. Needs h5py."""
        return write_values("Line.to_hdf5", path, [self.alphas], self.values, self.metadata, self.timings)

    def metric(self, name: str) -> Array:
        """The values of a metric, by name."""
        return _metric(self, name)

    def minimum(self, metric: str = "loss") -> tuple[float, float]:
        """(alpha, value) of the smallest finite value on the line."""
        place = _smallest("Line", metric, self.metric(metric))
        return float(self.alphas[place]), float(self.metric(metric)[place])

    def to_html(self, path: str | os.PathLike[str]) -> Path:
        """Write one self-contained interactive page (plotly), with a choice of the metric."""
        return self.plot.html(path)


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
        evaluated: [ny, nx] which points were evaluated, the others being NaN; None: all.
    """

    x: Array
    y: Array
    values: dict[str, Array]
    metadata: dict[str, Any]
    timings: dict[str, float] = field(default_factory=dict)
    directions: Directions | None = None
    origin: tuple[Tensor, ...] | None = None
    evaluated: npt.NDArray[np.bool_] | None = None

    def filled(self, metric: str = "loss") -> Array:
        """The values [ny, nx] of a metric, with those that were not evaluated interpolated from around them."""
        values = self.metric(metric)
        return values.copy() if self.evaluated is None else filled(values, self.evaluated)

    def minimum(self, metric: str = "loss") -> tuple[float, float, float]:
        """(x, y, value) of the smallest finite value on the grid."""
        values = self.metric(metric)
        row, column = np.unravel_index(_smallest("Surface", metric, values), values.shape)
        return float(self.x[column]), float(self.y[row]), float(values[row, column])

    def metric(self, name: str) -> Array:
        """The values of a metric, by name."""
        return _metric(self, name)

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
        mask = {} if self.evaluated is None else {"evaluated": self.evaluated}
        return _save(path, "surface", {"x": self.x, "y": self.y, **mask}, self)

    def to_hdf5(self, path: str | os.PathLike[str]) -> Path:
        """Write an HDF5 file in the layout of Li et al.'s code, whole or not at all; `load` reads it. Needs h5py.

        It has `xcoordinates`, `ycoordinates` and per metric an array [ny, nx]: `train_loss`, `train_acc` in percent, the
        others under their own names.
        """
        return write_values("Surface.to_hdf5", path, [self.x, self.y], self.values, self.metadata, self.timings)

    @property
    def plot(self) -> SurfacePlots:
        """Figures: `plot.contour()`, `plot.heatmap()`, `plot.surface()`."""
        from ..plot.landscape import SurfacePlots  # above this layer

        return SurfacePlots(self)

    def to_html(self, path: str | os.PathLike[str], metric: str = "loss") -> Path:
        """Write one self-contained interactive page (plotly): surface and contours, with a choice of the metric.

        Args:
            path: The file.
            metric: What is shown first.
        """
        return self.plot.html(path, metric)


@dataclass
class Volume:
    """Values on a grid along three directions; axes z, y, x.

    Attributes:
        x: [nx] coordinates along the first direction.
        y: [ny] coordinates along the second direction.
        z: [nz] coordinates along the third direction.
        values: Per metric one array [nz, ny, nx], float64; NaN and infinity stay as they came.
        metadata: Conditions, as of `Points`.
        timings: Seconds.
    """

    x: Array
    y: Array
    z: Array
    values: dict[str, Array]
    metadata: dict[str, Any]
    timings: dict[str, float] = field(default_factory=dict)

    @property
    def plot(self) -> VolumePlots:
        """Figures: `plot.slices()`."""
        from ..plot.landscape import VolumePlots  # above this layer

        return VolumePlots(self)

    def minimum(self, metric: str = "loss") -> tuple[float, float, float, float]:
        """(x, y, z, value) of the smallest finite value."""
        values = self.metric(metric)
        k, j, i = np.unravel_index(_smallest("Volume", metric, values), values.shape)
        return float(self.x[i]), float(self.y[j]), float(self.z[k]), float(values[k, j, i])

    def metric(self, name: str) -> Array:
        """The values of a metric, by name."""
        return _metric(self, name)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a .npz file with JSON metadata, whole or not at all; `load` reads it."""
        return _save(path, "volume", {"x": self.x, "y": self.y, "z": self.z}, self)


def _metric(result: Line | Surface | Volume, name: str) -> Array:
    if name not in result.values:
        kind, known = type(result).__name__, ", ".join(result.values)
        raise ValueError(f"{kind}: metric must be one of {known}, got {_check.describe(name)}")
    return result.values[name]


def _smallest(kind: str, metric: str, values: Array) -> int:
    finite = np.isfinite(values)
    if not finite.any():
        raise ValueError(f"{kind}.minimum: {metric} has no finite value")
    return int(np.argmin(np.where(finite, values, np.inf)))


def _save(
    path: str | os.PathLike[str],
    kind: str,
    arrays: Mapping[str, npt.NDArray[Any]],
    result: Points | Line | Surface | Volume,
) -> Path:
    who = f"{type(result).__name__}.save"
    if Path(path).suffix != ".npz":
        raise ValueError(f"{who}: path must end in .npz, got {Path(path).name!r}")
    header = {"format": FORMAT, "kind": kind, "metadata": result.metadata, "timings": result.timings}
    payload: dict[str, Any] = {f"values/{name}": array for name, array in result.values.items()}
    payload.update(arrays, header=np.array(json.dumps(header)))
    return write_whole(who, path, lambda file: np.savez(file, **payload))


def load(path: str | os.PathLike[str]) -> Points | Line | Surface | Volume:
    """Read Points, a Line, a Surface or a Volume from a .npz file, or a surface file of Li et al.'s code; never unpickles.

    Args:
        path: A file that their `save` or `to_hdf5` wrote, or an HDF5 file (.h5, .hdf5) of that code; what it has not
            evaluated is NaN, and its accuracies become shares.

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
    if Path(path).suffix in SUFFIXES:
        axes, found, metadata, timings = read_values(path)
        if len(axes) == 1:
            return Line(axes[0], found, metadata, timings)
        return Surface(axes[0], axes[1], found, metadata, timings)
    try:
        with Path(path).open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            header = json.loads(str(file["header"]))
            arrays = {name: file[name] for name in file.files if name != "header"}
        if header["format"] != FORMAT:
            raise ValueError(f"expected format {FORMAT}, got {header['format']}")
        values = {n.removeprefix("values/"): a for n, a in arrays.items() if n.startswith("values/")}
        rest = values, header["metadata"], header["timings"]
        if header["kind"] == "points":
            return Points(arrays["coordinates"], *rest)
        if header["kind"] == "line":
            return Line(arrays["alphas"], *rest)
        if header["kind"] == "volume":
            return Volume(arrays["x"], arrays["y"], arrays["z"], *rest)
        return Surface(arrays["x"], arrays["y"], *rest, evaluated=arrays.get("evaluated"))
    except (KeyError, ValueError, zipfile.BadZipFile, EOFError, TypeError) as error:
        raise ValueError(f"landscape.load: {path} is not a landscape of thalweg, or is damaged: {error}") from None

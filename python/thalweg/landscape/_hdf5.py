"""HDF5 files in the layout of Li et al.'s code (github.com/tomgoldstein/loss-landscape): directions and surfaces."""

from __future__ import annotations

import io
import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from .. import _check
from .._extras import require
from .._files import write_whole
from .._preserve import unwrap
from ._weights import direction_dtype, hash_of, parameters
from .directions import Directions, from_tensors

Array = npt.NDArray[np.float64]
SUFFIXES = (".h5", ".hdf5")
_GROUPS = ("xdirection", "ydirection")
_NAMES = {"loss": "train_loss", "accuracy": "train_acc"}  # theirs, of our metrics; accuracies are in percent there
_HEADER = "thalweg"  # our metadata as JSON; their code does not look at it


def _write(who: str, path: str | os.PathLike[str], fill: Callable[[Any], object]) -> Path:
    if Path(path).suffix not in SUFFIXES:
        raise ValueError(f"{who}: path must end in {' or '.join(SUFFIXES)}, got {Path(path).name!r}")
    h5py = require("h5py", who)
    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        fill(file)
    return write_whole(who, path, lambda target: target.write(image.getbuffer()))


def _read(who: str, path: str | os.PathLike[str], take: Callable[[Any], Any]) -> Any:
    h5py = require("h5py", who)
    if not Path(path).is_file():
        raise FileNotFoundError(f"{who}: no file {path}")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{who}: {path} is not an HDF5 file, or is damaged: {error}") from None
    with file:
        return take(file)


# ---- directions ---------------------------------------------------------------------------------------------------


def write_directions(path: str | os.PathLike[str], directions: Directions) -> Path:
    """One or two directions, one dataset per parameter, as dir_type "weights" of their code has them."""
    who = "Directions.write_li2018"
    if not 1 <= len(directions) <= len(_GROUPS):
        raise ValueError(f"{who}: the layout holds one or two directions, got {len(directions)}; write directions[:2]")

    def fill(file: Any) -> None:
        for name, vector in zip(_GROUPS, directions.vectors, strict=False):
            group = file.create_group(name)
            for i, value in enumerate(vector):
                group.create_dataset(str(i), data=value.cpu().numpy())

    return _write(who, path, fill)


def read_li2018(path: str | os.PathLike[str], model: nn.Module, dir_type: str = "auto") -> Directions:
    """Read the direction file of Li et al.'s code: `xdirection`, and `ydirection` where there is one.

    Args:
        path: The HDF5 file. Its tensors stand in the order of the model's parameters, or of its state_dict.
        model: The model that the directions are for.
        dir_type: "weights" (parameters) or "states" (state_dict); "auto" goes by the number of tensors. Of "states",
            entries for buffers are left out, with a warning where they are not zero.

    Returns:
        One or two directions.

    Raises:
        ImportError: h5py is missing.
        FileNotFoundError: No such file.
        ValueError: The file is no direction file, or its tensors do not fit the model.

    Example:
        >>> import tempfile, torch, thalweg as tw
        >>> model = torch.nn.Linear(3, 2)
        >>> directions = tw.landscape.random_directions(model, style="li2018")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     again = tw.landscape.read_li2018(directions.write_li2018(folder + "/directions.h5"), model)
        >>> torch.equal(again.vectors[1][0], directions.vectors[1][0])
        True

    References:
        Li et al.: Visualizing the loss landscape of neural nets, arXiv 1712.09913, and its code.
    """
    who = "read_li2018"
    _check.choice(who, "dir_type", dir_type, ("auto", "weights", "states"))
    params = parameters(who, model)
    lists = _read(who, path, lambda file: _lists(who, file))
    kinds: dict[str, Mapping[str, Tensor]] = {
        "weights": dict(unwrap(model).named_parameters()),
        "states": unwrap(model).state_dict(keep_vars=True),
    }
    counts = {len(values) for values in lists.values()}
    fitting = [kind for kind in kinds if counts == {len(kinds[kind])} and dir_type in ("auto", kind)]
    if not fitting:
        expected = " or ".join(f"{len(kinds[k])} ({k})" for k in kinds if dir_type in ("auto", k))
        got = ", ".join(f"{len(values)} in {name}" for name, values in lists.items())
        raise ValueError(f"{who}: expected {expected} tensors per direction for this model, got {got}")
    dropped: set[str] = set()
    vectors = [_named(who, name, values, kinds[fitting[0]], params, dropped) for name, values in lists.items()]
    if dropped:
        warnings.warn(
            f"{who}: left out the entries for {', '.join(sorted(dropped))}, which are not parameters and not zero; "
            "BatchNorm's statistics follow `bn` of the Evaluator",
            stacklevel=2,
        )
    digest = hash_of({f"{i}.{name}": value for i, vector in enumerate(vectors) for name, value in vector.items()})
    recipe = {"kind": "li2018", "dir_type": fitting[0], "hash": digest, "dropped": sorted(dropped)}
    return replace(from_tensors(model, *vectors), recipe=recipe)


def _lists(who: str, file: Any) -> dict[str, list[npt.NDArray[Any]]]:
    found = {}
    for name in _GROUPS:
        if name not in file:
            continue
        keys = [str(i) for i in range(len(file[name]))]
        missing = [key for key in keys if key not in file[name]]
        if missing:
            raise ValueError(f"{who}: {name} has {len(keys)} datasets and none called {missing[0]!r}")
        found[name] = [np.asarray(file[name][key][()]) for key in keys]
    if _GROUPS[0] not in found:
        raise ValueError(f"{who}: the file has no group {_GROUPS[0]!r} but {', '.join(file) or 'nothing'}")
    return found


def _named(
    who: str,
    group: str,
    values: Sequence[npt.NDArray[Any]],
    entries: Mapping[str, Tensor],
    params: Mapping[str, Tensor],
    dropped: set[str],
) -> dict[str, Tensor]:
    """The tensors by parameter; what is not moved and not zero goes to `dropped`."""
    vector = {}
    for i, ((name, entry), value) in enumerate(zip(entries.items(), values, strict=True)):
        if value.shape != tuple(entry.shape):
            raise ValueError(
                f"{who}: {group}/{i} must have the shape {tuple(entry.shape)} of {name!r}, got {value.shape}"
            )
        if name in params:
            param = params[name]
            vector[name] = torch.from_numpy(value.astype(np.float64)).to(param.device, direction_dtype(param))
        elif not isinstance(entry, nn.Parameter) and np.any(value):
            dropped.add(name)
    return vector


# ---- surfaces -----------------------------------------------------------------------------------------------------


def write_values(
    who: str,
    path: str | os.PathLike[str],
    axes: Sequence[Array],
    values: Mapping[str, Array],
    metadata: Mapping[str, Any],
    timings: Mapping[str, float],
) -> Path:
    """Values on one or two axes, x first; arrays are [ny, nx], the order in which their code fills and draws them."""
    names = {metric: _NAMES.get(metric, metric.replace("/", "_")) for metric in values}

    def fill(file: Any) -> None:
        for name, axis in zip(("xcoordinates", "ycoordinates"), axes, strict=False):
            file[name] = axis
        for metric, array in values.items():
            file[names[metric]] = array * 100 if metric == "accuracy" else array
        file[_HEADER] = json.dumps({"names": names, "metadata": dict(metadata), "timings": dict(timings)})

    return _write(who, path, fill)


def read_values(
    path: str | os.PathLike[str],
) -> tuple[list[Array], dict[str, Array], dict[str, Any], dict[str, float]]:
    """(axes, values, metadata, timings) of a surface file of theirs or ours; what theirs has not evaluated is NaN."""
    who = "landscape.load"
    axes, arrays, header = _read(who, path, lambda file: _surface(who, file))
    shape = tuple(len(axis) for axis in reversed(axes))
    ours = header.get("names", _NAMES)  # dataset by metric
    metrics = {dataset: metric for metric, dataset in ours.items()}
    values = {}
    # Their code makes an array [nx, ny] and fills it in the order of an array [ny, nx]: its flat order is the true one.
    for name in sorted(arrays, key=lambda name: list(metrics).index(name) if name in metrics else len(metrics)):
        if arrays[name].size == np.prod(shape) and np.issubdtype(arrays[name].dtype, np.number):
            values[metrics.get(name, name)] = arrays[name].astype(np.float64).reshape(shape)
    if not values:
        raise ValueError(f"{who}: {path} has no values for its {' x '.join(map(str, shape))} coordinates")
    if "names" not in header:
        missing = values.get("accuracy", values.get("loss", np.zeros(shape))) == -1
        values = {name: np.where(missing, np.nan, array) for name, array in values.items()}
    if "accuracy" in values:
        values["accuracy"] = values["accuracy"] / 100
    return axes, values, header.get("metadata", {"source": "li2018"}), header.get("timings", {})


def _surface(who: str, file: Any) -> tuple[list[Array], dict[str, npt.NDArray[Any]], dict[str, Any]]:
    if "xcoordinates" not in file:
        raise ValueError(f"{who}: the file has no 'xcoordinates' but {', '.join(file) or 'nothing'}")
    coordinates = [name for name in ("xcoordinates", "ycoordinates") if name in file]
    header = json.loads(file[_HEADER].asstr()[()]) if _HEADER in file else {}
    others = [name for name in file if name not in (*coordinates, _HEADER) and hasattr(file[name], "shape")]
    arrays = {name: np.asarray(file[name][()]) for name in others}
    return [np.asarray(file[name][()], np.float64) for name in coordinates], arrays, header

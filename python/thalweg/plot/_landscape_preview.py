"""A picture of a landscape that is still being evaluated, rewritten now and then. Knows results, no model."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._extras import require
from .._files import write_whole
from ..landscape import Surface, Volume
from ._landscape_values import coarse

_SECONDS = 5.0  # at least, between two pictures
_SHARE = 0.02  # of the time, that drawing may take


class Preview:
    """Writes what is known so far: `ev.grid(..., preview=Preview("so_far.png"))`.

    A picture is whole at any moment. What is not evaluated yet has the value of its block of the coarser grid, so that the
    whole plane is there early and becomes sharper. Drawing takes at most about a fiftieth of the time.

    Args:
        path: The file, .png, .svg or .pdf.
        metric: Which metric; None: the first one.
        refined: Whether the run has `refine`: then what is not evaluated is interpolated, as in the result.

    Raises:
        ImportError: matplotlib is missing.

    Example:
        >>> import tempfile, torch, thalweg as tw
        >>> model, x = torch.nn.Linear(3, 2), torch.randn(20, 3)
        >>> ev = tw.landscape.Evaluator(model, "cross_entropy", (x, torch.zeros(20, dtype=torch.long)))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     shown = tw.plot.landscape.Preview(folder + "/so_far.png")
        ...     surface = ev.grid(tw.landscape.random_directions(model), (-1, 1, 5), (-1, 1, 5), preview=shown)
        ...     shown.draw(surface).suffix
        '.png'
    """

    def __init__(self, path: str | os.PathLike[str], metric: str | None = None, refined: bool = False) -> None:
        require("matplotlib", "plotting")
        self._path, self._metric, self._refined = Path(path), metric, refined
        self._next = time.monotonic() + _SECONDS / 5  # the first one early

    def __call__(self, result: Surface | Volume) -> None:
        """Draw, unless that was a short while ago or no value is known."""
        started = time.monotonic()
        if started < self._next or not self._known(result).any():
            return
        self.draw(result)
        now = time.monotonic()
        self._next = now + max(_SECONDS, (now - started) / _SHARE)

    def finish(self, result: Surface | Volume) -> None:
        """Draw the whole result, unless there is nothing to see."""
        if self._known(result).any():
            self.draw(result)

    def _known(self, result: Surface | Volume) -> npt.NDArray[np.bool_]:
        return np.isfinite(result.metric(self._metric or next(iter(result.values))))

    def draw(self, result: Surface | Volume) -> Path:
        """Draw now."""
        metric = self._metric or next(iter(result.values))
        values = result.metric(metric)
        known = self._known(result)
        shown = {metric: values if self._refined else coarse(values)}
        if isinstance(result, Volume):
            axes = Volume(result.x, result.y, result.z, shown, result.metadata).plot.slices(metric)
            figure: Any = axes[0].figure
        else:
            surface = Surface(result.x, result.y, shown, result.metadata, evaluated=known if self._refined else None)
            smooth = (known.all() or self._refined) and min(known.shape) > 1
            figure = (
                surface.plot.contour(metric=metric) if smooth else surface.plot.heatmap(metric=metric, log=True)
            ).figure
        figure.suptitle(f"{int(known.sum()):,} of {known.size:,} points")
        kind = self._path.suffix.removeprefix(".") or "png"
        try:
            return write_whole("Preview", self._path, lambda file: figure.savefig(file, format=kind))
        finally:
            require("matplotlib.pyplot", "plotting").close(figure)

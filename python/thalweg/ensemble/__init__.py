"""Snapshot ensembles: collect a member at each cycle end, combine and measure members. Knows schedules by interface."""

from __future__ import annotations

from ._average import SoupReport, average, soup
from ._batchnorm import reestimate_bn
from ._collector import SnapshotCollector
from ._file import SnapshotError
from ._fit_report import FitReport
from ._metrics import Diversity, Metrics, diversity, metrics
from ._module import Ensemble
from ._report import EnsembleReport, RegressionMetrics
from ._snapshot import Snapshot
from ._store import Disk, Memory
from ._weights import WeightFit, fit_temperature, fit_weights

__all__ = [
    "Disk",
    "Diversity",
    "Ensemble",
    "EnsembleReport",
    "FitReport",
    "Memory",
    "Metrics",
    "RegressionMetrics",
    "Snapshot",
    "SnapshotCollector",
    "SnapshotError",
    "SoupReport",
    "WeightFit",
    "average",
    "diversity",
    "fit_temperature",
    "fit_weights",
    "metrics",
    "reestimate_bn",
    "soup",
]

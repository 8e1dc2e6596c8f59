"""NumPy references: every registered optimizer written out once more, from its paper. Independent of the core.

One module per family; a class that names its optimizer is in REFERENCES.
"""

from __future__ import annotations

from . import adam, adaptive, momentum, schedule_free
from ._base import REFERENCES, Array, Reference

__all__ = ["REFERENCES", "Array", "Reference", "adam", "adaptive", "momentum", "schedule_free"]

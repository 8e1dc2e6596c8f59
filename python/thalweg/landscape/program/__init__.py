"""A model as a program over many points at once: the same real numbers as the model's own forward pass.

`trace` reads the model (torch.fx), `affine` and `norms` have the layers whose weights move, `operations` everything else,
`program` runs them. Whatever has no faster form is called point by point as the model itself would, so that nothing
that can be traced is computed wrongly. Knows no loss, no files and no grids.
"""

from __future__ import annotations

from .program import Program as Program
from .trace import Refused as Refused

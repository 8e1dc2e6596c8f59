"""Follow the learning rate down the valley: fused optimizers, schedules, range tests, ensembles, landscapes."""

from __future__ import annotations

import torch as torch  # first: the core then shares torch's OpenMP runtime

from . import optim as optim
from . import schedules as schedules
from ._core import CudaError as CudaError
from ._core import __version__ as __version__

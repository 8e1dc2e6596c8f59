"""Follow the learning rate down the valley: fused optimizers, schedules, range tests, ensembles, landscapes."""

from __future__ import annotations

import torch as torch  # first: the core then shares torch's OpenMP runtime

from . import amp as amp
from . import ensemble as ensemble
from . import graphs as graphs
from . import landscape as landscape
from . import lr_scheduler as lr_scheduler
from . import optim as optim
from . import plot as plot
from . import schedules as schedules
from ._core import CudaError as CudaError
from ._core import __version__ as __version__
from .lr_range import RangeTestResult as RangeTestResult
from .lr_range import range_test as range_test

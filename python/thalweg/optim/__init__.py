"""Fused optimizers under torch's names; `lr` may be a schedule."""

from __future__ import annotations

from ._base import FusedOptimizer as FusedOptimizer
from ._checks import StepOptions as StepOptions
from .adam import Adam as Adam
from .adamw import AdamW as AdamW
from .sgd import SGD as SGD

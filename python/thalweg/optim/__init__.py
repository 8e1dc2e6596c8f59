"""Fused optimizers under torch's and their papers' names; `lr` may be a schedule."""

from __future__ import annotations

from ._base import FusedOptimizer as FusedOptimizer
from ._checks import StepOptions as StepOptions
from .adadelta import Adadelta as Adadelta
from .adagrad import Adagrad as Adagrad
from .adam import Adam as Adam
from .adamax import Adamax as Adamax
from .adamw import AdamW as AdamW
from .adan import Adan as Adan
from .ademamix import AdEMAMix as AdEMAMix
from .asgd import ASGD as ASGD
from .lamb import LAMB as LAMB
from .lars import LARS as LARS
from .lion import Lion as Lion
from .nadam import NAdam as NAdam
from .radam import RAdam as RAdam
from .rmsprop import RMSprop as RMSprop
from .rprop import Rprop as Rprop
from .schedule_free import AdamWScheduleFree as AdamWScheduleFree
from .schedule_free import SGDScheduleFree as SGDScheduleFree
from .sgd import SGD as SGD

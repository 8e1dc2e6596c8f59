"""torch's learning-rate schedulers on thalweg's plans, and `ScheduleLR`, which binds any schedule to any torch optimizer.

Every class of `torch.optim.lr_scheduler`, and SWALR, under its name: a subclass of torch's class with the same arguments,
attributes, exceptions and states, for any torch optimizer. While nobody else writes the rate it is read from the curve,
exact at any step; what another scheduler or the user wrote is kept as a factor, by torch's recursion. Arguments that have
no curve (a `scale_fn`, a fractional `T_max`) are left to torch's code.

They differ from torch's where torch leaves its own formula; each row has a test that shows both:

| torch | here | in tests/parity/test_lr_scheduler_differences.py |
|---|---|---|
| CosineAnnealingWarmRestarts: `step(epoch)` misses some restarts (log of floats) | exact | `test_restart_boundaries` |
| the same with `last_epoch`: a wrong cycle where T_mult > 1 | the right one | `test_restarts_resumed_by_last_epoch` |
| the same: a group that is added raises ValueError | it takes part | `test_restarts_of_an_added_group` |
| OneCycleLR: the rate jumps up in the step after the last | held | `test_one_cycle_one_step_past_its_end` |
| OneCycleLR: ZeroDivisionError where a phase has no step | the phase is left out | `test_one_cycle_with_a_phase_without_steps` |
| OneCycleLR: `pct_start=0` never shows `max_lr` | starts there | `test_one_cycle_without_a_rise_starts_at_its_peak` |
| ChainedScheduler: LambdaLR, warm restarts, CyclicLR, OneCycleLR wipe out a warm-up | product | `test_chain_keeps_the_warm_up` |
| ChainedScheduler first in a SequentialLR: one step ahead, and warns | right | `test_a_chain_is_the_first_part_of_a_sequence` |
| ChainedScheduler later in a SequentialLR: NotImplementedError | right | `test_a_chain_is_a_later_part_of_a_sequence` |
| SequentialLR in a SequentialLR: one step ahead | right | `test_a_sequence_within_a_sequence` |
| SequentialLR: OneCycleLR changes the warm-up before it | unchanged | `test_warm_up_before_one_cycle` |
| ReduceLROnPlateau: a negative metric that stands still counts as better | share of its size | `test_plateau_of_a_negative_metric` |
| LinearLR, ConstantLR: `total_iters=0` stays at the start for ever | at the end | `test_ramp_without_steps_is_at_its_end` |
| ConstantLR: `factor=0` ends in ZeroDivisionError | the base rate | `test_constant_factor_zero` |
| loading the scheduler's state alone leaves the rate of a new run | writes the rate | `test_state_of_the_scheduler_alone` |
| the same after the optimizer's state: left alone | left alone | `test_state_of_an_optimizer_that_was_loaded_before_stays` |
| `last_epoch` on rates that were not restored stays at the base | the curve's | `test_last_epoch_on_rates_that_were_not_restored` |
| a float32 tensor `lr` drifts (3e-4 in 1e5 steps) | one rounding | `test_rates_in_float32_do_not_drift` |
| CosineAnnealingLR: 6e-6 wrong at the last of 1e6 steps | a few ulp | `test_last_step_of_a_long_cosine` |
| CosineAnnealingLR rises again after T_max | the same; `schedules.cosine` holds | `test_cosine_rises_again` |
"""

from __future__ import annotations

from torch.optim.lr_scheduler import LRScheduler as LRScheduler

from ._bound import ScheduleLR as ScheduleLR
from ._events import Event as Event
from .containers import ChainedScheduler as ChainedScheduler
from .containers import SequentialLR as SequentialLR
from .cosine import CosineAnnealingLR as CosineAnnealingLR
from .cosine import CosineAnnealingWarmRestarts as CosineAnnealingWarmRestarts
from .cyclic import CyclicLR as CyclicLR
from .cyclic import OneCycleLR as OneCycleLR
from .decay import ConstantLR as ConstantLR
from .decay import ExponentialLR as ExponentialLR
from .decay import LinearLR as LinearLR
from .decay import MultiStepLR as MultiStepLR
from .decay import PolynomialLR as PolynomialLR
from .decay import StepLR as StepLR
from .functions import LambdaLR as LambdaLR
from .functions import MultiplicativeLR as MultiplicativeLR
from .plateau import ReduceLROnPlateau as ReduceLROnPlateau
from .swa import SWALR as SWALR

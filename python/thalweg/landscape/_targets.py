"""Which targets count and how much: what torch divides by in the mean of a cross-entropy. Knows no model and no sums."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

_MODULES = (nn.CrossEntropyLoss, nn.NLLLoss)
_FUNCTIONS = (nn.functional.cross_entropy, nn.functional.nll_loss)


class Counted(NamedTuple):
    """The targets of one batch."""

    samples: int
    targets: int  # of all samples, such as pixels
    kept: int  # of these, without the ignored ones
    weight: float  # what torch divides the batch's mean loss by
    squares: float  # sum over the samples of the square of their weight


@dataclass(frozen=True)
class Amounts:
    """The targets of all batches.

    Attributes:
        samples: How many.
        plain: Every sample has the same number of targets, all of weight 1: sums are divided by `samples`.
        kept: Targets that are not ignored.
        weight: What the sum of weighted losses is divided by.
        squares: As of `Counted`.
    """

    samples: int
    plain: bool = True
    kept: int = 0
    weight: float = 0.0
    squares: float = 0.0


class Targets:
    """What a criterion makes of targets.

    `torch.nn.CrossEntropyLoss` and `NLLLoss` with reduction="mean" divide by the summed class weights of the targets
    that are not `ignore_index`. The mean over all data is therefore the batch means weighted by those sums, not by
    samples. Every other loss, and targets that are class probabilities, count by sample.

    Args:
        criterion: The loss, or None for a loss_fn(model, batch).
    """

    def __init__(self, criterion: Callable[..., Any] | None) -> None:
        options: dict[str, Any] | None = None
        if isinstance(criterion, _MODULES) and type(criterion).forward in [kind.forward for kind in _MODULES]:
            options = {"weight": criterion.weight, "ignore_index": criterion.ignore_index}
        elif criterion in _FUNCTIONS:
            options = {}
        self.counts = options is not None  # whether targets may be ignored or weighted
        self._ignored: int = (options or {}).get("ignore_index", -100)
        self._weights: Tensor | None = (options or {}).get("weight")

    def count(self, targets: Any, samples: int) -> Counted:
        """Of a batch; reads from a device."""
        if not self.countable(targets):
            return Counted(samples, samples, samples, float(samples), float(samples))
        weights = self.weights(targets).reshape(samples, -1).sum(1)
        kept = int((targets != self._ignored).sum())
        return Counted(samples, targets.numel(), kept, float(weights.sum()), float(weights.square().sum()))

    def countable(self, targets: Any) -> bool:
        """Tell whether these are classes of a criterion that counts them."""
        return (
            self.counts and isinstance(targets, Tensor) and not targets.is_floating_point() and not targets.is_complex()
        )

    def keep(self, targets: Tensor) -> Tensor:
        """Which targets are not ignored."""
        return targets != self._ignored

    def weights(self, targets: Tensor) -> Tensor:
        """[samples, ...] weight of each target, float64; 0 for those that are ignored."""
        keep = self.keep(targets)
        if self._weights is None:
            return keep.double()
        table = self._weights.detach().to(targets.device).double()
        inside = keep & (targets >= 0) & (targets < len(table))
        chosen = table[targets.where(inside, targets.new_zeros(())).long()]
        return chosen.where(inside, chosen.new_zeros(()))


def amounts_of(counted: Sequence[Counted]) -> tuple[Amounts, list[float]]:
    """All batches together, and the weight of each batch's mean loss."""
    samples = sum(c.samples for c in counted)
    each = {c.targets / c.samples for c in counted}
    if len(each) == 1 and all(c.weight == c.kept == c.targets for c in counted):
        return Amounts(samples), [float(c.samples) for c in counted]
    return (
        Amounts(
            samples,
            False,
            sum(c.kept for c in counted),
            sum(c.weight for c in counted),
            sum(c.squares for c in counted),
        ),
        [c.weight for c in counted],
    )

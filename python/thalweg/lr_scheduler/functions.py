"""torch-named schedulers that call the user's function: LambdaLR, MultiplicativeLR."""

from __future__ import annotations

from typing import Any

from torch.optim import lr_scheduler

from ._planned import Restored


def _stateless(step: int) -> float:
    """Stands for a function that has nothing to save."""
    raise NotImplementedError


class _Function(Restored):
    """A scheduler that calls the user's functions; torch's saves the `__dict__` of those that are objects."""

    __slots__ = ()
    lr_lambdas: list[Any]

    def state_dict(self) -> dict[str, Any]:
        """Torch's state; a function without a `__dict__`, such as a Schedule, has none of its own."""
        kept = self.lr_lambdas
        self.lr_lambdas = [function if hasattr(function, "__dict__") else _stateless for function in kept]
        try:
            return super().state_dict()
        finally:
            self.lr_lambdas = kept


class LambdaLR(_Function, lr_scheduler.LambdaLR):
    r"""torch's LambdaLR: :math:`lr_k = lr_0\,\lambda(k)`. A schedule of `thalweg.schedules` is such a function.

    Args, attributes and exceptions are those of `torch.optim.lr_scheduler.LambdaLR`.

    Example:
        >>> import torch, thalweg as tw
        >>> opt = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.5)
        >>> scheduler = tw.lr_scheduler.LambdaLR(opt, tw.schedules.linear(1.0, total_steps=2))
        >>> opt.step()
        >>> scheduler.step()
        >>> scheduler.get_last_lr()
        [0.25]
    """


class MultiplicativeLR(_Function, lr_scheduler.MultiplicativeLR):
    r"""torch's MultiplicativeLR: :math:`lr_k = lr_{k-1}\,\lambda(k)`.

    Args, attributes and exceptions are those of `torch.optim.lr_scheduler.MultiplicativeLR`.

    Example:
        >>> import torch, thalweg as tw
        >>> opt = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.5)
        >>> scheduler = tw.lr_scheduler.MultiplicativeLR(opt, lambda step: 0.5)
        >>> opt.step()
        >>> scheduler.step()
        >>> scheduler.get_last_lr()
        [0.25]
    """

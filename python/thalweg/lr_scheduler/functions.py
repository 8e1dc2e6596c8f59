"""torch-named schedulers that call the user's function: LambdaLR, MultiplicativeLR."""

from __future__ import annotations

from torch.optim import lr_scheduler

from ._planned import Restored


class LambdaLR(Restored, lr_scheduler.LambdaLR):
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


class MultiplicativeLR(Restored, lr_scheduler.MultiplicativeLR):
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

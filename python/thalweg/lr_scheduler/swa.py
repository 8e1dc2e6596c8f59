"""torch-named SWALR: towards the constant rate of stochastic weight averaging."""

from __future__ import annotations

from torch.optim import swa_utils

from ._planned import Restored


class SWALR(Restored, swa_utils.SWALR):
    r"""torch's SWALR: from the rate that is there to `swa_lr` in `anneal_epochs` steps, then constant.

    It starts from what another scheduler left, so it has no closed form; the values are torch's recursion. Args,
    attributes and exceptions are those of `torch.optim.swa_utils.SWALR`.

    Example:
        >>> import torch, thalweg as tw
        >>> opt = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.5)
        >>> scheduler = tw.lr_scheduler.SWALR(opt, swa_lr=0.1, anneal_epochs=1)
        >>> opt.step()
        >>> scheduler.step()
        >>> scheduler.get_last_lr()
        [0.1]

    References:
        Izmailov et al.: Averaging weights leads to wider optima, arXiv 1803.05407.
    """

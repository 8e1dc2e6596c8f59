"""The factors that give a drawn direction the norms of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from .. import _core
from ._drawn import Drawn, DrawnVector, vanishes
from ._weights import direction_dtype, dot, hash_of, length, lengths

NORMS = ("filter", "layer", "model", "weight", "none")
LI2018_NORMS = ("filter", "layer", "weight", "dfilter", "dlayer", "none")
_TINY = 1e-10  # Li et al.'s guard: a direction of zero length stays zero


def drawn_vector(
    params: Mapping[str, Tensor], seed: int, index: int, norm: str, skip: set[str], style: str
) -> DrawnVector:
    """Direction number `index` under the seed: tensor j draws from stream (index << 32) | j. Nothing is kept but factors.

    Args:
        params: The parameters by name.
        seed: Key of the generator.
        index: Which direction.
        norm: One of NORMS, or of LI2018_NORMS.
        skip: Names that stay.
        style: "paper" or "li2018": there tensors with at most one dimension are their own directions.
    """
    scale_of_all = _model_scale(params, seed, index, skip) if norm == "model" else 0.0
    parts = []
    for place, (name, param) in enumerate(params.items()):
        part = Drawn(param.shape, direction_dtype(param), param.device, seed, (index << 32) | place)
        if name in skip or not param.numel():
            part = replace(part, is_zero=True)
        elif style == "li2018" and param.dim() <= 1:
            part = replace(part, fixed=param.detach().clone())
        elif norm == "weight":
            part = replace(part, weight=param, weight_hash=hash_of({"": param}))
        elif norm == "model":
            part = replace(part, scales=torch.full((1,), scale_of_all, dtype=torch.float64, device=param.device))
        elif norm != "none":
            part = replace(part, scales=_scales(part, param, norm))
        parts.append(part if part.is_zero else replace(part, is_zero=vanishes(part)))
    return DrawnVector(parts)


def _variates(part: Drawn) -> Tensor:
    draw = torch.empty(part.shape, dtype=torch.float32, device=part.device)
    _core.fill_normal(draw, part.seed, part.stream, torch.get_num_threads())
    return draw


def _scales(part: Drawn, param: Tensor, norm: str) -> Tensor:
    """[rows] float64: target length over the variates' length, in one order whatever the number of threads."""
    rows = part.shape[0] if norm in ("filter", "dfilter") and len(part.shape) > 1 else 1
    own = lengths(_variates(part), rows) + _TINY
    return (torch.ones_like(own) if norm in ("dfilter", "dlayer") else lengths(param, rows)) / own


def _model_scale(params: Mapping[str, Tensor], seed: int, index: int, skip: set[str]) -> float:
    def squares() -> Iterator[float]:
        for place, (name, param) in enumerate(params.items()):
            if name not in skip and param.numel():
                part = Drawn(param.shape, torch.float32, param.device, seed, (index << 32) | place)
                draw = _variates(part)
                yield dot([draw], [draw])

    return length(list(params.values())) / (math.sqrt(math.fsum(squares())) + _TINY)

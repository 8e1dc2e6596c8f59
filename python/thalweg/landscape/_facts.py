"""What a result tells about its run: conditions that its bits depend on, JSON-able. Knows no values."""

from __future__ import annotations

from typing import Any

import torch

from .. import _core
from .._preserve import unwrap
from . import _weights
from ._evaluation import Evaluation
from .directions import Directions


def facts(evaluation: Evaluation, directions: Directions | None) -> dict[str, Any]:
    """The conditions of a run, known before it; None stands for a line between two models."""
    params = evaluation.params
    return {
        "directions": {"kind": "between"} if directions is None else directions.describe(),
        "weights_hash": weights_hash(evaluation),
        "data_hash": evaluation.data.hash,
        "samples": evaluation.samples,
        "batch_sizes": sorted(set(evaluation.data.sizes), reverse=True),
        "bn": evaluation.bn,
        "train_mode": evaluation.train_mode,
        "dtypes": sorted({str(p.dtype).removeprefix("torch.") for p in params.values()}),
        **_conditions(evaluation.device),
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "thalweg": _core.__version__,
        "tier": evaluation.tier,
        **({} if evaluation.precision is None else {"precision": evaluation.precision}),
    }


def weights_hash(evaluation: Evaluation) -> str:
    """Of the parameters and buffers as they are now."""
    return _weights.hash_of({**evaluation.params, **dict(unwrap(evaluation.model).named_buffers())})


def _conditions(device: torch.device) -> dict[str, Any]:
    if device.type != "cuda":
        return {"device": device.type}
    return {
        "device": torch.cuda.get_device_name(device),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "fp32_precision": {
            "matmul": torch.backends.cuda.matmul.fp32_precision,
            "convolution": torch.backends.cudnn.conv.fp32_precision,  # type: ignore[attr-defined]
        },
    }

"""The parameters of a model as landscapes see them: unique, named, hashed; those of other models matched to them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
import xxhash
from torch import Tensor, nn

from .. import _core
from .._check import describe
from .._preserve import unwrap
from ._cells import on_device

_ENTRIES = 1 << 22  # of tensors that are held for inner products at a time
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def parameters(who: str, model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters by name, tied ones once under their first name; refuses what cannot be perturbed.

    Parametrised modules give their original parameters (weight norm's g and v, for instance).
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"{who}: model must be a torch.nn.Module, got {describe(model)}")
    found = dict(unwrap(model).named_parameters())  # named_parameters leaves out repeated objects
    if not found:
        raise ValueError(
            f"{who}: the model has no parameters; layers that were quantised keep theirs packed, evaluate the model "
            "that they were made from"
        )
    first, start = next(iter(found.items()))
    for name, param in found.items():
        _check_movable(who, name, param)
        if param.device != start.device:
            raise ValueError(
                f"{who}: parameter {first!r} is on {start.device} and {name!r} on {param.device}; expected a model on "
                "one device"
            )
    tied = _tied(who, found)
    return {name: param for name, param in found.items() if name not in tied}


def _check_movable(who: str, name: str, param: Tensor) -> None:
    lazy = isinstance(param, nn.parameter.UninitializedParameter)
    if lazy or param.layout != torch.strided or param.dtype not in DTYPES or param.device.type == "meta":
        got = "not initialised" if lazy else f"{param.dtype} with layout {param.layout} on {param.device}"
        raise ValueError(
            f"{who}: parameter {name!r} is {got}; expected a strided tensor of "
            f"{', '.join(str(d).removeprefix('torch.') for d in DTYPES)} with memory of its own"
        )
    if param.device.type not in ("cpu", "cuda"):
        raise ValueError(
            f"{who}: parameter {name!r} is on {param.device}; expected the CPU or a CUDA device, move the model with "
            "model.cpu() or model.cuda()"
        )
    if any(stride == 0 and size > 1 for stride, size in zip(param.stride(), param.shape, strict=True)):
        raise ValueError(f"{who}: parameter {name!r} is an expanded tensor; give it memory with .contiguous()")


def _tied(who: str, params: Mapping[str, Tensor]) -> set[str]:
    """Names of parameters whose memory another one holds: other Parameter objects, views, slices of a flat one."""
    tied: set[str] = set()
    exact: set[tuple[Any, ...]] = set()
    ranges = []
    for place, (name, param) in enumerate(params.items()):
        if not param.numel():
            continue
        start, length = param.data_ptr(), param.numel() * param.element_size()
        if _core.tensor_view(param)[4]:
            ranges.append((start, -length, place, name))
        elif (key := (start, param.shape, param.stride())) in exact:
            tied.add(name)
        else:
            exact.add(key)
    holder, end = "", 0
    for start, negative, _, name in sorted(ranges):
        if start >= end:
            holder, end = name, start - negative
        elif start - negative <= end:
            tied.add(name)
        else:
            raise ValueError(
                f"{who}: parameters {holder!r} and {name!r} share a part of their memory; a move of one would change "
                "the other, give one of them a copy"
            )
    return tied


def hash_of(tensors: Mapping[str, Tensor]) -> str:
    """xxh3 of names, dtypes, shapes and bytes, in order of the names."""
    digest = xxhash.xxh3_128()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu()
        value = (value if value.layout == torch.strided else value.to_dense()).contiguous()
        digest.update(f"{name}:{value.dtype}:{tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return str(digest.hexdigest())


def direction_dtype(param: Tensor) -> torch.dtype:
    """Type of a direction for this parameter: its own, float32 for 16-bit weights."""
    return param.dtype if param.dtype in (torch.float32, torch.float64) else torch.float32


def like(param: Tensor, value: Tensor) -> Tensor:
    """`value` as a dense tensor laid out like the parameter, in the direction's type."""
    out = torch.empty_like(param, dtype=direction_dtype(param), requires_grad=False)
    return out.copy_(value.detach())


def state_of(who: str, source: nn.Module | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a module or state_dict, by name, without copying."""
    if isinstance(source, nn.Module):
        return {name: value.detach() for name, value in unwrap(source).state_dict(keep_vars=True).items()}
    if isinstance(source, Mapping) and all(isinstance(v, Tensor) for v in source.values()):
        return {name: value.detach() for name, value in source.items()}
    raise TypeError(f"{who}: expected a torch.nn.Module or a state_dict of tensors, got {describe(source)}")


def pick(who: str, params: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[Tensor]:
    """The tensors of `state` for these parameters, in their order; names and shapes must agree."""
    values = []
    for name, param in params.items():
        value = state.get(name)
        if value is None or value.shape != param.shape:
            got = "nothing of that name" if value is None else f"shape {tuple(value.shape)}"
            raise ValueError(
                f"{who}: expected {name!r} with shape {tuple(param.shape)}, got {got}; is it another model?"
            )
        values.append(value)
    return values


def dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """Inner product over all tensors, float64, in one order whatever the number of threads or the device."""
    return float(gram([a], [b]))


def gram(a: Sequence[Sequence[Tensor]], b: Sequence[Sequence[Tensor]]) -> Tensor:
    """[len(a), len(b)] inner products on the host; what is elsewhere is brought to the device of the first tensor."""
    sums = [[_sum_of_dots(zip(left, right, strict=True)) for right in b] for left in a]
    return torch.tensor(sums, dtype=torch.float64).reshape(len(a), len(b))


def _sum_of_dots(pairs: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Exact sum of the pairs' inner products; fsum, as the built-in sum of floats is another one from Python 3.12 on."""
    return math.fsum(value for few in _handfuls(pairs) for value in _dots([_alike(x, y) for x, y in few]))


def _handfuls(pairs: Iterable[tuple[Tensor, Tensor]]) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """The pairs, as many at a time as need not be held in memory together for long."""
    few: list[tuple[Tensor, Tensor]] = []
    entries = 0
    for pair in pairs:
        few.append(pair)
        entries += pair[0].numel()
        if entries >= _ENTRIES:
            yield few
            few, entries = [], 0
    if few:
        yield few


def _dots(pairs: Sequence[tuple[Tensor, Tensor]]) -> list[float]:
    if not on_device(pairs[0][0]):
        return [_core.dot(x, y, torch.get_num_threads()) for x, y in pairs]
    out = torch.zeros(1, len(pairs), dtype=torch.float64, device=pairs[0][0].device)
    _core.Reducer(out).dots(0, [x for x, _ in pairs], [y for _, y in pairs])
    return [float(value) for value in out[0].tolist()]


def lengths(tensor: Tensor, rows: int) -> Tensor:
    """[rows] Euclidean norms of the slices along the first dimension, float64, where the tensor is."""
    value = tensor.detach()
    value = (value if value.dtype in (torch.float32, torch.float64) else value.float()).contiguous()
    if not on_device(value):
        return torch.from_numpy(_core.row_squares(value, rows, torch.get_num_threads())).sqrt()
    out = torch.zeros(1, rows, dtype=torch.float64, device=value.device)
    _core.Reducer(out).row_squares(0, value, rows)
    return out[0].sqrt()


def length(tensors: Sequence[Tensor]) -> float:
    """Euclidean norm over all tensors, float64, in one order whatever the number of threads."""
    return math.sqrt(_sum_of_dots((tensor, tensor) for tensor in tensors))


def _alike(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    x, y = x.detach(), y.detach().to(x.device)
    wide = torch.float32 if x.dtype == y.dtype == torch.float32 else torch.float64
    return x.to(wide).contiguous(), y.to(wide).contiguous()


def flat(tensors: Sequence[Tensor], device: torch.device) -> Tensor:
    """All entries one after the other, float64, on the device."""
    return torch.cat([t.detach().to(device, torch.float64).reshape(-1) for t in tensors])

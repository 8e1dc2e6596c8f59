"""The parameters of a model as the evaluator sees them: unique, dense, named; saved, moved and put back bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
import xxhash
from torch import Tensor, nn

from .._check import describe
from .._preserve import modes, random_state, unwrap


def parameters(who: str, model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters by name, tied ones once under their first name; refuses what cannot be perturbed.

    Parametrised modules give their original parameters (weight norm's g and v, for instance).
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"{who}: model must be a torch.nn.Module, got {describe(model)}")
    found = dict(unwrap(model).named_parameters())  # named_parameters leaves out repeated objects
    seen: dict[tuple[int, tuple[int, ...]], str] = {}
    for name, param in list(found.items()):
        if param.layout != torch.strided or not param.is_floating_point() or param.device.type == "meta":
            raise ValueError(
                f"{who}: parameter {name!r} is {param.dtype} with layout {param.layout} on {param.device}; expected a "
                "strided floating-point tensor with memory of its own"
            )
        if param.device.type != "cpu":
            raise ValueError(
                f"{who}: parameter {name!r} is on {param.device}; this version evaluates on the CPU, move the model "
                "with model.cpu()"
            )
        place = (param.data_ptr(), tuple(param.shape))
        if param.numel() and place in seen:
            del found[name]  # another Parameter object on the same memory
        seen.setdefault(place, name)
    if not found:
        raise ValueError(f"{who}: the model has no parameters")
    return found


def hash_of(tensors: Mapping[str, Tensor]) -> str:
    """xxh3 of names, dtypes, shapes and bytes, in order of the names."""
    digest = xxhash.xxh3_128()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}:{value.dtype}:{tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return str(digest.hexdigest())


def direction_dtype(param: Tensor) -> torch.dtype:
    """Type of a direction for this parameter: its own, float32 for 16-bit weights."""
    return param.dtype if param.dtype in (torch.float32, torch.float64) else torch.float32


def like(param: Tensor, value: Tensor) -> Tensor:
    """`value` as a dense tensor laid out like the parameter, in the direction's type."""
    out = torch.empty_like(param, dtype=direction_dtype(param), requires_grad=False)
    return out.copy_(value.detach())


class Saved:
    """Copies of everything evaluation may change, and the way back."""

    def __init__(self, model: nn.Module, params: Mapping[str, nn.Parameter]) -> None:
        self.params = list(params.values())
        self.weights = [p.detach().clone(memory_format=torch.preserve_format) for p in self.params]
        self.grads = [p.grad for p in self.params]
        self.requires_grad = [p.requires_grad for p in self.params]
        self.buffers = [(b, b.detach().clone()) for b in unwrap(model).buffers()]

    def restore(self) -> None:
        """Write everything back, bit for bit."""
        with torch.no_grad():
            for param, weight in zip(self.params, self.weights, strict=True):
                param.data.copy_(weight)
            for buffer, value in self.buffers:
                buffer.data.copy_(value)
        for param, grad, flag in zip(self.params, self.grads, self.requires_grad, strict=True):
            param.grad = grad
            param.requires_grad_(flag)


@contextmanager
def untouched(model: nn.Module, params: Mapping[str, nn.Parameter]) -> Iterator[Saved]:
    """Parameters, buffers, gradients, modes and random generators are as before afterwards, whatever happened."""
    saved = Saved(model, params)
    with random_state(), modes(model):
        try:
            yield saved
        finally:
            saved.restore()


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


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """All entries one after the other, float64."""
    return torch.cat([t.detach().double().reshape(-1) for t in tensors])

"""What evaluation may change about a model, saved and put back bit for bit. Knows no loss and no directions."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .._preserve import modes, random_state

_REGISTRIES = tuple(name for name, value in nn.Module().__dict__.items() if isinstance(value, dict))


class Saved:
    """A model's parameters, buffers, gradients, flags, hooks and attributes, and the way back."""

    def __init__(self, model: nn.Module, params: Mapping[str, nn.Parameter]) -> None:
        self.params = list(params.values())
        self.weights = [p.detach().clone(memory_format=torch.preserve_format) for p in self.params]
        self._grads = [(p, p.grad, p.requires_grad) for p in model.parameters()]
        self._buffers = [(b, writable(b.detach()).clone()) for b in model.buffers()]
        self._attributes = [(m, dict(m.__dict__), _registries(m)) for m in model.modules()]

    def hide_gradients(self) -> None:
        """Take the gradients off the parameters, so that no loss can add to them."""
        for param, _, _ in self._grads:
            param.grad = None

    def restore(self) -> None:
        """Write everything back; may be repeated."""
        with torch.no_grad():
            for tensor, value in [*zip(self.params, self.weights, strict=True), *self._buffers]:
                with torch.inference_mode() if tensor.is_inference() else nullcontext():
                    writable(tensor.data).copy_(value)
        for param, grad, flag in self._grads:
            if param.requires_grad != flag:
                param.requires_grad_(flag)
            param.grad = grad
        for module, attributes, registries in self._attributes:
            for registry, content in registries:
                registry.clear()
                registry.update(content)
            for name in module.__dict__.keys() - attributes.keys():
                del module.__dict__[name]
            module.__dict__.update(attributes)


def writable(tensor: Tensor) -> Tensor:
    """The tensor without the repetitions of an expanded one, so that it can be written to."""
    if tensor.layout == torch.strided:
        for dim, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
            if stride == 0 and size > 1:
                tensor = tensor.narrow(dim, 0, 1)
    return tensor


def write(tensor: Tensor, value: Tensor) -> None:
    """Copy a value into a tensor that may be expanded."""
    target = writable(tensor)
    if target is not tensor:
        for dim, size in enumerate(target.shape):
            value = value.narrow(dim, 0, size)
    target.copy_(value)


def check_buffers(who: str, model: nn.Module) -> None:
    """Refuse buffers without values."""
    for name, buffer in model.named_buffers():
        lazy = isinstance(buffer, nn.parameter.UninitializedBuffer)
        if lazy or buffer.device.type == "meta":
            got = "not initialised; run the model once before" if lazy else "on meta, without values; load them first"
            raise ValueError(f"{who}: buffer {name!r} is {got}")


def _registries(module: nn.Module) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The dictionaries in which torch keeps a module's parameters, buffers, children and hooks, with copies."""
    found = [module.__dict__.get(name) for name in _REGISTRIES]
    return [(registry, dict(registry)) for registry in found if isinstance(registry, dict)]


@contextmanager
def untouched(model: nn.Module, params: Mapping[str, nn.Parameter]) -> Iterator[Saved]:
    """Everything about the model and the random generators is as before afterwards, whatever happened.

    A second Ctrl-C while the weights are being written back waits until they are.
    """
    with random_state(), modes(model):
        saved = Saved(model, params)
        try:
            saved.hide_gradients()
            yield saved
        finally:
            try:
                saved.restore()
            except KeyboardInterrupt:
                saved.restore()
                raise


def _writes_only(module: nn.Module) -> bool:
    """Tell whether the module's forward pass writes its buffers without reading them: no value depends on them."""
    return isinstance(module, _BatchNorm) and module.training


_unknown = itertools.count(-2, -1)


def _version(tensor: Tensor) -> int:
    """How often the tensor was changed in place; another number each time where torch does not count."""
    return next(_unknown) if tensor.is_inference() else tensor._version


@dataclass
class _Buffer:
    """A buffer, its place and its value."""

    registry: dict[str, Tensor | None]
    name: str
    tensor: Tensor
    value: Tensor
    version: int  # torch counts in-place changes, in inference mode too

    def reset(self) -> None:
        if self.registry.get(self.name) is not self.tensor:
            self.registry[self.name] = self.tensor
        if _version(self.tensor) != self.version:
            writable(self.tensor).copy_(self.value)
            self.version = _version(self.tensor)

    def change(self) -> Tensor | None:
        """What the buffer holds since the last reset, or None: the same."""
        now = self.registry.get(self.name)
        if now is self.tensor and _version(now) == self.version:
            return None
        return None if now is None else now.detach().clone()

    def take(self, value: Tensor) -> None:
        """Hold this value, as if a forward pass had left it there."""
        if value.shape == self.tensor.shape and value.dtype == self.tensor.dtype:
            self.tensor.copy_(value)
        else:
            self.registry[self.name] = value.clone()


@dataclass
class Changes:
    """What a model did to its buffers (None: nothing) and to the generators."""

    buffers: list[Tensor | None]
    generators: tuple[Any, ...]


class SameStart:
    """Every point starts from the same buffers and random generators, so that the order of points does not matter.

    Args:
        model: With the buffers that every point shall see.
        device: The model's; a CUDA device has a generator of its own.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self._buffers = [
            _Buffer(registry, name, buffer, writable(buffer.detach()).clone(), _version(buffer))
            for registry in (module._buffers for module in model.modules() if not _writes_only(module))
            for name, buffer in registry.items()
            if buffer is not None
        ]
        self._torch = torch.get_rng_state()
        self._device = device
        self._cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        self._others = random.getstate(), np.random.get_state()  # noqa: NPY002
        self._points = 0
        self.drawn = False  # seen by `changes`
        self._drawn = False  # whether another generator than torch's has moved; 40 us to put back

    def reset(self) -> None:
        """Undo what the last point did to buffers and generators; call it before every point."""
        self.reset_buffers()
        torch.set_rng_state(self._torch)
        if self._points < 2 and not self._drawn:  # the preparation of the run or the first point may have drawn
            self._drawn = self._others_moved()
        if self._drawn:
            random.setstate(self._others[0])
            np.random.set_state(self._others[1])  # noqa: NPY002
            if self._cuda is not None:
                torch.cuda.set_rng_state(self._cuda, self._device)
        self._points += 1

    def reset_buffers(self) -> None:
        """Undo what the last point did to buffers; a CUDA graph may hold it."""
        for buffer in self._buffers:
            buffer.reset()

    def changes(self, thorough: bool) -> Changes | None:
        """What the model did to buffers and generators since the last reset, or None: nothing.

        Args:
            thorough: Look at Python's and NumPy's generators too, which takes long; from the first time that they have
                moved they are always looked at.
        """
        buffers = [buffer.change() for buffer in self._buffers]
        self._drawn = self._drawn or (thorough and self._others_moved())
        drew = self._torch_moved() or (self._drawn and self._others_moved())
        self.drawn = self.drawn or drew
        if not drew and all(value is None for value in buffers):
            return None
        cuda = None if self._cuda is None else torch.cuda.get_rng_state(self._device)
        return Changes(buffers, (torch.get_rng_state(), random.getstate(), np.random.get_state(), cuda))  # noqa: NPY002

    def resume(self, changes: Changes | None) -> None:
        """After a reset: go on from where `changes` was taken."""
        if changes is None:
            return
        for buffer, value in zip(self._buffers, changes.buffers, strict=True):
            if value is not None:
                buffer.take(value)
        default, python, numpy, cuda = changes.generators
        torch.set_rng_state(default)
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        if cuda is not None:
            torch.cuda.set_rng_state(cuda, self._device)
        self._drawn = True

    def distrust(self) -> None:
        """Write every buffer at the next reset, as writes so far may never have been carried out."""
        for buffer in self._buffers:
            buffer.version = -1

    def drew(self) -> bool:
        """Tell whether a random generator has moved since the last reset."""
        return self._torch_moved() or self._others_moved()

    def _torch_moved(self) -> bool:
        return not torch.equal(torch.get_rng_state(), self._torch)

    def _others_moved(self) -> bool:
        if self._cuda is not None and not torch.equal(torch.cuda.get_rng_state(self._device), self._cuda):
            return True
        if random.getstate() != self._others[0]:
            return True
        pairs = zip(np.random.get_state(), self._others[1], strict=True)  # noqa: NPY002
        return not all(np.array_equal(a, b) for a, b in pairs)

"""What every reference is; knows no formula."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

REFERENCES: dict[str, type[Reference]] = {}  # by the name of the functor


class Reference:
    """One tensor's optimizer: step(p, g, lr) returns the new p; states under torch's names.

    All arithmetic on arrays is in `dtype`; numbers are Python's. Options are those of the class in `thalweg.optim`.
    """

    cases: ClassVar[list[dict[str, Any]]] = [{}]  # what the tests run
    still: ClassVar[dict[str, Any]] = {"weight_decay": 0}  # with these a zero gradient changes nothing
    defaults: ClassVar[dict[str, Any]] = {}
    rosenbrock_lr: ClassVar[float]  # walks down Rosenbrock's valley in 2,000 steps

    def __init_subclass__(cls, name: str | None = None) -> None:
        if name is not None:
            REFERENCES[name] = cls

    def __init__(self, dtype: Any = np.float64, **options: Any) -> None:
        unknown = set(options) - set(self.defaults) - {"maximize"}
        assert not unknown, f"the reference knows no {unknown}"
        self.dtype = dtype
        self.o = {**self.defaults, **options}
        self.t = 0
        self.states: dict[str, Array] = {}

    def step(self, p: Array, g: Array, lr: float) -> Array:
        self.t += 1
        g = -g if self.o.get("maximize") else g
        new = np.asarray(self.update(np.asarray(p, self.dtype), np.asarray(g, self.dtype), lr))
        assert new.dtype == self.dtype, "a number that is not Python's has widened the arithmetic"
        return new

    def resume(self, p: Array, states: dict[str, Array], t: int) -> None:
        """Go on after t steps from an optimizer's own states; references with numbers among them take those."""
        self.t = t
        self.states = {name: np.asarray(value, self.dtype) for name, value in states.items()}

    def update(self, p: Array, g: Array, lr: float) -> Array:
        raise AssertionError("each optimizer writes its own")

    def average(self, name: str, value: Array, beta: float) -> Array:
        """An exponential average that starts from zero."""
        old = self.states.get(name, np.zeros_like(value))
        self.states[name] = np.asarray(beta * old + (1 - beta) * value)
        return self.states[name]

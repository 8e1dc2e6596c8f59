"""From a schedule's description to the core's words: the layout of cpp/include/thalweg/schedule.hpp, no formulas."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from .. import _core

# f float, i integer, F and I counted lists of them; the code is the core's enum Node.
NODES: dict[str, tuple[int, str]] = {
    "constant": (1, "f"),
    "linear": (2, "ffff"),
    "cosine": (3, "ffff"),
    "polynomial": (4, "ffif"),
    "exponential": (5, "ff"),
    "geometric": (6, "ffi"),
    "step": (7, "ffi"),
    "multistep": (8, "ffI"),
    "sgdr": (9, "ffiifi"),
    "split": (10, "ffiii"),
    "triangular": (11, "ffiiif"),
    "table": (12, "F"),
    "sqrt": (13, "ffff"),
    "square": (14, "ffff"),
    "rex": (15, "ffff"),
    "tanh": (16, "fffff"),
    "inverse_time": (17, "fff"),
    "inverse_sqrt": (18, "fff"),
    "approach": (19, "ffff"),
    "sequence": (20, "I"),
    "product": (21, ""),
    "clip": (22, "ff"),
    "repeat": (23, "ii"),
    "hold": (24, "i"),
    "sum": (25, ""),
    "minimum": (26, ""),
    "maximum": (27, ""),
    "every": (28, "i"),
    "advance": (29, "i"),
    "decayed": (30, "fffffi"),
    "noise": (31, "fiffi"),
    "listed": (32, "fffifffI"),
    "warm_sgdr": (33, "fffifffiii"),
}
_HEADER_WORDS = 3
_LISTS = ("sequence", "product", "sum", "minimum", "maximum")  # nodes with any number of children


class Tree(NamedTuple):
    """A node of a schedule: its kind, its fields in the core's order, its children."""

    kind: str
    fields: tuple[Any, ...]
    children: tuple[Tree, ...] = ()


def _word(code: str, value: Any) -> bytes:
    return struct.pack("<d" if code in "fF" else "<q", value)


def compile_plan(root: Tree) -> _core.Plan:
    """Lay the tree out, children before parents, and hand it to the core, which validates it."""
    words: list[bytes] = []

    def emit(tree: Tree) -> int:
        places = [emit(child) for child in tree.children]
        at = _HEADER_WORDS + len(words)
        code, layout = NODES[tree.kind]
        words.append(struct.pack("<q", code))
        if tree.kind in _LISTS:
            words.append(struct.pack("<q", len(places)))
            if tree.kind == "sequence":
                words.extend(struct.pack("<q", begin) for begin in tree.fields[0])
            words.extend(struct.pack("<q", place) for place in places)
            return at
        words.extend(struct.pack("<q", place) for place in places)
        for kind, value in zip(layout, tree.fields, strict=True):
            items: Sequence[Any] = value if kind in "FI" else (value,)
            if kind in "FI":
                words.append(struct.pack("<q", len(items)))
            words.extend(_word(kind, item) for item in items)
        return at

    root_at = emit(root)
    count = _HEADER_WORDS + len(words)
    header = struct.pack("<QQQ", _core.PLAN_MAGIC, count, root_at)
    return _core.Plan(header + b"".join(words))

"""`thalweg schedule`: show a schedule that is written as the expression which builds it. Never evaluates code."""

from __future__ import annotations

import argparse
import ast
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from .. import schedules
from ..schedules import Bundle, Schedule

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_METHODS = (
    "repeat", "clip", "delay", "stretch", "every", "advance", "after_warmup", "scale_batch", "decay_at"
)  # fmt: skip
_RATES = ("steps_per_epoch", "samples_per_step", "tokens_per_step", "total_steps")
_PARTS = ("lr", "momentum")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `schedule`."""
    parser = subparsers.add_parser(
        "schedule",
        help="draw a schedule, or print its values",
        description='Example: thalweg schedule "warmup(50, 0.1) >> sgdr(0.1, t_0=100, t_mult=2)" --steps 750',
    )
    parser.add_argument("expression", help="constructors of thalweg.schedules, joined by >>, * and +, with literals")
    parser.add_argument("--steps", type=int, help="how many steps to show (default: its length, or four cycles)")
    for name in _RATES:
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=int, help="for lengths such as '10ep', '1e6sp', '2e9tok', '3%%', 'rest'"
        )
    parser.add_argument("--json", action="store_true", help="description, boundaries, cycle ends and values as JSON")
    parser.add_argument("--out", type=Path, help="write a figure to this .png, .svg or .pdf file")
    parser.set_defaults(run=run)


def parse(expression: str) -> Schedule:
    """Build the schedule that the expression describes.

    Args:
        expression: Calls of the constructors of `thalweg.schedules` with literal arguments, joined by `>>`, `*` and
            `+`, and the methods repeat, clip, delay, stretch, every, advance, after_warmup, scale_batch, decay_at; of a
            1cycle, `.lr` (default) or `.momentum`.

    Returns:
        The schedule.

    Raises:
        ValueError: The expression holds anything else, or a constructor refuses its arguments.

    Example:
        >>> from thalweg.cli.schedule import parse
        >>> parse("cosine(0.1, total_steps=10).repeat(2)").total_steps
        20
    """
    try:
        built = _build(ast.parse(expression.strip(), mode="eval").body)
    except SyntaxError as error:
        raise ValueError(f"schedule: cannot read {expression!r}: {error.msg}") from None
    except (RecursionError, MemoryError):
        raise ValueError(f"schedule: {expression[:60]!r}... is nested too deeply to be read") from None
    if isinstance(built, Bundle):
        built = built.lr
    if not isinstance(built, Schedule):
        raise ValueError(f"schedule: expected a schedule such as 'cosine(0.1, total_steps=100)', got {expression!r}")
    return built


def _build(node: ast.expr) -> Any:
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.RShift, ast.Mult, ast.Add)):
        left, right = _build(node.left), _build(node.right)
        if not (isinstance(left, Schedule) or isinstance(right, Schedule)):  # no arithmetic, no list * 10**9
            raise ValueError(f"schedule: there is no schedule on either side of {ast.unparse(node)!r}")
        try:
            if isinstance(node.op, ast.RShift):
                return left >> right
            return left * right if isinstance(node.op, ast.Mult) else left + right
        except TypeError:
            raise ValueError(f"schedule: cannot join the two sides of {ast.unparse(node)!r}") from None
    if isinstance(node, ast.Attribute) and node.attr in _PARTS:
        bundle = _build(node.value)
        if isinstance(bundle, Bundle):
            return getattr(bundle, node.attr)
    if isinstance(node, ast.Call):
        arguments = [_build(a) for a in node.args]
        options = {k.arg: _build(k.value) for k in node.keywords if k.arg is not None}
        if len(options) < len(node.keywords):
            raise ValueError(f"schedule: ** is not allowed in {ast.unparse(node)!r}")
        if isinstance(node.func, ast.Name):
            constructors = {
                **schedules.CONSTRUCTORS, **schedules.COMBINATIONS, "one_cycle": schedules.one_cycle
            }  # fmt: skip
            if node.func.id not in constructors:
                known = ", ".join(sorted(constructors))
                raise ValueError(f"schedule: {node.func.id!r} is no schedule; known are {known}")
            return _call(constructors[node.func.id], node, arguments, options)
        if isinstance(node.func, ast.Attribute) and node.func.attr in _METHODS:
            owner = _build(node.func.value)
            if isinstance(owner, Schedule) and hasattr(owner, node.func.attr):
                return _call(getattr(owner, node.func.attr), node, arguments, options)
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise ValueError(f"schedule: {ast.unparse(node)!r} is not allowed in a schedule expression") from None


def _call(function: Any, node: ast.expr, arguments: list[Any], options: dict[str, Any]) -> Any:
    try:
        return function(*arguments, **options)
    except TypeError as error:
        raise ValueError(f"schedule: {ast.unparse(node)}: {error}") from None


def run(args: argparse.Namespace) -> int:
    """Print or draw the schedule."""
    schedule = parse(args.expression).resolve(**{name: getattr(args, name) for name in _RATES})
    steps = schedule._preview_steps(args.steps)
    if args.out is not None:
        cast("Figure", schedule.plot(steps=steps).figure).savefig(args.out)
    if args.json:
        description = {
            "schedule": schedule.to_dict(),
            "total_steps": schedule.total_steps,
            "boundaries": schedule.boundaries(steps),
            "cycle_ends": schedule.cycle_ends(steps),
            "values": schedule.values(steps).tolist(),
        }
        print(json.dumps(description))
        return 0
    print(schedule)
    print(schedule.ascii(steps=steps))
    ends = schedule.cycle_ends(steps)
    if ends:
        print(f"cycle ends (0-based steps): {', '.join(map(str, ends[:12]))}{' …' if len(ends) > 12 else ''}")
    if args.out is not None:
        print(f"figure: {args.out}")
    return 0

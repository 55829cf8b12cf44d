"""Graphs as text: runnable Python with shapes as comments, and back again."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from typing import Any

from treadle.base import dtype as dt
from treadle.base.dtype import DType
from treadle.base.errors import VerifyError
from treadle.base.site import describe
from treadle.ir.node import Node, topological
from treadle.ops.body import Body, body_of
from treadle.ops.recurrence import RECURRENCE
from treadle.ops.table import INPUT, TABLE, Op, input_node, make


def write(
    outputs: Sequence[Node], inputs: Sequence[Node] | None = None, sites: bool = False
) -> str:
    """A graph as the text of a Python function of its inputs, after those of its steps.

    Args:
        outputs: what the function returns.
        inputs: its arguments (default: the input nodes in the order of their use).
        sites: add the user's line that recorded each node.
    """
    order = topological(outputs)
    given = list(inputs) if inputs is not None else [n for n in order if n.op is INPUT]
    bodies: dict[Body, str] = {}
    lines: list[str] = []
    _define_steps(order, bodies, lines)
    rest = [n for n in order if n not in set(given)]
    lines += _function("graph", given, rest, outputs, bodies, sites)
    return "\n".join(lines)


def _define_steps(order: Iterable[Node], bodies: dict[Body, str], lines: list[str]) -> None:
    """The steps of recurrences as functions of their own, inner ones first."""
    for node in order:
        body = node.attrs[0] if node.op is RECURRENCE else None
        if body is None or body in bodies:
            continue
        _define_steps(body.order, bodies, lines)
        bodies[body] = name = f"step{len(bodies)}"
        counts = f"{body.carries}, {body.slices}, {body.constants}, {sorted(body.stops)}"
        given, rest = body.order[: body.leaves], body.order[body.leaves :]
        made = _function(name, given, rest, [body.order[i] for i in body.nexts], bodies, False)
        lines += [f"{made[0]}  # {counts}", *made[1:]]


def _function(
    name: str, given: Sequence[Node], rest: Sequence[Node], outputs: Sequence[Node],
    bodies: dict[Body, str], sites: bool,
) -> list[str]:  # fmt: skip
    names = {node: f"a{i}" for i, node in enumerate(given)}
    lines = [f"def {name}("]
    lines += [f"    {names[n]},  # {_type(n)}" for n in given]
    lines.append("):")
    for i, node in enumerate(rest):
        names[node] = f"v{i}"
        arguments = [names[i] for i in node.inputs]
        arguments += [
            f"{key}={_value(v, bodies)}"
            for key, v in zip(node.op.attr_names, node.attrs, strict=True)
        ]
        line = f"    v{i} = {_called(node.op.name)}({', '.join(arguments)})  # {_type(node)}"
        lines.append(f"{line}  {describe(node.site)}" if sites and node.site else line)
    return [*lines, f"    return {', '.join(names[n] for n in outputs)}"]


def read(text: str) -> tuple[list[Node], list[Node]]:
    """The outputs and inputs of a graph written by `write`. Nothing of the text is executed.

    Raises:
        VerifyError: the text is no graph, or a type in its comments is not what the ops infer.
    """
    comments = {
        i: line.rsplit("# ", 1)[1].split("  ")[0]
        for i, line in enumerate(text.splitlines(), 1)
        if "# " in line
    }
    bodies: dict[str, Body] = {}
    for function in ast.parse(text).body:
        if not isinstance(function, ast.FunctionDef):
            raise VerifyError("a graph is the text of a function")
        outputs, inputs, nodes = _parsed(function, comments, bodies)
        if function.name == "graph":
            return outputs, inputs
        carries, slices, _, stops = ast.literal_eval(comments[function.lineno])
        parts = inputs[:carries], inputs[carries : carries + slices], inputs[carries + slices :]
        order = [*inputs, *nodes]
        bodies[function.name] = body_of(*parts, outputs, nodes, [order[i] for i in stops])[0]
    raise VerifyError("a graph is the text of a function")


def _parsed(
    function: ast.FunctionDef, comments: dict[int, str], bodies: dict[str, Body]
) -> tuple[list[Node], list[Node], list[Node]]:
    """What a function returns, its arguments, and all that it computes."""
    names: dict[str, Node] = {}
    inputs: list[Node] = []
    for argument in function.args.args:
        names[argument.arg] = node = _input(comments[argument.lineno])
        inputs.append(node)
    for statement in function.body:
        if isinstance(statement, ast.Return):
            value = statement.value
            parts = value.elts if isinstance(value, ast.Tuple) else [value]
            outputs = [names[p.id] for p in parts if isinstance(p, ast.Name)]
            return outputs, inputs, list(names.values())[len(inputs) :]
        if not isinstance(statement, ast.Assign) or not isinstance(statement.value, ast.Call):
            raise VerifyError(f"line {statement.lineno} of the graph is no call")
        node = _call(statement.value, names, bodies)
        if _type(node) != comments[statement.lineno]:
            raise VerifyError(
                f"line {statement.lineno} of the graph says {comments[statement.lineno]}, "
                f"but {node.op.name} gives {_type(node)}"
            )
        target = statement.targets[0]
        assert isinstance(target, ast.Name)
        names[target.id] = node
    raise VerifyError("the graph returns nothing")


def _call(call: ast.Call, names: dict[str, Node], bodies: dict[str, Body]) -> Node:
    assert isinstance(call.func, ast.Name)
    op: Op = TABLE[call.func.id.rstrip("_")]
    inputs = tuple(names[a.id] for a in call.args if isinstance(a, ast.Name))
    attrs = [
        bodies[k.value.id] if isinstance(k.value, ast.Name) else _constant(k.value)
        for k in call.keywords
    ]
    return make(op, inputs, tuple(attrs))


def _constant(value: ast.expr) -> Any:
    if isinstance(value, ast.Attribute):
        return dt.from_name(value.attr)
    if isinstance(value, ast.Tuple):
        return tuple(_constant(v) for v in value.elts)
    if isinstance(value, ast.Call):
        return float(ast.literal_eval(value.args[0]))
    return ast.literal_eval(value)


def _input(comment: str) -> Node:
    name, _, extents = comment.partition("[")
    shape = tuple(int(n) for n in extents.rstrip("]").split(",") if n.strip())
    return input_node(shape, dt.from_name(name))


def _called(name: str) -> str:
    """The op's name as a Python identifier: `and`, `or` and `not` are keywords."""
    return f"{name}_" if name in ("and", "or", "not") else name


def _type(node: Node) -> str:
    return f"{node.dtype.name}[{', '.join(map(str, node.shape))}]"


def _value(value: Any, bodies: dict[Body, str]) -> str:
    if isinstance(value, Body):
        return bodies[value]
    if isinstance(value, DType):
        return f"dtype.{value.name}"
    if isinstance(value, tuple):
        inner = ", ".join(_value(v, bodies) for v in value)
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, float) and value - value != 0:
        return f"float({str(value)!r})"
    return repr(value)

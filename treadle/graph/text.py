"""Graphs as text: runnable Python with shapes as comments, and back again."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

from treadle.base import dtype as dt
from treadle.base.dtype import DType
from treadle.base.errors import VerifyError
from treadle.base.site import describe
from treadle.ir.node import Node, topological
from treadle.ops.table import INPUT, TABLE, Op, input_node, make


def write(
    outputs: Sequence[Node], inputs: Sequence[Node] | None = None, sites: bool = False
) -> str:
    """A graph as the text of a Python function of its inputs.

    Args:
        outputs: what the function returns.
        inputs: its arguments (default: the input nodes in the order of their use).
        sites: add the user's line that recorded each node.
    """
    order = topological(outputs)
    given = list(inputs) if inputs is not None else [n for n in order if n.op is INPUT]
    names = {node: f"a{i}" for i, node in enumerate(given)}
    lines = ["def graph("]
    lines += [f"    {names[n]},  # {_type(n)}" for n in given]
    lines.append("):")
    for node in order:
        if node in names:
            continue
        names[node] = name = f"v{len(names) - len(given)}"
        arguments = [names[i] for i in node.inputs]
        arguments += [
            f"{key}={_value(v)}" for key, v in zip(node.op.attr_names, node.attrs, strict=True)
        ]
        line = f"    {name} = {_called(node.op.name)}({', '.join(arguments)})  # {_type(node)}"
        lines.append(f"{line}  {describe(node.site)}" if sites and node.site else line)
    lines.append(f"    return {', '.join(names[n] for n in outputs)}")
    return "\n".join(lines)


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
    function = ast.parse(text).body[0]
    if not isinstance(function, ast.FunctionDef):
        raise VerifyError("a graph is the text of one function")
    names: dict[str, Node] = {}
    inputs = []
    for argument in function.args.args:
        names[argument.arg] = node = _input(comments[argument.lineno])
        inputs.append(node)
    for statement in function.body:
        if isinstance(statement, ast.Return):
            value = statement.value
            parts = value.elts if isinstance(value, ast.Tuple) else [value]
            return [names[p.id] for p in parts if isinstance(p, ast.Name)], inputs
        if not isinstance(statement, ast.Assign) or not isinstance(statement.value, ast.Call):
            raise VerifyError(f"line {statement.lineno} of the graph is no call")
        node = _call(statement.value, names)
        if _type(node) != comments[statement.lineno]:
            raise VerifyError(
                f"line {statement.lineno} of the graph says {comments[statement.lineno]}, "
                f"but {node.op.name} gives {_type(node)}"
            )
        target = statement.targets[0]
        assert isinstance(target, ast.Name)
        names[target.id] = node
    raise VerifyError("the graph returns nothing")


def _call(call: ast.Call, names: dict[str, Node]) -> Node:
    assert isinstance(call.func, ast.Name)
    op: Op = TABLE[call.func.id.rstrip("_")]
    inputs = tuple(names[a.id] for a in call.args if isinstance(a, ast.Name))
    return make(op, inputs, tuple(_constant(k.value) for k in call.keywords))


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


def _value(value: Any) -> str:
    if isinstance(value, DType):
        return f"dtype.{value.name}"
    if isinstance(value, tuple):
        inner = ", ".join(_value(v) for v in value)
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, float) and value - value != 0:
        return f"float({str(value)!r})"
    return repr(value)

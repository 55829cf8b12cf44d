"""Runs a plan in plain Python: loop nests as generated scalar code, all else with NumPy."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from treadle.base import dtype as dt
from treadle.base.dtype import DType
from treadle.codegen.interp_attention import interpret_attention
from treadle.graph.plan import HostCall, Launch, Plan, unrolled
from treadle.ir.contraction import Contraction
from treadle.ir.loop import (
    Accumulate,
    Alloc,
    Binary,
    Block,
    Cast,
    Const,
    Expr,
    For,
    If,
    Intrinsic,
    Kernel,
    Let,
    Load,
    Prefetch,
    Select,
    Size,
    Stmt,
    Store,
    Unary,
    Var,
)
from treadle.ops.source import philox
from treadle.ops.table import TABLE

INFIX = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "and": "&", "or": "|", "xor": "^",
    "shl": "<<", "shr": ">>", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!=",
}  # fmt: skip


class Fault(Exception):
    """A failed check."""


def _check(value: Any, ok: Any, code: int) -> Any:
    if not ok:
        raise Fault(code)
    return value


def _binary(op: str) -> Any:
    ref = TABLE[op].ref

    def call(a: Any, b: Any) -> Any:
        if op in ("floordiv", "mod", "rem") and b == 0 and isinstance(b, np.integer | int):
            return type(a)(0)
        return ref(a, b)

    return call


def expression(e: Expr) -> str:
    """Python source of an expression over NumPy scalars; indices are Python integers."""
    if isinstance(e, Var):
        return e.name
    if isinstance(e, Const):
        if e.dtype is dt.int64:
            return str(int(e.value))
        return f"T_{e.dtype.name}(float('{float(e.value)}'))"
    if isinstance(e, Size):
        return f"sizes[{e.index}]"
    if isinstance(e, Load):
        return f"{e.buffer}[inside({expression(e.index)}, {e.buffer})]"
    if isinstance(e, Binary):
        a, b = expression(e.a), expression(e.b)
        if e.dtype is dt.int64 and e.op in ("floordiv", "mod", "max", "min"):
            symbol = {"floordiv": "//", "mod": "%"}.get(e.op)
            return f"({a} {symbol} {b})" if symbol else f"{e.op}({a}, {b})"
        if e.op in INFIX:
            return f"({a} {INFIX[e.op]} {b})"
        return f"binary['{e.op}']({a}, {b})"
    if isinstance(e, Unary):
        return f"unary['{e.op}']({expression(e.x)})"
    if isinstance(e, Select):
        # Both sides are evaluated, as in compiled code: an index out of bounds is found.
        a, b = expression(e.a), expression(e.b)
        return f"select({expression(e.condition)}, {a}, {b})"
    if isinstance(e, Cast):
        return f"cast({expression(e.x)}, T_{e.dtype.name})"
    assert isinstance(e, Intrinsic)
    args = ", ".join(expression(a) for a in e.args)
    if e.name == "bitcast":
        args += f", T_{e.args[0].dtype.name}, T_{e.dtype.name}"
    return f"{e.name}({args})"


def _write(s: Stmt, pad: str, out: list[str]) -> None:
    if isinstance(s, Block):
        for inner in s.body:
            _write(inner, pad, out)
    elif isinstance(s, For):
        out.append(f"{pad}for {s.var} in range({expression(s.stop)}):")
        _write(s.body, pad + " ", out)
        out.append(pad + " pass")
    elif isinstance(s, Let):
        out.append(f"{pad}{s.var} = {expression(s.value)}")
    elif isinstance(s, Alloc):
        out.append(f"{pad}{s.name} = poison({expression(s.size)}, T_{s.dtype.name})")
    elif isinstance(s, Store):
        out.append(f"{pad}at = inside({expression(s.index)}, {s.buffer})")
        out.append(f"{pad}{s.buffer}[at] = {expression(s.value)}")
    elif isinstance(s, Accumulate):
        target = f"{s.buffer}[at]"
        value = expression(s.value)
        both = f"binary['{s.op}']({target}, {value})"
        out.append(f"{pad}at = inside({expression(s.index)}, {s.buffer})")
        out.append(f"{pad}{target} = {both}")
    elif isinstance(s, If):
        out.append(f"{pad}if {expression(s.condition)}:")
        _write(s.then, pad + " ", out)
        if s.otherwise is not None:
            out.append(f"{pad}else:")
            _write(s.otherwise, pad + " ", out)
    elif not isinstance(s, Prefetch):
        raise AssertionError(s)


def _inside(i: int, buffer: Any) -> int:
    if not 0 <= i < len(buffer):
        raise IndexError(f"{i} is outside of a buffer of {len(buffer)}")
    return int(i)


def _cast(x: Any, kind: Any) -> Any:
    with np.errstate(all="ignore"):
        if kind is np.bool_:
            return np.bool_(x != 0)
        value = np.asarray(x).astype(kind)
    return int(value) if kind is np.int64 else value[()]


def _poison(n: int, kind: Any) -> Any:
    return np.full(n, 77, kind)


def _namespace() -> dict[str, Any]:
    names: dict[str, Any] = {f"T_{d.name}": d.numpy.type for d in (*dt.ALL, dt.uint32)}
    return names | {
        "binary": {n: _binary(n) for n in TABLE if TABLE[n].kind == "pointwise"}
        | {"logaddexp": np.logaddexp},
        "unary": {n: op.ref for n, op in TABLE.items() if op.kind == "pointwise"},
        "select": lambda c, a, b: a if c else b,
        "cast": _cast, "inside": _inside, "poison": _poison, "check": _check,
        "philox": lambda key, counter: philox(int(key), np.uint64(counter))[()],
        "bitcast": lambda x, source, target: np.asarray(x, source).view(target)[()],
    }  # fmt: skip


def source(kernel: Kernel) -> str:
    """A kernel as Python source."""
    lines = [f"def kernel(sizes{''.join(', ' + p.name for p in kernel.params)}):"]
    _write(kernel.body, " ", lines)
    return "\n".join(lines)


def run_kernel(kernel: Kernel, sizes: tuple[int, ...], buffers: list[Any]) -> None:
    """Runs a loop nest on flat arrays."""
    names = _namespace()
    exec(source(kernel), names)
    names["kernel"](sizes, *buffers)


def run_contraction(
    kernel: Contraction, sizes: tuple[int, ...], buffers: list[Any], starts: list[int]
) -> None:
    """Runs a contraction on flat arrays, in each of which it begins at an element."""
    n = sum(kernel.dims)
    extents = sizes[:n]
    steps = [sizes[n * (i + 1) : n * (i + 2)] for i in range(len(buffers))]
    summed = n - kernel.dims[3]
    operands = [kernel.a, kernel.b, *kernel.extras, *kernel.out]
    for operand, step in zip(operands, steps, strict=True):
        if operand.unit == "0":
            assert not any(step[sum(kernel.dims[:2]) : sum(kernel.dims[:3])])
        elif operand.unit:
            which = "bmnk".index(operand.unit)
            assert kernel.dims[which] and step[sum(kernel.dims[: which + 1]) - 1] == 1
    a, b = [
        np.lib.stride_tricks.as_strided(
            x[start:], extents, [s * x.itemsize for s in step], writeable=False
        ).astype(np.float64)
        for x, start, step in zip(buffers[:2], starts, steps, strict=False)
    ]
    acc = np.einsum(a, range(n), b, range(n), range(summed)).astype(kernel.accumulator.numpy)
    names = _namespace()
    code = [compile(expression(e), "epilogue", "eval") for e in kernel.outputs]
    first = 2 + len(kernel.extras)
    for at in itertools.product(*(range(e) for e in extents[:summed])):
        names["acc"] = acc[at]
        for i in range(len(kernel.extras)):
            place = starts[2 + i] + sum(p * s for p, s in zip(at, steps[2 + i], strict=False))
            names[f"e{i}"] = buffers[2 + i][_inside(place, buffers[2 + i])]
        values = [eval(c, names) for c in code]
        for i, value in enumerate(values):
            place = starts[first + i]
            place += sum(p * s for p, s in zip(at, steps[first + i], strict=False))
            buffers[first + i][_inside(place, buffers[first + i])] = value


def run_plan(plan: Plan, arrays: list[Any]) -> list[Any]:
    """The outputs of a plan; the arrays of donated inputs may be overwritten."""
    memory: list[Any] = [np.ascontiguousarray(a).reshape(-1).view(np.uint8) for a in arrays]
    for out in plan.outputs:
        if out.source is not None:
            kind, i = out.source
            memory.append(memory[i if kind == "input" else plan.inputs + i])
        elif out.donated is not None:
            memory.append(memory[out.donated])
        else:
            memory.append(np.full(out.nbytes, 0xAB, np.uint8))
    memory.append(np.full(plan.arena_bytes, 0xCD, np.uint8))

    def at(place: tuple[int, int], dtype: DType) -> Any:
        slot, offset = place
        raw = memory[slot][offset:]
        return raw[: len(raw) // dtype.itemsize * dtype.itemsize].view(dtype.numpy)

    with np.errstate(all="ignore"):
        for step in unrolled(plan.steps):
            if isinstance(step, HostCall):
                arrays = [at(p, d)[: math.prod(s)].reshape(s) for p, d, s in step.inputs]
                place, dtype, shape = step.output
                value = np.asarray(step.node.op.ref(*arrays, *step.node.attrs))
                at(place, dtype)[: math.prod(shape)] = value.reshape(-1)
                continue
            assert isinstance(step, Launch)
            params = step.params
            if not isinstance(step.kernel, Kernel):
                whole = [at((q[0], 0), p.dtype) for q, p in zip(step.buffers, params, strict=True)]
                starts = [
                    q[1] // p.dtype.itemsize for q, p in zip(step.buffers, params, strict=True)
                ]
                if isinstance(step.kernel, Contraction):
                    run_contraction(step.kernel, step.sizes, whole, starts)
                else:
                    interpret_attention(step.kernel, whole, step.sizes, starts)
            else:
                buffers = [at(q, p.dtype) for q, p in zip(step.buffers, params, strict=True)]
                run_kernel(step.kernel, step.sizes, buffers)
    return [
        memory[plan.inputs + i][: o.nbytes].view(o.dtype.numpy).reshape(o.shape)
        for i, o in enumerate(plan.outputs)
    ]

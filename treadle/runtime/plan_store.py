"""Plans on disk: what planning and binding came to, so that a later process does neither.

An entry holds the tables of launches of a plan, with keys of the object cache in the place of
addresses. It is found by the text of the graph, the target, the processors, and the sources of
all that had a part in it; where anything about it or its kernels is missing, it counts as missing.
What launches are called and which line a fault is blamed on is not kept: who asks plans anew.
"""

from __future__ import annotations

import functools
import json
import struct
import zlib
from array import array
from collections.abc import Callable, Sequence
from typing import Any, Final

from treadle.base import dtype as dt
from treadle.codegen import cache
from treadle.codegen.compile import bind, load, object_keys
from treadle.codegen.target import host
from treadle.graph.build import build
from treadle.graph.plan import HostCall, Output, Plan, launches_of
from treadle.graph.text import write
from treadle.ir.node import Node
from treadle.runtime.binding import Native, Part, bound_steps
from treadle.runtime.processors import available
from treadle.runtime.program import Program, Tables

_ROOMS: Final = ("base", "ir", "ops", "graph", "codegen", "runtime")
_KEY_BYTES: Final = 32
_WORDS_AT_MOST: Final = 1 << 20
"""Plans of very many launches take long to read as well."""
_HEADER: Final = struct.Struct("<I")

Stored = tuple[Plan, list[Native]]


def key_of(outputs: Sequence[Node], inputs: Sequence[Node], donated: frozenset[int]) -> bytes:
    """What identifies the plan of a graph."""
    text = f"{available()} {sorted(donated)}\n{write(outputs, inputs)}"
    return cache.key_of(text, host(), _ROOMS)


def find(
    key: bytes, outputs: Sequence[Node], inputs: Sequence[Node], donated: frozenset[int]
) -> Stored | None:
    """The plan kept under a key, without steps, and its programs; or `None`.

    Args:
        key: of the graph that the other arguments describe.
        outputs: the graph's results, as for `build`; also `inputs` and `donated`.
    """
    payload = cache.read(key)
    if payload is None:
        return None
    data = zlib.decompress(payload)
    (size,) = _HEADER.unpack_from(data)
    at = _HEADER.size + size
    header = json.loads(data[_HEADER.size : at])
    plan = Plan(header["inputs"], tuple(map(_output, header["outputs"])), header["arena"])

    @functools.cache
    def parts() -> list[Sequence[Part]]:
        steps = bound_steps(build(outputs, inputs, donated))
        return [step.parts() for step in steps if isinstance(step, Native)]

    natives: list[Native] = []
    for number, (workspace, scratch, *counts) in enumerate(header["programs"]):
        kernels, params, records = _split(data, at, counts)
        at += _KEY_BYTES * counts[0] + 8 * (counts[1] + counts[2])
        addresses = load(kernels)
        if addresses is None:
            return None
        tables = Tables(params, records).with_kernels(addresses)
        native = Program.of(*tables, plan.arena_slot + 1, scratch)
        natives.append(Native(_numbered(parts, number), native, workspace))
    return plan, natives


def _numbered(parts: Callable[[], list[Any]], number: int) -> Callable[[], Sequence[Part]]:
    return lambda: parts()[number]


def keep(key: bytes, plan: Plan, steps: Sequence[Native | HostCall]) -> None:
    """Writes a plan and its programs, unless it calls NumPy or is very long."""
    natives = [step for step in steps if isinstance(step, Native)]
    tables = [native.program.tables() for native in natives]
    if len(natives) < len(steps) or sum(len(t.params) for t in tables) > _WORDS_AT_MOST:
        return
    kernels = [launch.kernel for launch in launches_of(plan.steps)]
    key_at = dict(zip(bind(kernels), object_keys(kernels), strict=True))
    programs, blocks = [], []
    for native, table in zip(natives, tables, strict=True):
        addresses = list(dict.fromkeys(table.kernels))
        number = {address: i for i, address in enumerate(addresses)}
        table = table.with_kernels([number[a] for a in table.kernels], each=True)
        counts = (len(addresses), len(table.params), len(table.records))
        programs.append((native.workspace, native.program.scratch, *counts))
        blocks += [*[key_at[a] for a in addresses], table.params.tobytes(), table.records.tobytes()]
    outputs = [(o.slot, o.dtype.name, o.shape, o.nbytes, o.source, o.donated) for o in plan.outputs]
    header = json.dumps(
        {"inputs": plan.inputs, "arena": plan.arena_bytes, "outputs": outputs, "programs": programs}
    ).encode()
    data = b"".join((_HEADER.pack(len(header)), header, *blocks))
    cache.write(key, zlib.compress(data, 1))


def _output(given: Sequence[Any]) -> Output:
    slot, dtype, shape, nbytes, source, donated = given
    place = None if source is None else (source[0], source[1])
    return Output(slot, dt.from_name(dtype), tuple(shape), nbytes, place, donated)


def _split(
    data: bytes, at: int, counts: Sequence[int]
) -> tuple[list[bytes], array[int], array[int]]:
    """The keys of kernels, the params and the records of a program."""
    kernels, params, records = counts
    behind = at + _KEY_BYTES * kernels
    keys = [data[i : i + _KEY_BYTES] for i in range(at, behind, _KEY_BYTES)]
    middle = behind + 8 * params
    return (
        keys, array("q", data[behind:middle]), array("q", data[middle : middle + 8 * records]),
    )  # fmt: skip

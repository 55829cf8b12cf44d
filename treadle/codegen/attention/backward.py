"""The backward task: a stretch of keys of one head against all queries, block by block.

Weights are computed again from the queries' `lse`. Of each block of keys the gradients `dk` and
`dv` are complete; `dq` grows from block to block.
"""

from __future__ import annotations

import math
from typing import Any

from treadle.codegen.attention.layout import Frame
from treadle.codegen.attention.parts import Parts, pack_mask, pack_queries
from treadle.codegen.attention.schedule import CHUNK
from treadle.codegen.attention.softmax import LOG2_E, factor_of, render_differentiate
from treadle.codegen.contract.flow import WORD, call
from treadle.codegen.value import Value


def render_backward(parts: Parts) -> Any:
    """`backward(slots, params, scratch, task)`: tasks count stretches of keys, then heads."""
    differentiate = render_differentiate(parts)
    made, f, args = parts.function("backward", "pppi")
    _Backward(parts.frame(f, args[:3]), parts, differentiate, args[3]).emit()
    f.builder.ret_void()
    return made


def render_combine(parts: Parts) -> Any:
    """`combine(slots, params, scratch, task)`: one panel of dq from what each stretch of keys added
    to it, in their order. Tasks count panels, then heads."""
    made, f, args = parts.function("combine", "pppi")
    frame, task = parts.frame(f, args[:3]), args[3]
    number, width = frame.number, parts.tile.width
    head, panel = f.div(task, number("panels")), f.rem(task, number("panels"))
    first = f.at(frame.buffer("workspace"), head * number("pieces") * number("dq_bytes"))
    first = f.at(first, panel * padded(frame, parts) * parts.row)
    with f.loop(1, number("pieces")) as piece:
        source = f.at(first, piece * number("dq_bytes"))
        with f.loop(0, number("d") * parts.row, parts.tile.lanes * parts.tile.itemsize) as at:
            total = parts.load(f, f.at(first, at)) + parts.load(f, f.at(source, at))
            parts.store(f, total, f.at(first, at))
    _scaling(frame, parts)
    query = panel * width
    _give_dq(
        frame, parts, f.div(head, number("heads")), f.rem(head, number("heads")), query,
        f.least(number("t") - query, width), first,
    )  # fmt: skip
    f.builder.ret_void()
    return made


def padded(frame: Frame, parts: Parts) -> Value:
    """The features of a key, up to a multiple of a tile's rows."""
    rows = parts.tile.rows
    return frame.f.div(frame.number("d") + (rows - 1), rows) * rows


def _scaling(frame: Frame, parts: Parts) -> None:
    """The scale as the factor of each query."""
    f = frame.f
    for offset in parts.offsets:
        parts.store(f, factor_of(f, parts, frame.scale()), f.at(frame.place("factors"), offset))


def _give_dq(
    frame: Frame, parts: Parts, batch: Value, head: Value, query: Value, count: Value, panel: Any
) -> None:
    call(
        frame.f, parts.unpack, panel, frame.number("d"), count, frame.place("factors"),
        frame.matrix("dq", batch, head, query), frame.stride("dq", "row"),
    )  # fmt: skip


class _Backward:
    """Emits the work on one stretch of keys."""

    def __init__(self, frame: Frame, parts: Parts, differentiate: Any, task: Value) -> None:
        self.frame = frame
        self.parts = parts
        self.differentiate = differentiate
        self.f = f = frame.f
        number = frame.number
        self.batch, self.head, self.first = frame.stretch(task)
        self.last = f.least(number("s"), self.first + number("stretch"))
        self.wanted = {name: parts.pattern.find(name) is not None for name in ("dq", "dk", "dv")}
        alone = number("pieces").equals(1)
        shared = f.at(frame.buffer("workspace"), task * number("dq_bytes"))
        self.dq = f.builder.select(alone.raw, frame.place("dq_t"), shared)
        self.alone = alone
        self.chunk = CHUNK * parts.tile.rows
        # Panels lie one behind the other: the queries of all of them.
        self.count = number("panels") * parts.tile.width

    def emit(self) -> None:
        """Queries packed, blocks of keys, and what they gave dq."""
        f, number, width = self.f, self.frame.number, self.parts.tile.width
        _scaling(self.frame, self.parts)
        begin = self._visible(self.first)
        with f.loop(begin, number("t"), width) as query:
            self._begin(query)
        if self.wanted["dq"]:
            self.parts.fill(f, 0.0, self.dq, number("dq_bytes"))
        with f.loop(self.first, self.last, number("block")) as key:
            self._block(key, f.least(self.last - key, number("block")))
        if self.wanted["dq"]:
            with f.when(self.alone), f.loop(0, number("t"), width) as query:
                _give_dq(
                    self.frame, self.parts, self.batch, self.head, query,
                    f.least(number("t") - query, width), self._dq(query),
                )  # fmt: skip

    def _visible(self, key: Value) -> Value:
        """The first query of the first panel that sees a key."""
        if not self.parts.pattern.causal:
            return self.f.index(0)
        return key - self.f.rem(key, self.parts.tile.width)

    def _dq(self, query: Value) -> Any:
        return self.f.at(self.dq, query * (self.parts.row // self.parts.tile.width)
                         * padded(self.frame, self.parts))  # fmt: skip

    def _panel(self, name: str, query: Value, features: str | None = None) -> Any:
        """The panel of a query, of so many features (default: one)."""
        offset = query * self.parts.tile.itemsize
        return self.frame.place(name, offset * self.frame.number(features) if features else offset)

    # --- a panel of queries ----------------------------------------------------------------------

    def _begin(self, query: Value) -> None:
        """Packs a panel of q and g, both ways, with lse and delta."""
        frame, parts, f = self.frame, self.parts, self.f
        count = f.least(frame.number("t") - query, parts.tile.width)
        for name, features in (("q", "d"), ("g", "e")):
            start = frame.matrix(name, self.batch, self.head, query)
            pack_queries(
                frame, parts, name, start, count, self._panel(f"{name}_t", query, features)
            )
            self._rows(name, features, start, query, count)
        for name, rest in (("lse", math.inf), ("delta", 0.0)):
            to, size = self._panel(name, query), parts.tile.itemsize
            parts.fill(f, rest, to, f.index(parts.row))
            source = frame.matrix(name, self.batch, self.head, query)
            with f.loop(0, count) as i:
                number = parts.one(f, f.at(source, i * frame.stride(name, "row")))
                if name == "lse":
                    number = number.equals(-math.inf).where(number.like(math.inf), number * LOG2_E)
                parts.store(f, number, f.at(to, i * size))

    def _rows(self, name: str, features: str, start: Any, query: Value, count: Value) -> None:
        """Queries as rows of panels of features: what gradients of keys are sums of."""
        frame, parts, f = self.frame, self.parts, self.f
        size, columns = parts.tile.itemsize, frame.number(features)
        with f.loop(0, columns, parts.tile.width) as feature:
            to = frame.place(name, (feature * self.count + query * parts.tile.width) * size)
            call(
                f, parts.copy, to, f.index(parts.row), f.at(start, feature * size),
                frame.stride(name, "row"), f.index(size), count,
                f.least(columns - feature, parts.tile.width),
            )  # fmt: skip

    # --- a block of keys -------------------------------------------------------------------------

    def _block(self, key: Value, keys: Value) -> None:
        frame, parts, f = self.frame, self.parts, self.f
        number = frame.number
        for name, features in (("k", "d"), ("v", "e")):
            columns = number(features)
            call(
                f, parts.copy, frame.place(name), columns * parts.tile.itemsize,
                frame.matrix(name, self.batch, self.head, key), frame.stride(name, "row"),
                frame.stride(name, "column"), keys, columns,
            )  # fmt: skip
        gradients = [("dk", "ds", "s_rows", "q", "d"), ("dv", "p", "p_rows", "g", "e")]
        gradients = [each for each in gradients if self.wanted[each[0]]]
        for name, *_, features in gradients:
            parts.fill(f, 0.0, frame.place(name), self._panels(features) * number("block"))
        group = number("group") * parts.tile.width
        with f.loop(self._visible(key), number("t"), group) as first:
            queries = f.least(number("t") - first, group)
            with f.loop(0, queries, parts.tile.width) as query:
                self._scores(first, query, key, keys)
            with f.loop(0, keys, self.chunk) as row:
                for _, _, rows, source, features in gradients:
                    self._add(first, queries, key, row, keys, rows, source, features)
        for name, *_, features in gradients:
            self._give(name, features, key, keys)

    def _panels(self, features: str) -> Value:
        """The bytes that one key takes in all panels of features."""
        f, width = self.f, self.parts.tile.width
        return f.div(self.frame.number(features) + (width - 1), width) * self.parts.row

    def _scores(self, first: Value, inside: Value, key: Value, keys: Value) -> None:
        """Weights and gradients of scores of one panel of queries, and what they give dq."""
        frame, parts, f = self.frame, self.parts, self.f
        number, query = frame.number, first + inside
        ahead = query - key
        if parts.pattern.causal:
            # As far as the sums for whole chunks of keys will read: weights there are zero.
            seen = ahead + (parts.tile.width + self.chunk - 1)
            keys = f.least(keys, seen - f.rem(seen, self.chunk))
        row, nothing = f.index(parts.row), f.index(0)
        at = f.div(inside, parts.tile.width) * number("block") * parts.row
        p, ds = frame.place("p", at), frame.place("ds", at)
        for rows, steps, queries, features, to in (
            ("k_rows", "d_steps", "q_t", "d", p), ("v_rows", "e_steps", "g_t", "e", ds),
        ):  # fmt: skip
            call(
                f, parts.sweep, frame.place(rows), keys, frame.place(steps),
                self._panel(queries, query, features), row, number(features), to,
                frame.place("zeros"), nothing,
            )  # fmt: skip
        if parts.pattern.find("mask") is not None:
            count = f.least(number("t") - query, parts.tile.width)
            pack_mask(frame, parts, self.batch, self.head, query, count, key, keys)
        call(
            f, self.differentiate, p, ds, keys, self._panel("lse", query),
            self._panel("delta", query), frame.place("mask"), ahead, frame.scale(),
        )  # fmt: skip
        if self.wanted["dq"]:
            dq = self._dq(query)
            call(
                f, parts.sweep, frame.place("k_columns"), number("d"), frame.place("key_d"), ds,
                row, keys, dq, dq, row,
            )  # fmt: skip

    def _add(
        self, first: Value, queries: Value, key: Value, row: Value, keys: Value, rows: str,
        source: str, features: str,
    ) -> None:  # fmt: skip
        """What a group of queries adds to the gradients of a chunk of keys."""
        frame, parts, f = self.frame, self.parts, self.f
        width = parts.tile.width
        skipped = f.index(0)
        if parts.pattern.causal:
            behind = key + row - first
            behind = behind - f.rem(behind, width)
            skipped = (key + row < first).where(f.index(0), behind)
        depth = queries - skipped
        with f.when(depth > 0), f.loop(0, frame.number(features), width) as feature:
            start = feature * self.count + (first + skipped) * width
            to = feature * (parts.row // width) * frame.number("block") + row * parts.row
            to = frame.place(f"d{'k' if source == 'q' else 'v'}", to)
            call(
                f, parts.sweep, frame.place(rows, row * WORD), f.least(keys - row, self.chunk),
                frame.place("q_steps", skipped * WORD),
                frame.place(source, start * parts.tile.itemsize), f.index(parts.row), depth, to,
                to, f.index(parts.row),
            )  # fmt: skip

    def _give(self, name: str, features: str, key: Value, keys: Value) -> None:
        """Writes the gradients of a block of keys."""
        frame, parts, f = self.frame, self.parts, self.f
        size, lanes, width = parts.tile.itemsize, parts.tile.lanes, parts.tile.width
        factor = factor_of(f, parts, frame.scale()) if name == "dk" else None
        start = frame.matrix(name, self.batch, self.head, key)
        columns = frame.number(features)

        def scaled(value: Value) -> Value:
            return (
                value if factor is None else value * (factor if value.lanes > 1 else factor.lane(0))
            )

        with f.loop(0, columns, width) as feature, f.loop(0, keys) as row:
            panel = feature * (parts.row // width) * frame.number("block") + row * parts.row
            source = frame.place(name, panel)
            to = f.at(start, frame.stride(name, "row") * row + feature * size)
            count = f.least(columns - feature, width)
            whole = count - f.rem(count, lanes)
            with f.loop(0, whole, lanes) as i:
                parts.store(f, scaled(parts.load(f, f.at(source, i * size))), f.at(to, i * size))
            with f.loop(whole, count) as i:
                parts.store(f, scaled(parts.one(f, f.at(source, i * size))), f.at(to, i * size))

"""The forward task: a stretch of queries of one head against all keys, block by block."""

from __future__ import annotations

import math
from typing import Any

from treadle.codegen.attention.layout import Frame
from treadle.codegen.attention.parts import Parts, pack_mask, pack_queries
from treadle.codegen.attention.softmax import LN_2, render_softmax
from treadle.codegen.contract.flow import call
from treadle.codegen.math_log import log2
from treadle.codegen.value import Value


def render_forward(parts: Parts) -> Any:
    """`forward(slots, params, scratch, task)`: tasks count stretches of queries, then heads."""
    softmax = render_softmax(parts)
    made, f, args = parts.function("forward", "pppi")
    _Forward(parts.frame(f, args[:3]), parts, softmax, args[3]).emit()
    f.builder.ret_void()
    return made


class _Forward:
    """Emits the work on one stretch of queries."""

    def __init__(self, frame: Frame, parts: Parts, softmax: Any, task: Value) -> None:
        self.frame = frame
        self.parts = parts
        self.softmax = softmax
        self.f = f = frame.f
        number = frame.number
        self.batch, self.head, self.first = frame.stretch(task)
        self.queries = f.least(number("t") - self.first, number("stretch"))
        self.values = parts.pattern.find("v") is not None

    def emit(self) -> None:
        """Queries packed, keys in blocks, results written."""
        f, number, width = self.f, self.frame.number, self.parts.tile.width
        with f.loop(0, self.queries, width) as query:
            self._begin(query)
        keys = number("s")
        if self.parts.pattern.causal:
            keys = f.least(keys, self.first + self.queries)
        with f.loop(0, keys, number("block")) as key:
            count = f.least(keys - key, number("block"))
            self._load("k", "d", key, count)
            if self.values:
                self._load("v", "e", key, count)
            with f.loop(0, self.queries, width) as query:
                self._block(query, key, count)
        with f.loop(0, self.queries, width) as query:
            self._end(query)

    def _panel(self, query: Value, features: str | None = None) -> Value:
        """The bytes from the first panel to that of a query, of so many features each."""
        offset = self.f.div(query, self.parts.tile.width) * self.parts.row
        return offset * self.frame.number(features) if features else offset

    def _out(self, query: Value) -> Any:
        rows = self.parts.tile.rows
        padded = self.f.div(self.frame.number("e") + (rows - 1), rows) * rows
        return self.frame.place("out_t", self._panel(query) * padded)

    def _begin(self, query: Value) -> None:
        frame, parts, f = self.frame, self.parts, self.f
        count = f.least(self.queries - query, parts.tile.width)
        start = frame.matrix("q", self.batch, self.head, self.first + query)
        pack_queries(frame, parts, "q", start, count, frame.place("q_t", self._panel(query, "d")))
        row = f.index(parts.row)
        parts.fill(f, -math.inf, frame.place("peaks", self._panel(query)), row)
        parts.fill(f, 0.0, frame.place("sums", self._panel(query)), row)
        if self.values:
            parts.fill(f, 0.0, self._out(query), row * frame.number("e"))

    def _load(self, name: str, features: str, key: Value, count: Value) -> None:
        """A block of keys or values, side by side."""
        frame, f = self.frame, self.f
        columns = frame.number(features)
        call(
            f, self.parts.copy, frame.place(name), columns * self.parts.tile.itemsize,
            frame.matrix(name, self.batch, self.head, key), frame.stride(name, "row"),
            frame.stride(name, "column"), count, columns,
        )  # fmt: skip

    def _block(self, query: Value, key: Value, keys: Value) -> None:
        """One panel of queries against one block of keys."""
        parts, f = self.parts, self.f
        ahead = self.first + query - key
        if parts.pattern.causal:
            keys = f.least(keys, ahead + parts.tile.width)
        with f.when(keys > 0):
            self._products(query, key, keys, ahead)

    def _products(self, query: Value, key: Value, keys: Value, ahead: Value) -> None:
        frame, parts, f = self.frame, self.parts, self.f
        row, nothing, tile = f.index(parts.row), f.index(0), frame.place("p")
        call(
            f, parts.sweep, frame.place("k_rows"), keys, frame.place("d_steps"),
            frame.place("q_t", self._panel(query, "d")), row, frame.number("d"), tile,
            frame.place("zeros"), nothing,
        )  # fmt: skip
        if parts.pattern.find("mask") is not None:
            count = f.least(self.queries - query, parts.tile.width)
            pack_mask(frame, parts, self.batch, self.head, self.first + query, count, key, keys)
        out = self._out(query) if self.values else tile
        features = frame.number("e") if self.values else nothing
        call(
            f, self.softmax, tile, keys, frame.place("peaks", self._panel(query)),
            frame.place("sums", self._panel(query)), out, features, frame.place("mask"), ahead,
            frame.scale(),
        )  # fmt: skip
        if self.values:
            call(
                f, parts.sweep, frame.place("v_columns"), features, frame.place("key_e"), tile,
                row, keys, out, out, row,
            )  # fmt: skip

    def _end(self, query: Value) -> None:
        """Weighted means from sums, and the logarithms of the sums of weights."""
        frame, parts, f = self.frame, self.parts, self.f
        count = f.least(self.queries - query, parts.tile.width)
        sums = parts.vectors(f, frame.place("sums", self._panel(query)))
        peaks = parts.vectors(f, frame.place("peaks", self._panel(query)))
        lse_at = frame.place("peaks", self._panel(query))
        for offset, total, peak in zip(parts.offsets, sums, peaks, strict=True):
            blind = total.equals(0.0)
            parts.store(f, blind.where(total, 1.0 / total), f.at(frame.place("factors"), offset))
            parts.store(f, blind.where(peak, (log2(total) + peak) * LN_2), f.at(lse_at, offset))
        if parts.pattern.find("out") is not None:
            call(
                f, parts.unpack, self._out(query), frame.number("e"), count,
                frame.place("factors"),
                frame.matrix("out", self.batch, self.head, self.first + query),
                frame.stride("out", "row"),
            )  # fmt: skip
        if parts.pattern.find("lse") is not None:
            to = frame.matrix("lse", self.batch, self.head, self.first + query)
            with f.loop(0, count) as i:
                number = parts.one(f, f.at(lse_at, i * parts.tile.itemsize))
                parts.store(f, number, f.at(to, i * frame.stride("lse", "row")))

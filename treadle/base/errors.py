"""The errors that users meet: what was asked, with which shapes, on which line, and one hint."""

from __future__ import annotations


class TreadleError(Exception):
    """The base of every error raised by treadle itself."""


class ShapeError(TreadleError, RuntimeError, ValueError):
    """Shapes that do not fit together."""


class DTypeError(TreadleError, RuntimeError, TypeError):
    """Element types that an operation does not take."""


class IndexBoundsError(TreadleError, IndexError):
    """An index outside of the dimension that it points into, found while a plan ran."""


class GradientError(TreadleError, RuntimeError):
    """A gradient that was asked for and does not exist."""


class CompileError(TreadleError, RuntimeError):
    """A kernel that could not be turned into machine code: a fault of treadle, not of the user."""


class VerifyError(TreadleError, RuntimeError):
    """A graph or loop nest that breaks its own grammar: a fault of treadle, not of the user."""


class DataError(TreadleError, RuntimeError):
    """A data file that is missing, truncated or not what it should be."""


class CheckpointError(TreadleError, RuntimeError):
    """A checkpoint that cannot be read, or that asks for more than plain data."""

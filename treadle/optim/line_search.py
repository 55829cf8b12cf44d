"""A line search for the strong Wolfe conditions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Point(NamedTuple):
    """A place on the line: how far along, the loss there, its gradient and its slope."""

    t: float
    loss: float
    gradient: Any
    slope: float


def _minimum(a: Point, b: Point, bounds: tuple[float, float] | None = None) -> float:
    """Where the cubic through two points with their slopes is lowest, kept within bounds."""
    low, high = bounds or (min(a.t, b.t), max(a.t, b.t))
    if a.t > b.t:
        a, b = b, a
    if a.t == b.t:
        return (low + high) / 2.0
    d1 = a.slope + b.slope - 3 * (a.loss - b.loss) / (a.t - b.t)
    square = d1 * d1 - a.slope * b.slope
    if square < 0:
        return (low + high) / 2.0
    d2 = square**0.5
    t = b.t - (b.t - a.t) * ((b.slope + d2 - d1) / (b.slope - a.slope + 2 * d2))
    return min(max(t, low), high)


def strong_wolfe(
    at: Callable[[float], tuple[float, Any, float]], t: float, largest: float, loss: float,
    gradient: Any, slope: float, c1: float = 1e-4, c2: float = 0.9, tolerance: float = 1e-9,
    max_search: int = 25,
) -> tuple[float, Any, float, int]:  # fmt: skip
    """A step size with enough decrease and a slope small enough.

    Source: Nocedal and Wright, "Numerical Optimization", 2nd ed., algorithms 3.5 and 3.6.

    Args:
        at: gives loss, gradient and slope at a distance.
        t: the first distance to try.
        largest: the largest element of the direction.
        loss, gradient, slope: at the start.
        c1, c2: what counts as enough decrease, and as a small slope.
        tolerance: the least change of a parameter that matters.
        max_search: evaluations at most.

    Returns:
        Loss, gradient and distance of the point found, and how many points were evaluated.
    """
    start = before = Point(0.0, loss, gradient, slope)
    now = Point(t, *at(t))
    evals = 1
    tries = 0
    bracket: list[Point] = []
    done = False
    while tries < max_search:
        if now.loss > loss + c1 * now.t * slope or (tries > 1 and now.loss >= before.loss):
            bracket = [before, now]
            break
        if abs(now.slope) <= -c2 * slope:
            bracket, done = [now], True
            break
        if now.slope >= 0:
            bracket = [before, now]
            break
        bounds = (now.t + 0.01 * (now.t - before.t), now.t * 10)
        following = _minimum(before, now, bounds)
        before = now
        now = Point(following, *at(following))
        evals += 1
        tries += 1
    if tries == max_search:
        bracket = [start, now]
    return _zoom(at, bracket, done, start, (c1, c2), tolerance * 1.0 / max(largest, 1e-300),
                 evals, max_search - tries)  # fmt: skip


def _zoom(
    at: Callable[[float], tuple[float, Any, float]], bracket: list[Point], done: bool,
    start: Point, constants: tuple[float, float], narrowest: float, evals: int, tries: int,
) -> tuple[float, Any, float, int]:  # fmt: skip
    """Narrows a bracket until a point in it satisfies the conditions."""
    c1, c2 = constants
    stalled = False
    bracket = sorted(bracket, key=lambda p: p.loss)
    while not done and tries > 0:
        low, high = bracket
        left, right = sorted((low.t, high.t))
        if right - left < narrowest:
            break
        t = _minimum(low, high)
        margin = 0.1 * (right - left)
        if min(right - t, t - left) < margin:
            # Close to an end twice in a row, or at it: move well into the bracket.
            if stalled or t >= right or t <= left:
                t = right - margin if abs(t - right) < abs(t - left) else left + margin
                stalled = False
            else:
                stalled = True
        else:
            stalled = False
        now = Point(t, *at(t))
        evals += 1
        tries -= 1
        if now.loss > start.loss + c1 * t * start.slope or now.loss >= low.loss:
            bracket = sorted((low, now), key=lambda p: p.loss)
            continue
        done = abs(now.slope) <= -c2 * start.slope
        other = low if not done and now.slope * (high.t - low.t) >= 0 else high
        bracket = [now, other]
    best = bracket[0]
    return best.loss, best.gradient, best.t, evals

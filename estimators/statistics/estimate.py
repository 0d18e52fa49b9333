"""An estimate says how far it may be off, and when there was too little to say anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, wraps
from inspect import signature
from typing import Any, ParamSpec, get_args, get_type_hints

import numpy as np
from jaxtyping import Float
from scipy import stats

from icq import coerce
from icq.display import Fact, Shown, number
from icq.exact.fixed_point import unit_of
from icq.reason import NoNumber, Reason, Why

P = ParamSpec("P")
UNSEEN = "no difference was seen: at most the share of what never happened (rule of three) times the range of values"


@dataclass(frozen=True)
class Estimate(Shown):
    """A measured number.

    interval: confidence interval; n_eff: effective number of independent observations behind it; why: why there is no
    number (value and interval are then NaN), None where there is one; note: what the number is where that is not what
    its name says; confidence: level of the interval, None where there is none or it is not known.
    """

    value: float
    stderr: float
    interval: tuple[float, float]
    n_eff: float
    why: Why | None = None
    note: str = ""
    confidence: float | None = None

    @property
    def known(self) -> bool:
        """There is a number."""
        return self.why is None

    def rescaled(self, factor: float) -> Estimate:
        """The estimate of `factor` times the quantity, factor > 0."""
        low, high = self.interval
        return replace(
            self, value=self.value * factor, stderr=self.stderr * factor, interval=(low * factor, high * factor)
        )

    def __str__(self) -> str:
        if self.why is not None:
            return f"none ({self.why})"
        return f"{self.value:.4g} [{self.interval[0]:.4g}, {self.interval[1]:.4g}]"

    def _line_(self) -> str:
        if not self.known:
            return str(self)
        note = f", {self.note}" if self.note else ""
        if self.stderr == 0 and np.isinf(self.n_eff):
            return f"{number(self.value)} (exact{note})"
        return f"{number(self.value)} ({self._range}, n_eff {number(self.n_eff)}{note})"

    @property
    def _range(self) -> str:
        level = "" if self.confidence is None else f"{100 * self.confidence:.4g} %: "
        return f"{level}{number(self.interval[0])} to {number(self.interval[1])}"

    def _facts_(self) -> list[Fact]:
        return [
            Fact("", None if self.known else str(self)), Fact("value", self.value if self.known else None),
            Fact("interval", self._range if self.known else None), Fact("n_eff", self.n_eff),
            Fact("", self.note or None),
        ]  # fmt: skip


OK = "ok"  # the `result` in files where there is a number


def result(e: Estimate) -> str:
    """What files say of it: `OK`, or the sentence that says why there is no number."""
    return OK if e.why is None else str(e.why)


def recorded(said: str) -> Why | None:
    """The other way round: None for `OK`, else the sentence, whose reason is no longer known."""
    return None if said == OK else Why(Reason.RECORDED, said)


def as_dict(e: Estimate) -> dict[str, Any]:
    """An estimate as JSON; NaN becomes null."""
    ends = [finite(x) for x in e.interval]
    return {"value": finite(e.value), "interval": ends, "n": finite(e.n_eff), "result": result(e)}


def from_dict(said: Mapping[str, Any]) -> Estimate:
    """An estimate that `as_dict` wrote, without its standard error."""
    value, low, high, n = (
        float("nan") if x is None else float(x) for x in (said["value"], *said["interval"], said["n"])
    )
    return Estimate(value, float("nan"), (low, high), n, recorded(said["result"]))


def finite(x: float) -> float | None:
    """A number as JSON: None for NaN and infinity."""
    return float(x) if np.isfinite(x) else None


def missing(why: Why | Reason, place: str = "", need: str = "", *, n_eff: float = 0.0) -> Estimate:
    """No number, and why."""
    nan = float("nan")
    return Estimate(nan, nan, (nan, nan), n_eff, why if isinstance(why, Why) else Why(why, place, need))


def exact(value: float) -> Estimate:
    """A number computed without sampling."""
    return Estimate(value, 0.0, (value, value), float("inf"))


def attempt(of: Callable[P, Estimate], *args: P.args, **kwargs: P.kwargs) -> Estimate:
    """of(...), or the estimate without a value of the `NoNumber` that it raises: the border of all estimators."""
    try:
        return of(*args, **kwargs)
    except NoNumber as none:
        return missing(none.why, n_eff=none.n_eff)


def expect(name: str, given: object, *kinds: type) -> None:
    """Raise TypeError unless an argument is of one of these types."""
    if not isinstance(given, kinds):
        names = [f"{'an' if kind.__name__[0] in 'AEIO' else 'a'} {kind.__name__}" for kind in kinds]
        raise TypeError(f"{name} is a {type(given).__name__}, expected {' or '.join(names)}")


def estimator(of: Callable[P, Estimate]) -> Callable[P, Estimate]:
    """A function of one source whose `NoNumber` becomes an estimate without a value.

    Raises TypeError when the first argument is none of the types in its annotation.
    """
    source, kinds = next(iter(signature(of).parameters)), cache(lambda: get_type_hints(of)[source])

    @wraps(of)
    def asked(*args: P.args, **kwargs: P.kwargs) -> Estimate:
        given = args[0] if args else kwargs.get(source)
        expect(source, given, *(get_args(kinds()) or (kinds(),)))
        return attempt(of, *args, **kwargs)

    return asked


def scale_free(degree: int, *amounts: str) -> Callable[[Callable[P, Estimate]], Callable[P, Estimate]]:
    """Work a function of a log out in the log's own unit of reward, a power of two: exact, and far from overflow.

    degree: the power of reward that the number has; amounts: arguments in units of reward, tables or classes.  Sources
    that have no unit of their own are passed on as they are.
    """

    def decorate(of: Callable[P, Estimate]) -> Callable[P, Estimate]:
        about = signature(of)

        @wraps(of)
        def scaled(*args: P.args, **kwargs: P.kwargs) -> Estimate:
            given = about.bind(*args, **kwargs)
            source = next(iter(given.arguments))
            if not hasattr(given.arguments[source], "in_unit"):
                return of(*args, **kwargs)
            given.arguments[source], power = given.arguments[source].in_unit()
            if power == 0:
                return of(*args, **kwargs)
            for name in amounts:
                given.arguments[name] = _in_units(name, given.arguments.get(name), power)
            return rescaled(of(*given.args, **given.kwargs), degree * power)

        return scaled

    return decorate


def _in_units(name: str, amount: Any, power: int) -> Any:
    """A table, or a class with an offset, in units of 2^power."""
    if amount is None or (hasattr(amount, "init") and not hasattr(amount, "offset")):
        return amount
    if hasattr(amount, "offset"):
        return amount.replace(offset=np.ldexp(np.asarray(amount.offset, np.float64), -power))
    return np.ldexp(coerce.numbers(name, amount), -power)


def rescaled(e: Estimate, power: int) -> Estimate:
    """An estimate times 2^power; no number where that leaves the range of float64."""
    if not e.known or power == 0:
        return e
    with np.errstate(over="ignore", under="ignore"):
        value, stderr, low, high = (float(x) for x in np.ldexp([e.value, e.stderr, *e.interval], power))
    if np.isinf(value) or (value == 0 != e.value):
        place = f"{e.value:.3g} times 2^{power}"
        return missing(Reason.OUT_OF_RANGE, place, "give rewards in another unit", n_eff=e.n_eff)
    least = float(np.nextafter(0.0, 1.0))  # a limit that is not 0 stays so
    low, high = (-least if low == 0 > e.interval[0] else low), (least if high == 0 < e.interval[1] else high)
    return replace(e, value=value, stderr=stderr, interval=(low, high))


def rule_of_three(n: float, confidence: float = 0.95) -> float:
    """The largest share of what was never seen in n independent observations, 3/n at 95 %."""
    return min(-float(np.log(1 - confidence)) / n, 1.0) if n > 0 else 1.0


def settled(e: Estimate, rounding: float, most: float) -> Estimate:
    """An estimate of something that is not negative, without what cannot be told from 0.

    rounding: sizes up to which it cannot; most: how large what was never seen may be, the upper limit where nothing
    was.
    """
    if not e.known:
        return e
    value, (low, high) = (0.0 if e.value <= rounding else e.value), e.interval
    low, note = (low if low > rounding else 0.0), e.note
    if high <= rounding:
        high, note = most, "; ".join(filter(None, (note, UNSEEN)))
    return replace(e, value=value, interval=(min(low, value), max(high, value)), note=note)


def unrewarded(handoffs: int, n_eff: float, discount: float, confidence: float = 0.95) -> NoNumber:
    """That every reward is 0, and what follows: how often something may be earned all the same."""
    rare = rule_of_three(n_eff, confidence)
    place = (
        f"all {handoffs} rewards are 0, so at most {rare:.2g} of the handoffs earn anything (rule of three), and this"
        f" is at most {rare / max(1 - discount, rare):.2g} times the range of rewards"
    )
    return NoNumber(Reason.SAME_REWARD, place, "log until rewards differ", n_eff=n_eff)


def _around(value: float, low: float, high: float) -> tuple[float, float]:
    """An interval that holds its estimate: that of a bias-corrected centre may miss the plain value."""
    return min(low, value), max(high, value)


def jackknife(
    whole: float,
    without: Float[np.ndarray, "B"],
    *,
    n_eff: float | None = None,
    confidence: float = 0.95,
    second: float = 0.0,
    plain: bool = False,
) -> Estimate:
    """Bias-corrected Student interval of a statistic from its values without each batch, or each independent run.

    whole: the statistic of everything; without [B]: of everything but batch b.  The centre of the interval is
    B whole - (B-1) mean(without), and so is the value unless `plain`, which keeps `whole`;
    stderr^2 = (B-1)/B sum (without - mean)^2.  n_eff: B if None.  second: the variance of a known term of second order
    (`estimators.statistics.jackknife.degenerate`), which that sum counts twice, and which remains where the sum happens
    to be small.
    """
    count = len(without)
    scaled, power = unit(np.append(without, whole))
    without, whole, second = scaled[:-1], float(scaled[-1]), float(np.ldexp(second, -2 * power))
    centre = count * whole - (count - 1) * float(np.mean(without))
    found = (count - 1) / count * float(np.sum((without - np.mean(without)) ** 2))
    stderr = float(np.sqrt(max(found - second, second)))
    half = stderr * float(stats.t.ppf(0.5 + confidence / 2, count - 1))
    value, n = whole if plain else centre, float(count) if n_eff is None else n_eff
    ends = _around(value, centre - half, centre + half)
    return rescaled(Estimate(value, stderr, ends, n, confidence=confidence), power)


def positive(
    whole: float,
    without: Float[np.ndarray, "B"],
    *,
    n_eff: float | None = None,
    confidence: float = 0.95,
    plain: bool = False,
) -> Estimate:
    """The jackknife of the logarithm of a positive statistic, whose scatter grows with it.

    A statistic that is 0 with and without every batch is 0.  Raises NoNumber for one that is 0 without some batch.
    """
    n = float(len(without)) if n_eff is None else n_eff
    if whole <= 0 and without.max() <= 0:
        return Estimate(0.0, 0.0, (0.0, 0.0), n, confidence=confidence)
    if whole <= 0 or without.min() <= 0:
        raise NoNumber(Reason.ONE_BATCH, need="log more handoffs", n_eff=n)
    logs = jackknife(float(np.log(whole)), np.log(without), n_eff=n, confidence=confidence)
    value, (low, high) = whole if plain else float(np.exp(logs.value)), np.exp(logs.interval)
    ends = _around(value, float(low), float(high))
    return Estimate(value, value * logs.stderr, ends, n, confidence=confidence)


def mean(samples: Float[np.ndarray, "R"], confidence: float = 0.95) -> Estimate:
    """Mean of independent samples with Student's t interval.  NaN stays NaN; fewer than two samples have no number."""
    n = float(len(samples))
    if n < 2:
        return missing(Reason.FEW_RUNS, f"{n:g}, at least 2 are needed", n_eff=n)
    samples, power = unit(samples)
    value, stderr = float(np.mean(samples)), float(stats.sem(samples))
    half = stderr * float(stats.t.ppf(0.5 + confidence / 2, n - 1))
    return rescaled(Estimate(value, stderr, (value - half, value + half), n, confidence=confidence), power)


def mean_squares(
    errors: Float[np.ndarray, "R *k"], fewest: int = 2
) -> tuple[Float[np.ndarray, "*k"], Float[np.ndarray, "R *k"]]:
    """Mean squares over runs, and the same without each run.

    Raises NoNumber for fewer than `fewest` runs, numbers that are not finite, and an error that only one run has.
    """
    n, square = len(errors), np.asarray(errors, np.float64) ** 2
    if n < fewest:
        raise NoNumber(Reason.FEW_RUNS, f"{n}, at least {fewest} are needed", n_eff=float(n))
    if not np.isfinite(square).all():
        raise NoNumber(Reason.NOT_FINITE, "the error of a run", n_eff=float(n))
    rest = square.sum(axis=0) - square
    if (rest <= 0).any():
        raise NoNumber(Reason.ONE_RUN, n_eff=float(n))
    return np.asarray(square.sum(axis=0) / n), rest / (n - 1)


def root_mean_square(errors: Float[np.ndarray, "R"], confidence: float = 0.95) -> Estimate:
    """sqrt(E e^2) over independent runs: what a bound on a mean square speaks of.

    Student interval of its logarithm, centre and standard error by deleting one run at a time; on the scale itself
    the interval would be far too short below (docs/calibration.md).  Errors of one size have no scatter.
    """
    return attempt(_root_mean_square, np.asarray(errors, np.float64), confidence)


def _root_mean_square(errors: Float[np.ndarray, "R"], confidence: float) -> Estimate:
    errors, power = unit(errors)
    return rescaled(_root_of_squares(errors, confidence), power)


def unit(errors: Float[np.ndarray, "*n"]) -> tuple[Float[np.ndarray, "*n"], int]:
    """Errors in units of 2^power, the power of two just below the largest: squares neither overflow nor vanish."""
    power = unit_of(float(np.abs(errors).max(initial=0.0)))
    return np.ldexp(errors, -power), power


def _root_of_squares(errors: Float[np.ndarray, "R"], confidence: float) -> Estimate:
    square = errors**2
    if len(square) > 1 and np.isfinite(square[0]) and (square == square[0]).all():
        value = float(np.sqrt(square.mean()))
        return Estimate(value, 0.0, (value, value), float(len(square)), confidence=confidence)
    whole, without = mean_squares(errors)
    return positive(float(np.sqrt(whole)), np.sqrt(without), confidence=confidence, plain=True)


def log_log_slope(x: Float[np.ndarray, "K"], curves: Float[np.ndarray, "R K"], confidence: float = 0.95) -> Estimate:
    """Least-squares slope of log sqrt(E e^2) against log x; Student interval from deleting one whole run at a time."""
    return attempt(_log_log_slope, x, np.asarray(curves, np.float64), confidence)


def _log_log_slope(x: Float[np.ndarray, "K"], curves: Float[np.ndarray, "R K"], confidence: float) -> Estimate:
    if len(x) < 2:
        raise NoNumber(Reason.FEW_POINTS, f"{len(x)}, at least 2 are needed", n_eff=float(len(curves)))
    whole, without = mean_squares(unit(curves)[0])
    slopes = np.polyfit(np.log(x), 0.5 * np.log(np.vstack([whole, without]).T), 1)[0]
    return jackknife(float(slopes[0]), slopes[1:], confidence=confidence, plain=True)

"""State reduction (Grassmann, Taksar, Heyman): the stationary law of an irreducible chain without a subtraction.

In plain numbers while none of them leaves the range of a double, otherwise with exponents of their own, so that no mass
and no way between two masses is lost.  Done in both orders of the states: what they differ by is the error.
docs/theory.md section 1, Lemmas 1.3 and 1.12.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int
from numpy.lib.stride_tricks import as_strided

from icq.display import shown
from icq.exact.fixed_point import COMPILED_FROM, compiled

_EPS = np.finfo(np.float64).eps
_NONE = -(10**8)  # the exponent of 0


@shown
class Mass(NamedTuple):
    """A law and its logarithm, finite also where the law is 0 in double precision."""

    d: Float[np.ndarray, "S"]
    log_d: Float[np.ndarray, "S"]


def eliminate(p: sp.csr_array, width: int | None = None) -> tuple[Mass, float]:
    """The law of an irreducible chain, and in the 1-norm how far it is from that of the other order of elimination.

    width: the largest |i - j| of an entry, for elimination in a band; None for a dense one.
    """
    found, other = _one_way(p, width), _one_way(sp.csr_array(p[::-1][:, ::-1]), width)
    return found, float(np.abs(found.d - other.d[::-1]).sum()) + 4 * _EPS


def _one_way(p: sp.csr_array, width: int | None) -> Mass:
    try:
        with np.errstate(all="raise"):
            d = dense(p.toarray()) if width is None else banded(p, width)
            return Mass(d, np.log(d))
    except FloatingPointError:  # something left the range
        return wide(p, p.shape[0] - 1 if width is None else width)


def dense(p: Float[np.ndarray, "S S"]) -> Float[np.ndarray, "S"]:
    """The law by state reduction of a matrix that is not kept.  Raises FloatingPointError where a number is lost, if
    NumPy is told to.
    """  # fmt: skip
    size = len(p)
    if size >= COMPILED_FROM:
        if not compiled().reduce_states(p):
            raise FloatingPointError
    else:
        for k in range(size - 1, 0, -1):
            p[:k, k] /= p[k, :k].sum()
            p[:k, :k] += np.multiply.outer(p[:k, k], p[k, :k])
    d = np.zeros(size)
    d[0] = 1.0
    for k in range(1, size):
        d[k] = (d[:k] * p[:k, k]).sum()
    return d / d.sum()


def banded(p: sp.csr_array, width: int) -> Float[np.ndarray, "S"]:
    """`dense` of a chain whose jumps are at most `width` long: reduction never leaves the band."""
    size = p.shape[0]
    band = _Band(size, width)
    coo = p.tocoo()
    np.add.at(band.stored, band.place(coo.row, coo.col), coo.data)
    for k in range(size - 1, 0, -1):
        low = max(k - width, 0)
        into, out = band.block(low, k, k - low, 1), band.block(k, low, 1, k - low)
        into /= out.sum()
        inner = band.block(low, low, k - low, k - low)
        inner += into * out
    d = np.zeros(size)
    d[0] = 1.0
    for k in range(1, size):
        low = max(k - width, 0)
        d[k] = (d[low:k] * band.block(low, k, k - low, 1)[:, 0]).sum()
    return d / d.sum()


class _Band:
    """A square matrix of which only |i - j| <= width is stored, with blocks of it as views."""

    def __init__(self, size: int, width: int, dtype: type = np.float64, empty: int = 0) -> None:
        self.width, self.row = width, 2 * width + 1
        self.stored: np.ndarray = np.full(size * self.row, empty, dtype)

    def place(self, i: Int[np.ndarray, "n"], j: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
        """Where the entries (i, j) are stored."""
        return i.astype(np.int64) * self.row + (j - i + self.width)

    def block(self, top: int, left: int, height: int, wide: int) -> np.ndarray:
        """Entries (top + i, left + j): entry (i, j) lies at 2 width i + j + width."""
        begin, step = top * (self.row - 1) + left + self.width, self.stored.itemsize
        return as_strided(self.stored[begin:], (height, wide), (step * (self.row - 1), step))


class _Wide(NamedTuple):
    """mantissa * 2^exponent, entry by entry."""

    mantissa: np.ndarray
    exponent: np.ndarray

    def times(self, other: _Wide) -> _Wide:
        mantissa, shift = np.frexp(self.mantissa * other.mantissa)
        return _Wide(mantissa, np.where(mantissa > 0, self.exponent + other.exponent + shift, _NONE))

    def over(self, other: _Wide) -> _Wide:
        return self.times(_Wide(1 / other.mantissa, -other.exponent))

    def plus(self, other: _Wide) -> _Wide:
        top = np.maximum(self.exponent, other.exponent)
        mantissa, shift = np.frexp(_shifted(self, top) + _shifted(other, top))
        return _Wide(mantissa, np.where(mantissa > 0, top + shift, _NONE))

    def sum(self) -> _Wide:
        top = self.exponent.max()
        mantissa, shift = np.frexp(_shifted(self, top).sum())
        return _Wide(np.asarray(mantissa), np.asarray(top + shift))


def _shifted(x: _Wide, top: np.ndarray | np.integer) -> np.ndarray:
    """In units of 2^top; what is far below it is 0."""
    return np.ldexp(x.mantissa, np.maximum(x.exponent - top, -2000))


def wide(p: sp.csr_array, width: int) -> Mass:
    """`banded` in numbers with exponents of their own: nothing overflows, and nothing is lost but what rounding loses.

    Only entries that are there are touched, so long walks are cheap also where the band is the whole matrix.
    """
    size, coo = p.shape[0], p.tocoo()
    parts = _Band(size, width), _Band(size, width, np.int32, _NONE)
    np.add.at(parts[0].stored, parts[0].place(coo.row, coo.col), coo.data)
    used = np.flatnonzero(parts[0].stored)
    parts[0].stored[used], parts[1].stored[used] = np.frexp(parts[0].stored[used])

    def view(top: int, left: int, height: int, broad: int) -> _Wide:
        return _Wide(*(part.block(top, left, height, broad) for part in parts))

    for k in range(size - 1, 0, -1):
        low = max(k - width, 0)
        into, out = view(low, k, k - low, 1), view(k, low, 1, k - low)
        rows, columns = np.flatnonzero(into.mantissa[:, 0]), np.flatnonzero(out.mantissa[0])
        share = _Wide(*(x[rows] for x in into)).over(_Wide(*(x[0, columns] for x in out)).sum())
        inner, cells = view(low, low, k - low, k - low), np.ix_(rows, columns)
        more = _Wide(*(x[cells] for x in inner)).plus(share.times(_Wide(*(x[:, columns] for x in out))))
        for x, new, y, change in zip(into, share, inner, more, strict=True):
            x[rows], y[cells] = new, change
    d = _Wide(np.zeros(size), np.full(size, _NONE))
    d.mantissa[0], d.exponent[0] = 0.5, 1
    for k in range(1, size):
        low = max(k - width, 0)
        column = view(low, k, k - low, 1)
        total = _Wide(*(x[low:k] for x in d)).times(_Wide(*(x[:, 0] for x in column))).sum()
        d.mantissa[k], d.exponent[k] = total
    top = d.exponent.max()
    law = _shifted(d, top)
    return Mass(law / law.sum(), np.log(d.mantissa) + (d.exponent - top) * np.log(2) - np.log(law.sum()))

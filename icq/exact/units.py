"""Rewards of any size: what squares them is computed in a unit in which they are of size 1, a power of two.

No digit changes, so that every number of the scaled instance, times its power of the unit, is that of the instance.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from icq.exact.fixed_point import unit_of
from icq.smdp import ICSMDP

COMFORT = 200  # powers of two between which fourth powers of rewards, and of their rounding, are numbers


def unit(m: ICSMDP) -> float:
    """The unit in which rewards are of size 1; 1 where they are neither huge nor tiny."""
    used = np.asarray(m.available)[m.observation][..., None] & (np.asarray(m.prob) > 0)
    found = unit_of(float(np.abs(np.asarray(m.reward)[used]).max(initial=0.0)))
    return 1.0 if abs(found) <= COMFORT else 2.0**found


def scaled(m: ICSMDP, unit: float) -> ICSMDP:
    """The same instance with rewards in this unit, a power of two."""
    used = np.asarray(m.available)[m.observation][..., None] & (np.asarray(m.prob) > 0)
    exponent = np.frexp(unit)[1] - 1
    return replace(m, reward=np.ldexp(np.where(used, np.asarray(m.reward, np.float64), 0.0), -exponent))

"""The errors of learned tables beside their certificate.  Letters: docs/theory.md sections 2 and 3."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from bounds.core.bound import verdict
from bounds.interface.bracket import bracket_bound_d
from estimators.decomposition import decompose
from icq.exact import Analysis
from icq_bounds.sweep.store import Arrays


def errors_of_table(a: Analysis, q: Float[np.ndarray, "R O A"]) -> Arrays:
    """The errors of learned tables in the d-norm (a table has no approximation error): `e_interface`, one per seed of
    `e_residual` and `e_total`; `bound_interface`, its verdict, and `trivial_cap`, what rewards alone say.
    """  # fmt: skip
    split, bound = decompose(a, q, a.q_bar)[0], bracket_bound_d(a)
    said = verdict(bound, split.interface, split.interface, allowance=a.oracle_solution.error)
    return {
        "e_interface": np.array(split.interface), "e_residual": split.residual, "e_total": split.total,
        "bound_interface": np.array(bound.value), "bound_verdict_interface": np.array(said.value),
        "trivial_cap": np.array(bound.trivial),
    }  # fmt: skip

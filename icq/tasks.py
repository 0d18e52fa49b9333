"""What happens in a task, exactly: expected totals from its start to its end, without discounting.

Accuracy (the chance that a task ends well), handoffs and primitive steps per task are such totals.  Notation:
docs/theory.md section 1.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int
from scipy.sparse.csgraph import breadth_first_order
from scipy.sparse.linalg import spsolve

from icq import coerce
from icq.coerce import options_of
from icq.smdp import ICSMDP


class EndlessTask(ValueError):
    """Under this policy some tasks never end, so totals per task do not exist; the message names a state."""


def task_total(
    m: ICSMDP, policy: Int[np.ndarray, "S"], amount: Float[np.ndarray, "S A B"] | Bool[np.ndarray, "S A B"]
) -> Float[np.ndarray, "S"]:
    """x(s) = E[sum of `amount` over the options of a task, from state s to its end] under a deterministic policy.

    x(s) = sum_b P(b|s,pi) (amount(s,pi,b) + (1 - done) x(s')), solved exactly.  An indicator of endings as amount gives
    the probability of such an ending; `duration` gives primitive steps; ones give handoffs.  Raises EndlessTask where
    the end is not certain, ValueError for a policy or an amount that is not one of the workflow.
    """
    policy, amount = options_of(m, policy), coerce.shaped("amount", amount, "SAB", m.prob.shape)
    rows = np.arange(m.num_states)
    prob = np.asarray(m.prob)[rows, policy]
    ends = np.asarray(m.terminal)[rows, policy]
    go_on = np.where(ends, 0.0, prob)
    shape = (m.num_states, m.num_states)
    source = np.repeat(rows, prob.shape[1])
    step = sp.csr_array((go_on.reshape(-1), (source, np.asarray(m.next_state)[rows, policy].reshape(-1))), shape=shape)
    step.eliminate_zeros()
    _refuse_endless(step, (np.where(ends, prob, 0.0)).sum(1) > 0)
    once = (prob * np.asarray(amount, np.float64)[rows, policy]).sum(1)
    return np.asarray(spsolve(sp.csc_array(sp.eye_array(m.num_states) - step), once)).reshape(-1)


def _refuse_endless(step: sp.csr_array, ending: Bool[np.ndarray, "S"]) -> None:
    """Raise when some state cannot reach an ending: search backwards from an extra node behind all endings."""
    size = step.shape[0]
    behind = sp.csr_array(ending.astype(float)[:, None])
    graph = sp.block_array([[step, behind], [None, sp.csr_array((1, 1))]], format="csr")
    reached = np.zeros(size + 1, bool)
    reached[breadth_first_order(sp.csr_array(graph.T), size, return_predecessors=False)] = True
    stuck = np.flatnonzero(~reached[:size])
    if len(stuck):
        raise EndlessTask(
            f"from state {int(stuck[0])} no ending can be reached under this policy ({len(stuck)} states)"
        )


def start_law(m: ICSMDP) -> Float[np.ndarray, "S"]:
    """The law of first states of a task under the stationary behaviour, when every ending restarts in one law.

    Raises ValueError when endings restart in different laws (then there is no single law of starts).
    """
    weight = np.where(m.terminal, m.prob, 0.0)
    total = weight.sum(-1)
    ending = np.argwhere(total > 0)
    if len(ending) == 0:
        raise ValueError("terminal: no outcome ends a task")
    states, options = ending.T
    share = weight[states, options] / total[states, options][:, None]
    index = np.repeat(np.arange(len(ending)), share.shape[1]), np.asarray(m.next_state)[states, options].reshape(-1)
    law = sp.csr_array((share.reshape(-1), index), shape=(len(ending), m.num_states))
    apart = abs(law - law[np.zeros(len(ending), int)]).max(axis=1).toarray().reshape(-1)
    if apart.max() > 1e-9:
        s, a = ending[int(apart.argmax())]
        raise ValueError(f"endings restart in different laws: state {s}, option {a} differs from the first one")
    return np.asarray(law[[0]].toarray()[0])

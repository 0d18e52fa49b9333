"""Baselines as instances: change what agents see or send, and run the same learner.

centralised: every agent sees the global state.  independent: no scalar crosses an agent boundary, so an agent counts
its own reward and, only when it keeps control, its own next value.  Notation: docs/theory.md sections 1 and 2.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Int

from icq import coerce
from icq.coerce import Numbers, options_of
from icq.exact import Analysis
from icq.exact.fixed_point import greedy
from icq.smdp import ICSMDP


def centralised(model: coerce.Instance) -> ICSMDP:
    """The same workflow with phi the identity; agents, options and behaviour stay what they were."""
    m = coerce.instance(model)
    obs = np.asarray(m.observation)
    return replace(
        m,
        observation=np.arange(m.num_states),
        agent=np.asarray(m.agent)[obs],
        available=np.asarray(m.available)[obs],
        behaviour=np.asarray(m.behaviour)[obs],
    )


def independent(model: coerce.Instance) -> ICSMDP:
    """The same workflow in which a handoff to another agent ends the story: outcomes that leave the agent are terminal.

    IC-Q on it is Q-learning without the scalar, and its Qbar is what such learners converge to.
    """
    m = coerce.instance(model)
    owner = np.asarray(m.agent)[m.observation]
    leaves = owner[m.next_state] != owner[:, None, None]
    return replace(m, terminal=np.asarray(m.terminal) | leaves)


def mean_value(analysis: Analysis, policy: Int[np.ndarray, "S"]) -> float:
    """sum_s d(s) V^pi(s) of a deterministic policy of the global state, exact.

    Raises ValueError naming the state at which the policy picks what is no option there.
    """
    policy = options_of(analysis.smdp, policy)
    return float(analysis.d @ analysis.oracle.evaluate(policy).v)


def greedy_value(analysis: Analysis, q: Numbers) -> float:
    """sum_s d(s) V^pi(s) of the policy greedy in a table over observations [O, A], run in the true workflow."""
    policy, _ = greedy(coerce.shaped("q", q, "OA", analysis.d_pair.shape), analysis.interface.available)
    return mean_value(analysis, policy[analysis.smdp.observation])


def random_value(analysis: Analysis) -> float:
    """sum_s d(s) V^beta(s) of the behaviour policy."""
    behaviour = np.asarray(analysis.smdp.behaviour)[analysis.smdp.observation]
    return float(analysis.d @ analysis.oracle.evaluate_random(behaviour).v)

"""What is defined where the interface model is not: Q* needs no stationary law, and what recurs has one of its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from icq import coerce
from icq.exact import markov as chains
from icq.exact.analysis import AnalysisError, handoff_chain, oracle_model
from icq.exact.fixed_point import Solution
from icq.reason import Reason
from icq.smdp import ICSMDP


def optimum(model: coerce.Instance) -> Solution:
    """Q* and V* with their certified error, for any instance: absorbing goals and states that never recur as well."""
    return oracle_model(coerce.instance(model)).solve()


def recurrent(model: coerce.Instance) -> ICSMDP:
    """The instance of the states that recur, which no option leaves, numbered as they were with gaps closed.

    Values of its states and observations are theirs in the whole.  Raises AnalysisError for several closed classes.
    """
    m = coerce.instance(model)
    structure = chains.structure(handoff_chain(m))
    if len(structure.closed) != 1:
        raise AnalysisError(Reason.SEVERAL_CLASSES, "; ".join(structure.problems()))
    states = structure.closed[0]
    place = np.zeros(m.num_states, np.int64)
    place[states] = np.arange(len(states))
    seen, observation = np.unique(np.asarray(m.observation)[states], return_inverse=True)
    of_state = {name: np.asarray(getattr(m, name))[states] for name in ("prob", "duration", "reward", "terminal")}
    of_view = {name: np.asarray(getattr(m, name))[seen] for name in ("available", "behaviour")}
    agent = np.unique(np.asarray(m.agent)[seen], return_inverse=True)[1]
    following = place[np.asarray(m.next_state)[states]]  # padding may lead anywhere
    return replace(m, observation=observation, agent=agent, next_state=following, **of_state, **of_view)

"""Routing: a gateway and its specialists pass a request around until somebody answers it.

A request has one of D x I intents, written as a code of L bits in scrambled order, so that every bit matters.  Agent 0
is the gateway, agents 1..D are specialists, and specialist j can answer the intents of its own domain.  The artifact is
the request, how many of its bits were brought to light (`shown`), and who already returned it.  An agent sees the first
max(view, shown) bits and the list of returns: `view` is the interface dial.  At full view every agent sees the whole
request and nothing is hidden.

Options: the gateway may forward to a specialist who has not returned the request; a specialist may answer or bounce it
back.  Everybody may ask the user (one more bit, unless the user leaves) or escalate to a human.  Every option takes a
random time.  The environment is this project's own; no number measured on it is a number of the paper.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from icq.build import Outcome, Workflow, from_functions
from icq.smdp import ICSMDP
from synthetic.settings import RoutingSettings


class Request(NamedTuple):
    """Global state at a handoff.  holder 0 is the gateway; returned: bit j-1 is set when specialist j bounced it."""

    holder: int
    intent: int
    shown: int
    returned: int


@dataclass(frozen=True)
class Routing:
    """Sizes and prices of the workflow.

    specialists D, intents I per specialist.  gateway_view, specialist_view: bits seen without asking (None: all).
    gamma: discount per primitive step.  right, wrong, human, ask, left: rewards of answers, escalation, a question,
    and of a user who leaves; leave: the chance that a question makes the user leave.  seed: scrambles codes, durations.
    """

    specialists: int = RoutingSettings.specialists
    intents: int = RoutingSettings.intents
    gateway_view: int | None = RoutingSettings.view
    specialist_view: int | None = RoutingSettings.view
    gamma: float = RoutingSettings.gamma
    right: float = RoutingSettings.right
    wrong: float = RoutingSettings.wrong
    human: float = RoutingSettings.human
    ask: float = RoutingSettings.ask
    left: float = RoutingSettings.left
    leave: float = RoutingSettings.leave
    seed: int = RoutingSettings.seed

    def __post_init__(self) -> None:
        for name, low in (("specialists", 1), ("intents", 1)):
            if getattr(self, name) < low:
                raise ValueError(f"{name} = {getattr(self, name)} must be at least {low}")
        if self.specialists * self.intents > MOST_INTENTS:
            raise ValueError(
                f"specialists = {self.specialists}, intents = {self.intents}: more than {MOST_INTENTS} intents in all"
            )
        for name in ("gateway_view", "specialist_view"):
            view = getattr(self, name)
            if view is not None and not 0 <= view <= self.bits:
                raise ValueError(f"{name} = {view} must be between 0 and {self.bits} bits, or None for all")
        if not 0 <= self.leave < 1:
            raise ValueError(f"leave = {self.leave} must be a probability below 1")

    @property
    def bits(self) -> int:
        """L, the length of a code."""
        return max(1, int(np.ceil(np.log2(self.specialists * self.intents))))

    @property
    def codes(self) -> Int[np.ndarray, "DI"]:
        """The code of each intent: distinct numbers below 2^L in random order."""
        order = np.random.default_rng(self.seed).permutation(2**self.bits)
        return order[: self.specialists * self.intents]

    def view(self, holder: int) -> int:
        """Bits the holder sees without asking."""
        view = self.specialist_view if holder else self.gateway_view
        return self.bits if view is None else view

    def with_view(self, bits: int) -> Routing:
        """The same workflow with this view for everybody."""
        return replace(self, gateway_view=bits, specialist_view=bits)


def routing(game: Routing) -> Workflow:
    """The workflow with all its reachable states; agents are `gateway`, `specialist 1`, ..."""
    codes, bits = game.codes, game.bits
    times = np.random.default_rng([game.seed, 1])
    law = {kind: _durations(times, *limits) for kind, limits in DURATION.items()}

    def seen(s: Request) -> tuple[int, int, int]:
        known = max(game.view(s.holder), s.shown)
        return known, int(codes[s.intent]) >> (bits - known), s.returned

    def options(s: Request) -> list[str]:
        known = seen(s)[0]
        ask = ["ask"] if known < bits else []
        if s.holder:
            return ["answer", "bounce", *ask, "escalate"]
        forward = [f"forward {j}" for j in range(1, game.specialists + 1) if not s.returned >> (j - 1) & 1]
        return [*forward, *ask, "escalate"]

    def outcomes(s: Request, option: str) -> list[Outcome]:
        own = s.intent // game.intents + 1 == s.holder
        after: list[tuple[float, Request | None, float]]
        if option == "ask":
            stay = s._replace(shown=seen(s)[0] + 1)
            after = [(1 - game.leave, stay, game.ask), (game.leave, None, game.ask + game.left)]
        elif option == "answer":
            after = [(1.0, None, game.right if own else game.wrong)]
        elif option == "escalate":
            after = [(1.0, None, game.human)]
        elif option == "bounce":
            after = [(1.0, s._replace(holder=0, returned=s.returned | 1 << (s.holder - 1)), 0.0)]
        else:
            after = [(1.0, s._replace(holder=int(option.split()[1])), 0.0)]
        kind = law[option.split()[0]]
        return [Outcome(p * q, state, reward, tau) for p, state, reward in after if p > 0 for tau, q in kind]

    requests = range(game.specialists * game.intents)
    return from_functions(
        start=[Request(0, intent, 0, 0) for intent in requests],
        agent=lambda s: f"specialist {s.holder}" if s.holder else "gateway",
        observe=seen, options=options, outcomes=outcomes, gamma=game.gamma,
    )  # fmt: skip


MOST_INTENTS = 4096  # of all specialists: a state is a request, who holds it and what was asked
DURATION = {"forward": (1, 2), "bounce": (1, 2), "ask": (2, 6), "answer": (2, 5), "escalate": (4, 8)}


def _durations(rng: np.random.Generator, low: int, high: int) -> list[tuple[int, float]]:
    """A random law of durations on low..high primitive steps."""
    weight = rng.dirichlet(np.full(high - low + 1, 2.0))
    return list(zip(range(low, high + 1), (weight / weight.sum()).tolist()))


def answered(workflow: Workflow, game: Routing) -> Bool[np.ndarray, "S A B"]:
    """Outcomes in which the right specialist answers: what routing accuracy counts."""
    m: ICSMDP = workflow.smdp
    right = np.zeros(m.prob.shape, bool)
    for s, state in enumerate(workflow.states):
        if isinstance(state, Request) and state.holder and state.intent // game.intents + 1 == state.holder:
            agent = workflow.agents.index(f"specialist {state.holder}")
            right[s, workflow.options[agent].index("answer")] = m.terminal[s, workflow.options[agent].index("answer")]
    return right

"""Why there is no number: one reason of an enumeration whose values are sentences, where, and what would help.

Code decides on the reason; only people read the sentence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from icq.display import Shown


class Reason(Enum):
    """Kinds of missing numbers; the value is the sentence that people read."""

    # fixed points
    NO_FIXED_POINT = "the class has no fixed point that was found"
    SINGULAR = "the linear equations are singular"
    DEPENDENT = "the features are linearly dependent on visited pairs"
    BAD_METRIC = "the metric is not symmetric and positive definite"
    # what an instance leaves undefined
    SEVERAL_CLASSES = "there is no unique stationary law"
    NO_MASS = "observations without stationary mass"
    LAW_NOT_CONVERGED = "the stationary law did not converge"
    TOO_SLOW = "the handoff chain mixes too slowly for its deviation matrix to have digits left"
    NO_DISCOUNT = "the discount is not below 1 by more than rounding, so there are no values"
    # sizes
    TOO_LARGE = "too large to be solved for densely"
    NO_ROOM = "the tables of all batches do not fit in memory"
    NOT_CONTRACTING = "the modulus is not surely below 1, and no bound follows"
    # too little data: longer logs or more runs help
    FEW_RUNS = "too few runs"
    FEW_POINTS = "too few points for a slope"
    FEW_HANDOFFS = "too few handoffs"
    ONE_RUN = "all runs but one have no error at all, so there is no scatter to speak of"
    ONE_BATCH = "all of it comes from one batch of the log"
    SHORT = "the log is short against the memory of its chain"
    RARE_STATE = "a state was left in too few batches of the log"
    RARE_PAIR = "an option was chosen in too few batches of the log"
    RARE_CELLS = "too many handoffs are in cells (observation, context, option) seen in too few batches, or lead to one"
    RARELY_VISITED_CELLS = (
        "too many handoffs are in cells (observation, context, option) seen too rarely for an optimum, or lead to one"
    )
    LED_ONCE = "too many handoffs are in cells after which a task was seen to go on in one batch only"
    ABSENT_AGENT = "an agent does not act in all halves of the log's batches"
    UNTRIED_OPTIONS = "options were never tried"
    IN_DOUBT = "best options are in doubt"
    RESTS_ON_FEW = "the noise rests on few handoffs"
    TIE = "the slowest two are equal within sampling error, so there is no normal law"
    NOT_POSITIVE = "the mean square is not surely positive"
    # what the data are
    NOT_FINITE = "a number in the data is not finite"
    NO_CONTEXT = "needs context: without it the law is the same with and without a gap (docs/theory.md section 8)"
    NO_PROBABILITY = "needs the probability with which the behaviour chose each option"
    NO_SCALAR = "no scalar was logged"
    BEHAVIOUR_CHANGES = "the logged probabilities change: the behaviour policy is not one function of the observation"
    REDUCIBLE = "the chain that the log shows has no unique stationary law"
    NOTHING_HIDDEN = "the local gap may be zero"
    NO_ERROR = "the error is 0"
    NOTHING_TO_GAIN = "random options are as good as the optimum, within rounding"
    SAME_REWARD = "no reward differed from 0, so nothing is known of values"
    NO_NOISE = "no noise was seen: handoffs that began alike earned alike and led alike"
    NO_SCATTER = "all parts of the log say exactly the same, so there is no scatter to speak of"
    PERIODIC = "the chain is periodic and never forgets where in its period it is"
    DISCONNECTED = "the log falls into parts that nothing was handed over between"
    OUT_OF_RANGE = "the number is too large or too small for float64"
    # what was not asked or kept
    NOT_LOOKED_AT = "looked at in detail are only the agents with the largest shares"
    ONLY_CHANGE = "only the change is estimated"
    NOT_FINISHED = "nothing of it is finished"
    RECORDED = "as it was recorded"

    def __str__(self) -> str:
        return self.value

    @property
    def too_short(self) -> bool:
        """Whether more handoffs would help."""
        return self in _TOO_SHORT


_TOO_SHORT = frozenset({
    Reason.FEW_HANDOFFS, Reason.ONE_BATCH, Reason.SHORT, Reason.RARE_STATE, Reason.RARE_PAIR, Reason.RARE_CELLS,
    Reason.RARELY_VISITED_CELLS, Reason.LED_ONCE, Reason.ABSENT_AGENT, Reason.UNTRIED_OPTIONS, Reason.IN_DOUBT,
    Reason.RESTS_ON_FEW, Reason.NOT_POSITIVE,
})  # fmt: skip


def plain(kind: str, code: int) -> str:
    """What a code is called where nobody knows its name: its kind and number."""
    return f"{kind} {code}"


@dataclass(frozen=True)
class Why(Shown):
    """reason: which kind; place: where, in words; need: what would help, in words.  Its text is the whole sentence.

    option, observation, agent: the codes of the place, to which names are put where it is rendered.
    """

    reason: Reason
    place: str = ""
    need: str = ""
    option: int | None = None
    observation: int | None = None
    agent: int | None = None

    def __str__(self) -> str:
        return self.sentence()

    def _line_(self) -> str:
        return self.sentence()

    def sentence(self, name: Callable[[str, int], str] = plain) -> str:
        """The whole sentence; name: (kind, code) -> what a code is called, `kind` among the fields."""
        if self.reason is Reason.RECORDED:
            return self.place
        codes = {"option": self.option, "observation": self.observation, "agent": self.agent}
        where = " of ".join(name(kind, code) for kind, code in codes.items() if code is not None)
        where = ": ".join(filter(None, (where, self.place)))
        text = f"{self.reason} ({where})" if where else str(self.reason)
        return f"{text}: {self.need}" if self.need else text


class NoNumber(ValueError):
    """Raised inside a computation that has no result; at the border it becomes an estimate without a value.

    n_eff: the effective number of independent observations that there were, in the unit of the estimate.
    """

    def __init__(self, why: Why | Reason, place: str = "", need: str = "", *, n_eff: float = 0.0) -> None:
        self.why = why if isinstance(why, Why) else Why(why, place, need)
        self.n_eff = n_eff
        super().__init__(str(self.why))

"""What people hand over by mistake, and what they are told.

Run in a process of its own (`python tests/hostile.py`): in the tests, types are checked before functions are entered.
Prints, as JSON, what was said to each case, or the class of an error that was not meant for people.
"""

import json
import warnings
from fractions import Fraction

import numpy as np
import scipy.sparse as sp

from icq.build import Outcome, from_functions, from_table
from icq.matrices import from_matrices
from icq.smdp import ICSMDP

NAN, THIRDS = float("nan"), np.full((2, 3, 3), 1 / 3)


def create(**change):
    one = {"prob": np.full((1, 1, 2), 0.5), "observation": [0], "agent": [0], "gamma": 0.9}
    return ICSMDP.create(**(one | {n: np.ones((1, 1, 2), int) for n in ("next_state", "duration", "reward")} | change))


def table(**change):
    row = {"state": "s", "option": "go", "prob": 1.0, "next_state": None, "reward": 0.0}
    return from_table([row | change], start=["s"], agent={"s": "x"}, observation={"s": "o"}, gamma=0.9)


def words(**change):
    parts = {"start": ["s"], "agent": lambda s: "x", "observe": lambda s: "o", "options": lambda s: ["go"],
             "outcomes": lambda s, o: [Outcome(1.0, None)], "gamma": 0.9}  # fmt: skip
    return from_functions(**(parts | change))


def matrices(transition=THIRDS, reward=np.zeros((3, 2)), **change):  # noqa: B008
    return from_matrices(transition, reward, **({"observation": [0, 0, 0], "agent": [0], "gamma": 0.9} | change))


FIELDS = {  # change -> what is said, a regular expression
    "prob text": ({"prob": [[["0.5", "0.5"]]]}, "prob: text, not plain numbers; give"),
    "prob ragged": ({"prob": [[[0.5, 0.5], [1.0]]]}, "prob: not an array; give rows of equal length"),
    "prob complex": ({"prob": [[[1j, 1 - 1j]]]}, "prob: complex numbers"),
    "prob sparse": ({"prob": sp.eye_array(2)}, "prob: a sparse matrix; give a dense array"),
    "prob masked": ({"prob": np.ma.masked_array([[[0.5, 0.5]]], [[[True, False]]])}, "prob: some numbers are masked"),
    "prob objects": ({"prob": np.full((1, 1, 2), None)}, "prob: Python objects"),
    "agent beyond any integer": ({"agent": [10**30]}, "agent: Python objects"),
    "gamma": ({"gamma": "0.9"}, "gamma: text"),
}
ROWS = {
    "text": ({"prob": "1.0"}, "row 0: prob = '1.0' is text, not a number; convert it first"),
    "nan": ({"prob": NAN}, "row 0: prob = nan is not a probability"),
    "reward text": ({"reward": ""}, "row 0: reward = '' is text"),
    "reward none": ({"reward": None}, "row 0: reward = None is not a number"),
    "reward beyond floats": ({"reward": 10**400}, "row 0: reward = .* is not finite"),
    "reward huge": ({"reward": 1e200}, r"row 0: reward = 1e\+200 is beyond 1e\+100; choose a larger unit"),
    "duration nan": ({"duration": NAN}, "row 0: duration = nan; an option takes"),
    "duration inf": ({"duration": float("inf")}, "row 0: duration = inf; an option takes"),
    "duration half": ({"duration": 1.5}, "row 0: duration = 1.5; an option takes .* a whole number"),
    "duration huge": ({"duration": 2**31}, "row 0: duration = 2147483648; .* at most 2147483647"),
    "next nan": ({"next_state": NAN}, "row 0: next_state = nan is no name; an ending is None"),
    "next list": ({"next_state": ["s"]}, "row 0: next_state = .* cannot be looked up; give a tuple"),
    "state list": ({"state": ["s"]}, "row 0: state = .* cannot be looked up"),
    "three digits": ({"prob": 0.333}, "outcomes.*sum to 0.333, .* within 1e-09 .* off by 0.7; divide each row"),
}
WORDS = {
    "start text": ({"start": "abc"}, r"start: 'abc' is not a list of states; give \['abc'\]"),
    "start nan": ({"start": {"s": NAN}}, r"start\['s'\] = nan is no weight"),
    "start text weight": ({"start": {"s": "1"}}, r"start\['s'\] = '1' is text"),
    "start zero": ({"start": {"s": 0.0}}, "all 1 weights are 0"),
    "start none": ({"start": [None]}, "None is how a task ends"),
    "start list": ({"start": [["s"]]}, "cannot be looked up"),
    "start number": ({"start": 3}, "start: 3 is not a list of states"),
    "options text": ({"options": lambda s: "go"}, r"options\('s'\) is 'go', not a list"),
    "outcome tuple": ({"outcomes": lambda s, o: [(1.0, None)]}, r"outcomes\('s', 'go'\)\[0\] is .*; give Outcome"),
    "outcome bare": ({"outcomes": lambda s, o: Outcome(1.0, None)}, "not a list; give a list of Outcome"),
    "outcome place": ({"outcomes": lambda s, o: [Outcome(0.0, None), Outcome(NAN, None)]}, r"\[1\]: prob = nan"),
    "observe list": ({"observe": lambda s: [1]}, r"observe\('s'\) = \[1\] cannot be looked up"),
    "behaviour": ({"behaviour": lambda s, o: "1"}, r"behaviour\('s', 'go'\) = '1' is text"),
    "behaviour inf": ({"behaviour": lambda s, o: float("inf")}, "must be positive"),
    "limit": ({"limit": 1e30}, r"limit = 1e\+30 must be at most"),
}
MATRICES = {
    "text": ({"transition": np.array(THIRDS, str)}, "transition: text, not real numbers"),
    "one sparse": ({"transition": sp.eye_array(3)}, "give a list of one for every option"),
    "sparse text": ({"transition": [sp.eye_array(3), 3]}, r"transition\[1\]: "),
    "reward sparse": ({"reward": sp.eye_array(3)}, "reward: a sparse matrix, expected a dense table"),
    "agent": ({"agent": [3]}, r"agent\[0\] = 3, but no observation belongs to agent 0"),
}
TAKEN = {
    "fractions": lambda: words(outcomes=lambda s, o: [Outcome(Fraction(1, 3), None, Fraction(1, 2))] * 3),
    "single precision": lambda: words(outcomes=lambda s, o: [Outcome(np.float32(1 / 3), None, np.float32(1))] * 3),
    "huge weights": lambda: words(start={"s": 1e308, "t": 1e308}, behaviour=lambda s, o: 1e308),
    "several starts": lambda: words(start=("s", "t", "s")),
}


def _cases():
    for title, border, changes in (
        ("field", create, FIELDS), ("row", table, ROWS), ("words", words, WORDS), ("matrices", matrices, MATRICES),
    ):  # fmt: skip
        for name, (change, says) in changes.items():
            yield f"{title}: {name}", lambda border=border, change=change: border(**change), says
    yield (
        "row: no mapping",
        lambda: from_table(["s"], start=[], agent={}, observation={}, gamma=0.9),
        "row 0 is 's', not",
    )


CASES = {name: (call, says) for name, call, says in _cases()}


def heard(call):
    """What a case is told."""
    try:
        call()
    except ValueError as error:
        return str(error)
    except Exception as error:
        return f"unmeant {type(error).__name__}: {error}"
    return "nothing"


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(
        json.dumps({name: heard(call) for name, (call, _) in CASES.items()} | {n: heard(c) for n, c in TAKEN.items()})
    )

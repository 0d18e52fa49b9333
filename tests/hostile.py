"""What people hand over by mistake, and what they are told.

Run in a process of its own (`python tests/hostile.py`): in the tests, types are checked before functions are entered.
Prints, as JSON, what was said to each case, or the class of an error that was not meant for people.
"""

import json
import warnings
from fractions import Fraction
from importlib.util import find_spec

import numpy as np
import scipy.sparse as sp

from icq.build import Outcome, from_functions, from_table
from icq.matrices import from_matrices
from icq.smdp import ICSMDP


def _model():
    return words(
        start=[0], agent=lambda s: "xy"[s % 2], observe=lambda s: s, options=lambda s: ["stay", "go"][: 2 - (s == 1)],
        outcomes=lambda s, o: [Outcome(0.5, (s + (o == "stay")) % 3, float(s)), Outcome(0.5, None)],
    )  # fmt: skip


def borders():
    """Calls of what learns, with what is no number, index or law there: NAME -> (call, what is said)."""
    import jax
    import optax

    from icq import baselines, tasks
    from icq.exact import analyse
    from icq.learn import classes, networks, population, sampling
    from icq.learn.learner import LearnerConfig, learn
    from icq.sampled import environment, fleet
    from icq_bounds import check, learners
    from icq_bounds.error_theorem import theorem_report
    from icq_bounds.instances import dials, garnet, routing

    m = _model().smdp
    a, table, key = analyse(m), classes.tabular(m), jax.random.key(0)
    env, config = environment.finite(m, [1, 0, 1]), LearnerConfig()
    other = classes.tabular(create(prob=np.ones((1, 1, 2)) / 2))
    twice = create(reward=np.full((1, 1, 2), 1e30))
    slow = create(gamma=1 - 1e-9)
    codes = fleet.CodeTable(2, 3, 2)
    huge = 10**30
    return {
        "starts zero": (lambda: environment.finite(m, [0, 0, 0]), "starts: all 3 weights are 0"),
        "starts nan": (lambda: environment.finite(m, [1, NAN, 0]), r"starts\[1\] = nan is no weight"),
        "starts negative": (lambda: environment.finite(m, [1, 2, -1]), r"starts\[2\] = -1 is no weight"),
        "starts inf": (lambda: environment.finite(m, [1, 2, np.inf]), r"starts\[2\] = inf is no weight"),
        "starts long": (lambda: environment.finite(m, np.ones(9)), r"starts: shape \(9,\), expected 3 weights"),
        "starts text": (lambda: environment.finite(m, ["1", "2", "3"]), "starts: not numbers, expected 3 weights"),
        "starts ragged": (lambda: environment.finite(m, [[1], 2, 3]), "starts: not a list of numbers"),
        "no model": (lambda: environment.finite("m.npz", [1]), "unmeant TypeError: model: a str, expected an ICSMDP"),
        "single rewards": (lambda: environment.finite(twice, [1]), r"reward: the largest is 1e\+30, and single"),
        "single gamma": (lambda: environment.finite(slow, [1]), "gamma = 0.999999999 is 1 in single precision"),
        "single learner": (lambda: learn(twice, classes.tabular(twice), config, 2, 10), "reward: the largest"),
        "state": (lambda: env.observe(3), "state = 3 must be at most 2"),
        "option": (lambda: env.act(0, -2, key), "option = -2 must be at least 0"),
        "option half": (lambda: env.act(0, 1.7, key), "option = 1.7 is not a whole number"),
        "policy": (lambda: baselines.mean_value(a, [0, 0, 99]), r"policy\[2\] = 99 is none of 0..1"),
        "policy negative": (lambda: tasks.task_total(m, [0, -1, 0], m.duration), r"policy\[1\] = -1 is none of"),
        "policy half": (lambda: tasks.task_total(m, [0, 0, 0.5], m.duration), r"policy\[2\] = 0.5 is none of"),
        "policy missing": (lambda: baselines.mean_value(a, [0, 1, 0]), r"policy\[1\] = 1: the option is not available"),
        "amount": (lambda: tasks.task_total(m, [0, 0, 0], np.ones(3)), "amount: shape"),
        "other class": (lambda: learn(m, other, config, 2, 10), r"cls: values of shape \(1, 1\), expected .*\(3, 2\)"),
        "scale": (lambda: learn(m, table, LearnerConfig(scale=np.ones((2, 3))), 2, 10), "scale: shape"),
        "scale nan": (lambda: learn(m, table, LearnerConfig(scale=np.full((3, 2), NAN)), 2, 10), "scale: not finite"),
        "step nan": (lambda: LearnerConfig(step=NAN), "step = nan is outside"),
        "step negative": (lambda: LearnerConfig(step=-1.0), "step = -1 is outside"),
        "offset zero": (lambda: LearnerConfig(decay_offset=0.0), "decay_offset = 0 is outside"),
        "radius": (lambda: LearnerConfig(radius=NAN), "radius = nan is outside"),
        "seeds huge": (lambda: learn(m, table, config, huge, 10), "seeds = .* must be at most 1000000"),
        "seeds negative": (lambda: learn(m, table, config, [0, -1], 10), r"seeds\[1\] = -1 is none of"),
        "seeds beyond": (lambda: learn(m, table, config, [2**32], 10), r"seeds\[0\] = .* is none of"),
        "seeds none": (lambda: learn(m, table, config, [], 10), "number of seeds = 0"),
        "checkpoints huge": (lambda: learn(m, table, config, 2, [10, 2**31]), "checkpoints = .* must be at most"),
        "checkpoints nan": (lambda: learn(m, table, config, 2, [NAN]), "checkpoints = nan"),
        "root": (lambda: learn(m, table, config, 2, 10, root=-1), "root = -1 must be at least 0"),
        "initial": (lambda: classes.tabular(m, NAN), "initial = nan is not a finite number"),
        "features nan": (lambda: classes.linear(m, np.full((3, 2, 1), NAN)), "features = nan is outside"),
        "features huge": (lambda: classes.random_features(m, 10**9, 0), "count = 1000000000: the table .* needs"),
        "inputs nan": (lambda: networks.network(m, np.full((3, 1), NAN), 4), "inputs = nan is outside"),
        "width huge": (lambda: networks.centred_network(m, 10**9), "width = .*: the weights of 2 networks needs"),
        "width beyond": (lambda: networks.centred_network(m, huge), "width = .* must be at most"),
        "net scale": (lambda: networks.centred_network(m, 4, NAN), "scale = nan is not a finite number"),
        "iterations": (
            lambda: population.expected_update(a, table, None, step=0.1, iterations=0), "iterations = 0 must be"
        ),
        "trajectory": (lambda: sampling.trajectory(sampling.tables(a), key, 0), "handoffs = 0 must be at least 1"),
        "copies": (lambda: fleet.FleetConfig(copies=0), "copies = 0 must be at least 1"),
        "epsilon": (lambda: fleet.FleetConfig(epsilon=(1.0, NAN)), r"epsilon\[1\] = nan is outside"),
        "lag": (lambda: fleet.FleetConfig(lag=2.0), "lag = 2 is outside 0..1"),
        "anneal": (lambda: fleet.FleetConfig(anneal=0.0), "anneal = 0 is outside"),
        "codes": (
            lambda: fleet.init(env, fleet.CodeTable(2, 2, 2), fleet.FleetConfig(2, optax.sgd(0.1)), key),
            "codes = 2: the workflow has 3 observations",
        ),
        "agents": (
            lambda: fleet.init(env, fleet.CodeTable(1, 3, 2), fleet.FleetConfig(2, optax.sgd(0.1)), key),
            "cls: parameters of .* the environment has 2",
        ),
        "options": (
            lambda: fleet.init(env, fleet.CodeTable(2, 3, 1), fleet.FleetConfig(2, optax.sgd(0.1)), key),
            "expected one for each of 2 options",
        ),
        "updates": (lambda: fleet.train(env, codes, fleet.FleetConfig(2), None, key, 0), "updates = 0 must be"),
        "limit": (lambda: fleet.play(env, codes, None, 0, key, 0), "limit = 0 must be at least 1"),
        "views": (lambda: fleet.view_network(env, 4), "views: shape .*, expected vectors"),
        "verify": (lambda: check.verify(m, huge, 2), "handoffs = .* must be at most 2000000000"),
        "grid": (lambda: check.learn(m, checkpoints=[5.5]), "checkpoints = 5.5 is not a whole number"),
        "table clock": (lambda: learners.table(clock="wall"), "clock = 'wall': choose one of global, local"),
        "table step": (lambda: learners.table(step=NAN), "step = nan is not a finite number"),
        "network width": (lambda: learners.network("16"), "width = '16' is not a whole number"),
        "theorem": (lambda: theorem_report(m, step=0.0), "step = 0.0 must be positive"),
        "theorem points": (lambda: theorem_report(m, points=10**9), "points = .* must be at most 1000"),
        "dials text": (lambda: dials(gap="0.5"), "gap: text, not real numbers"),
        "dials agents": (lambda: dials(agents=huge), "agents = .* must be at most"),
        "dials graph": (lambda: dials(agents=10**6), "the complete graph has more than"),
        "dials noise": (lambda: dials(reward_noise=np.inf), "reward_noise = inf is not a finite number"),
        "garnet": (lambda: garnet(states=10**6, outcomes=10**6), "at most 2147483647 outcomes"),
        "garnet seed": (lambda: garnet(seed=-1), "seed = -1 must be at least 0"),
        "routing": (lambda: routing(intents=10**9), "more than 4096 intents"),
    }  # fmt: skip


def bridges():
    """The same for the views for other libraries."""
    from icq.sampled.bridges import centralised_env, handoff_aec

    m = _model().smdp

    begun = {make: make(m, [1, 0, 0]) for make in (centralised_env, handoff_aec)}  # compiled once

    def play(make, *actions, seed=0):
        begun[make].reset(seed=seed)
        for action in actions:
            begun[make].step(action)

    def after_the_end():
        env = centralised_env(m, [1, 0, 0], limit=1)
        env.reset(seed=0)
        env.step(0)
        env.step(0)

    return {
        "negative": (lambda: play(centralised_env, -2), "action = -2 must be at least 0"),
        "beyond": (lambda: play(centralised_env, 99), "action = 99 must be at most 1"),
        "half": (lambda: play(centralised_env, 1.7), "action = 1.7 is not a whole number"),
        "nan": (lambda: play(centralised_env, NAN), "action = nan is not a whole number"),
        "none": (lambda: play(centralised_env, None), "action = None is not a whole number"),
        "before": (lambda: centralised_env(m, [1, 0, 0]).step(0), "no task is going on; call reset"),
        "after": (after_the_end, "no task is going on; call reset"),
        "aec negative": (lambda: play(handoff_aec, -2), "action = -2 must be at least 0"),
        "aec half": (lambda: play(handoff_aec, 1.7), "action = 1.7 is not a whole number"),
        "aec before": (lambda: handoff_aec(m, [1, 0, 0]).step(0), "no task has begun; call reset"),
        "seed": (lambda: play(handoff_aec, seed=-1), "seed = -1 must be at least 0"),
        "limit": (lambda: handoff_aec(m, [1, 0, 0], limit=0), "limit = 0 must be at least 1"),
        "starts": (lambda: centralised_env(m, [0, 0, 0]), "starts: all 3 weights are 0"),
    }


NAN, THIRDS = float("nan"), np.full((2, 3, 3), 1 / 3)


def create(**change):
    one = {"prob": np.full((1, 1, 2), 0.5), "observation": [0], "agent": [0], "gamma": 0.9}
    one |= {"next_state": np.zeros((1, 1, 2), int), "duration": np.ones((1, 1, 2), int), "reward": np.ones((1, 1, 2))}
    return ICSMDP.create(**(one | change))


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
    "start no axis": ({"start": np.array(3)}, "is not a list of states"),
    "agent array": ({"agent": lambda s: np.ma.masked}, "cannot be looked up|is no name"),
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
    calls = {name: call for name, (call, _) in CASES.items()} | TAKEN
    said = {name: heard(call) for name, call in calls.items()}
    said |= {f"border: {name}": [says, heard(call)] for name, (call, says) in borders().items()}
    if find_spec("pettingzoo"):
        said |= {f"bridge: {name}": [says, heard(call)] for name, (call, says) in bridges().items()}
    print(json.dumps(said))

"""Workflows from functions, tables and matrices: what they mean, and what mistakes are answered with."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import instances

from icq.build import BuildError, Outcome, discounted_sum, from_functions, from_table
from icq.exact import analyse, oracle_model
from icq.matrices import from_matrices

GAMMA = 0.9


def pipeline(**change):
    """Draft, then review: the reviewer cannot see whether the draft is sound (hidden), and may send it back."""
    parts = {
        "start": {("writer", "easy"): 3.0, ("writer", "hard"): 1.0},
        "agent": lambda s: s[0],
        "observe": lambda s: s[1] if s[0] == "writer" else "draft",
        "options": lambda s: ["quick", "slow"] if s[0] == "writer" else ["accept", "return"],
        "outcomes": pipeline_outcomes,
        "gamma": GAMMA,
    }
    return from_functions(**(parts | change))


def pipeline_outcomes(s, option):
    if s[0] == "writer":
        good = 0.9 if option == "slow" or s[1] == "easy" else 0.3
        steps = 4 if option == "slow" else 1
        return [
            Outcome(good, ("reviewer", "sound"), -0.1, steps),
            Outcome(1 - good, ("reviewer", "flawed"), -0.1, steps),
        ]
    if option == "return":
        return [Outcome(1.0, ("writer", "hard"), -0.2, 2)]
    return [Outcome(1.0, None, 1.0 if s[1] == "sound" else -1.0)]


def test_a_workflow_of_functions_is_what_they_say():
    w = pipeline(agents=["writer", "reviewer"])
    assert set(w.states) == {("writer", "easy"), ("writer", "hard"), ("reviewer", "sound"), ("reviewer", "flawed")}
    assert w.agents == ("writer", "reviewer") and w.observations == ("easy", "hard", "draft")
    assert w.options == (("quick", "slow"), ("accept", "return"))
    a = analyse(w.smdp)
    # By hand: accepting a sound draft earns 1 and ends; a flawed one is worth returning or not.
    v = dict(zip(w.states, a.v_star))
    hard = max(
        -0.1 + GAMMA**steps * (good * v["reviewer", "sound"] + (1 - good) * v["reviewer", "flawed"])
        for good, steps in ((0.3, 1), (0.9, 4))
    )
    assert v["writer", "hard"] == pytest.approx(hard)
    assert v["reviewer", "sound"] == pytest.approx(1.0)
    assert v["reviewer", "flawed"] == pytest.approx(max(-1.0, -0.2 + GAMMA**2 * hard))
    # Endings restart at the start law: easy three times as often as hard.
    ending = w.smdp.terminal[w.states.index(("reviewer", "sound")), 0]
    assert sorted(w.smdp.prob[w.states.index(("reviewer", "sound")), 0][ending]) == pytest.approx([0.25, 0.75])


def test_behaviour_weights_are_normalised():
    w = pipeline(behaviour=lambda s, option: 3.0 if option in ("slow", "accept") else 1.0)
    codes = dict(zip(w.options[0], range(2)))
    assert w.smdp.behaviour[0, codes["slow"]] == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"start": []}, "start: name at least one state"),
        ({"agents": ["writer", "editor"]}, "'editor' never acts"),
        ({"options": lambda s: []}, "is empty; end a task with next_state=None"),
        ({"options": lambda s: ["a", "a"]}, "names an option twice"),
        ({"options": lambda s: ["quick"] if s[0] == "writer" else ["accept", "return"][: 1 + (s[1] == "sound")]},
         "sees 'draft' in both"),
        ({"outcomes": lambda s, o: [Outcome(0.5, None)]}, "sum to 0.5, not to 1"),
        ({"outcomes": lambda s, o: [Outcome(1.0, None, duration=0)]}, "duration = 0; an option takes at least one"),
        ({"outcomes": lambda s, o: [Outcome(1.0, None, float("nan"))]}, "reward = nan is not finite"),
        ({"outcomes": lambda s, o: [Outcome(1.0, (*s, 1))], "observe": lambda s: len(s)}, "more than 50 states"),
        ({"behaviour": lambda s, o: 2.0 if s[1] == "sound" else 1.0}, "which looks the same"),
        ({"behaviour": lambda s, o: 0.0}, "must be positive"),
    ],
)  # fmt: skip
def test_mistakes_name_the_state_and_the_way_out(change, says):
    with pytest.raises(BuildError, match=says):
        pipeline(limit=50, **change)


TABLE = [
    {"state": 0, "option": "go", "prob": 0.5, "next_state": 1, "reward": 1.0, "duration": 2},
    {"state": 0, "option": "go", "prob": 0.5, "next_state": None, "reward": 0.0},
    {"state": 1, "option": "back", "prob": 1.0, "next_state": 0, "reward": 0.0},
]


def test_a_table_is_the_same_workflow():
    w = from_table(TABLE, start=[0], agent={0: "x", 1: "y"}, observation={0: "o", 1: "o"}, gamma=GAMMA)
    v = analyse(w.smdp).v_star
    # v0 = 1/2 (1 + gamma^2 v1), v1 = gamma v0
    v0 = 0.5 / (1 - 0.5 * GAMMA**3)
    assert v == pytest.approx([v0, GAMMA * v0])
    assert w.smdp.num_observations == 2  # agents never share an observation


def test_table_mistakes_name_row_and_column():
    rest = {"start": [0], "agent": {0: "x", 1: "y"}, "observation": {0: "o", 1: "o"}, "gamma": GAMMA}
    with pytest.raises(BuildError, match="row 1: no 'prob'"):
        from_table([TABLE[0], {"state": 0, "option": "go"}], **rest)
    with pytest.raises(BuildError, match="row 0: unknown column 'weight'"):
        from_table([TABLE[0] | {"weight": 1}], **rest)
    with pytest.raises(BuildError, match="rows: state 1 is reachable"):
        from_table(TABLE[:2], **rest)


@given(instances(terminal=0.0, unavailable=0.0, max_duration=1), st.data())
def test_matrices_are_read_back(m, data):
    s, a, _ = m.prob.shape
    p = np.zeros((a, s, s))
    for (i, j, b), weight in np.ndenumerate(m.prob):
        p[j, i, m.next_state[i, j, b]] += weight
    model = oracle_model(m)
    built = from_matrices(p, model.reward, observation=m.observation, agent=m.agent, gamma=float(m.gamma))
    again = oracle_model(built)
    assert again.kernel.toarray() == pytest.approx(model.kernel.toarray())
    assert again.reward == pytest.approx(model.reward)


def test_matrix_mistakes():
    p, r = np.full((2, 3, 3), 1 / 3), np.zeros((3, 2))
    rest = {"observation": np.zeros(3, int), "agent": np.zeros(1, int), "gamma": GAMMA}
    with pytest.raises(BuildError, match=r"transition: .*expected \(A, S, S\)"):
        from_matrices(p[:, :2], r, **rest)
    with pytest.raises(BuildError, match=r"reward: .*expected \(S, A\) = \(3, 2\); transpose it"):
        from_matrices(p, r.T, **rest)
    with pytest.raises(BuildError, match="duration"):
        from_matrices(p, r, duration=np.ones((2, 2), int), **rest)
    with pytest.raises(BuildError, match=r"transition\[0, 0\] sums to 0.9; .* divide each row by its sum"):
        from_matrices(p * 0.9, r, **rest)


def test_rewards_of_primitive_steps_are_discounted_inside_the_option():
    assert discounted_sum([1.0, 2.0, 3.0], 0.5) == pytest.approx(1 + 1 + 0.75)

"""Mathematical reasoning: the table, what agents see, the finite workflow, and the same workflow played and logged."""

import ast
import csv
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from estimators.logs.reader import read
from estimators.logs.recorder import Recorder
from icq.tasks import task_total
from icq_bounds.sweep.learning import Who
from icq_bounds.workflows.common.recorded import RecordedTable
from icq_bounds.workflows.common.term_cells import Size
from icq_bounds.workflows.math import experiment
from icq_bounds.workflows.math.backends import Answer, Backend, Recorded, equals, problems_of
from icq_bounds.workflows.math.cells import FrontierCell, HeldOutCell, MathCell
from icq_bounds.workflows.math.cells import play as solved
from icq_bounds.workflows.math.play import Team, always, at_random, play
from synthetic.math_data import load_answers, made_up
from synthetic.math_features import BITS, evaluate, final_number, question_bits, response_bits
from synthetic.math_routing import ALWAYS_CHEAP, ALWAYS_STRONG, Prices, math_routing, policy_of

pytestmark = pytest.mark.compiles

COLUMNS = ["prompt", "small", "large", "small_response", "large_response"]
TABLE = made_up(40)
PRICES = Prices()


def write(path, table=TABLE, columns=COLUMNS, change=None):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for i, question in enumerate(table.questions):
            row = [question, *table.correct[i].tolist(), *table.responses[i]]
            writer.writerow(change(i, row) if change else row)
    return path


def test_a_table_is_read_as_it_was_written(tmp_path):
    found = load_answers(write(tmp_path / "t.csv"))
    assert found.models == ("small", "large")
    assert (found.questions, found.responses) == (TABLE.questions, TABLE.responses)
    assert np.array_equal(found.correct, TABLE.correct) and np.array_equal(found.tokens, TABLE.tokens)
    assert found.fingerprint() != TABLE.fingerprint()  # other models
    swapped = load_answers(tmp_path / "t.csv", ("large", "small"))
    assert np.array_equal(swapped.correct, TABLE.correct[:, ::-1])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda i, row: [row[0], "maybe" if i == 2 else row[1], *row[2:]], "row 3, small: 'maybe'"),
        (lambda i, row: row[:4] if i == 1 else row, "row 2, large_response: missing"),
        (lambda i, row: ["", *row[1:]] if i == 0 else row, "row 1, prompt: empty"),
    ],
)
def test_wrong_rows_are_named(tmp_path, change, says):
    with pytest.raises(ValueError, match=says):
        load_answers(write(tmp_path / "t.csv", change=change))


def test_wrong_tables_say_what_is_needed(tmp_path):
    with pytest.raises(FileNotFoundError, match="lm-sys/RouteLLM"):
        load_answers(tmp_path / "absent.csv")
    write(tmp_path / "t.csv", columns=["question", *COLUMNS[1:]])
    with pytest.raises(ValueError, match="columns are question"):
        load_answers(tmp_path / "t.csv")
    write(tmp_path / "t.csv")
    with pytest.raises(ValueError, match="no model 'huge'; it has small, large"):
        load_answers(tmp_path / "t.csv", ("small", "huge"))
    (tmp_path / "t.csv").write_text(",".join(COLUMNS) + "\n")
    with pytest.raises(ValueError, match="no questions"):
        load_answers(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not a CSV"):
        load_answers(tmp_path / "t.csv")


def test_made_up_answers_are_judged_rightly():
    table = made_up(300, seed=5)
    assert 0.55 < table.correct[:, 0].mean() < table.correct[:, 1].mean() < 1
    marked = [response_bits(cheap) for cheap, _ in table.responses]
    right = table.correct[:, 0]
    assert all(bits[0] and bits[1] for bits, good in zip(marked, right) if good)
    shows = np.mean([not (bits[0] and bits[1]) for bits, good in zip(marked, right) if not good])
    assert 0.3 < shows < 0.8  # some slips show and some do not
    assert np.array_equal(made_up(300, seed=5).correct, table.correct)


numbers = st.integers(0, 999) | st.floats(0, 99).map(lambda x: round(x, 2))
sums = st.recursive(
    numbers.map(str), lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner).map("({0[0]}{0[1]}{0[2]})".format),
    max_leaves=6,
)  # fmt: skip


@given(sums)
def test_sums_are_evaluated_as_python_does(text):
    try:
        expected = float(eval(compile(ast.parse(text, mode="eval"), "sum", "eval")))
    except ZeroDivisionError:
        assert evaluate(text) is None
    else:
        assert evaluate(text) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "text", ["", "2**9", "9//2", "x+1", "__import__('os')", "(1", "1e400", "1+" * 200 + "1", "7%2"]
)
def test_only_arithmetic_is_evaluated(text):
    assert evaluate(text) is None


def test_numbers_as_people_write_them():
    assert evaluate("$1,200*2") == 2400 and evaluate("08+1") == 9 and evaluate("0*5") == 0
    assert final_number("so 3 and 4\n#### $1,234.50 dollars") == 1234.5
    assert final_number("it is 12 or -7") == -7
    assert final_number("none") is None
    assert equals(7.0)("#### 7.0") and not equals(7.0)("#### 8, not 7") and not equals(7.0)("")


def test_bits_say_what_they_are_called():
    good = "2+3 = <<2+3=5>>5\n#### 5"
    assert response_bits(good) == (True, True, False, False, True, True)
    assert response_bits(good.replace("=5>>", "=6>>"))[1:5:3] == (False, False)
    assert response_bits("")[0] is False
    assert len(question_bits("")) == len(response_bits("")) == BITS and not any(question_bits(""))
    assert question_bits("Half of the eggs are left each day?") == (False, False, True, False, True, True)


def test_the_question_seen_leaves_no_gap_and_the_oracle_is_per_question():
    done = solved(TABLE, None, PRICES)
    a, m = done.true, done.true.smdp
    assert np.abs(a.gap).max() == pytest.approx(0.0, abs=1e-12)
    assert m.num_states == m.num_observations
    star = done.totals(a.oracle_solution.policy)
    assert star["right"] == pytest.approx(TABLE.correct.any(1).mean())  # at these prices a right answer is worth either
    cost = np.array([[PRICES.dollars(j, int(t)) for j, t in enumerate(row)] for row in TABLE.tokens])
    value = []
    for correct, tokens, paid in zip(TABLE.correct, TABLE.tokens, cost / PRICES.worth):
        steps, g = [PRICES.steps(int(t)) for t in tokens], PRICES.gamma
        strong = g ** (steps[1] - 1) * correct[1] - paid[1]
        cheap = -paid[0] + g ** steps[0] * max(float(correct[0]), g * strong)
        value.append(g * max(g * strong, g * max(cheap, g * strong)))
    assert star["value"] == pytest.approx(np.mean(value))


def test_fixed_policies_cost_and_answer_what_the_table_says():
    done = solved(TABLE, 2, PRICES)
    for j, choice in enumerate((ALWAYS_CHEAP, ALWAYS_STRONG)):
        totals = done.totals(policy_of(done.workflow, choice))
        assert totals["right"] == pytest.approx(TABLE.correct[:, j].mean())
        assert totals["dollars"] == pytest.approx(np.mean([PRICES.dollars(j, int(t)) for t in TABLE.tokens[:, j]]))
        assert totals["strong"] == pytest.approx(float(j))


def test_the_dial_narrows_the_view_and_opens_the_gap():
    gaps, last = [], None
    for bits in (0, 2, BITS, None):
        done = solved(TABLE, bits, PRICES)
        codes = np.asarray(done.true.smdp.observation)
        if last is not None:  # every view refines the one before
            assert len(set(zip(codes.tolist(), last.tolist()))) == done.true.smdp.num_observations
        last = codes
        gaps.append(done.true.norm_d_state(done.true.gap))
    assert gaps[0] > gaps[1] > gaps[-1] == pytest.approx(0.0, abs=1e-12)
    assert gaps[2] > 0.01


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: math_routing(TABLE, 7), "bits = 7"), (lambda: Prices(worth=0.0), "worth = 0.0"),
        (lambda: Prices(cheap=-1.0), "cheap = -1.0"), (lambda: Prices(step_tokens=0), "step_tokens = 0"),
        (lambda: made_up(1), "questions = 1"), (lambda: Team((), ("strong",)), "cheap: no strategy"),
    ],
)  # fmt: skip
def test_bad_sizes_are_named(make, says):
    with pytest.raises(ValueError, match=says):
        make()


TEAM = Team(("cheap",), ("strong",))


@pytest.mark.parametrize("fixed", [ALWAYS_CHEAP, ALWAYS_STRONG])
def test_played_questions_add_up_to_the_exact_totals(fixed):
    backend = Recorded(TABLE)
    assert isinstance(backend, Backend)
    names = fixed | {"cheap": "cheap" if fixed["cheap"] == "answer" else "pass", "strong": "strong"}
    played = play(backend, backend.problems(), TEAM, always(names), bits=2)
    done = solved(TABLE, 2, PRICES)
    totals = done.totals(policy_of(done.workflow, fixed))
    assert np.mean([s.correct for s in played]) == pytest.approx(totals["right"])
    assert np.mean([s.dollars for s in played]) == pytest.approx(totals["dollars"])


def test_a_replayed_log_says_what_the_finite_workflow_says(tmp_path):
    backend, path = Recorded(TABLE), tmp_path / "log.jsonl"
    with Recorder(path, gamma=PRICES.gamma) as recorder:
        play(backend, backend.problems(), TEAM, at_random(1), recorder, bits=None)
    rows = [json.loads(line) for line in path.read_text().splitlines()][1:]
    w = math_routing(TABLE, None)
    m = w.smdp
    place = {(str(w.agents[i]), name): o for o, (name, i) in enumerate(zip(w.observations, np.asarray(m.agent)))}
    for row in rows:
        agent, question = row["observation"].split()
        s = int(np.flatnonzero(m.observation == place[agent, int(question)])[0])
        name = {"cheap": {"cheap": "answer"}, "strong": {"strong": "answer"}}.get(agent, {})
        option = w.options[w.agents.index(agent)].index(name.get(row["option"], row["option"]))
        assert row["reward"] == pytest.approx(m.reward[s, option, 0])
        assert row["duration"] == m.duration[s, option, 0] and row["done"] == bool(m.terminal[s, option, 0])
    log, report = read(path)
    assert report.faultless and len(log.reward) == len(rows)


def test_a_failed_call_is_played_to_an_end(tmp_path):
    class Broken:
        strategies = ("cheap", "strong")

        def answer(self, problem, strategy):
            return Answer("", False, 0, 0.1, "no answer")

    with Recorder(tmp_path / "log.jsonl", gamma=0.99) as recorder:
        done = play(Broken(), Recorded(TABLE).problems(), TEAM, at_random(0), recorder)
    assert not any(s.correct for s in done) and any(len(s.failures) == 2 for s in done)
    assert read(tmp_path / "log.jsonl")[1].faultless
    with pytest.raises(ValueError, match="strategy 'huge'"):
        play(Broken(), [], Team(("huge",), ("strong",)), at_random(0))


def test_answers_to_ask_again_come_from_right_responses():
    problems = problems_of(TABLE)
    assert [p.number for p in problems] == np.flatnonzero(TABLE.correct.any(1)).tolist()
    agree = [p.right(TABLE.responses[p.number][j]) == TABLE.correct[p.number, j] for p in problems for j in (0, 1)]
    assert np.mean(agree) == 1.0


def test_cells_measure_and_conclude(tmp_path):
    file = write(tmp_path / "t.csv")
    sizes = Size(seeds=2, handoffs=2000, logged=0)
    preset = experiment.MathPreset("tiny", 2, 40_000, (1, None), (1,), (0.005, 0.02), 2, 3, 30, sizes)
    wanted = experiment.cells(preset, file)
    assert str(tmp_path) not in repr(wanted)
    results = {cell: cell.run() for cell in wanted}
    by = {(c.who, c.bits): r for c, r in results.items() if isinstance(c, MathCell)}
    best = by[Who.ICQ, None]
    assert best["value"] == pytest.approx(float(best["value_star"]), rel=0.01)
    assert by[Who.CENTRALISED, 1]["value"] == pytest.approx(float(best["value_star"]), rel=0.01)
    assert by[Who.ICQ, 1]["value"].mean() < best["value"].mean()
    assert (
        str(best["bound_verdict_interface"]) != "violated" and str(by[Who.ICQ, 1]["bound_verdict_interface"]) == "holds"
    )
    said = experiment.summarise(preset, results, tmp_path)
    assert "given by the user" in said["table"] and said["questions"] == len(TABLE)
    assert said["from_the_log"]["handoffs"] > 200 and (tmp_path / "handoffs.jsonl").is_file()
    assert 0 < said["from_the_log"]["exact_gap_over_the_same_handoffs"] > float(by[Who.ICQ, 1]["e_interface"])
    assert said["terms_of_linear_agents"]["two models, view of 1 bits"]["approximation"]["value"] > 0
    json.dumps(said, allow_nan=False)
    files = experiment.draw(results, tmp_path)
    assert len(files) == 8 and all(f.stat().st_size > 1000 for f in files)
    assert experiment._data(results) == "40 recorded questions"
    file.write_text(file.read_text().replace("True", "False", 1))
    with pytest.raises(ValueError, match="changed"):
        wanted[0].source.table()


def test_made_up_tables_are_called_so():
    source = RecordedTable.of(None, 30)
    assert experiment._data({MathCell(source, 1, Who.ICQ, 2, 10): {}}) == "30 made-up questions"


def test_unseen_questions_are_judged_by_what_was_learned_elsewhere():
    source = RecordedTable.of(None, 60)
    found = HeldOutCell(source, 0, 3).run()
    assert (found["unknown"] == 0).all()  # with no bits there is nothing new to see
    assert (HeldOutCell(source, BITS, 3).run()["unknown"] > 0).all()
    dear = FrontierCell(source, 2, (0.001, 10.0)).run()
    assert dear["dollars"][0] < dear["dollars"][1] and dear["right"][0] <= dear["right"][1]


def test_totals_are_those_of_the_tasks_module():
    done = solved(TABLE, 1, PRICES)
    policy = policy_of(done.workflow, ALWAYS_CHEAP)
    handoffs = done.starts @ task_total(done.true.smdp, policy, np.ones(done.true.smdp.prob.shape))
    assert handoffs == pytest.approx(4.0)  # inbox, dispatcher, cheap model, verifier

"""Handoff logs on disk: what is written is read, what is wrong is named, what is irregular is counted."""

import json
import re
from dataclasses import fields, replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from estimators.logs import lines as log_lines
from estimators.logs import parquet
from estimators.logs.log import Log, from_handoffs
from estimators.logs.reader import read
from estimators.logs.report import MENDED, Finding
from estimators.logs.schema import COLUMNS, REQUIRED, LogError
from estimators.logs.writer import LogWriter, write
from icq.exact import outcome_discount
from icq.learn.sampling import Handoff
from tests.strategies import instances

pytestmark = pytest.mark.compiles

SUFFIXES = (".parquet", ".jsonl")


def walk(m, n, seed):
    """A trajectory by the definition, one handoff at a time."""
    rng = np.random.default_rng(seed)
    cells, s = [], int(rng.integers(m.num_states))
    for _ in range(n):
        a = int(rng.choice(m.num_options, p=m.behaviour[m.observation[s]]))
        b = int(rng.choice(m.prob.shape[2], p=m.prob[s, a] / m.prob[s, a].sum()))
        cells.append((s, a, b))
        s = int(m.next_state[s, a, b])
    s, a, b = (np.array(part, np.int32) for part in zip(*cells))
    following = m.next_state[s, a, b]
    floats, ints = (lambda x: jnp.asarray(x, jnp.float32)), (lambda x: jnp.asarray(x, jnp.int32))
    return Handoff(
        state=ints(s), observation=ints(m.observation[s]), action=ints(a), outcome=ints(b),
        reward=floats(m.reward[s, a, b]), discount=floats(outcome_discount(m)[s, a, b]), next_state=ints(following),
        next_observation=ints(m.observation[following]),
    )  # fmt: skip


def assert_same(found: Log, expected: Log):
    for item in fields(Log):
        x, y = getattr(found, item.name), getattr(expected, item.name)
        if isinstance(y, np.ndarray):
            assert x is not None and x.dtype.kind == y.dtype.kind, item.name
            np.testing.assert_array_equal(x, y, err_msg=item.name)
        else:
            assert x == y, item.name


def row(task="t", k=0, **other):
    """A sound row: task t walks over observations o0, o1, ..., each of its own agent, and ends at k = 2."""
    done = k == 2
    return {
        "task": task, "k": k, "agent": f"a{k}", "observation": f"o{k}", "option": "go", "reward": 1.0 + k,
        "duration": 1 + k, "done": done, "next_agent": None if done else f"a{k + 1}",
        "next_observation": None if done else f"o{k + 1}",
    } | other  # fmt: skip


def three(*tasks):
    return [row(task, k) for task in tasks or ("t",) for k in range(3)]


def save(rows, path, gamma=0.9):
    """Rows by means other than the project's writer; None leaves gamma out."""
    if path.suffix == ".parquet":
        names = {name: None for r in rows for name in r}
        table = pa.table({name: pa.array([r.get(name) for r in rows]) for name in names})
        pq.write_table(table.replace_schema_metadata({} if gamma is None else {"icq.gamma": str(gamma)}), path)
    else:
        head = [] if gamma is None else [{"schema": "icq-handoffs/1", "gamma": gamma}]
        path.write_text("".join(json.dumps(r) + "\n" for r in [*head, *rows]))
    return path


def place(suffix, index):
    """How the reader calls a row of a file written by `save`."""
    return f"row {index}" if suffix == ".parquet" else f"line {index + 2}"


# --- what is written is read ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(m=instances(), n=st.integers(1, 60), seed=st.integers(0, 99), context=st.booleans(), scalar=st.booleans())
def test_a_simulated_log_survives_the_file(suffix, m, n, seed, context, scalar, tmp_path_factory):
    q = np.random.default_rng(seed).normal(size=m.behaviour.shape) if scalar else None
    log = from_handoffs(m, walk(m, n, seed), context=context, q=q)
    path = tmp_path_factory.mktemp("log") / f"log{suffix}"
    write(log, path)
    found, report = read(path)
    assert_same(found, log)
    assert report.faultless and report.rows == report.kept == n
    assert report.breaks.count == 1 and report.unfinished.count == int(not log.done[-1])


@st.composite
def histories(draw):
    """Sound rows of several tasks with names, vectors or numbers as ids, in any order of tasks."""
    label = draw(st.sampled_from(["text", "integer", "sparse", "vector"]))
    mark = {
        "text": lambda i: ("2024-01-0" + str(i)) if i < 5 else f'"ö\n{i}',
        "integer": lambda i: i, "sparse": lambda i: 10**12 * i, "vector": lambda i: [i / 3, -float(i)],
    }[label]  # fmt: skip
    plain = {"text": str, "vector": str}.get(label, mark)
    rows = []
    for task in draw(st.permutations(range(4)))[: draw(st.integers(1, 4))]:
        path = draw(st.lists(st.integers(0, 9), min_size=1, max_size=6))
        for k, o in enumerate(path):
            last = k + 1 == len(path)
            after = {} if last else {"next_agent": plain(path[k + 1] % 3), "next_observation": mark(path[k + 1])}
            rows.append(
                {
                    "task": plain(task), "k": k, "agent": plain(o % 3), "observation": mark(o), "option": plain(o % 2),
                    "reward": draw(st.floats(-1e9, 1e9)), "duration": draw(st.integers(1, 9)), "done": last,
                    "next_agent": None, "next_observation": None, "scalar": draw(st.none() | st.floats(-9, 9)),
                    "context": draw(st.sampled_from(["x", "y", 'z"'])),
                    "probability": draw(st.sampled_from([None, 0.25, 1.0])),
                }
                | after
            )  # fmt: skip
    return rows


@given(rows=histories(), shuffle=st.randoms(use_true_random=False))
def test_both_formats_say_the_same_in_any_order_of_rows(rows, shuffle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("log")
    first, report = read(save(rows, folder / "a.jsonl"))
    assert report.faultless
    assert_same(read(save(rows, folder / "a.parquet"))[0], first)
    for suffix in SUFFIXES:  # a log that was read is written and read again
        write(first, folder / f"b{suffix}")
        assert_same(read(folder / f"b{suffix}")[0], first)
    order = list({r["task"]: None for r in rows})
    mixed = sorted(
        shuffle.sample(rows, len(rows)), key=lambda r: (r["k"] > 0, order.index(r["task"]) if r["k"] == 0 else 0)
    )
    for suffix in SUFFIXES:
        assert_same(read(save(mixed, folder / f"c{suffix}"))[0], first)


def test_names_vectors_and_numbers_are_kept(tmp_path):
    log, _ = read(save([r | {"context": {"b": [r["k"]], "a": None}} for r in three()], tmp_path / "a.jsonl"))
    assert log.names.agent == ("a0", "a1", "a2") and log.names.option == ("go",)
    assert log.names.context == ('{"a":null,"b":[0]}', '{"a":null,"b":[1]}', '{"a":null,"b":[2]}')
    assert log.next_agent.tolist() == [1, 2, -1] and log.follows.tolist() == [False, True, True]
    for suffix in SUFFIXES:
        views = [[9, 1], [5.5, 0.0], [9, 1]]
        rows = [
            r | {"agent": 7, "next_agent": None if r["done"] else 7, "observation": views[i], "context": [i % 2, 0]}
            | {"next_observation": None if r["done"] else views[i + 1]}
            for i, r in enumerate(three())
        ]  # fmt: skip
        rows[0]["next_observation"] = [5.5, -0.0]  # the same number
        log, _ = read(save(rows, tmp_path / f"b{suffix}"))
        np.testing.assert_array_equal(log.features, [[5.5, 0.0], [9.0, 1.0]])
        assert log.observation.tolist() == [1, 0, 1] and log.next_observation.tolist() == [0, 1, -1]
        assert log.agent.tolist() == [7, 7, 7] and log.names.agent == () and log.context.tolist() == [0, 1, 0]


def test_integers_too_sparse_for_codes_become_names(tmp_path):
    log, _ = read(save([r | {"option": 10**9 + 5 - r["k"]} for r in three()], tmp_path / "a.parquet"))
    assert log.names.option == ("1000000003", "1000000004", "1000000005") and log.option.tolist() == [2, 1, 0]


def test_codes_are_as_wide_as_indices_made_of_them_need(tmp_path):
    rows = [
        row(k=k, agent=0, observation=k, context=k, next_agent=0, next_observation=k + 1, done=False)
        for k in range(300)
    ]
    small, _ = read(save(rows[:100], tmp_path / "a.parquet"))
    large, _ = read(save(rows, tmp_path / "b.parquet"))
    assert small.observation.dtype == small.context.dtype == np.int32
    state = large.observation * 300 + large.context
    pair = state * 300**2 + state
    assert pair.max() == (299 * 300 + 299) * (300**2 + 1) and (pair >= 0).all()


def test_columns_of_data_frames_are_understood(tmp_path):
    """A data frame writes integers with gaps as floats with NaN, and categories as dictionaries."""
    table = pa.table(
        {
            "task": pa.array(["t"] * 3).dictionary_encode(), "k": [0.0, 1.0, 2.0], "agent": [0, 1, 0],
            "observation": [0, 1, 0], "option": pa.DictionaryArray.from_arrays([1, 1, 1], ["unused", "go"]),
            "reward": [1, 2, 3], "duration": pa.array([1, 1, 1], pa.uint8()), "done": [0, 0, 1],
            "next_agent": [1.0, 0.0, np.nan], "next_observation": [1.0, 0.0, np.nan], "note": ["x", "y", "z"],
        }
    )  # fmt: skip
    pq.write_table(table, tmp_path / "a.parquet")
    log, report = read(tmp_path / "a.parquet", gamma=0.5)
    assert log.next_observation.tolist() == [1, 0, -1] and log.done.tolist() == [False, False, True]
    assert log.names.option == ("go",) and log.gamma == 0.5 and log.context is None
    assert report.ignored == ("note",) and "note" in str(report)


def test_a_chain_goes_on_over_the_end_of_a_task(tmp_path):
    rows = three("t", "u")
    rows[2] |= {"next_agent": "a0", "next_observation": "o0"}
    for suffix in SUFFIXES:
        log, report = read(save([r | {"chain": 5} for r in rows], tmp_path / f"a{suffix}"))
        assert log.follows.tolist() == [False] + [True] * 5 and log.next_agent[2] == 0 and report.faultless
        log, report = read(save(rows, tmp_path / f"b{suffix}"))
        assert log.follows.tolist() == [False, True, True] * 2 and log.next_agent[2] == -1
        assert report.next_ignored == Finding(1, 2 if suffix == ".parquet" else 4)
        rows[2]["next_observation"] = "o1"
        rows[2]["next_agent"] = "a1"
        log, report = read(save([r | {"chain": 5} for r in rows], tmp_path / f"c{suffix}"))
        assert not log.follows[3] and report.contradictions.count == 1
        rows[2] |= {"next_agent": "a0", "next_observation": "o0"}
        split = [r | {"chain": int(i > 0)} for i, r in enumerate(rows)]
        with pytest.raises(LogError, match=f"{place(suffix, 1)}, column chain: the task began in another chain"):
            read(save(split, tmp_path / f"d{suffix}"))


def test_chains_put_their_tasks_together(tmp_path):
    rows = [r | {"chain": c} for c, t in ((1, "t"), (0, "u"), (1, "v")) for r in three(t)]
    log, report = read(save(rows, tmp_path / "a.jsonl"))
    assert log.follows.tolist() == [False, True, True, True, True, True, False, True, True]
    assert report.tasks == 3 and report.breaks.count == 2


VIEWS = st.sampled_from(
    [(), (1, 2, 1), ("x", "y", "x"), ([1], [2.5], [1]), ({"b": 1, "a": "ö"}, 0.5, {"a": "ö", "b": 1})]
)


@given(size=st.integers(1, 400), head=st.integers(1, 5), views=VIEWS)
def test_blocks_of_any_size_read_the_same(size, head, views, tmp_path_factory):
    rows = [r | ({"context": views[i % 3]} if views else {}) for i, r in enumerate(three(*"tuvw"))]
    path = save(rows, tmp_path_factory.mktemp("log") / "a.jsonl")
    path.write_bytes(path.read_bytes().replace(b'"u"', b'"u\\n"') + b'{"task": "w", "k"')
    expected, report = read(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_lines, "BLOCK", size)
        patch.setattr(log_lines, "ROWS", head)
        found, again = read(path)
    assert_same(found, expected)
    if views:
        assert expected.context.tolist() == [expected.context[0], expected.context[1], expected.context[0]] * 4
        assert len(set(expected.context.tolist())) == 2
    assert again == report and report.torn == Finding(1, 14)


def test_batches_of_any_size_read_the_same(tmp_path):
    path = save(three(*"tuvw"), tmp_path / "a.parquet")
    expected, _ = read(path)
    for size in (1, 2, 5):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(parquet, "BATCH", size)
            assert_same(read(path)[0], expected)


def test_progress_reaches_the_end(tmp_path):
    for suffix in SUFFIXES:
        seen = []
        read(save(three(), tmp_path / f"a{suffix}"), progress=seen.append)
        assert seen == sorted(seen) and seen[-1] == pytest.approx(1.0)


# --- what is wrong is named -----------------------------------------------------------------------------------------

WRONG = [
    ({"reward": float("nan")}, "reward", "not finite"),
    ({"reward": float("inf")}, "reward", "not finite"),
    ({"reward": None}, "reward", "null"),
    ({"scalar": float("inf")}, "scalar", "not finite"),
    ({"duration": 0}, "duration", "0 is not in 1.."),
    ({"duration": None}, "duration", "needed"),
    ({"k": -1}, "k", "-1 is not in 0.."),
    ({"probability": 0.0}, "probability", "0.0 is not in"),
    ({"probability": 1.5}, "probability", "1.5 is not in"),
    ({"agent": None}, "agent", "null is needed"),
    ({"option": None}, "option", "null is needed"),
    ({"done": None}, "done", "null is needed"),
    ({"next_agent": None, "next_observation": None}, "next_agent", "where done is false"),
    ({"next_agent": None}, "next_agent", "where done is false"),
    ({"done": True, "next_agent": None}, "next_agent", "give both or none"),
    ({"agent": "a2"}, "agent", "'a2' acts on observation 'o1', but 'a1' did before"),
    ({"next_agent": "a1"}, "next_agent", "'a1' acts on observation 'o2', but 'a2' did before"),
]
WRONG_VALUES = [
    ({"duration": 1.5}, "duration", "1.5 is not an integer"),
    ({"reward": "much"}, "reward", "not a number"),
    ({"done": "no"}, "done", "not true or false"),
    ({"k": True}, "k", "not an integer"),
    ({"agent": 3}, "agent", "before there were text"),
    ({"agent": [1]}, "agent", "an id is text or an integer"),
    ({"observation": 0.5}, "observation", "an id is"),
    ({"option": {"a": 1}}, "option", "an id is text or an integer"),
    ({"reward": 10**400}, "reward", "inf is not finite"),
    ({"k": 10**400}, "k", "not an integer"),
    ({"duration": 10**12}, "duration", "not in 1.."),
    ({"observation": "\ud800"}, "observation", "half of a surrogate pair"),
    ({"context": {"a": [float("nan")]}}, "context", "is not finite"),
]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("change", "column", "words"), WRONG)
def test_a_wrong_row_is_named_or_left_out(suffix, change, column, words, tmp_path):
    rows = three("s", "t", "u")
    rows[4] |= change
    path = save(rows, tmp_path / f"a{suffix}")
    with pytest.raises(LogError) as said:
        read(path)
    assert f"{path}: {place(suffix, 4)}, column {column}: " in str(said.value) and words in str(said.value)
    log, report = read(path, skip_bad=True)
    assert report.bad == {column: Finding(1, int(place(suffix, 4).split()[1]))} and not report.faultless
    assert (report.rows, report.kept, len(log)) == (9, 8, 8)
    assert log.follows.tolist() == [False, True, True, False, False, False, True, True]
    assert report.missing.count == 1


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_observation_belongs_to_the_agent_first_seen_with_it(suffix, tmp_path):
    rows = three("s", "t")
    rows[4] |= {"agent": "a2"}
    with pytest.raises(
        LogError, match=f"{place(suffix, 4)}, column agent: 'a2' acts on observation 'o1', but 'a1' did"
    ):
        read(save(rows, tmp_path / f"a{suffix}"))


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(("change", "column", "words"), WRONG_VALUES)
def test_a_value_of_the_wrong_type_is_named(change, column, words, late, tmp_path, monkeypatch):
    monkeypatch.setattr(log_lines, "ROWS", 2 if late else 1000)  # found in a later batch, or in the first
    rows = [r | {"context": 1} for r in three("s", "t", "u")]
    rows[4] |= change
    path = save(rows, tmp_path / "a.jsonl")
    with pytest.raises(LogError) as said:
        read(path)
    assert f"line 6, column {column}: " in str(said.value) and words in str(said.value)
    log, report = read(path, skip_bad=True)
    assert report.bad == {column: Finding(1, 6)} and report.rows == 9 and len(log) == 8


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("reward", ["a", "b", "c"], "column reward holds string, numbers are needed"),
        ("duration", ["a", "b", "c"], "column duration holds string, integers are needed"),
        ("duration", [1.0, 2.5, 1.0], "row 1, column duration: duration = 2.5 is not an integer"),
        ("done", ["no", "no", "yes"], "column done holds string, true or false is needed"),
        ("option", [-1, 2, 3], "row 0, column option: option = -1 is negative"),
        ("next_agent", [1, 2, None], "column next_agent holds integers, but before there were text"),
        ("observation", [{"a": 1}] * 3, "write anything else as its JSON text"),
        ("observation", [[1.0], [1.0, 2.0], [1.0]], "row 1, column observation: .* has not 1 numbers"),
        ("context", [[1.0], [2.0, None][1:], [1.0]], "row 1, column context: .* is not finite"),
        ("context", ["x", None, "y"], "row 1, column context: null, but other rows have one"),
        ("chain", [1, 1, None], "row 2, column chain: null"),
    ],
)
def test_columns_of_the_wrong_type(name, values, words, tmp_path):
    rows = [r | {name: v} for r, v in zip(three(), values)]
    if name == "observation":
        rows = [r | {"next_observation": None if r["done"] else values[0]} for r in rows]
    with pytest.raises(LogError, match=words):
        read(save(rows, tmp_path / "a.parquet"))


@pytest.mark.parametrize("name", REQUIRED)
def test_a_required_column_is_missing(name, tmp_path):
    rows = [{key: value for key, value in r.items() if key != name} for r in three()]
    with pytest.raises(LogError, match=f"column {name} is missing"):
        read(save(rows, tmp_path / "a.parquet"))
    with pytest.raises(LogError, match=f"line 2, column {name}: "):
        read(save(rows, tmp_path / "a.jsonl"))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_gamma_is_in_the_file_or_given(suffix, tmp_path):
    path = save(three(), tmp_path / f"a{suffix}", gamma=None)
    with pytest.raises(LogError, match="pass gamma"):
        read(path)
    assert read(path, gamma=0.5)[0].gamma == 0.5
    with pytest.raises(LogError, match=r"gamma = 1.5: a number inside \(0, 1\)"):
        read(path, gamma=1.5)
    path = save(three(), tmp_path / f"b{suffix}")
    assert read(path, gamma=0.9)[0].gamma == 0.9
    with pytest.raises(LogError, match=r"gamma = 0.8 was passed, but the file says 0.9"):
        read(path, gamma=0.8)
    with pytest.raises(LogError, match="gamma"):
        read(save(three(), tmp_path / f"c{suffix}", gamma=7))


def test_files_that_are_no_logs(tmp_path):
    path = save(three(), tmp_path / "a.parquet")
    (tmp_path / "cut.parquet").write_bytes(path.read_bytes()[:-40])
    with pytest.raises(LogError, match="not a readable Parquet file"):
        read(tmp_path / "cut.parquet")
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({"icq.schema": "icq-handoffs/2"}), tmp_path / "new.parquet")
    with pytest.raises(LogError, match="icq-handoffs/2"):
        read(tmp_path / "new.parquet")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(LogError, match="holds no handoffs"):
        read(tmp_path / "empty.jsonl")
    (tmp_path / "text.jsonl").write_text("task,k\n1,2\n")
    with pytest.raises(LogError, match="line 1 cannot be read: not one JSON object"):
        read(tmp_path / "text.jsonl")
    (tmp_path / "list.jsonl").write_text('{"schema": "icq-handoffs/1"}\n[1]\n')
    with pytest.raises(LogError, match="line 2, column task: the line is not a JSON object"):
        read(tmp_path / "list.jsonl")
    (tmp_path / "new.jsonl").write_text('{"schema": "icq-handoffs/2", "gamma": 0.9}\n')
    with pytest.raises(LogError, match="line 1: the schema is icq-handoffs/2"):
        read(tmp_path / "new.jsonl")
    (tmp_path / "big.jsonl").write_text(json.dumps(row(task=2**70)) + "\n")
    with pytest.raises(LogError, match=r"line 1, column task: .* write such ids as text"):
        read(tmp_path / "big.jsonl", gamma=0.9)
    doubled = pa.Table.from_arrays([*table.columns, table.column("k")], [*table.column_names, "k"])
    pq.write_table(doubled, tmp_path / "twice.parquet")
    with pytest.raises(LogError, match="column k is there 2 times"):
        read(tmp_path / "twice.parquet")
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "nowhere.jsonl")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nothing_usable_is_an_empty_log_with_its_report(suffix, tmp_path):
    log, report = read(save([r | {"duration": 0} for r in three()], tmp_path / f"a{suffix}"), skip_bad=True)
    assert len(log) == report.kept == report.tasks == 0 and report.rows == 3 and report.bad["duration"].count == 3


def test_headers_may_repeat_but_not_disagree(tmp_path):
    text = save(three(), tmp_path / "a.jsonl").read_text()
    (tmp_path / "two.jsonl").write_text(text + text.replace('"t"', '"u"'))
    log, report = read(tmp_path / "two.jsonl")
    assert len(log) == 6 and report.faultless
    (tmp_path / "bad.jsonl").write_text(text + text.replace("0.9", "0.8"))
    with pytest.raises(LogError, match=r"line 5: gamma = 0.8, but 0.9 before"):
        read(tmp_path / "bad.jsonl")


# --- what is irregular is counted -----------------------------------------------------------------------------------


def test_torn_lines_are_counted_and_rows_behind_them_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(log_lines, "ROWS", 1)
    lines = save(three("t", "u"), tmp_path / "a.jsonl").read_text().replace(": ", ":").replace(", ", ",").splitlines()
    torn = [*lines[:3], lines[3][:40], lines[0], lines[4][:50] + lines[4], *lines[5:], lines[6][:30]]
    (tmp_path / "b.jsonl").write_text("\n".join(torn))
    log, report = read(tmp_path / "b.jsonl")
    assert report.torn == Finding(3, 4) and report.rows == len(log) == 5
    assert report.missing.count == 0 and report.unfinished == Finding(1, 3)  # the last handoff of t is gone
    assert log.task.tolist() == [0, 0, 1, 1, 1]


@pytest.mark.parametrize("between", ["\n", "\n\n \n"])
def test_blank_lines_are_lines(between, tmp_path, monkeypatch):
    monkeypatch.setattr(log_lines, "ROWS", 1)
    rows = three("t", "u")
    rows[4] |= {"duration": 0}
    lines = [json.dumps(r) for r in rows]
    (tmp_path / "a.jsonl").write_text("\n".join(lines[:2]) + between + "\n".join(lines[2:]))
    with pytest.raises(LogError, match=f"line {4 + between.count(chr(10))}, column duration"):
        read(tmp_path / "a.jsonl", gamma=0.9)


def reference(rows):
    """Counts and order by the definitions, with dictionaries."""
    count = dict.fromkeys(("duplicates", "missing", "out_of_order", "interleaved", "contradictions", "after_end"), 0)
    last, tasks, previous = {}, {}, None
    for r in rows:
        task = r["task"]
        count["interleaved"] += task in tasks and task != previous
        count["out_of_order"] += task in last and r["k"] < last[task]
        last[task], previous = r["k"], task
        count["duplicates"] += r["k"] in tasks.setdefault(task, {})
        tasks[task][r["k"]] = r
    ordered, follows = [], []
    for handoffs in tasks.values():
        present = sorted(handoffs)
        count["missing"] += present[-1] + 1 - len(present)
        for k in present:
            before = handoffs.get(k - 1)
            led = before is not None and before["next_observation"] == handoffs[k]["observation"]
            count["contradictions"] += before is not None and not before["done"] and not led
            ordered.append(handoffs[k]["reward"])
            follows.append(before is not None and not before["done"] and led)
        count["after_end"] += sum(handoffs[k]["done"] for k in present[:-1])
    return count, ordered, follows


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(data=st.data())
def test_irregular_logs_are_counted_as_by_brute_force(suffix, data, tmp_path_factory):
    rows = []
    for task in range(data.draw(st.integers(1, 4))):
        path = data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=5))
        for k, o in enumerate(path):
            end = k + 1 == len(path) or data.draw(st.integers(0, 9)) == 0
            after = path[k + 1] if k + 1 < len(path) and data.draw(st.integers(0, 9)) else 0
            after = None if end else after
            rows.append(
                {"task": task, "k": k, "agent": 0, "observation": o, "option": 0, "reward": float(len(rows))}
                | {"duration": 1, "done": end, "next_agent": None if end else 0, "next_observation": after}
            )
    kept = data.draw(st.lists(st.sampled_from(range(len(rows))), min_size=1, max_size=20))  # drops, copies, shuffles
    rows = [rows[i] for i in kept]
    log, report = read(save(rows, tmp_path_factory.mktemp("log") / f"a{suffix}"))
    count, ordered, follows = reference(rows)
    assert {name: getattr(report, name).count for name in count} == count
    assert log.reward.tolist() == ordered and log.follows.tolist() == follows
    assert report.faultless == (not any(count.values()))
    assert all((getattr(report, name).first is None) == (n == 0) for name, n in count.items())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_first_offenders_are_named(suffix, tmp_path):
    rows = three("s", "t")
    t0, t1, t2 = rows[3:]
    skip = {"next_observation": "o2", "next_agent": "a2"}
    first = 2 if suffix == ".jsonl" else 0
    rows = [t0, rows[0], rows[0], rows[2], t2, t1 | skip, rows[0] | {"task": "u"} | skip, row("u", 1)]
    _, report = read(save(rows, tmp_path / f"a{suffix}"))
    assert report.duplicates == Finding(1, first + 2)
    assert report.missing == Finding(1, first + 3)
    assert report.interleaved == Finding(1, first + 4)
    assert report.out_of_order == Finding(1, first + 5)
    assert report.contradictions == Finding(1, first + 6)
    assert report.unfinished == Finding(1, first + 7)
    for name in ("duplicates", "missing", "interleaved", "out_of_order", "contradictions"):
        assert MENDED[name] in str(report)
    rows = [row("s", 0), row("t", 0), row("t", 2), row("s", 2)]  # the first in the file, not the first in the log
    _, report = read(save(rows, tmp_path / f"b{suffix}"))
    assert report.missing == Finding(2, first + 2)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_conflicting_copies_are_an_error(suffix, tmp_path):
    rows = [*three("t"), row("t", 1, reward=7.0), row("t", 1), *three("u")]
    path = save(rows, tmp_path / f"a{suffix}")
    words = rf"{place(suffix, 3)}, column reward: the task and k \(= 1\) of {place(suffix, 1)}, but other content"
    with pytest.raises(LogError, match=words):
        read(path)
    log, report = read(path, skip_bad=True)
    assert report.conflicts.count == 3 and report.missing.count == 1 and not report.duplicates
    assert log.k.tolist() == [0, 2, 0, 1, 2] and report.rows == 8


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_copies_without_numbers_are_copies(suffix, tmp_path):
    rows = three()
    rows = [rows[0] | {"scalar": 1.0}, rows[1] | {"scalar": None}, rows[1] | {"scalar": None}, rows[2]]
    log, report = read(save(rows, tmp_path / f"a{suffix}"))
    assert report.duplicates.count == 1 and len(log) == 3 and report.no_scalar.count == 1


def test_unlogged_numbers_are_reported_with_what_they_exclude(tmp_path):
    rows = three("t", "u")
    rows[1] |= {"probability": 0.5, "scalar": 2.0}
    log, report = read(save(rows, tmp_path / "a.jsonl"))
    assert report.no_probability == Finding(5, 2) and report.no_scalar == Finding(3, 2) and report.faultless
    assert np.isnan(log.probability).sum() == 5 and "excluded from what weights by it" in str(report)
    log, _ = read(save([r | {"context": "c"} for r in rows], tmp_path / "b.jsonl"), context=False)
    assert log.context is None


# --- the writer -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_log_appears_whole_or_not_at_all(suffix, tmp_path):
    log, _ = read(save(three(), tmp_path / "a.jsonl"))
    path = tmp_path / "out" / f"b{suffix}"
    path.parent.mkdir()
    with pytest.raises(RuntimeError, match="stop"), LogWriter(path, gamma=0.9, chained=False) as writer:
        writer.write(log)
        raise RuntimeError("stop")
    with pytest.raises(ValueError, match="nothing was written"), LogWriter(path, gamma=0.9, chained=False):
        pass
    assert list(path.parent.iterdir()) == []
    with LogWriter(path, gamma=0.9, chained=False) as writer:
        writer.write(log)
        assert not path.exists()
    assert_same(read(path)[0], log)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_reward_that_is_no_number_is_not_written(tmp_path):
    log, _ = read(save(three(), tmp_path / "a.jsonl"))
    log.reward[1] = np.nan
    with pytest.raises(ValueError, match=r"reward\[1\] = nan is not finite"):
        write(log, tmp_path / "b.jsonl")
    assert not (tmp_path / "b.jsonl").exists()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_log_cut_in_the_middle_is_written(suffix, tmp_path):
    rows = three("t", "u")
    rows[2] |= {"next_agent": "a0", "next_observation": "o0"}
    whole, _ = read(save([r | {"chain": 0} for r in rows], tmp_path / "a.jsonl"))
    columns = {f.name: getattr(whole, f.name) for f in fields(Log) if isinstance(getattr(whole, f.name), np.ndarray)}
    write(replace(whole, **{name: column[1:] for name, column in columns.items()}), tmp_path / f"b{suffix}")
    log, report = read(tmp_path / f"b{suffix}")
    assert log.follows.tolist() == [False, True, True, True, True] and report.missing.count == 1


def test_an_unknown_suffix_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"unknown suffix; use .parquet"):
        LogWriter(tmp_path / "a.csv", gamma=0.9, chained=False)
    assert list(tmp_path.iterdir()) == []


def test_every_column_of_the_format_is_written(tmp_path):
    rows = [r | {"scalar": 1.0, "context": "c", "probability": 0.5, "chain": 0} for r in three("t", "u")]
    log, _ = read(save(rows, tmp_path / "a.jsonl"))
    write(log, tmp_path / "b.parquet")
    assert sorted(pq.read_schema(tmp_path / "b.parquet").names) == sorted(COLUMNS)


def test_the_page_describes_every_column():
    page = (Path(__file__).parents[2] / "docs" / "logs.md").read_text()
    table = page.split("## Columns")[1].split("\n\n")[1]
    described = {name: needed for name, needed in re.findall(r"^\| `(\w+)` \|[^|]*\| (yes|no) \|", table, re.MULTILINE)}
    assert described == {name: "yes" if name in REQUIRED else "no" for name in COLUMNS}

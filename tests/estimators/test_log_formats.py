"""One format, three programs: what the recorder takes, the reader gives back, wherever a row stands."""

import json
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from estimators.logs import lines as log_lines
from estimators.logs.contexts import canonical
from estimators.logs.parse import parse
from estimators.logs.reader import read
from estimators.logs.recorder import Recorder
from estimators.logs.report import Finding
from estimators.logs.schema import LogError
from estimators.logs.writer import write

HEADER = b'{"schema": "icq-handoffs/1", "gamma": 0.9}\n'
ROW = {
    "task": "t", "k": 0, "agent": "a", "observation": "o", "option": "go", "reward": 1.0, "duration": 1, "done": True,
    "next_agent": None, "next_observation": None,
}  # fmt: skip

texts = st.text(max_size=4) | st.sampled_from(["", "1", "\x1b[31m", "\u202e", "\ud800", "ö\n", "null"])
ids = texts | st.integers(-1, 2**64) | st.booleans() | st.floats()
reals = st.floats() | st.integers(-(2**70), 2**70) | st.sampled_from([-0.0, 5e-324, 1e308, 10**400])
views = ids | st.lists(reals, max_size=2)
leaves = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | texts
contexts = st.recursive(
    leaves, lambda x: st.lists(x, max_size=2) | st.dictionaries(texts | st.integers(), x, max_size=2)
)
fields = {
    "task": ids, "k": st.integers(-1, 3) | st.floats(), "agent": ids, "observation": views, "option": ids,
    "reward": reals, "duration": st.integers(0, 2**32), "done": st.booleans(), "next_agent": st.none() | ids,
    "next_observation": st.none() | views, "scalar": st.none() | reals, "context": contexts,
    "probability": st.none() | reals, "chain": st.none() | ids,
}  # fmt: skip
# rows that are nearly right: sound ones with some columns drawn anew
changes = st.sampled_from(sorted(fields)).flatmap(lambda name: fields[name].map(lambda value: {name: value}))
rows = st.lists(
    st.tuples(st.integers(0, 5), st.lists(changes, max_size=2)).map(
        lambda x: {**ROW, "task": f"t{x[0]}", **{name: value for change in x[1] for name, value in change.items()}}
    ),
    max_size=6,
)


def said(log, i):
    """Row i of a log in the words of its file."""

    def name(kind, code):
        if code < 0:
            return None
        if kind == "observation" and log.features is not None:
            return log.features[code].tolist()
        names = getattr(log.names, kind)
        return names[code] if names else code

    return {
        "k": int(log.k[i]), "agent": name("agent", log.agent[i]),
        "observation": name("observation", log.observation[i]),
        "option": name("option", log.option[i]), "reward": log.reward[i], "duration": int(log.duration[i]),
        "done": bool(log.done[i]), "next_agent": name("agent", log.next_agent[i]),
        "next_observation": name("observation", log.next_observation[i]), "scalar": log.scalar[i],
        "probability": np.nan if log.probability is None else log.probability[i],
    }  # fmt: skip


def told(row):
    """The same of a row that was recorded; integers too large for codes are known by their text."""

    def plain(value):
        return str(value) if isinstance(value, int) and value >= 65_536 else value

    real = {key: np.nan if row.get(key) is None else float(row[key]) for key in ("reward", "scalar", "probability")}
    vectors = {key: [x + 0.0 for x in map(float, row[key])] if isinstance(row[key], list) else plain(row[key])
               for key in ("observation", "next_observation")}  # fmt: skip
    return (
        {key: plain(row[key]) for key in ("agent", "option", "next_agent", "duration", "done")}
        | real
        | vectors
        | {"k": int(row["k"])}
    )


def same(x, y):
    return x == y or (isinstance(x, float) and isinstance(y, float) and np.isnan(x) and np.isnan(y))


@given(rows=rows)
def test_what_the_recorder_takes_the_reader_gives_back(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("log")
    taken = []
    with Recorder(folder / "a.jsonl", gamma=0.9) as recorder:
        for row in rows:
            try:
                recorder.handoff(**row)
            except LogError:
                continue
            taken.append(row)
    if not taken:
        return
    log, report = read(folder / "a.jsonl")
    assert report.kept == report.rows == len(taken) and not (report.bad or report.torn or report.duplicates)
    order = {task: i for i, task in enumerate(dict.fromkeys(row["task"] for row in taken))}
    chains = {chain: i for i, chain in enumerate(dict.fromkeys(row.get("chain") for row in taken))}
    wanted = sorted(taken, key=lambda row: (chains[row.get("chain")], order[row["task"]], row["k"]))
    for i, row in enumerate(wanted):
        found, expected = said(log, i), told(row)
        assert found.keys() == expected.keys()
        assert all(same(found[key], expected[key]) for key in found), (found, expected)
    if any(row["context"] is not None for row in taken if "context" in row):
        seen = {}
        for i, row in enumerate(wanted):
            seen.setdefault(canonical(json.loads(json.dumps(row["context"]))), set()).add(int(log.context[i]))
        assert all(len(codes) == 1 for codes in seen.values()) and len(set.union(*seen.values())) == len(seen)
    for suffix in (".parquet", ".jsonl"):
        write(log, folder / f"b{suffix}")
        again, _ = read(folder / f"b{suffix}")
        assert all(same(said(again, i)[key], value) for i in range(len(log)) for key, value in said(log, i).items())
        if log.context is not None:
            np.testing.assert_array_equal(again.context, log.context)


DISTINCT = [1, 1.0, "1", True, "true", -0.0, 0.0, 0, None, "null", 2**70, 2**70 + 1, [1], [1.0], ["1"], [True], [None],
            [-0.0], {"a": 1}, {"a": 1.0}, {"a": "1"}, '{"a":1}', {"a": {"b": 1}}, {"a": {"b": True}}, -1]  # fmt: skip


@pytest.mark.parametrize("size", [1, 3, 100])
def test_distinct_contexts_never_merge(size, tmp_path, monkeypatch):
    monkeypatch.setattr(log_lines, "ROWS", size)
    values = [x for x in DISTINCT if x is not None] * 2
    written = [json.dumps(ROW | {"task": f"t{i}", "context": x}) for i, x in enumerate(values)]
    (tmp_path / "a.jsonl").write_bytes(HEADER + "\n".join(written).encode())
    codes = read(tmp_path / "a.jsonl")[0].context.reshape(2, -1)
    assert len(set(codes[0].tolist())) == len(DISTINCT) - 1
    np.testing.assert_array_equal(*codes)


def test_distinct_contexts_of_a_table_never_merge(tmp_path):
    for values in ([0.0, -0.0, 0.5, 1.0], [True, False], [2**62, -1, 0], [[0.0], [-0.0], [1.0, 2.0]],
                   [{"a": 1}, {"a": 2}], [[2**53], [2**53 + 1]]):  # fmt: skip
        columns = {key: [value] * len(values) for key, value in ROW.items()} | {"context": values}
        table = pa.table(columns | {"task": list(range(len(values)))})
        pq.write_table(table, tmp_path / "a.parquet")
        log, _ = read(tmp_path / "a.parquet", gamma=0.9)
        assert len(set(log.context.tolist())) == len(values), values


def test_a_key_that_is_there_twice_is_named():
    whole = json.dumps(ROW)
    for line in (
        whole[:-1] + ', "k": 1}',
        whole[:-1] + ', "context": {"a": 1, "a": 2}}',
        whole[:-1] + ', "\\u006b": 7}',
    ):
        with pytest.raises(Exception, match="is there twice"):
            parse(line.encode())
    assert parse((whole[:-1] + ', "note": "10:15: {\\"k\\": 1}"}').encode())["k"] == 0


# --- what cannot be read --------------------------------------------------------------------------------------------


def log_of(count, **change):
    """Lines of so many tasks of one handoff; change: number of a row (from 0) -> its line."""
    lines = [json.dumps(ROW | {"task": f"t{i}"}).encode() for i in range(count)]
    for i, line in change.items():
        lines[int(i[1:])] = line
    return HEADER + b"\n".join(lines) + b"\n"


WHOLE = json.dumps(ROW | {"task": "x"})
UNREADABLE = [
    (WHOLE.replace('"o"', '"caf\xe9"').encode("latin-1"), "byte 0xe9 at position .* is not UTF-8"),
    (WHOLE[:60].encode(), "not one JSON object"),  # cut, but not the last line
    ((WHOLE + WHOLE).encode(), "not one JSON object"),
    (b"\xff\xfe", "is not UTF-8"),
    (b"[" * 10_000, "nested too deeply|not one JSON object"),
    (WHOLE.replace('"k": 0', '"k": 0, "k": 1').encode(), "the key 'k' is there twice"),
]


@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize("place", [0, 5, 30])
@pytest.mark.parametrize(("line", "words"), UNREADABLE)
def test_an_unreadable_line_stops_the_read_unless_it_is_skipped(line, words, place, size, tmp_path, monkeypatch):
    monkeypatch.setattr(log_lines, "ROWS", size)
    (tmp_path / "a.jsonl").write_bytes(log_of(31, **{f"l{place}": line}))
    with pytest.raises(LogError, match=f"line {place + 2} cannot be read: .*({words})"):
        read(tmp_path / "a.jsonl")
    log, report = read(tmp_path / "a.jsonl", skip_bad=True)
    assert report.unreadable == Finding(1, place + 2) and not report.torn and not report.faultless
    assert (len(log), report.rows) == (30, 31) and f"line {place + 2}" in str(report)


def test_only_a_cut_last_line_is_torn(tmp_path):
    whole = log_of(3)
    for cut in (1, 2, 9, *range(30, len(WHOLE), 17), WHOLE.index('"o"') + 2):
        (tmp_path / "a.jsonl").write_bytes(whole + WHOLE.replace('"o"', '"ö"').encode()[:cut])
        log, report = read(tmp_path / "a.jsonl")
        assert len(log) == 3 and report.torn == Finding(1, 5)
    (tmp_path / "a.jsonl").write_bytes(whole + UNREADABLE[0][0])  # the last, but not cut
    with pytest.raises(LogError, match="line 5 cannot be read"):
        read(tmp_path / "a.jsonl")


def test_the_first_wrong_line_is_the_one_that_is_named(tmp_path):
    wrong = json.dumps(ROW | {"duration": 0}).encode()
    (tmp_path / "a.jsonl").write_bytes(log_of(9, l2=wrong, l5=b"?", l7=json.dumps(ROW | {"option": 1}).encode()))
    with pytest.raises(LogError, match="line 4, column duration"):
        read(tmp_path / "a.jsonl")
    _, report = read(tmp_path / "a.jsonl", skip_bad=True)
    assert report.bad == {"duration": Finding(1, 4), "option": Finding(1, 9)} and report.unreadable == Finding(1, 7)


def test_nothing_readable_is_said_and_names_the_first(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(HEADER + b'{"task": "t"}\n?\n')
    with pytest.raises(LogError, match=r"no readable row is left of 2: column k in 1, first line 2; 1 are not JSON"):
        read(tmp_path / "a.jsonl", skip_bad=True)


def test_tables_that_are_damaged_or_say_nonsense_are_refused(tmp_path):
    table = pa.table({key: [value, value] for key, value in (ROW | {"task": 0}).items()} | {"task": [0, 1]})
    for gamma, words in ((b"\xff", "icq.gamma"), (b"nine", "'nine' is not a number"), (b"2", "icq.gamma: gamma = 2.0")):
        pq.write_table(table.replace_schema_metadata({b"icq.gamma": gamma}), tmp_path / "a.parquet")
        with pytest.raises(LogError, match=words):
            read(tmp_path / "a.parquet")
    pq.write_table(table.replace_schema_metadata({b"icq.schema": b"\xff\xfe"}), tmp_path / "a.parquet")
    with pytest.raises(LogError, match="the schema is"):
        read(tmp_path / "a.parquet")
    broken = pa.Array.from_buffers(pa.string(), 2, pa.array([b"\xff", b"go"]).buffers())
    pq.write_table(table.set_column(4, "option", broken), tmp_path / "a.parquet")
    with pytest.raises(LogError, match=r"row 0, column option: .* is not UTF-8"):
        read(tmp_path / "a.parquet", gamma=0.9)
    assert len(read(tmp_path / "a.parquet", gamma=0.9, skip_bad=True)[0]) == 1


# --- nothing is selected in silence, nothing linked over a gap ------------------------------------------------------


@pytest.mark.parametrize("name", ["chain", "context"])
@pytest.mark.parametrize("few", [1, 49])
def test_the_fewer_rows_are_left_out(name, few, tmp_path):
    for i, (some, column) in enumerate(((few, "given"), (100 - few, "null"))):
        rows = [ROW | {"task": f"t{j}"} | ({name: 1} if j < some else {}) for j in range(100)]
        path = tmp_path / f"{i}.jsonl"
        path.write_bytes(HEADER + "\n".join(map(json.dumps, rows)).encode())
        with pytest.raises(LogError, match=f"column {name}: {column}, but"):
            read(path)
        log, report = read(path, skip_bad=True)
        assert len(log) == 100 - few and report.bad[name].count == few


def chained(*tasks, **change):
    """Rows of tasks of one chain: so many handoffs of each."""
    rows = [ROW | {"task": t, "k": k, "chain": 0, "done": k == n - 1} for t, n in tasks for k in range(n)]
    onward = {"next_agent": "a", "next_observation": "o"}
    return [row | change | ({} if row["done"] else onward) for row in rows]


def test_an_unfinished_task_is_not_linked_to_the_next_one_of_its_chain(tmp_path):
    rows = [row for row in chained(("s", 2), ("t", 3), ("u", 2)) if (row["task"], row["k"]) != ("t", 2)]
    (tmp_path / "a.jsonl").write_bytes(HEADER + "\n".join(map(json.dumps, rows)).encode())
    log, report = read(tmp_path / "a.jsonl")
    assert log.follows.tolist() == [False, True, True, True, False, True] and report.unfinished.count == 1


@pytest.mark.parametrize(
    "lost", [b"?", b'{"task": "t", "k": 0}', json.dumps(chained(("t", 1), reward=None)[0]).encode()]
)
def test_what_was_left_out_between_two_tasks_unlinks_them(lost, tmp_path):
    lines = [json.dumps(row).encode() for row in chained(("s", 2), ("t", 1), ("u", 2))]
    (tmp_path / "a.jsonl").write_bytes(HEADER + b"\n".join(lines))
    assert read(tmp_path / "a.jsonl")[0].follows.tolist() == [False, True, True, True, True]
    (tmp_path / "a.jsonl").write_bytes(HEADER + b"\n".join([*lines[:2], lost, *lines[3:]]))
    assert read(tmp_path / "a.jsonl", skip_bad=True)[0].follows.tolist() == [False, True, False, True]


# --- what the recorder refuses --------------------------------------------------------------------------------------


def test_the_recorder_refuses_what_would_stop_the_reader(tmp_path):
    with Recorder(tmp_path / "a.jsonl", gamma=0.9) as recorder:
        add = partial(recorder.handoff, **ROW)
        add()
        onward = {"done": False, "k": 1, "next_agent": "b", "next_observation": "p"}
        for change, words in (
            ({"agent": 3}, "before there were text"), ({"observation": [1.0]}, "before there were text"),
            ({"agent": "b", "task": "u"}, "'b' acts on observation 'o', but 'a' did"), ({}, "recorded before"),
            (onward | {"next_observation": "o"}, "'b' acts on observation 'o', but 'a' did"),
            ({"option": "\ud800"}, "surrogate"), ({"k": 1, "chain": 1}, "earlier handoffs had none"),
            ({"context": {1: "x", "1": "y"}}, "the key 1 is not text"), ({"reward": 10**400}, "beyond the largest"),
            ({"reward": 2**53 + 1}, "more digits"), ({"k": 1, "next_agent": "a", "next_observation": "o"}, "has ended"),
        ):  # fmt: skip
            with pytest.raises(LogError, match=words):
                recorder.handoff(**(ROW | change))
    again = Recorder(tmp_path / "a.jsonl", gamma=0.9)  # a process that continues learns from the file
    with again, pytest.raises(LogError, match="before there were text"):
        again.handoff(**(ROW | {"task": "u", "option": 7}))
    assert len(read(tmp_path / "a.jsonl")[0]) == 1

"""Nothing lost: atomic writes, damage detected, changed questions never find old answers."""

import os
import time
import warnings
from dataclasses import dataclass

import numpy as np
import pytest

from icq_bounds.sweep import store as S


@dataclass(frozen=True)
class Question:
    size: int = 1


RESULT = {"x": np.arange(3.0), "said": np.array(["holds"])}


def test_round_trip_and_missing(tmp_path):
    store = S.Store(tmp_path)
    assert store.get(Question()) is None
    store.put(Question(), RESULT)
    found = S.Store(tmp_path).get(Question())
    assert set(found) == set(RESULT)
    np.testing.assert_array_equal(found["x"], RESULT["x"])
    assert store.get(Question(size=2)) is None


def test_changed_code_does_not_find_old_results(tmp_path, monkeypatch):
    S.Store(tmp_path).put(Question(), RESULT)
    monkeypatch.setattr(S, "code_version", lambda: "other")
    assert S.Store(tmp_path).get(Question()) is None


@pytest.mark.parametrize("keep", [0, 1, 40, -1])
def test_a_damaged_file_is_reported_and_counts_as_missing(tmp_path, keep):
    store = S.Store(tmp_path)
    store.put(Question(), RESULT)
    path = store.path(Question())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.warns(UserWarning, match="damaged"):
        assert store.get(Question()) is None
    store.put(Question(), RESULT)
    assert store.get(Question()) is not None


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    store = S.Store(tmp_path)

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    store.put(Question(), RESULT)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    monkeypatch.setattr(os, "fsync", full)
    for size in (1, 2):  # a new result, and one in the place of an old one
        with pytest.raises(OSError, match=r"No space left on device \(writing .*npz\)"):
            store.put(Question(size), RESULT)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_an_unusable_folder_fails_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        S.Store(tmp_path / "file")


def test_only_dataclasses_name_results():
    with pytest.raises(TypeError, match="dataclass"):
        S.key("text")


def test_any_flipped_byte_is_noticed_or_harmless(tmp_path):
    store = S.Store(tmp_path)
    store.put(Question(), RESULT, {"machine": "m"})
    path = store.path(Question())
    whole, noticed = path.read_bytes(), 0
    for k in range(0, len(whole), 3):
        path.write_bytes(whole[:k] + bytes([whole[k] ^ 0xFF]) + whole[k + 1 :])
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = S.Store(tmp_path, read_only=True).read(Question())
        if found is None:
            noticed += any("damaged" in str(w.message) for w in said)
        else:
            np.testing.assert_array_equal(found[0]["x"], RESULT["x"])
            np.testing.assert_array_equal(found[0]["said"], RESULT["said"])
            assert set(found[0]) == set(RESULT) and found[1]["machine"] == "m"
    assert noticed > len(whole) / 6


def test_a_file_under_another_cells_name_is_not_believed(tmp_path):
    store = S.Store(tmp_path)
    store.put(Question(), RESULT)
    store.path(Question()).rename(store.path(Question(2)))
    with pytest.warns(UserWarning, match="another cell"):
        assert store.get(Question(2)) is None


def test_remains_of_killed_writes_go_when_they_are_old(tmp_path):
    for name, age in (("old.part", 2 * S.STALE), ("young.part", 0)):
        (tmp_path / name).write_text("half a res")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    S.Store(tmp_path, read_only=True)
    assert len(list(tmp_path.iterdir())) == 2
    S.Store(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["young.part"]


def test_a_store_that_is_only_read_writes_nothing(tmp_path):
    store = S.Store(tmp_path / "absent", read_only=True)
    assert store.get(Question()) is None and not (tmp_path / "absent").exists()

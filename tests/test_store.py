"""Nothing lost: atomic writes, damage detected, changed questions never find old answers."""

from dataclasses import dataclass

import numpy as np
import pytest

from experiments import store as S


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

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match="No space"):
        store.put(Question(), RESULT)
    assert list(tmp_path.iterdir()) == []


def test_an_unusable_folder_fails_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        S.Store(tmp_path / "file")


def test_only_dataclasses_name_results():
    with pytest.raises(TypeError, match="dataclass"):
        S.key("text")

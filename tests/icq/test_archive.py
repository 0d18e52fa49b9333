"""Archives: what headers promise is compared before data are read, and nothing foreign ever escapes."""

import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import garnet

from icq import archive
from icq.smdp import ICSMDP, ICSMDPError

M = garnet(0)


def member(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    text = header.encode("latin1") + b"\n"
    return archive.MAGIC + version + len(text).to_bytes(2, "little") + text + data


def written(folder, **members):
    """An instance in a file, some of whose members are these bytes."""
    M.save(folder / "whole.npz")
    with zipfile.ZipFile(folder / "whole.npz") as whole, zipfile.ZipFile(folder / "m.npz", "w") as out:
        for name in whole.namelist():
            out.writestr(name, members.get(name.removesuffix(".npy"), whole.read(name)))
    return folder / "m.npz"


def promise(shape, descr="'<f8'"):
    return member(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}", b"\0" * 8)


HEADERS = {
    "terabytes": (promise("(1000000, 1000000)"), "promises 7.276 TiB of data, the file holds 8 bytes"),
    "nothing": (promise("()"), "reward: shape"),
    "overflow": (promise("(18446744073709551616,)"), "promises"),
    "negative": (promise("(-1, -1)"), "says shape"),
    "deep": (member("{" + "(" * 2000), "not a readable array"),
    "no dict": (member("[1, 2]"), "not a readable array"),
    "call": (member("__import__('os').getcwd()"), "not a readable array"),
    "text": (promise("(2,)", "'<U1'"), "holds text"),
    "empty type": (promise("(1000000000000,)", "'|S0'"), "holds text"),
    "records": (promise("(1,)", "[('a', '<f8')]"), "holds values of type"),
    "version": (member("", version=b"\x09\x00"), "not a readable array"),
    "no magic": (b"plain text", "not a readable array"),
    "cut": (archive.MAGIC, "not a readable array"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_that_lie_are_refused_by_name_before_reading(tmp_path, name, monkeypatch):
    data, says = HEADERS[name]
    path = written(tmp_path, reward=data)
    monkeypatch.setattr(np.lib.format, "read_array", lambda *_, **__: pytest.fail("data were read"))
    tracemalloc.start()
    with pytest.raises(ICSMDPError, match=r"reward: ") as refused:
        ICSMDP.load(path)
    assert says in str(refused.value) and tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_more_than_the_memory_is_refused(tmp_path, monkeypatch):
    path = written(tmp_path)
    monkeypatch.setattr(archive, "memory", lambda: 1000)
    with pytest.raises(ICSMDPError, match=r"its arrays need .* KiB, this machine has 1000 bytes of memory"):
        ICSMDP.load(path)


def test_a_name_twice_is_refused(tmp_path):
    path = written(tmp_path)
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("reward.npy", b"")
    with pytest.raises(ICSMDPError, match="reward: is in the archive twice"):
        ICSMDP.load(path)


@given(st.data())
def test_any_damage_is_one_line(tmp_path_factory, data):
    """Bytes of an uncompressed archive, headers and directory included, are changed at random."""
    folder = tmp_path_factory.mktemp("damage")
    whole = bytearray(written(folder).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    (folder / "m.npz").write_bytes(whole)
    try:
        ICSMDP.load(folder / "m.npz")
    except ICSMDPError as refused:
        assert "\n" not in str(refused)


def test_arrays_come_back_as_they_were(tmp_path):
    table = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    np.savez(tmp_path / "t.npz", table=table, one=np.int8(3), none=np.zeros((0, 4)))
    with (tmp_path / "t.npz").open("rb") as file:
        found = archive.Archive(file)
        assert {name: p.shape for name, p in found.promises().items()} == {"table": (2, 3), "one": (), "none": (0, 4)}
        assert np.array_equal(found.array("table"), table) and found.array("one") == 3

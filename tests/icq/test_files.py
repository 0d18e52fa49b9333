"""The one writer: whole or not at all, links followed, devices and pipes never replaced, one of several comes first."""

import errno
import os
import stat
import subprocess
import sys
import threading

import pytest

from icq import files

OLD, NEW = b"what was there", b"what is new"


def parts(folder):
    return [path for path in folder.rglob("*") if path.suffix == files.PART]


@pytest.mark.parametrize("steps", [1, 3])
def test_links_stay_links(tmp_path, steps):
    for there in (True, False):
        target = tmp_path / f"below{steps}{there}" / "target"
        target.parent.mkdir()
        if there:
            target.write_bytes(OLD)
        last = target
        for k in range(steps):
            link = tmp_path / f"link{there}{k}"
            link.symlink_to(os.path.relpath(last, tmp_path))
            last = link
        files.write(last, NEW)
        assert last.is_symlink() and target.read_bytes() == NEW and not target.is_symlink()
    assert parts(tmp_path) == []


def test_links_in_a_circle_and_folders_are_refused(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match=r"symbolic links \(writing a\)"):
        files.write(tmp_path / "a", NEW)
    with pytest.raises(IsADirectoryError, match="name a file in it"):
        files.write(tmp_path, NEW)
    with pytest.raises(FileNotFoundError, match=r"\(writing x\)") as error:
        files.write(tmp_path / "nowhere" / "x", NEW)
    assert error.value.filename == str(tmp_path / "nowhere")


def test_a_pipe_gets_the_bytes(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        heard = []
        reader = threading.Thread(target=lambda heard=heard: heard.append((tmp_path / "pipe").read_bytes()))
        reader.start()
        files.write(tmp_path / name, NEW)
        reader.join(10)
        assert heard == [NEW] and stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no such devices here")
def test_devices_are_written_and_never_replaced(tmp_path):
    (tmp_path / "nothing").symlink_to("/dev/null")
    before = os.stat("/dev/null")
    for path in ("/dev/null", tmp_path / "nothing"):
        files.write(path, NEW)
    after = os.stat("/dev/null")
    assert stat.S_ISCHR(after.st_mode) and (before.st_ino, before.st_rdev) == (after.st_ino, after.st_rdev)
    with pytest.raises(OSError, match=r"No space left on device \(writing full\)"):
        files.write("/dev/full", NEW)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="finds open files in /proc")
@pytest.mark.parametrize("to", ["pipe", "file"])
def test_the_standard_output_is_not_replaced(tmp_path, to):
    """In order with what is printed before and after, into the file that the shell has opened, too."""
    (tmp_path / "link").symlink_to("/dev/stdout")
    names = ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"]
    code = f"from icq import files\nfor x in {names}: print('a'); files.write(x, b'b\\n'); print(files.is_stdout(x))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with open(tmp_path / "out", "wb") as out:
        to = out if to == "file" else subprocess.PIPE
        done = subprocess.run([sys.executable, "-c", code], stdout=to, cwd=tmp_path, env=environment, check=True)
    assert (done.stdout or (tmp_path / "out").read_bytes()) == b"a\nb\nTrue\n" * len(names)


@pytest.mark.parametrize("call", ["fsync", "replace", "fchmod"])
def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch, call):
    path = tmp_path / "x"
    path.write_bytes(OLD)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match=r"No space left on device \(writing x\)"):
        files.write(path, NEW)
    assert path.read_bytes() == OLD and [p.name for p in tmp_path.iterdir()] == ["x"]


def test_permissions_are_kept_and_new_files_get_those_of_the_mask(tmp_path):
    before = os.umask(0o027)
    try:
        files.write(tmp_path / "new", NEW)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
    os.chmod(tmp_path / "new", 0o600)
    files.write(tmp_path / "new", OLD)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600


def test_what_may_not_be_written_is_not_replaced(tmp_path, monkeypatch):
    (tmp_path / "x").write_bytes(OLD)
    monkeypatch.setattr(os, "access", lambda *_: False)  # as for everybody who is not root
    with pytest.raises(PermissionError, match=r"Permission denied \(writing x\)"):
        files.write(tmp_path / "x", NEW)
    assert (tmp_path / "x").read_bytes() == OLD


@pytest.mark.parametrize("name", ["ä" * 120, "x" * 255, " ", "[b]", "a\nb", "\udcff"])
def test_any_name_that_fits_can_be_written(tmp_path, name):
    files.write(tmp_path / name, NEW)
    assert os.listdir(tmp_path) == [name] and (tmp_path / name).read_bytes() == NEW


@pytest.mark.parametrize("links", [True, False])
def test_of_many_who_come_at_once_one_is_first(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no links")))
    start, won = threading.Barrier(8), []

    def come(k):
        start.wait()
        try:
            files.write(tmp_path / "claim", bytes([k]), new=True)
            won.append(bytes([k]))
        except FileExistsError as error:
            assert "claim" in str(error)

    threads = [threading.Thread(target=come, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1 and (tmp_path / "claim").read_bytes() == won[0] and parts(tmp_path) == []

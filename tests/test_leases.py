"""Leases have one holder at a time, which is known by name, and are free the moment that it dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from upsert_cli.errors import LocksUnsupported
from upsert_cli.leases import UNKNOWN, Holder, Lease, LeaseHeld

HOLD = """
import sys, time
from pathlib import Path
from upsert_cli.leases import Holder, Lease
lease = Lease.take(Path(sys.argv[1]), Holder.this_process("of-another"))
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some.lease"


def _holder_elsewhere(path: Path, *, seconds: float = 60.0) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path), str(seconds)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_one_holder_at_a_time(path: Path) -> None:
    """While one process holds a lease, no other gets it; the error names the holder."""
    process = _holder_elsewhere(path)
    with pytest.raises(LeaseHeld) as caught:
        Lease.take(path, Holder.this_process())
    process.kill()
    process.wait()
    assert caught.value.holder.pid == process.pid
    assert caught.value.holder.task_id == "of-another"
    assert f"pid {process.pid} on {os.uname().nodename} (task of-another) since 20" in str(caught.value)


def test_attempts_leave_the_holders_facts_alone(path: Path) -> None:
    """A failed attempt and a peek change nothing in the file."""
    with Lease.take(path, Holder.this_process("mine")):
        before = path.read_bytes()
        for _ in range(3):
            with pytest.raises(LeaseHeld):
                Lease.take(path, Holder.this_process("theirs"))
            assert Lease.peek(path) is not None
        assert path.read_bytes() == before


def test_killed_holder_frees_the_lease(path: Path) -> None:
    """The lease of a killed process is free at once, and names its last holder."""
    process = _holder_elsewhere(path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert Lease.peek(path) is None
    with Lease.take(path, Holder.this_process()) as lease:
        assert lease.before is not None
        assert lease.before.pid == process.pid
        assert not lease.before.clean


def test_taking_waits_for_the_holder_to_release(path: Path) -> None:
    """A lease that is released within the timeout is taken."""
    process = _holder_elsewhere(path, seconds=0.5)
    Lease.take(path, Holder.this_process(), timeout=30.0).release()
    assert process.wait() == 0


def test_programs_that_the_holder_starts_do_not_keep_the_lease(path: Path) -> None:
    """A lease ends with its holder, even while a program that it started lives on."""
    lease = Lease.take(path, Holder.this_process())
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], close_fds=False)
    lease.release()
    try:
        Lease.take(path, Holder.this_process()).release()
    finally:
        child.kill()
        child.wait()


def test_peek_neither_creates_nor_keeps(path: Path) -> None:
    """Peeking creates no file, and leaves the lease free."""
    assert Lease.peek(path) is None
    assert not path.exists()
    Lease.take(path, Holder.this_process()).release()
    assert Lease.peek(path) is None
    Lease.take(path, Holder.this_process()).release()


def test_many_peeks_never_keep_a_holder_out(path: Path) -> None:
    """A process that peeks all the time is not mistaken for a holder."""
    Lease.take(path, Holder.this_process()).release()
    code = (
        "import sys\nfrom pathlib import Path\nfrom upsert_cli.leases import Lease\nprint('peeking', flush=True)\n"
        "while True:\n    Lease.peek(Path(sys.argv[1]))"
    )
    peeking = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert peeking.stdout is not None
    try:
        assert peeking.stdout.readline() == "peeking\n"
        until = time.monotonic() + 1.0
        taken = 0
        while time.monotonic() < until:
            Lease.take(path, Holder.this_process(), timeout=5.0).release()
            taken += 1
        assert taken > 10
    finally:
        peeking.kill()
        peeking.wait()


def test_the_next_holder_sees_a_clean_end(path: Path) -> None:
    """The next holder finds the facts that the last one wrote."""
    with Lease.take(path, Holder.this_process()) as lease:
        assert lease.before is None
        lease.write(Holder.this_process("done-well", clean=True))
    with Lease.take(path, Holder.this_process()) as lease:
        assert lease.before is not None
        assert lease.before.clean
        assert lease.before.task_id == "done-well"


def test_a_lease_keeps_the_settings_that_earlier_holders_owe(path: Path) -> None:
    """A holder that dies right after it took the lease loses no setting that an earlier holder did not restore."""
    with Lease.take(path, Holder.this_process()) as lease:
        lease.owe({"docs": 345, "texts": 700})
        lease.owe({"texts": None})
    Lease.take(path, Holder.this_process()).release()
    with Lease.take(path, Holder.this_process()) as lease:
        assert lease.before is not None
        assert lease.before.owed == lease.holder.owed == {"docs": 345}


@pytest.mark.parametrize("content", [b"\0" * 512, b'{"pid": 1', b"[]", b"7", b'{"pid": 1}', b"\xff\xfe"])
def test_torn_facts_are_an_unknown_unclean_holder(path: Path, content: bytes) -> None:
    """Facts that make no sense are neither an error nor a clean end."""
    path.write_bytes(content)
    with Lease.take(path, Holder.this_process()) as lease:
        assert lease.before == UNKNOWN
    assert "another process" in str(LeaseHeld(UNKNOWN))


def test_file_is_private_and_never_a_link(path: Path) -> None:
    """Only its user can read the file under any umask, and a link in its place is not followed."""
    mask = os.umask(0)
    try:
        Lease.take(path, Holder.this_process()).release()
    finally:
        os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o600
    link = path.with_name("link.lease")
    link.symlink_to(path)
    with pytest.raises(OSError, match="symbolic link"):
        Lease.take(link, Holder.this_process())


def test_a_lease_on_a_removed_file_blocks_nobody(path: Path) -> None:
    """A lock on a file that has lost its name is not taken for the lease; the file at the path is."""
    old = Lease.take(path, Holder.this_process())
    path.unlink()
    with Lease.take(path, Holder.this_process()), pytest.raises(LeaseHeld):
        Lease.take(path, Holder.this_process())
    old.release()


def test_a_system_without_locks_is_refused_with_a_remedy(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a system without flock the module can be imported, and its use ends in an error with the remedy."""
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with pytest.raises(LocksUnsupported, match="cannot be locked"):
        Lease.take(path, Holder.this_process())

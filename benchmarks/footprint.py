"""Memory and CPU time of a process and all below it. Linux, for it reads /proc."""

import os
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """The process and all below it."""
    found = [pid]
    for one in found:  # grows while it is gone through
        for children in Path(f"/proc/{one}/task").glob("*/children"):
            found += map(int, _read(children).split())
    return found


def resident(pid: int) -> int:
    """RSS in bytes: what lies in memory for this process, pages of files among it. 0 for a process that has ended."""
    fields = _read(Path(f"/proc/{pid}/statm")).split()
    return _PAGE * int(fields[1]) if fields else 0


def anonymous(pid: int) -> int:
    """Bytes of resident memory that stand for no file, so that only an end of the process, or swap, frees them."""
    return kilobytes(pid, "smaps_rollup", "Anonymous:")


def private(pid: int) -> int:
    """Bytes of resident memory, pages of files among it, that no other process shares."""
    return kilobytes(pid, "smaps_rollup", "Private_")


def peak(pid: int) -> int:
    """The largest RSS so far, in bytes, as the kernel keeps it."""
    return kilobytes(pid, "status", "VmHWM:")


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and of those below it that have ended."""
    # After the command's name, which may hold anything: utime, stime, cutime, cstime are fields 14 to 17 of the line.
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS


def kilobytes(pid: int, file: str, key: str) -> int:
    """The sum, in bytes, of the lines like `VmHWM:  1234 kB` that start with the key."""
    lines = _read(Path(f"/proc/{pid}/{file}")).splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(key))


def _read(path: Path) -> str:
    """Empty for a process that has just ended, or whose files are another user's."""
    try:
        return path.read_text()
    except OSError:
        return ""

"""Downloads over real HTTP from a server that breaks off, ignores ranges, changes its file and refuses."""

import hashlib
import os
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.download import NotServedError, digest, download
from tests.experiments.runs import ROOT
from tests.experiments.server import Server, serve

CONTENT = bytes(range(256)) * 4001
HALF = len(CONTENT) // 2


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as running:
        running.files["file"] = CONTENT
        yield running


def test_a_file_comes_whole_and_leaves_no_mark(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    download(server.url("file"), tmp_path / "file", on_progress=lambda done, total: seen.append((done, total)))
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert seen[0] == (0, len(CONTENT)) and seen[-1] == (len(CONTENT), len(CONTENT))


def test_a_broken_transfer_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    server.faults = ["cut", "cut"]
    download(server.url("file"), tmp_path / "file", wait=0)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={HALF}-", f"bytes={HALF + HALF // 2}-"]


def test_a_page_instead_of_the_file_is_no_file(server: Server, tmp_path: Path) -> None:
    # 202 with an empty body is what figshare's host of pages gives to clients that it takes for robots.
    server.faults = [202]
    with pytest.raises(NotServedError, match=r"the server answers 202 Accepted, not with the file"):
        download(server.url("file"), tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_a_server_that_never_sends_anything_has_kept_nothing_to_go_on_from(server: Server, tmp_path: Path) -> None:
    server.faults = [503, 503]
    with pytest.raises(NotServedError, match=r"answers 503 .*tried 2 times$"):
        download(server.url("file"), tmp_path / "file", attempts=2, wait=0)


def test_a_later_start_goes_on_where_the_first_gave_up(server: Server, tmp_path: Path) -> None:
    server.faults = ["cut", 503, 503, 503]
    with pytest.raises(OSError, match=rf"answers 503 .*tried 3 times\. {HALF} bytes are kept in .*; the same command"):
        download(server.url("file"), tmp_path / "file", attempts=3, wait=0)
    assert (tmp_path / "file").read_bytes() == CONTENT[:HALF]
    download(server.url("file"), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.ranges[-1] == f"bytes={HALF}-"


def test_a_server_that_ignores_ranges_sends_all_again(server: Server, tmp_path: Path) -> None:
    server.faults = ["cut", "plain"]
    download(server.url("file"), tmp_path / "file", wait=0)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_piece_of_a_file_that_has_changed_is_not_gone_on_with(server: Server, tmp_path: Path) -> None:
    server.faults = ["cut"]
    with pytest.raises(OSError, match=f"ended after {HALF} of {len(CONTENT)} bytes"):
        download(server.url("file"), tmp_path / "file", attempts=1)
    server.files["file"] = CONTENT[::-1] + b"longer"
    download(server.url("file"), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT[::-1] + b"longer"
    assert server.ranges[-1] == f"bytes={HALF}-"  # it was asked for, and refused by If-Range


@pytest.mark.parametrize(("checked", "second"), [(False, None), (True, f"bytes={HALF}-")])
def test_without_a_mark_only_a_checked_file_is_gone_on_with(
    server: Server, tmp_path: Path, checked: bool, second: str | None
) -> None:
    server.faults = ["cut", "unmarked"]
    with pytest.raises(OSError, match="ended after"):
        download(server.url("file"), tmp_path / "file", attempts=1, checked=checked)
    (tmp_path / "file.from").unlink()
    download(server.url("file"), tmp_path / "file", checked=checked)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.ranges == [None, second]


def test_a_file_that_was_whole_already_is_not_sent_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    download(server.url("file"), tmp_path / "file", checked=True)
    assert server.ranges == [f"bytes={len(CONTENT)}-"]


def test_what_is_longer_than_the_servers_file_begins_anew(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT + b"more")
    download(server.url("file"), tmp_path / "file", checked=True, wait=0)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_piece_that_was_not_asked_for_is_thrown_away(server: Server, tmp_path: Path) -> None:
    server.faults = ["cut", "elsewhere"]
    download(server.url("file"), tmp_path / "file", wait=0)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={HALF}-", None]


def test_a_file_that_is_not_there_is_told_at_once(server: Server, tmp_path: Path) -> None:
    # Where the file can be put by hand is told whatever keeps it away.
    with pytest.raises(NotServedError, match=r"nowhere: the server answers 404 Not Found"):
        download(server.url("nowhere"), tmp_path / "file")
    assert len(server.ranges) == 1 and not list(tmp_path.iterdir())


def test_no_network_is_told_at_once(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, but nobody listens
        with pytest.raises(NotServedError, match=r"cannot be reached \(.*refused"):
            download(f"http://127.0.0.1:{closed.getsockname()[1]}/file", tmp_path / "file")


def test_a_full_disk_keeps_what_has_come(server: Server, tmp_path: Path) -> None:
    """The limit on the size of files makes write fail half way, as a full disk does."""
    script = (
        "import resource, sys; from pathlib import Path; from experiments.download import download\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"
        "try: download(sys.argv[1], Path(sys.argv[2]))\n"
        "except OSError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, server.url("file"), str(tmp_path / "file")],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "file cannot be written (File too large); 300000 bytes are kept. Make room" in done.stdout
    assert (tmp_path / "file").read_bytes() == CONTENT[:300_000]
    download(server.url("file"), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.ranges[-1] == "bytes=300000-"


def test_checksums_are_those_of_sha256sum_and_git(tmp_path: Path) -> None:
    (tmp_path / "hello").write_bytes(b"hello\n")
    assert digest(tmp_path / "hello") == hashlib.sha256(b"hello\n").hexdigest()
    # `git hash-object` of a file that holds hello and a newline.
    assert digest(tmp_path / "hello", git_blob=True) == "ce013625030ba8dba906f756967f9e9ca394464a"


def test_a_connection_that_breaks_while_it_is_set_up_is_tried_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really, reasons = urllib.request.urlopen, [ConnectionResetError(104, "reset"), ssl.SSLEOFError(8, "eof")]

    def urlopen(*arguments: Any, **named: Any) -> Any:
        # As urllib tells an error before the request is out; a server cannot be made to break off just there.
        if reasons:
            raise urllib.error.URLError(reasons.pop())
        return really(*arguments, **named)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    download(server.url("file"), tmp_path / "file", wait=0)
    assert (tmp_path / "file").read_bytes() == CONTENT and not reasons

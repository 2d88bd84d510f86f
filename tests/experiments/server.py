"""A real HTTP server on this machine that can misbehave as public ones do."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """Serves `files` by path; each request takes the next of `faults`, and none when they are used up.

    Faults: "cut" (all headers, half of the body), "plain" (Range is ignored), "unmarked" (no ETag), a number (an
    error of that status), "elsewhere" (a piece that was not asked for).
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: list[str | int] = []
        self.ranges: list[str | None] = []  # of each request
        self.address = ""

    def url(self, name: str) -> str:
        return f"{self.address}/{name}"


@contextmanager
def serve() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

        def do_GET(self) -> None:
            fault = state.faults.pop(0) if state.faults else ""
            asked = self.headers.get("Range")
            state.ranges.append(asked)
            content = state.files.get(self.path[1:])
            if content is None or isinstance(fault, int):
                self.send_error(fault if isinstance(fault, int) else 404)
                return
            mark = f'"{len(content)}"'
            start = int(asked.removeprefix("bytes=").split("-")[0]) if asked and fault != "plain" else 0
            if self.headers.get("If-Range", mark) != mark:
                start = 0
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = content[start:]
            self.send_response(206 if start else 200)
            if start:
                first = start + 7 if fault == "elsewhere" else start
                self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
            if fault != "unmarked":
                self.send_header("ETag", mark)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if fault == "cut" else body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

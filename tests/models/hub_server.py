"""A hub on this machine, which huggingface_hub's own client asks as it asks the real one."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "c" * 40


@contextmanager
def hub_of(folder: Path, repository: str, refused: str = "") -> Iterator[tuple[str, list[str]]]:
    """Serve a folder as a repository.

    Args:
        folder: its files.
        repository: its name.
        refused: the code of the error with which the hub answers every request, if it does.

    Yields:
        The hub's address, and the files that were asked for, in order.
    """
    taken: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(head=True)

        def do_GET(self) -> None:
            self._answer(head=False)

        def _answer(self, *, head: bool) -> None:
            about, resolve = f"/api/models/{repository}/", f"/{repository}/resolve/"
            body, status = b"{}", 404
            headers = {"X-Repo-Commit": COMMIT}
            if refused:
                status, headers = 403 if refused == "GatedRepo" else 404, {"X-Error-Code": refused}
            elif self.path.startswith(about):
                body, status = json.dumps(self._told(self.path.removeprefix(about))).encode(), 200
            elif self.path.startswith(resolve):
                name = self.path.removeprefix(resolve).partition("/")[2]
                if (folder / name).is_file():
                    body, status = (folder / name).read_bytes(), 200
                    headers["ETag"] = f'"{hashlib.sha256(body).hexdigest()}"'
                    if not head:
                        taken.append(name)
            self.send_response(status)
            for header, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(header, value)
            self.end_headers()
            if not head:
                self.wfile.write(body)

        def _told(self, asked: str) -> object:
            files = sorted(file for file in folder.rglob("*") if file.is_file())
            names = [str(file.relative_to(folder)) for file in files]
            if asked.startswith("revision/"):
                return {"id": repository, "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}
            return [
                {"type": "file", "path": name, "size": file.stat().st_size, "oid": f"{index:040x}"}
                for index, (name, file) in enumerate(zip(names, files, strict=True))
            ]

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", taken
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

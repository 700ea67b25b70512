"""A web server of pages for this machine only, built anew for each visit."""

from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

from dacnn_search.common.errors import DacnnSearchError, InputError

ADDRESS = "127.0.0.1"


def make_server(build: Callable[[str], Path | None], port: int) -> ThreadingHTTPServer:
    """Return a server at 127.0.0.1, not yet serving. Port 0 chooses a free one.

    It serves nothing but the file that `build` writes for the path of a page, such as `/`, if there is such a page, and
    only to requests for this address: a foreign name that points here is refused. Raises InputError if the port can't
    be had.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, kind, content = self._answer()
            self.send_response(status)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Visits are not worth a line."""

        def _answer(self) -> tuple[HTTPStatus, str, bytes]:
            host = (self.headers.get("Host") or "").rsplit(":", 1)[0]
            if host not in (ADDRESS, "localhost"):
                return HTTPStatus.FORBIDDEN, "text/plain", b"Only for this machine.\n"
            try:
                page = build(unquote(self.path.partition("?")[0]))
            except DacnnSearchError as error:
                return HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", f"{error}\n".encode()
            if page is None:
                return HTTPStatus.NOT_FOUND, "text/plain", b"There is no such page; the first is at /\n"
            return HTTPStatus.OK, "text/html", page.read_bytes()

    try:
        return ThreadingHTTPServer((ADDRESS, port), Handler)
    except (OSError, OverflowError) as error:
        raise InputError(f"--serve needs a port that is free, but {port} is not: {error}") from error

"""The report served to this machine alone: it can keep names and selections, and open pictures."""

import hmac
import io
import json
import secrets
import sys
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any

from PIL import Image

from swav.data.sources.decode import UnreadablePicture
from swav.data.sources.pictures import Pictures
from swav.report.page import page
from swav.report.thumbnails import channels_last, picture_image
from swav.run_folder import layout
from swav.run_folder.readers import Absent, read_clusters, read_embeddings
from swav.run_folder.selections import write_cluster_names, write_selection

LOOPBACK = "127.0.0.1"
MOST_BYTES = 4 * 2**20
"""Of a request."""
SECONDS = 30
"""Without a word until a connection is closed."""
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
READ = (layout.RECORD, layout.METRICS, layout.EMBEDDINGS, layout.CLUSTERS, layout.NAMES)
"""Files whose change makes the page anew, and so does any in the folder of evaluations."""


class Refused(Exception):
    """Why a request gets no answer but this."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Server(ThreadingHTTPServer):
    """Serves one run under an address that holds a secret; other machines cannot reach it."""

    daemon_threads = True

    def __init__(self, run_folder: Path, pictures: Pictures, *, port: int = 0) -> None:
        super().__init__((LOOPBACK, port), Handler)
        self.run_folder = run_folder
        self.pictures = pictures
        self.token = secrets.token_urlsafe(24)
        self._lock = Lock()
        self._page: tuple[object, bytes] = (None, b"")

    @property
    def origin(self) -> str:
        """Where the page is from, as browsers say it."""
        return f"http://{LOOPBACK}:{self.server_port}"

    @property
    def address(self) -> str:
        """Of the page."""
        return f"{self.origin}/{self.token}/"

    def page(self) -> bytes:
        """Return the page, made anew if what it shows has changed.

        Raises:
            Refused: if the run folder is gone or damaged.
        """
        with self._lock:
            seen = self._stamps()
            if self._page[0] != seen:
                try:
                    self._page = (seen, page(self.run_folder, self.pictures, served=True))
                except ValueError as error:
                    raise Refused(HTTPStatus.INTERNAL_SERVER_ERROR, str(error)) from error
            return self._page[1]

    def picture(self, index: str) -> bytes:
        """Return a picture of the run at its full size.

        Raises:
            Refused: if there is none at this position.
        """
        if not index.isascii() or not index.isdecimal() or int(index) >= len(self.pictures):
            raise Refused(HTTPStatus.NOT_FOUND, "no such picture")
        try:
            with self._lock:  # decoding changes the warnings of the whole process
                pixels = self.pictures[int(index)]
        except UnreadablePicture as error:
            raise Refused(HTTPStatus.NOT_FOUND, "the picture cannot be read") from error
        encoded = io.BytesIO()
        image: Image.Image = picture_image(channels_last(pixels))
        image.save(encoded, format="PNG", compress_level=1)
        return encoded.getvalue()

    def keep(self, what: str, body: Mapping[str, Any]) -> str:
        """Write names or a selection to the run folder, and say so.

        Raises:
            Refused: if that is not what the body holds.
        """
        try:
            with self._lock:
                path = self._keep_names(body) if what == "names" else self._keep_selection(body)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise Refused(HTTPStatus.BAD_REQUEST, f"not saved: {error}") from error
        return f"saved to {path.relative_to(self.run_folder)} in the run folder"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say what failed, but not that a browser closed a page."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def _keep_names(self, body: Mapping[str, Any]) -> Path:
        names = {int(number): str(name).strip() for number, name in body["names"].items()}
        return write_cluster_names(self.run_folder, str(body["clustering"]), names)

    def _keep_selection(self, body: Mapping[str, Any]) -> Path:
        paths = read_embeddings(self.run_folder).paths
        rows = sorted({int(row) for row in body["rows"]})
        if rows and rows[0] < 0:
            raise ValueError("no such picture")
        try:
            clusters = read_clusters(self.run_folder)
        except Absent:
            clusters = []
        by_path = {path: cluster.name for cluster in clusters for path in cluster.paths}
        chosen = [(paths[row], by_path.get(paths[row], "")) for row in rows]
        return write_selection(self.run_folder, str(body["name"]).strip(), chosen)

    def _stamps(self) -> object:
        files = [self.run_folder / name for name in READ]
        files += sorted(layout.evaluation(self.run_folder, "").parent.glob("*.json"))
        return [(file.name, file.stat().st_mtime_ns) for file in files if file.exists()]


class Handler(BaseHTTPRequestHandler):
    """Answers the page itself and nobody else."""

    server: Server
    timeout = SECONDS
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "swav", ""

    def do_GET(self) -> None:
        """Send the page or a picture."""
        try:
            match self._path():
                case [""]:
                    self._send(HTTPStatus.OK, "text/html; charset=utf-8", self.server.page())
                case ["picture", index]:
                    self._send(HTTPStatus.OK, "image/png", self.server.picture(index))
                case _:
                    raise Refused(HTTPStatus.NOT_FOUND, "there is nothing here")
        except Refused as refusal:
            self._refuse(refusal)

    def do_POST(self) -> None:
        """Keep names or a selection."""
        try:
            match self._path():
                case ["names" | "selections" as what]:
                    said = self.server.keep(what, self._body())
                    self._send(HTTPStatus.OK, "text/plain; charset=utf-8", said.encode())
                case _:
                    raise Refused(HTTPStatus.NOT_FOUND, "there is nothing here")
        except Refused as refusal:
            self._refuse(refusal)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the secret is in every address."""

    def _path(self) -> list[str]:
        """Return the parts of the path behind the secret.

        Raises:
            Refused: if the request is of another page or machine, or without the secret.
        """
        own = self.server.origin
        # another name that leads here is how a foreign page gets past its origin
        if self.headers.get_all("Host") != [own.removeprefix("http://")]:
            raise Refused(HTTPStatus.FORBIDDEN, "not this host")
        origin = self.headers.get("Origin", own if self.command == "GET" else None)
        site = self.headers.get("Sec-Fetch-Site", "same-origin")
        if origin != own or site not in ("same-origin", "none"):
            raise Refused(HTTPStatus.FORBIDDEN, "not this origin")
        _, token, *rest = self.path.split("/")
        if not rest or not hmac.compare_digest(token.encode(), self.server.token.encode()):
            raise Refused(HTTPStatus.FORBIDDEN, "not this address: take the one swav view printed")
        return rest

    def _body(self) -> dict[str, Any]:
        """Return the JSON object of a request."""
        length = self.headers.get("Content-Length", "")
        if self.headers.get_content_type() != "application/json" or not length.isdecimal():
            raise Refused(HTTPStatus.BAD_REQUEST, "not JSON")
        if int(length) > MOST_BYTES:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too long")
        try:
            body = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError) as error:
            raise Refused(HTTPStatus.BAD_REQUEST, "not JSON") from error
        if not isinstance(body, dict):
            raise Refused(HTTPStatus.BAD_REQUEST, "not a JSON object")
        return body

    def _refuse(self, refusal: Refused) -> None:
        self.close_connection = True  # what is left of the request is not read
        self._send(refusal.status, "text/plain; charset=utf-8", str(refusal).encode())

    def _send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

"""A hub on this machine: as much of the Hugging Face hub's protocol as downloads use, with faults.

Only 127.0.0.1 is listened on. It serves files under repositories, at all their commits, with the
headers that huggingface_hub reads (x-repo-commit, x-linked-etag, x-linked-size, ranges), and can
cut connections, damage bytes and refuse.
"""

import copy
import hashlib
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PLACE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


class Hub:
    """What the server serves, and how it fails.

    files: bytes by "owner/name" and file name, on the branch main. commits: the same, by commit;
    main: the newest. cut_at: bytes after which each answer ends, though
    more were announced; None for all. damage: whether a byte is changed on the way. refusal:
    status and error code instead of files. requests: "GET /path range", as they came.
    """

    def __init__(self):
        self.main = COMMIT
        self.commits = {COMMIT: {}}
        self.cut_at = None
        self.damage = False
        self.refusal = None
        self.requests = []
        self.sent = 0

    def put(self, repository, name, content):
        self.files.setdefault(repository, {})[name] = content

    @property
    def files(self):
        return self.commits[self.main]

    def commit(self, digits):
        """From now on main is another commit; what it was stays where it is."""
        self.commits[digits] = copy.deepcopy(self.files)
        self.main = digits


def _handler(hub):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def refuse(self, status, code):
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def answer(self, body):
            hub.requests.append(f"{self.command} {self.path} {self.headers.get('Range', '')}")
            place = PLACE.fullmatch(self.path)
            if not place:
                return self.refuse(200 if self.path == "/" else 404, "")
            if hub.refusal:
                return self.refuse(*hub.refusal)
            repository, revision, name = place.groups()
            if repository not in hub.files:
                return self.refuse(404, "RepoNotFound")
            commit = hub.main if revision == "main" else revision
            if commit not in hub.commits:
                return self.refuse(404, "RevisionNotFound")
            files = hub.commits[commit][repository]
            if name not in files:
                return self.refuse(404, "EntryNotFound")
            self.send(files[name], commit, body)

        def send(self, content, commit, body):
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
            start = int(asked[1]) if asked and body else 0
            self.send_response(206 if start else 200)
            self.send_header("X-Repo-Commit", commit)
            self.send_header("X-Linked-Etag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Linked-Size", str(len(content)))
            self.send_header("Content-Length", str(len(content) - start))
            if start:
                last = len(content) - 1
                self.send_header("Content-Range", f"bytes {start}-{last}/{len(content)}")
            self.end_headers()
            if not body:
                return
            rest = bytearray(content[start:])
            if hub.damage:
                rest[len(rest) // 2] ^= 1
            if hub.cut_at is not None and start + len(rest) > hub.cut_at:
                rest = rest[: max(0, hub.cut_at - start)]
                self.close_connection = True
            hub.sent += len(rest)
            self.wfile.write(rest)

    return Handler


@contextmanager
def serving(hub):
    """While it is open, the hub answers; its address, for HF_ENDPOINT."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

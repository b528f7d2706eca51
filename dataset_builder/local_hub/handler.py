"""Request handler of the Hub on loopback: one method per kind of request of the Hugging Face client libraries."""

import base64
import hashlib
import json
import re
import secrets
import socket
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

from dataset_builder.local_hub.store import (
    LARGE_SUFFIXES,
    Refusal,
    Store,
    card_data,
    card_errors,
    file_entry,
    now,
    reference,
    remove,
    tree_entries,
)

LARGE_FILE = 1_000_000
TYPE_OF_PREFIX = {None: "models", "datasets/": "datasets", "spaces/": "spaces"}


class Request(NamedTuple):
    """One answered request, as kept in `LocalHub.requests`; `status` 0 means that the connection was dropped."""

    kind: str
    method: str
    path: str
    status: int
    sent: int


class Hub(Protocol):
    """The interface of `LocalHub` for its request handlers."""

    store: Store
    tokens: Mapping[str, str]
    upload_key: str
    requests: list[Request]
    url: str

    def next_fault(self, kind: str) -> str | None:
        """Return the fault of the present request of this kind, None for no fault."""


class Handler(BaseHTTPRequestHandler):
    """Answers one connection; the methods named `on_<kind>` are the entries of `ROUTES`."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    hub: Hub
    namespace: str | None

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: requests are recorded in `LocalHub.requests`."""

    def _serve(self) -> None:
        self.body, self.sent, status, kind = self._read_body(), 0, 0, "unknown"
        address = urlsplit(self.path)
        self.query = parse_qs(address.query)
        try:
            try:
                token = self.headers.get("Authorization", "").removeprefix("Bearer ")
                self.namespace = self.hub.tokens.get(token)
                if token and self.namespace is None:
                    raise Refusal(401, message="Invalid credentials in Authorization header")
                kind, match = self._route(address.path)
                # Tests inject faults: refused requests, and connections that drop before or after the work is done.
                fault = self.hub.next_fault(kind)
                if fault == "error":
                    raise Refusal(500, message="Internal server error (injected)")
                if fault == "refuse":
                    raise Refusal(401, message="Invalid credentials in Authorization header")
                if fault and fault.isdigit():
                    raise Refusal(int(fault), message="refused (injected)")
                self._silent, self._fault = fault == "lose", fault
                if fault != "drop":
                    status = getattr(self, f"on_{kind}")(**match.groupdict())
                if fault in ("drop", "lose"):
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
            except Refusal as refusal:
                status = self.answer({"error": refusal.message}, refusal.status, refusal.headers)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            self._silent, self._fault = False, None
            self.hub.requests.append(Request(kind, self.command, self.path, status, self.sent))

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve
    _silent = False
    _fault: str | None = None

    def _read_body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        # A chunk is its length in hexadecimal, a line break, its bytes and another line break.
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _route(self, path: str) -> tuple[str, re.Match]:
        # HEAD is answered like GET, without the body.
        method = "GET" if self.command == "HEAD" else self.command
        for kind, of_method, pattern in ROUTES:
            if of_method == method and (match := pattern.fullmatch(path)):
                return kind, match
        raise Refusal(404, "RepoNotFound", f"nothing is served at {path}")

    def _may_write(self, repo: str) -> None:
        if self.namespace is None:
            raise Refusal(401, message="Invalid username or password.")
        # The second part of `models/org/name` is the namespace, the only one that this token may write to.
        if repo.split("/")[1] != self.namespace:
            raise Refusal(403, message=f"You don't have the rights to write to {repo}")

    def _may_read(self, repo: str) -> None:
        if self.hub.store.refs(repo)["private"] and repo.split("/")[1] != self.namespace:
            raise Refusal(401, "RepoNotFound", "Repository not found")

    def _read_commit(self, repo: str, rev: str | None) -> tuple[str, dict[str, Any]]:
        self._may_read(repo)
        return self.hub.store.commit(repo, unquote(rev or "main"))

    def answer(self, content: Any = None, status: int = 200, headers: Mapping[str, str] | None = None) -> int:
        """Send JSON, or bytes as they are, and return the status."""
        if self._silent:
            return 0
        body = content if isinstance(content, bytes) else json.dumps({} if content is None else content).encode()
        kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
        body, kind = self._damaged(body, kind)
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            part = body[: len(body) // 2] if self._fault == "short" else body
            self.wfile.write(part)
            self.sent += len(part)
        if self._fault == "short":
            self.close_connection = True
        return status

    def _damaged(self, body: bytes, kind: str) -> tuple[bytes, str]:
        """Return body and type of an answer as the fault of this request leaves them."""
        if self.command == "HEAD" or not body:
            return body, kind
        if self._fault == "flip":
            place = len(body) // 2
            body = body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]
        if self._fault == "html":
            return b"<html><body>Please log in</body></html>", "text/html"
        return (b"[[1]]", "application/json") if self._fault == "other" else (body, kind)

    def on_whoami(self) -> int:
        if self.namespace is None:
            raise Refusal(401, message="Invalid username or password.")
        access = {"displayName": "local", "role": "write", "createdAt": now()}
        auth = {"type": "access_token", "accessToken": access}
        return self.answer({"type": "user", "id": self.namespace, "name": self.namespace, "orgs": [], "auth": auth})

    def _named_repo(self) -> str:
        request = json.loads(self.body)
        namespace = request.get("organization") or self.namespace
        repo = f"{request.get('type') or 'model'}s/{namespace}/{request['name']}"
        if not re.fullmatch(r"(models|datasets|spaces)/[\w.-]+/[\w.-]+", repo):
            raise Refusal(400, message=f"bad repository name {repo}")
        self._may_write(repo)
        return repo

    def on_create(self) -> int:
        repo, request = self._named_repo(), json.loads(self.body)
        address = f"{self.hub.url}/{repo.removeprefix('models/')}"
        created = {"url": address, "name": repo.partition("/")[2], "id": repo.partition("/")[2]}
        private = request.get("visibility") == "private" or bool(request.get("private"))
        try:
            self.hub.store.create(repo, private, str(self.namespace))
        except Refusal as refusal:
            return self.answer({**created, "error": refusal.message}, refusal.status, refusal.headers)
        return self.answer(created)

    def on_delete(self) -> int:
        self.hub.store.delete(self._named_repo())
        return self.answer()

    def on_validate(self) -> int:
        text = json.loads(self.body)["content"]
        errors = card_errors(text)
        warnings = [] if errors or card_data(text) else ["empty or missing yaml metadata in repo card"]
        listed = {"errors": errors, "warnings": warnings}
        content = {name: [{"message": one} for one in messages] for name, messages in listed.items()}
        return self.answer(content, 400 if errors else 200)

    def _info(self, repo: str, oid: str, commit: dict) -> dict:
        # Tags and metadata come from the card, as on the Hub.
        readme = commit["files"].get("README.md")
        text = self.hub.store.object_path(readme.sha256).read_text() if readme else ""
        data = card_data(text) if not card_errors(text) else {}
        siblings = [file_entry(path, file) | {"rfilename": path} for path, file in commit["files"].items()]
        return {
            "id": repo.partition("/")[2], "sha": oid, "lastModified": commit["date"], "gated": False,
            "private": self.hub.store.refs(repo)["private"], "tags": data.get("tags", []), "cardData": data,
            "siblings": [{**one, "blobId": one["oid"]} for one in siblings], "downloads": 0, "likes": 0,
        }  # fmt: skip

    def on_list(self, kind: str) -> int:
        infos = [self._info(repo, *self.hub.store.commit(repo, "main")) for repo in self.hub.store.repos(kind)]
        author, search = self.query.get("author", [""])[0], self.query.get("search", [""])[0]
        wanted = (one for one in infos if not one["private"] or one["id"].split("/")[0] == self.namespace)
        return self.answer([one for one in wanted if one["id"].startswith(author) and search in one["id"]])

    def on_info(self, repo: str, rev: str | None = None) -> int:
        return self.answer(self._info(repo, *self._read_commit(repo, rev)))

    def on_refs(self, repo: str) -> int:
        self._may_read(repo)
        refs = self.hub.store.refs(repo)
        branches = [reference(name, "heads", oid) for name, oid in refs["branches"].items()]
        tags = [reference(name, "tags", tag["commit"]) for name, tag in refs["tags"].items()]
        return self.answer({"branches": branches, "tags": tags, "converts": [], "pullRequests": []})

    def on_commits(self, repo: str, rev: str) -> int:
        oid, commit = self._read_commit(repo, rev)
        log = []
        while True:
            keep = {key: commit[key] for key in ("title", "message", "date")}
            log.append({"id": oid, "authors": [{"user": commit["author"]}], **keep})
            if not commit["parents"]:
                return self.answer(log)
            oid, commit = self.hub.store.commit(repo, commit["parents"][0])

    def on_tree(self, repo: str, rev: str, path: str | None = None) -> int:
        oid, commit = self._read_commit(repo, rev)
        folder = unquote(path or "").strip("/")
        entries = tree_entries(commit["files"])
        if folder and entries.get(folder, {}).get("type") != "directory":
            raise Refusal(404, "EntryNotFound", f"{folder} does not exist on {rev}", **{"X-Repo-Commit": oid})
        deep = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
        below = [entries[name] for name in sorted(entries) if not folder or name.startswith(f"{folder}/")]
        prefix = f"{folder}/" if folder else ""
        return self.answer([one for one in below if deep or "/" not in one["path"].removeprefix(prefix)])

    def on_paths(self, repo: str, rev: str) -> int:
        _, commit = self._read_commit(repo, rev)
        form = "json" not in self.headers.get("Content-Type", "")
        wanted = (parse_qs(self.body.decode()) if form else json.loads(self.body)).get("paths", [])
        entries = tree_entries(commit["files"])
        return self.answer([entries[path] for path in wanted if path in entries])

    def on_preupload(self, repo: str, rev: str) -> int:
        self._may_write(repo)
        _, commit = self._read_commit(repo, rev)
        answers = []
        for file in json.loads(self.body)["files"]:
            binary = b"\0" in base64.b64decode(file.get("sample", ""))
            # The client then sends large files through the LFS endpoints and small ones inside the commit.
            large = binary or file["size"] > LARGE_FILE or file["path"].endswith(LARGE_SUFFIXES)
            answer = {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
            if known := commit["files"].get(file["path"]):
                answer["oid"] = known.sha256 if known.large else known.oid
            answers.append(answer)
        return self.answer({"files": answers})

    def on_batch(self, prefix: str | None, name: str) -> int:
        self._may_write(f"{TYPE_OF_PREFIX[prefix]}/{name}")
        answers = []
        for one in json.loads(self.body)["objects"]:
            answer = {"oid": one["oid"], "size": one["size"]}
            # Without actions the client knows that the object is stored already.
            if not self.hub.store.object_path(one["oid"]).exists():
                href = f"{self.hub.url}/lfs/{one['oid']}/{self.hub.upload_key}"
                verify = {"href": f"{self.hub.url}/lfs-verify/{self.hub.upload_key}"}
                answer["actions"] = {"upload": {"href": href}, "verify": verify}
            answers.append(answer)
        return self.answer({"transfer": "basic", "objects": answers})

    def on_upload(self, sha256: str, key: str) -> int:
        if not secrets.compare_digest(key, self.hub.upload_key):
            raise Refusal(403, message="this upload was not announced")
        if hashlib.sha256(self.body).hexdigest() != sha256:
            raise Refusal(422, message="the content does not have the announced hash")
        self.hub.store.add_object(self.body)
        return self.answer()

    def on_verify(self, key: str) -> int:
        if not self.hub.store.object_path(json.loads(self.body)["oid"]).exists():
            raise Refusal(404, message="the object is not stored")
        return self.answer()

    def on_commit(self, repo: str, rev: str) -> int:
        self._may_write(repo)
        store, branch = self.hub.store, unquote(rev)
        with store.changing_refs(repo) as refs:
            parent, commit = store.commit(repo, branch)
            files, header = dict(commit["files"]), {}
            if branch not in refs["branches"]:
                raise Refusal(404, "RevisionNotFound", f"{branch} is no branch")
            for line in self.body.splitlines():
                entry = json.loads(line)
                value = entry["value"]
                if entry["key"] == "header":
                    header = value
                elif entry["key"] == "file":
                    files[value["path"]] = store.small_file(base64.b64decode(value["content"]))
                elif entry["key"] == "lfsFile":
                    files[value["path"]] = store.large_file(value["oid"])
                else:
                    remove(files, entry["key"], value["path"].rstrip("/"))
            # A commit on another parent than the newest one would undo the commits in between.
            if header.get("parentCommit", parent) != parent:
                raise Refusal(412, message="A commit has happened since. Please refresh and try again.")
            texts = (header.get("summary", ""), header.get("description", ""))
            oid = store.add_commit(repo, [parent], files, *texts, author=str(self.namespace))
            refs["branches"][branch] = oid
        address = f"{self.hub.url}/{repo.removeprefix('models/')}/commit/{oid}"
        return self.answer({"success": True, "commitOid": oid, "commitUrl": address, "hookOutput": ""})

    def on_tag(self, repo: str, rev: str) -> int:
        self._may_write(repo)
        request = json.loads(self.body)
        with self.hub.store.changing_refs(repo) as refs:
            oid, _ = self._read_commit(repo, rev)
            if request["tag"] in refs["tags"]:
                raise Refusal(409, message=f"Tag {request['tag']} already exists")
            refs["tags"][request["tag"]] = {"commit": oid, "message": request.get("message")}
        return self.answer()

    def on_untag(self, repo: str, rev: str) -> int:
        self._may_write(repo)
        with self.hub.store.changing_refs(repo) as refs:
            if refs["tags"].pop(unquote(rev), None) is None:
                raise Refusal(404, "RevisionNotFound", f"{rev} is no tag")
        return self.answer()

    def on_branch(self, repo: str, rev: str) -> int:
        self._may_write(repo)
        request = json.loads(self.body or b"{}")
        with self.hub.store.changing_refs(repo) as refs:
            oid, _ = self._read_commit(repo, request.get("startingPoint"))
            if unquote(rev) in refs["branches"]:
                raise Refusal(409, message="Reference already exists")
            refs["branches"][unquote(rev)] = oid
        return self.answer()

    def on_resolve(self, prefix: str | None, name: str, rev: str, path: str) -> int:
        oid, commit = self._read_commit(f"{TYPE_OF_PREFIX[prefix]}/{name}", rev)
        file = commit["files"].get(unquote(path))
        if file is None:
            raise Refusal(404, "EntryNotFound", "Entry not found", **{"X-Repo-Commit": oid})
        etag = f'"{file.sha256 if file.large else file.oid}"'
        headers = {"X-Repo-Commit": oid, "ETag": etag, "Accept-Ranges": "bytes"}
        # The Hub redirects downloads of large files; these headers carry the hash and size of the target.
        if file.large:
            headers |= {"X-Linked-Etag": etag, "X-Linked-Size": str(file.size)}
        if self.command == "HEAD":
            return self.answer(b"", headers={**headers, "Content-Length": str(file.size)})
        start, end = self._range(file.size)
        with self.hub.store.object_path(file.sha256).open("rb") as content:
            content.seek(start)
            part = content.read(end - start)
        if "Range" not in self.headers:
            return self.answer(part, headers=headers)
        return self.answer(part, 206, {**headers, "Content-Range": f"bytes {start}-{end - 1}/{file.size}"})

    def _range(self, size: int) -> tuple[int, int]:
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", "bytes=0-"))
        if match is None or match[1] == match[2] == "":
            return 0, size
        # `bytes=-500` asks for the last 500 bytes.
        if not match[1]:
            return max(0, size - int(match[2])), size
        start, end = int(match[1]), min(size, int(match[2] or size) + 1)
        if start >= max(size, 1) or start >= end > 0:
            raise Refusal(416, message="Requested range not satisfiable", **{"Content-Range": f"bytes */{size}"})
        return start, end


REPO = r"/api/(?P<repo>(?:models|datasets|spaces)/[\w.-]+/[\w.-]+)"
GIT = r"/(?P<prefix>datasets/|spaces/)?(?P<name>[\w.-]+/[\w.-]+)"
ROUTES = [
    (kind, method, re.compile(pattern))
    for kind, method, pattern in (
        ("whoami", "GET", "/api/whoami-v2"),
        ("create", "POST", "/api/repos/create"),
        ("delete", "DELETE", "/api/repos/delete"),
        ("validate", "POST", "/api/validate-yaml"),
        ("list", "GET", "/api/(?P<kind>models|datasets|spaces)"),
        ("refs", "GET", f"{REPO}/refs"),
        ("commits", "GET", f"{REPO}/commits/(?P<rev>[^/]+)"),
        ("tree", "GET", f"{REPO}/tree/(?P<rev>[^/]+)(?P<path>/.*)?"),
        ("paths", "POST", f"{REPO}/paths-info/(?P<rev>[^/]+)"),
        ("preupload", "POST", f"{REPO}/preupload/(?P<rev>[^/]+)"),
        ("commit", "POST", f"{REPO}/commit/(?P<rev>[^/]+)"),
        ("tag", "POST", f"{REPO}/tag/(?P<rev>[^/]+)"),
        ("untag", "DELETE", f"{REPO}/tag/(?P<rev>[^/]+)"),
        ("branch", "POST", f"{REPO}/branch/(?P<rev>[^/]+)"),
        ("batch", "POST", f"{GIT}[.]git/info/lfs/objects/batch"),
        ("upload", "PUT", "/lfs/(?P<sha256>[0-9a-f]{64})/(?P<key>[^/]+)"),
        ("verify", "POST", "/lfs-verify/(?P<key>[^/]+)"),
        ("info", "GET", f"{REPO}(?:/revision/(?P<rev>[^/]+))?"),
        ("resolve", "GET", f"{GIT}/resolve/(?P<rev>[^/]+)/(?P<path>.+)"),
    )
]

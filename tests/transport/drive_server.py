"""Speaks so much of Google Drive's protocol (v3, over HTTP, on loopback) as a store needs; Google has no server to run.

Written after Google's reference. One account; names may stand twice in a folder, as there; every answer is checked by
Google's own client library on the other side.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

FOLDER = "application/vnd.google-apps.folder"
SHARED = "shared-folder"
TOKEN = "not-a-secret"
_TERM = re.compile(r"name = '(?P<name>[^']*)'|'(?P<parent>[^']*)' in parents|(?P<trashed>trashed = false)")


class DriveServer:
    """The server; ``files`` by id, ``fail`` a list of (status, reason) for the next requests."""

    def __init__(self, folder):
        self.folder, self.files, self.fail, self.asked, self.sessions = folder, {}, [], [], {}
        self.numbers, self.lock = itertools.count(1), threading.Lock()
        self.add({"name": "Study", "mimeType": FOLDER, "parents": []}, b"", file_id=SHARED)

    def start(self):
        self.token = self.folder / "token.json"
        said = {"token": TOKEN, "refresh_token": "x", "client_id": "x", "client_secret": "x"}
        self.token.write_text(json.dumps(said | {"expiry": "2099-01-01T00:00:00Z"}))
        self.token.chmod(0o600)
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"drive": self}))
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{self.http.server_address[1]}"
        self.url = f"gdrive://{SHARED}/NAME?token={self.token}&endpoint_url={self.endpoint}"
        return self

    def stop(self):
        self.http.shutdown()
        self.http.server_close()

    def add(self, body, content, file_id=None):
        number = next(self.numbers)
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        made = {"id": file_id or f"id-{number:06d}", "createdTime": now, "modifiedTime": now, "content": content}
        self.files[made["id"]] = made | body
        return self.files[made["id"]]

    def search(self, query):
        wanted = [match.groupdict() for match in _TERM.finditer(query)]
        assert " and ".join(match.group() for match in _TERM.finditer(query)) == query, f"not understood: {query}"
        found = [one for one in self.files.values() if one["id"] != SHARED]
        for term in wanted:
            if term["parent"] is not None and term["parent"] not in self.files:
                return None
            if term["name"] is not None:
                found = [one for one in found if one["name"] == term["name"]]
            if term["parent"] is not None:
                found = [one for one in found if term["parent"] in one["parents"]]
            if term["trashed"]:
                found = [one for one in found if not one.get("trashed")]
        return found

    def delete(self, file_id):
        for inner in [one["id"] for one in self.files.values() if file_id in one["parents"]]:
            self.delete(inner)
        del self.files[file_id]


def shown(one):
    size = {} if one["mimeType"] == FOLDER else {"size": str(len(one["content"]))}
    return {name: one[name] for name in ("id", "name", "mimeType", "createdTime", "modifiedTime")} | size


class _Handler(BaseHTTPRequestHandler):
    drive: DriveServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.answered(self.get)

    def do_POST(self):
        self.answered(self.change)

    def do_PATCH(self):
        self.answered(self.change)

    def do_PUT(self):
        self.answered(self.put_session)

    def do_DELETE(self):
        self.answered(self.remove)

    def answered(self, work):
        self.data = self.rfile.read(int(self.headers.get("content-length") or 0))
        parts = urlsplit(self.path)
        self.parts = parts.path.strip("/").split("/")
        self.query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        with self.drive.lock:
            self.drive.asked.append((self.command, parts.path))
            if self.headers.get("authorization") != f"Bearer {TOKEN}":
                return self.refuse(401, "authError")
            if self.drive.fail:
                return self.refuse(*self.drive.fail.pop(0))
            return work()

    def say(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def say_json(self, value, **headers):
        self.say(200, json.dumps(value).encode(), content_type="application/json; charset=UTF-8", **headers)

    def refuse(self, status, reason):
        error = {"code": status, "message": f"said {reason}", "errors": [{"reason": reason, "message": reason}]}
        self.say(status, json.dumps({"error": error}).encode(), content_type="application/json; charset=UTF-8")

    def file(self):
        return self.drive.files.get(self.parts[-1])

    def get(self):
        if self.parts[-1] == "files":
            found = self.drive.search(self.query["q"])
            if found is None:
                return self.refuse(404, "notFound")
            first, size = int(self.query.get("pageToken", 0)), min(int(self.query["pageSize"]), 3)
            more = {"nextPageToken": str(first + size)} if len(found) > first + size else {}
            return self.say_json({"files": [shown(one) for one in found[first : first + size]]} | more)
        one = self.file()
        if one is None:
            return self.refuse(404, "notFound")
        if self.query.get("alt") != "media":
            return self.say_json(shown(one))
        first, last = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["range"]).groups()
        return self.say(206, one["content"][int(first) : int(last) + 1])

    def change(self):
        if self.command == "PATCH" and self.file() is None:
            return self.refuse(404, "notFound")
        upload = self.query.get("uploadType")
        if upload == "resumable":
            session = f"session-{len(self.drive.asked)}"
            self.drive.sessions[session] = (self.command, self.parts[-1], json.loads(self.data or b"{}"))
            return self.say(200, location=f"{self.drive.endpoint}/{session}")
        body, content = json.loads(self.data or b"{}") if upload is None else {}, None
        if upload == "multipart":
            # By hand: a parser of mail takes a last byte that is a carriage return for the end of a line.
            boundary = re.search(r'boundary="?([^";]+)', self.headers["content-type"]).group(1)
            _, about, media, _ = self.data.split(f"--{boundary}".encode())
            body, content = (part.partition(b"\n\n")[2][:-1] for part in (about, media))
            body = json.loads(body)
        elif upload == "media":
            content = self.data
        return self.keep(self.command, self.parts[-1], body, content)

    def put_session(self):
        return self.keep(*self.drive.sessions.pop(self.parts[-1]), self.data)

    def keep(self, command, file_id, body, content):
        if command == "POST":
            if any(parent not in self.drive.files for parent in body["parents"]):
                return self.refuse(404, "notFound")
            return self.say_json(shown(self.drive.add(body, content or b"")))
        one = self.drive.files[file_id]
        one |= body | ({} if content is None else {"content": content})
        one["modifiedTime"] = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        return self.say_json(shown(one))

    def remove(self):
        if self.file() is None:
            return self.refuse(404, "notFound")
        self.drive.delete(self.parts[-1])
        return self.say(204)

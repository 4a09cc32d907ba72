"""A real object server behind Google's XML interface, as far as its client uses it: SeaweedFS, which nobody signs for.

Google's interface for single objects is S3's older one in all that the client asks: names, lists, errors, ranges. Keys
are another matter: Google's are tokens, of which SeaweedFS knows nothing, so that they are left out on the way, and
whether Google takes them is not tried.
"""

import http.client
import json
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from fedpriv.experiments.crosscloud.s3_server import S3Server

ACCOUNT_KEY = json.dumps({"private_key": "", "private_key_id": "", "client_email": "", "disable_oauth": True})
_OF_ONE_HOP = {"authorization", "connection", "host", "transfer-encoding"}


@dataclass
class GoogleServer:
    folder: Path

    @property
    def url(self):
        return f"gs://fedpriv/NAME?endpoint_url=http://127.0.0.1:{self._front.server_port}"

    def start(self):
        self._behind = S3Server(folder=self.folder)
        path = self.folder / "s3.json"
        known = json.loads(path.read_text())
        known["identities"].append({"name": "anonymous", "actions": ["Read", "List", "Write"]})
        path.write_text(json.dumps(known))
        self._behind.start()
        self._front = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._front.serve_forever, daemon=True).start()
        return self

    def _handler(self):
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass_on(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name: value for name, value in self.headers.items() if name.lower() not in _OF_ONE_HOP}
                behind = http.client.HTTPConnection("127.0.0.1", server._behind.port, timeout=60)
                behind.request(self.command, self.path, body, headers)
                answer = behind.getresponse()
                data = answer.read()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in _OF_ONE_HOP and (name.lower() != "content-length" or self.command == "HEAD"):
                        self.send_header(name, value)
                if self.command != "HEAD" and answer.status != 204:
                    self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
                behind.close()

            do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _pass_on

            def log_message(self, *_):
                pass

        return Handler

    def stop(self):
        self._front.shutdown()
        self._front.server_close()
        self._behind.stop()

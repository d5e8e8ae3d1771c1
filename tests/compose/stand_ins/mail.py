"""A mail server for tests: takes every mail, refuses the recipients that Mailpit would, and counts over HTTP as Mailpit does."""

import json
import os
import re
import signal
import threading
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller

ALLOWED = re.compile(os.environ.get("MP_SMTP_ALLOWED_RECIPIENTS", ""))
taken: list[str] = []


class Mailbox:
    """What aiosmtpd asks about each mail."""

    async def handle_RCPT(self, _server: object, _session: object, envelope: Any, address: str, _: list[str]) -> str:  # noqa: N802
        """Refuse for good whom the expression does not allow."""
        if not ALLOWED.search(address):
            return "550 5.1.1 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: object, _session: object, envelope: Any) -> str:  # noqa: N802
        """Take the mail."""
        taken.append(str(message_from_bytes(envelope.content)["Message-ID"]))
        return "250 OK"


class Api(BaseHTTPRequestHandler):
    """Mailpit's API, as far as tests ask: how many mails there are, and how many different ones."""

    def do_GET(self) -> None:
        """Answer whatever the path is."""
        body = json.dumps({"total": len(taken), "different": len(set(taken))}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    Controller(Mailbox(), hostname="0.0.0.0", port=1025).start()  # noqa: S104 - in a container
    threading.Thread(target=ThreadingHTTPServer(("0.0.0.0", 8025), Api).serve_forever, daemon=True).start()  # noqa: S104
    signal.sigwait([signal.SIGTERM, signal.SIGINT])

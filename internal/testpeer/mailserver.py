"""An SMTP server of aiosmtpd on loopback, for mailserver.go.

Its argument is a folder that holds config.json and, unless tls is none, cert.pem
and key.pem. It writes its port to the file port, and each message as a line of
JSON to the file messages.
"""

import asyncio
import json
import os
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult


class Handler:
    def __init__(self, folder):
        self.folder = folder

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("nobody@"):
            return "550 5.1.1 no such user"
        if address.startswith("later@"):
            return "451 4.7.1 try again later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        line = json.dumps({
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "data": envelope.content.decode("utf-8", "replace"),
            "authenticated": bool(session.authenticated),
            "tls": server.transport.get_extra_info("cipher") is not None,
        })
        with open(os.path.join(self.folder, "messages"), "a") as out:
            out.write(line + "\n")
        return "250 OK"


def main():
    folder = sys.argv[1]
    with open(os.path.join(folder, "config.json")) as f:
        config = json.load(f)
    context = None
    if config["tls"] != "none":
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem"))
    starttls = config["tls"] == "starttls"

    def authenticate(server, session, envelope, mechanism, data):
        ok = data.login == config["username"].encode() and data.password == config["password"].encode()
        if ok:
            return AuthResult(success=True)
        # A server that is careless with what it was told.
        return AuthResult(success=False, handled=False, message="535 5.7.8 wrong: " + data.password.decode())

    def protocol():
        return SMTP(
            Handler(folder), hostname="localhost", loop=loop, require_starttls=starttls,
            tls_context=context if starttls else None, authenticator=authenticate,
            auth_required=bool(config["username"]), auth_require_tls=starttls,
        )

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    server = loop.run_until_complete(loop.create_server(
        protocol, "127.0.0.1", 0, ssl=context if config["tls"] == "tls" else None))
    temporary = os.path.join(folder, "port.new")
    with open(temporary, "w") as out:
        out.write(str(server.sockets[0].getsockname()[1]))
    os.rename(temporary, os.path.join(folder, "port"))
    loop.run_forever()


main()

"""spiffe-tls of PyPI as anybody would use it; nothing of ours is imported here. Run isolated (`python -I`).

listen ADDRESS ID          mutual TLS on a free port, echoes what clients with the identity ID say, until stdin ends
dial ADDRESS PORT ID       says a word to a server that must have the identity ID, and tells what came back
"""

from __future__ import annotations

import json
import sys
import threading
from typing import Any

from OpenSSL import SSL
from spiffe import SpiffeId, X509Source
from spiffetls import ListenOptions, dial, listen
from spiffetls.errors import TLSConnectionError
from spiffetls.mode import ServerTlsMode
from spiffetls.tlsconfig.authorize import authorize_id

assert not [name for name in sys.modules if name.partition(".")[0] in {"ca", "attestor", "broker"}]


def say(**facts: Any) -> None:
    """One line."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def serve(source: X509Source, wanted: SpiffeId) -> None:
    """One connection after the other."""
    options = ListenOptions(tls_mode=ServerTlsMode.MTLS, authorize_fn=authorize_id(wanted))
    server = listen("127.0.0.1:0", source, options)
    say(port=int(server.getsockname()[1]))
    threading.Thread(target=accept, args=(server,), daemon=True).start()
    sys.stdin.read()


def accept(server: SSL.Connection) -> None:
    """Echo, or tell that the peer was refused."""
    while True:
        connection, _ = server.accept()
        try:
            connection.sendall(connection.recv(1024))
            say(served=True)
            connection.shutdown()
        except SSL.Error:
            say(served=False)
        connection.close()


def speak(source: X509Source, port: str, wanted: SpiffeId) -> None:
    """A word, or why it could not be said."""
    try:
        connection = dial(f"127.0.0.1:{port}", source, authorize_fn=authorize_id(wanted))
        connection.sendall(b"hello")
        say(heard=connection.recv(1024).decode())
        connection.close()
    except (TLSConnectionError, SSL.Error) as error:
        say(refused=type(error).__name__)


def main(what: str, address: str, *rest: str) -> None:
    """Either end."""
    with X509Source(socket_path=address, timeout_in_seconds=60) as source:
        if what == "listen":
            serve(source, SpiffeId(rest[0]))
        else:
            speak(source, rest[0], SpiffeId(rest[1]))


if __name__ == "__main__":
    main(*sys.argv[1:])

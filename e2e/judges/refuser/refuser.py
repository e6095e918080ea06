"""An agent in Python that refuses the revoked as docs/revocation.md shows: answers GET / over mutual TLS.

    refuser.py DIR PORT
"""

import socket
import ssl
import sys
import threading


def context(side, directory="/var/run/countersign"):
    ctx = ssl.create_default_context(side, cafile=f"{directory}/ca.crt")
    ctx.load_cert_chain(f"{directory}/tls.crt", f"{directory}/tls.key")
    ctx.load_verify_locations(cafile=f"{directory}/crl.pem")
    ctx.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    ctx.check_hostname = False
    ctx.verify_mode = ssl.CERT_REQUIRED
    return ctx


def serve(plain, directory):
    try:
        plain.settimeout(10)
        with context(ssl.Purpose.CLIENT_AUTH, directory).wrap_socket(plain, server_side=True) as connection:
            connection.recv(1024)
            connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nhello\n")
    except OSError as error:
        print(f"refused: {error}", file=sys.stderr, flush=True)


listener = socket.create_server(("127.0.0.1", int(sys.argv[2])))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0], sys.argv[1]), daemon=True).start()

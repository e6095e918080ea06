"""An agent in Python, whose ssl module is OpenSSL: e2e/agent's conversation by the standard library alone. It answers whom it
is allowed to, calls others at a steady rate, each time with a full handshake, and counts.

    peer.py --identity DIR --listen ADDRESS --status ADDRESS --rate N --allow ID ... --call NAME=ADDRESS=ID ...
"""

import argparse
import json
import os
import socket
import ssl
import sys
import threading
import time

# On a busy machine a handshake may wait long. That is no failure of a certificate.
PATIENCE = 20


# As far as `expect`, what follows is README.md's example, word for word: e2e/tests/tally.rs compares them.


def version(directory):
    """The directory that the kubelet last filled: its files belong together."""
    data = os.path.join(directory, "..data")
    return os.path.realpath(data) if os.path.isdir(data) else directory

def context(side, directory="/var/run/countersign"):
    """side: ssl.Purpose.SERVER_AUTH to call others, ssl.Purpose.CLIENT_AUTH to be called. Make one for each connection."""
    files = version(directory)
    try:
        ctx = ssl.create_default_context(side, cafile=f"{files}/ca.crt")
        ctx.load_cert_chain(f"{files}/tls.crt", f"{files}/tls.key")
    except OSError:
        if files == version(directory):
            raise
        return context(side, directory)  # the kubelet put another version in its place meanwhile
    ctx.check_hostname = False           # an agent is known by its SPIFFE ID, which is checked below
    ctx.verify_mode = ssl.CERT_REQUIRED  # on both sides: this makes TLS mutual
    return ctx

def expect(connection, spiffe_id):
    names = connection.getpeercert()["subjectAltName"]
    if [name for kind, name in names if kind == "URI"] != [spiffe_id]:
        connection.close()
        raise PermissionError(f"the peer is {names}, not {spiffe_id}")


class Counters:
    """In the form of `agent report`, as far as e2e/src/peers reads it."""

    def __init__(self):
        self.lock = threading.Lock()
        self.report = {"calls": {}, "handshakes_accepted": 0, "refused": 0, "refusals": [], "resumed": 0}

    def called(self, name, connection):
        with self.lock:
            calls = self.report["calls"].setdefault(
                name, {"tried": 0, "failed": 0, "last_failure": None, "peers": []}
            )
            calls["tried"] += 1
            self.report["resumed"] += connection.session_reused
            serial = serial_of(connection)
            for met in calls["peers"]:
                if met["serial"] == serial:
                    met["handshakes"] += 1
                    return
            calls["peers"].append({"serial": serial, "handshakes": 1})

    def call_failed(self, name, error):
        with self.lock:
            # Before the first that succeeded, the other agent was still starting.
            if calls := self.report["calls"].get(name):
                calls["tried"] += 1
                calls["failed"] += 1
                calls["last_failure"] = repr(error)
                print(f"{name}: {error!r}", file=sys.stderr, flush=True)

    def accepted(self, connection):
        with self.lock:
            self.report["handshakes_accepted"] += 1
            self.report["resumed"] += connection.session_reused

    def refused(self, error):
        with self.lock:
            self.report["refused"] += 1
            self.report["refusals"].append(repr(error))
            print(f"refused: {error!r}", file=sys.stderr, flush=True)

    def show(self, listener):
        while True:
            connection, _ = listener.accept()
            with self.lock:
                text = json.dumps(self.report)
            with connection:
                connection.sendall(text.encode())


def serial_of(connection):
    return connection.getpeercert()["serialNumber"].lower()


def id_of(connection):
    return dict(connection.getpeercert()["subjectAltName"]).get("URI")


def serve(plain, arguments, counters):
    plain.settimeout(PATIENCE)
    at_once(plain)
    try:
        ctx = context(ssl.Purpose.CLIENT_AUTH, arguments.identity)
        ctx.minimum_version = ssl.TLSVersion.TLSv1_3
        ctx.num_tickets = 0
        with ctx.wrap_socket(plain, server_side=True) as connection:
            who = id_of(connection)
            if who not in arguments.allow:
                raise PermissionError(f"{who} may not call")
            if read_line(connection) != "hello":
                return
            counters.accepted(connection)
            root = dict(pair for [pair] in connection.getpeercert()["issuer"]).get("commonName", "")
            answer = {"i_am": arguments.me, "i_accepted": who, "with_serial": serial_of(connection), "chained_to": root}
            connection.sendall((json.dumps(answer) + "\n").encode())
    except (OSError, KeyError) as error:
        counters.refused(error)


def call(target, arguments, counters):
    name, address, spiffe_id = target.split("=", 2)
    while True:
        began = time.monotonic()
        try:
            with socket.create_connection(address_of(address), timeout=PATIENCE) as plain:
                at_once(plain)
                ctx = context(ssl.Purpose.SERVER_AUTH, arguments.identity)
                ctx.minimum_version = ssl.TLSVersion.TLSv1_3
                with ctx.wrap_socket(plain) as connection:
                    expect(connection, spiffe_id)
                    connection.sendall(b"hello\n")
                    answer = json.loads(read_line(connection))
                    if answer["i_am"] != spiffe_id:
                        raise PermissionError(f"{name} says that it is {answer['i_am']}")
                    counters.called(name, connection)
        except (OSError, ValueError, KeyError) as error:
            counters.call_failed(name, error)
        time.sleep(max(0, 1 / arguments.rate - (time.monotonic() - began)))


def read_line(connection):
    with connection.makefile("r", encoding="utf-8") as lines:
        return lines.readline().strip()


def at_once(plain):
    """One line each way: nothing is gained by waiting to fill a packet."""
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def address_of(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)


def start(run, *arguments):
    threading.Thread(target=run, args=arguments, daemon=True).start()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--identity", required=True)
    parser.add_argument("--me", required=True)
    parser.add_argument("--listen", required=True)
    parser.add_argument("--status", required=True)
    parser.add_argument("--rate", type=float, default=5)
    parser.add_argument("--allow", action="append", default=[])
    parser.add_argument("--call", action="append", default=[])
    arguments = parser.parse_args()
    counters = Counters()
    listener = socket.create_server(address_of(arguments.listen), backlog=128)
    start(counters.show, socket.create_server(address_of(arguments.status)))
    for target in arguments.call:
        start(call, target, arguments, counters)
    while True:
        plain, _ = listener.accept()
        start(serve, plain, arguments, counters)


main()

"""A TCP proxy that cuts: between a program and the coordinator.

One thread.  `mode` may change at any time:

    pass       everything goes through
    hold       nothing goes through, connections stay open (a partition)
    hold-up    nothing from the client to the server; the other way passes
    hold-down  nothing from the server to the client; the other way passes

What is held is not lost: as on a real network it comes late, once the mode
passes again, unless `cut` closed the connection meanwhile.
"""
import selectors
import socket
import threading
import time

PIECE = 1 << 16


class Proxy:
    def __init__(self, target):
        host, port = target.rsplit("/", 1)[1].rsplit(":", 1)
        self.target = (host, int(port))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.endpoint = f"tcp://127.0.0.1:{self.listener.getsockname()[1]}"
        self.mode = "pass"
        self.accepted = 0
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.peer = {}      # socket -> the other end
        self.is_client = {}
        self.pending = {}   # socket -> bytes to be written to it
        self.orders = []
        self.running = True
        self.thread = threading.Thread(target=self.loop, daemon=True)
        self.thread.start()

    def cut(self):
        """Close every connection now."""
        self.orders.append("cut")

    def close(self):
        self.running = False
        self.thread.join(5)

    # ---- in the thread ---------------------------------------------------------------

    def passes(self, source):
        if self.mode == "pass":
            return True
        if self.mode == "hold":
            return False
        return self.is_client[source] == (self.mode == "hold-down")

    def end(self, sock):
        for one in (sock, self.peer.get(sock)):
            if one in self.peer:
                self.peer.pop(one)
                self.pending.pop(one, None)
                self.is_client.pop(one, None)
                one.close()

    def accept(self):
        try:
            client, _ = self.listener.accept()
        except OSError:
            return
        try:
            server = socket.create_connection(self.target, 2)
        except OSError:
            client.close()
            return
        self.accepted += 1
        for one, other, is_client in ((client, server, True), (server, client, False)):
            one.setblocking(False)
            self.peer[one] = other
            self.is_client[one] = is_client
            self.pending[one] = b""

    def move(self, source):
        """Read from one end, write to the other; False when an end is gone."""
        target = self.peer[source]
        try:
            if not self.pending[target]:
                try:
                    piece = source.recv(PIECE)
                    if not piece:
                        return False
                    self.pending[target] = piece
                except BlockingIOError:
                    return True
            sent = target.send(self.pending[target])
            self.pending[target] = self.pending[target][sent:]
        except BlockingIOError:
            pass
        except OSError:
            return False
        return True

    def loop(self):
        while self.running:
            while self.orders:
                self.orders.pop()
                for sock in list(self.peer):
                    if sock in self.peer:
                        self.end(sock)
            if self.selector.select(0):
                self.accept()
            for sock in list(self.peer):
                if sock in self.peer and self.passes(sock) and not self.move(sock):
                    self.end(sock)
            time.sleep(0.002)
        for sock in list(self.peer):
            if sock in self.peer:
                self.end(sock)
        self.listener.close()

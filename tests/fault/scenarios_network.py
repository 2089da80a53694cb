"""The network cuts, loses, repeats; strangers speak: 11 to 14, 28, 29; leases."""
import pathlib
import signal
import socket
import struct
import time

from cluster import HEARTBEAT_MS
from frame import ROOT, expect, nothing_again, scenario, until
from proxy import Proxy


def proxied(test, c):
    """Proxies in front of the control and the artifact socket."""
    pair = Proxy(c.control), Proxy(c.files)
    test.proxies += pair
    return pair


def set_mode(pair, mode):
    for proxy in pair:
        proxy.mode = mode


def behind_proxy(test, **grid):
    c = test.cluster(**grid)
    c.start_submitted()
    pair = proxied(test, c)
    worker = c.start_worker(control=pair[0].endpoint, files=pair[1].endpoint)
    c.wait_training()
    return c, pair, worker


def runs(c, kind="train"):
    return c.query("SELECT a.number, a.state, a.outcome, w.name FROM attempt a JOIN job j ON"
                   " j.id = a.job JOIN worker w ON w.id = a.worker WHERE j.kind = ?"
                   " ORDER BY a.job, a.number", kind)


def lost(c, name="w1"):
    return any(e["subject"] == f"worker {name}" and e["to"] == "lost" for e in c.events())


@scenario(11, "cut off both ways for less than a lease")
def short_cut(test):
    c, pair, _ = behind_proxy(test, step_ms=120)
    for _ in range(2):
        set_mode(pair, "hold")
        time.sleep(c.rules[2] / 1000 * 0.6)
        set_mode(pair, "pass")
        time.sleep(1)
    c.start_judge()
    c.wait_done()
    test.verify(c)
    expect([r[0] for r in runs(c)] == [1], f"nothing was run again: {runs(c)}")


@scenario("11b", "cut off for longer than a lease, which nobody else takes: it delivers afterwards")
def long_cut(test):
    c, pair, worker = behind_proxy(test, step_ms=180)
    set_mode(pair, "hold")
    until(30, lambda: lost(c), "the worker is lost")
    ends = worker.ends()
    expect(worker.children(), "it trains while it is cut off")
    until(60, lambda: worker.ends() > ends, "it goes on training, to the end")
    if test.random.random() < 0.5:
        for proxy in pair:
            proxy.cut()
        time.sleep(0.2)
    set_mode(pair, "pass")
    c.start_judge()
    c.wait_done()
    test.verify(c)
    expect([r[0] for r in runs(c)] == [1], f"what it trained is taken: {runs(c)}")


@scenario("8c", "a daemon killed between an attempt's end and its acknowledgement: nothing is "
                "computed again")
def results_survive(test):
    c, pair, worker = behind_proxy(test, step_ms=100)
    ends = worker.ends()
    set_mode(pair, "hold")
    until(60, lambda: worker.ends() > ends, "it trains to the end")
    time.sleep(0.5)
    worker.kill()
    set_mode(pair, "pass")
    again = c.start_worker(control=pair[0].endpoint, files=pair[1].endpoint)
    c.start_judge()
    c.wait_done()
    test.verify(c)
    expect(again.said("results that are not delivered"), "the new daemon says what it has")
    expect([r[0] for r in runs(c)] == [1], f"what it trained is taken: {runs(c)}")


@scenario("8d", "a daemon killed with results, whose lease was given away: they are dropped")
def results_too_late(test):
    c, pair, worker = behind_proxy(test, step_ms=120)
    ends = worker.ends()
    set_mode(pair, "hold")
    c.start_worker("w2")
    until(60, lambda: any(s["stage"] == "train" and s["worker"] == "w2" for s in c.stages()),
          "another takes the job")
    until(60, lambda: worker.ends() > ends, "the first trains to the end")
    time.sleep(0.5)
    worker.kill()
    set_mode(pair, "pass")
    again = c.start_worker(control=pair[0].endpoint, files=pair[1].endpoint)
    until(60, lambda: again.said("of it is dropped"), "the new daemon says that it drops them")
    c.start_judge()
    c.wait_done()
    test.verify(c)
    rows = runs(c)
    expect(len(rows) == 2 and rows[0][2] == "lost" and rows[1][3] == "w2", f"attempts: {rows}")


@scenario("11c", "cut off for longer than a lease, which was given away: it stops")
def cut_and_replaced(test):
    c, pair, worker = behind_proxy(test, step_ms=300)
    set_mode(pair, "hold")
    c.start_worker("w2")
    until(40, lambda: any(s["stage"] == "train" and s["worker"] == "w2" for s in c.stages()),
          "another takes the job")
    expect(worker.children(), "the first goes on as long as it does not know")
    set_mode(pair, "pass")
    until(30, lambda: not worker.children(), "the first stops when it hears of it")
    c.start_judge()
    c.wait_done()
    test.verify(c)
    rows = runs(c)
    expect(len(rows) == 2 and rows[0][2] == "lost" and rows[1][3] == "w2", f"attempts: {rows}")


@scenario("11d", "on_worker_lost = \"wait\": nobody else gets the job")
def wait_policy(test):
    c, pair, worker = behind_proxy(test, step_ms=250, retry='on_worker_lost = "wait"')
    set_mode(pair, "hold")
    c.start_worker("w2")
    until(40, lambda: lost(c), "the worker is lost")
    time.sleep(2)
    expect(all(s["worker"] != "w2" for s in c.stages() if s["stage"] == "train"),
           "the job waits for a person")
    reason = [s["reason"] for s in c.stages() if s["stage"] == "train"]
    expect("on_worker_lost" in reason[0], f"status says why: {reason}")
    if test.random.random() < 0.5:  # it comes back and goes on by itself
        set_mode(pair, "pass")
        c.start_judge()
        c.wait_done()
        test.verify(c)
        expect([r[0] for r in runs(c)] == [1], f"it was taken back: {runs(c)}")
    else:                           # it is dead, and a person says so
        worker.kill()
        c.hactl("retry", "grid")
        c.start_judge()
        c.wait_done()
        test.verify(c)
        expect(len(runs(c)) == 2, f"it was run once more: {runs(c)}")


@scenario(12, "cut off one way, for longer than a lease, each way")
def one_way(test):
    for mode in ("hold-up", "hold-down"):
        c, pair, worker = behind_proxy(test, step_ms=300)
        set_mode(pair, mode)
        c.start_worker("w2")
        if mode == "hold-up":  # the coordinator hears nothing
            until(40, lambda: lost(c), "the coordinator sees it")
        else:                  # the worker hears nothing: it connects again and again
            until(40, lambda: worker.said("the coordinator is silent"), "the worker sees it")
        time.sleep(2)
        set_mode(pair, "pass")
        c.start_judge()
        c.wait_done()
        test.verify(c)
        c.close()


@scenario(13, "a proxy cuts every connection every other heartbeat, sixty times")
def cuts(test):
    # As in the list: cuts two heartbeats apart, and twelve to a lease.
    count, pause = 60, 2 * HEARTBEAT_MS / 1000
    c = test.cluster(step_ms=1000)
    c.start_submitted()
    pair = proxied(test, c)
    worker = c.start_worker(control=pair[0].endpoint, files=pair[1].endpoint)
    c.start_judge(control=pair[0].endpoint)
    for _ in range(count):
        time.sleep(pause)
        for proxy in pair:
            proxy.cut()
    expect(c.training(4) or c.trained(), "it goes on under the cuts")
    lines = worker.log.read_text().count("\n")
    connections = pair[0].accepted
    c.wait_done(240)
    test.verify(c)
    nothing_again(c)
    test.note(f"{connections + pair[1].accepted} connections, {lines} lines of log")
    expect(connections >= count / 2, f"{connections} connections for {count} cuts")
    expect(lines < 20 + 3 * count, f"{lines} lines of log")


def body_numbers():
    """Names of the envelope's bodies in ha.proto, to their numbers."""
    text = (ROOT / "proto" / "ha.proto").read_text()
    text = text[text.index("oneof body"):text.index("message Error")]
    return {line.split()[1]: int(line.split("=")[1].strip(" ;"))
            for line in text.splitlines() if "=" in line and line.strip().endswith(";")}


@scenario(14, "a fifth of the requests and of the replies is lost, a fifth is doubled")
def lossy(test):
    c = test.cluster(strategies=["base", "mid"], epochs=2)
    # A lost piece of a file is missed after 10 s only: fewer of those.
    rules = "".join(f"{number}:drop={0.03 if name.startswith('artifact') else 0.2};"
                    f"{number}:dup=0.2;" for name, number in body_numbers().items())
    c.env = {"HA_NET_FAULTS": f"seed={test.seed};delay=0.1/300;reorder=0.1/300;{rules}"}
    c.start_submitted()
    c.start_worker()
    c.start_worker("w2")
    c.start_judge()
    c.wait_done(240)
    test.verify(c)


@scenario("14b", "each type of message is lost, doubled and late in turn", slow=True)
def lossy_types(test):
    for name, number in body_numbers().items():
        for fault in ("drop=0.5", "dup=0.5", "reorder=0.5/400"):
            c = test.cluster(strategies=["base", "mid"], epochs=2, eval=3)
            c.env = {"HA_NET_FAULTS": f"seed={test.seed};{number}:{fault}"}
            try:
                c.start_all()
                c.wait_done(120)
                test.verify(c)
            except Exception as error:
                raise type(error)(f"{name} {fault}: {error}") from error
            c.close()


# ---- strangers -------------------------------------------------------------------------


class Stranger:
    """The bytes of a DEALER that somebody else might send (ZMTP 3.0, no keys)."""

    def __init__(self, endpoint):
        host, port = endpoint.rsplit("/", 1)[1].rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), 5)
        self.socket.settimeout(5)

    def shake(self):
        self.socket.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16) + b"\x00"
                            + bytes(31))
        self.read(64)
        ready = b"\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER\x08Identity\x00\x00\x00\x00"
        self.socket.sendall(b"\x04" + bytes([len(ready)]) + ready)
        return self.frame()

    def read(self, size):
        data = b""
        while len(data) < size:
            piece = self.socket.recv(size - len(data))
            if not piece:
                raise ConnectionError("closed")
            data += piece
        return data

    def frame(self):
        flags = self.read(1)[0]
        size = struct.unpack(">Q", self.read(8))[0] if flags & 2 else self.read(1)[0]
        return self.read(size)

    def send(self, data):
        if len(data) < 256:
            self.socket.sendall(b"\x00" + bytes([len(data)]) + data)
        else:
            self.socket.sendall(b"\x02" + struct.pack(">Q", len(data)) + data)

    def close(self):
        self.socket.close()


def memory_kb(process):
    text = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0])


@scenario(28, "garbage, huge frames, malformed messages, half connections")
def garbage(test):
    c = test.cluster(step_ms=60)
    c.start_all()
    c.wait_training()
    before = memory_kb(c.coordinator)
    for endpoint in (c.control, c.files):
        for _ in range(60):
            s = Stranger(endpoint)
            try:
                kind = test.random.randrange(5)
                if kind == 0:
                    s.socket.sendall(test.random.randbytes(test.random.randrange(1, 4000)))
                elif kind == 1:
                    s.shake()
                    s.send(test.random.randbytes(test.random.randrange(0, 3000)))
                elif kind == 2:  # a frame of 1 GiB is announced
                    s.shake()
                    s.socket.sendall(b"\x02" + struct.pack(">Q", 1 << 30) + bytes(1000))
                elif kind == 3:  # a hello of an envelope, with its middle cut out
                    s.shake()
                    s.send(b"\x08\x01\x10\x05\x5a\x30" + test.random.randbytes(20))
                else:            # never finishes its handshake
                    s.socket.sendall(b"\xff\x00")
                    continue
            except OSError:
                pass
            s.close()
    status = c.status()
    expect(status is not None, "others are answered")
    after = memory_kb(c.coordinator)
    test.note(f"memory {before} kB, then {after} kB")
    expect(after - before < 64 << 10, f"memory grew from {before} kB to {after} kB")
    c.wait_done()
    expect(c.coordinator.alive(), "the coordinator lives")
    test.verify(c)


UNKNOWN = b"\x08\x01\x10\x09" + b"\xfa\x3e\x02\x08\x01"  # a body of a newer version: it is answered


def answered(stranger, seconds=0.4):
    """Frames that come back within so long of one another."""
    stranger.socket.settimeout(seconds)
    count = 0
    try:
        while stranger.frame():
            count += 1
    except OSError:
        return count
    return count


@scenario("28b", "a stranger beyond each limit: messages a second, bytes of a message, connections")
def limits(test):
    c = test.cluster()
    c.start_coordinator(options=[x for s in ("max_requests_per_second=30", "max_connections=16",
                                             "max_frame_bytes=2097152") for x in ("--set", s)])
    flood = Stranger(c.control)
    flood.shake()
    for _ in range(2000):
        flood.send(UNKNOWN)
    count = answered(flood)
    expect(30 <= count <= 300, f"{count} of 2000 requests of one peer are answered")
    flood.close()
    large = Stranger(c.control)
    large.shake()
    large.send(UNKNOWN)
    expect(answered(large) == 1, "it is heard")
    try:
        large.socket.settimeout(5)
        large.send(b"\x08\x01" + bytes(3 << 20))
        large.send(UNKNOWN)
        over = answered(large)
    except OSError:
        over = 0
    expect(over == 0, "a message of 3 MiB ends its connection")
    expect(c.hactl("list").returncode == 0, "others are answered")
    known = Stranger(c.control)
    known.shake()
    known.send(UNKNOWN)
    expect(answered(known) == 1, "one more is heard")
    crowd = [Stranger(c.control) for _ in range(40)]
    heard = 0
    for stranger in crowd:
        stranger.shake()
        stranger.send(UNKNOWN)
        heard += answered(stranger, 0.05)
    expect(8 <= heard <= 16, f"{heard} of 40 connections are heard")
    known.send(UNKNOWN)
    expect(answered(known) == 1, "who was there before them is heard")
    for stranger in (known, *crowd):
        stranger.close()
    until(30, lambda: c.coordinator.said("over the limits"), "the log says so")
    test.note(f"{count} of 2000 requests, {heard} of 40 connections")


@scenario(29, "a program of another protocol version")
def version_skew(test):
    c = test.cluster(strategies=["base"], eval=2)
    c.start_evaluator()
    c.start_coordinator()
    s = Stranger(c.control)
    s.shake()
    hello = b"\x08\x02" + b"\x12\x02w9" + b"\x1a\x01i" + b"\x22\x01m" + b"\x30\x01"
    s.send(b"\x08\x63\x10\x07" + b"\x5a" + bytes([len(hello)]) + hello)  # protocol 99
    reply = s.frame()
    s.close()
    expect(b"version" in reply or b"protocol" in reply, f"the refusal says why: {reply!r}")
    s = Stranger(c.control)  # a body that only a newer version knows is answered
    s.shake()
    s.send(UNKNOWN)
    reply = s.frame()
    s.close()
    expect(len(reply) > 4, "an unknown request is answered")
    c.submit()
    c.start_worker()
    c.start_judge()
    c.wait_done()
    test.verify(c)


@scenario("judge-lost", "a judge worker is stopped for longer than its lease, and goes on")
def judge_zombie(test):
    c = test.cluster(epochs=2, eval=6)
    c.start_submitted(("--latency", "400"))
    c.start_worker()
    first = c.start_judge("j1")
    until(90, lambda: c.calls.exists() and c.calls.stat().st_size > 0, "the evaluator is asked")
    first.kill(signal.SIGSTOP)
    until(30, lambda: lost_judge(c), "it is lost")
    c.start_judge("j2")
    time.sleep(1.5)
    first.kill(signal.SIGCONT)
    c.wait_done()
    test.verify(c)


def lost_judge(c):
    return any(e["subject"] == "judge worker j1" and e["to"] == "lost" for e in c.events())

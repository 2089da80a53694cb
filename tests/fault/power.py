"""Power loss: what a disk may hold when the power goes, from a record of what was written.

`shim.c` records each write, truncation, rename and sync of a program.  A Disk
replays the record.  What is durable of a file is what was written before the
last sync of it; a name (made, renamed, removed) is durable once its folder was
synced.  `image` writes down one possible disk: nothing more than that, or
besides a drawn subset of the rest, with writes torn at sectors, as a disk that
reorders would leave it.
"""
import copy
import hashlib
import os
import pathlib
import re

SECTOR = 512


class File:
    def __init__(self):
        self.durable = bytearray()
        self.pending = []  # (offset, bytes), or (size, None) of a truncation

    @staticmethod
    def apply(data, change):
        at, piece = change
        if piece is None:
            if at < len(data):
                del data[at:]
            else:
                data.extend(bytes(at - len(data)))
        else:
            if at > len(data):
                data.extend(bytes(at - len(data)))
            data[at:at + len(piece)] = piece

    def sync(self):
        for change in self.pending:
            self.apply(self.durable, change)
        self.pending.clear()

    def live(self):
        data = bytearray(self.durable)
        for change in self.pending:
            self.apply(data, change)
        return bytes(data)

    def drawn(self, random):
        data = bytearray(self.durable)
        for at, piece in self.pending:
            luck = random.random()
            if luck < 0.4:
                continue
            if piece is not None and luck < 0.6 and len(piece) > SECTOR:  # some of its sectors
                for start in range(0, len(piece), SECTOR):
                    if random.random() < 0.5:
                        self.apply(data, (at + start, piece[start:start + SECTOR]))
            else:
                self.apply(data, (at, piece))
        return bytes(data)


class Disk:
    """Names and files below `root`; the folder itself was always there."""

    def __init__(self, root):
        self.root = str(root)
        self.names = {}         # path -> File, or None for a folder
        self.durable_names = {}
        self.pending = []       # changes of names: (folders that make it durable, change)

    def change_names(self, *changes):
        """changes: (path, File or None), or (path, "gone")."""
        for path, what in changes:
            if what == "gone":
                self.names.pop(path, None)
            else:
                self.names[path] = what
        self.pending.append(({os.path.dirname(path) for path, _ in changes}, changes))

    @staticmethod
    def apply_names(names, changes):
        for path, what in changes:
            if what == "gone":
                names.pop(path, None)
            else:
                names[path] = what

    def file(self, path):
        if self.names.get(path) is None:
            self.change_names((path, File()))
        return self.names[path]

    def sync_folder(self, path):
        rest = []
        for folders, changes in self.pending:
            folders.discard(path)
            if folders:
                rest.append((folders, changes))
            else:
                self.apply_names(self.durable_names, changes)
        self.pending = rest

    def take(self, what, path, offset, data, other):
        if what == "write":
            self.file(path).pending.append((offset, data))
        elif what == "truncate":
            self.file(path).pending.append((offset, None))
        elif what == "create":
            self.change_names((path, File()))
        elif what == "mkdir":
            self.change_names((path, None))
        elif what == "unlink":
            self.change_names((path, "gone"))
        elif what == "link":
            self.change_names((other, self.file(path)))
        elif what == "rename":
            file = self.names.get(path) or File()
            if os.path.dirname(path) == os.path.dirname(other):
                self.change_names((path, "gone"), (other, file))
            else:  # each folder holds its own half
                self.change_names((other, file))
                self.change_names((path, "gone"))
        elif what == "sync" and isinstance(self.names.get(path), File):
            self.names[path].sync()
        elif what == "sync":
            self.sync_folder(path)

    def image(self, folder, random=None):
        """Write a disk that may be there now; random None: only what is durable."""
        names = dict(self.durable_names)
        if random and self.pending:  # names become durable in their order
            for _, changes in self.pending[:random.randrange(len(self.pending) + 1)]:
                self.apply_names(names, changes)
        folder.mkdir()
        for path in sorted(names):
            at = folder / os.path.relpath(path, self.root)
            if not at.parent.is_dir():
                continue  # its folder is not there: it is lost
            if names[path] is None:
                at.mkdir(exist_ok=True)
            else:
                at.write_bytes(names[path].drawn(random) if random
                               else bytes(names[path].durable))
                at.chmod(0o600)

    def load(self):
        """What lies there now is on the disk."""
        for folder, folders, files in os.walk(self.root):
            for name in folders:
                self.names[os.path.join(folder, name)] = None
            for name in files:
                path = os.path.join(folder, name)
                self.names[path] = File()
                self.names[path].durable[:] = pathlib.Path(path).read_bytes()
        self.durable_names = dict(self.names)

    def live(self, path):
        file = self.names.get(path)
        return file.live() if file else b""


def records(trace):
    """(position behind it, what, path, offset, bytes, other path) of each record."""
    data = pathlib.Path(trace).read_bytes()
    at = 0
    while at < len(data):
        end = data.find(b"\n", at)
        if end < 0:
            return  # its writer was killed
        what, path, offset, size, other = data[at:end].decode().split("\t")
        at = end + 1
        piece = b""
        if what == "write":
            piece = data[at:at + int(size)]
            at += int(size)
        yield (at, what, os.path.normpath(path), int(offset), piece,
               os.path.normpath(other) if other else "")


# ---- what programs rely on -----------------------------------------------------------------


def journal_records(data):
    """The ends of the whole records of an attempt's journal (worker/daemon/journal.h)."""
    ends, at = [], 0
    while at + 16 <= len(data):
        size = 16 + sum(int.from_bytes(data[at + i:at + i + 4], "little") for i in (0, 4))
        body = data[at:at + 8] + data[at + 16:at + size]
        if at + size > len(data) or hashlib.sha256(body).digest()[:8] != data[at + 8:at + 16]:
            break
        at += size
        ends.append(at)
    return ends


def fields(data):
    """(number, value) of a message's fields of two kinds: numbers and bytes."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            value |= (data[at] & 127) << shift
            shift, at = shift + 7, at + 1
            if data[at - 1] < 128:
                return value
    while at < len(data):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
        elif key & 7 == 2:
            size = varint()
            yield key >> 3, data[at:at + size]
            at += size
        else:  # fixed
            at += 8 if key & 7 == 1 else 4


def is_metric(record):
    """Is the one event of this record a metric?  These alone are not waited for."""
    frame = record[16:16 + int.from_bytes(record[:4], "little")]
    report = next(value for number, value in fields(frame) if number > 2)
    event = next(value for number, value in fields(report) if number == 4)
    return next(fields(event))[0] == 1


def owed(path, data):
    """How much of a file the program relies on."""
    if os.path.basename(path) != "journal":
        return len(data)
    begin = end = 0
    for after in journal_records(data):
        if not is_metric(data[begin:after]):
            end = after
        begin = after
    return end


def kind_of(path):
    """One name for all syncs that the same line of the code makes."""
    path = re.sub(r"(^|/)\.([^/]*)\.\w{6}\.tmp$", r"\1\2 before its rename", path)
    path = re.sub(r"[0-9a-f]{64}", "HASH", path)
    path = re.sub(r"(?<=/)[0-9a-f]{2}(?=/|$)", "HH", path)
    return re.sub(r"\d+", "N", path)


class Reliance:
    """Goes through a record and looks at each file that a program says to rely on.

    A sync that is left out (`without` its kind) has to show: as something that is not on the disk."""

    def __init__(self, root, disk=None, without=None):
        self.root = str(root)
        self.disk = disk or Disk(root)
        self.without = without
        self.kinds = {}
        self.count = 0
        self.broken = []

    def take(self, what, path, offset, data, other):
        if what == "durable":
            self.look(path)
            return
        if what == "sync":
            kind = kind_of(os.path.relpath(path, self.root))
            self.kinds[kind] = self.kinds.get(kind, 0) + 1
            if kind == self.without:
                return
        self.disk.take(what, path, offset, data, other)

    def look(self, path):
        self.count += 1
        name, file = os.path.relpath(path, self.root), self.disk.names.get(path)
        live = file.live() if file else b""
        size = owed(path, live)
        if size == 0 and os.path.basename(path) == "journal":
            return  # nothing but metrics, or given up, which is told
        if file is None:
            self.broken.append(f"{name} is not there")
            return
        part, there = path, self.disk.durable_names
        while part != self.root and part in there:
            part = os.path.dirname(part)
        if part != self.root or there[path] is not file:
            self.broken.append(f"the name of {name} is not on the disk")
        if bytes(file.durable[:size]) != live[:size]:
            self.broken.append(f"{name} is not on the disk")


def rely(root, lives, spare):
    """Whether what was relied on was on the disk in each of the lives, (record, disk before it).

    Then each kind of sync that they made is left out in turn: what was relied on has to be missing,
    or the kind has to be one of `spare`, which nothing is lost by.  (findings, a note)"""
    def through(without=None):
        found = []
        for trace, disk in lives:
            one = Reliance(root, copy.deepcopy(disk), without)
            for _, what, path, offset, data, other in records(trace):
                one.take(what, path, offset, data, other)
            found.append(one)
        return found
    sound = through()
    findings = [f"relied on, but lost with the power: {text}" for one in sound
                for text in one.broken]
    kinds = sorted({kind for one in sound for kind in one.kinds})
    seen = [kind for kind in kinds if any(one.broken for one in through(kind))]
    findings += [f"nobody would see it if there were no sync of {kind}" for kind in kinds
                 if kind not in seen and kind not in spare]
    if not seen:
        findings.append("nothing was relied on")
    return findings, (f"{sum(one.count for one in sound)} times relied on files; seen if it is left "
                      f"out: a sync of {', '.join(seen)}")

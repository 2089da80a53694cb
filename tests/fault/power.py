"""Power loss: what a disk may hold when the power goes, from a record of what was written.

`shim.c` records each write, truncation, rename and sync of a program.  A Disk
replays the record.  What is durable of a file is what was written before the
last sync of it; a name (made, renamed, removed) is durable once its folder was
synced.  `image` writes down one possible disk: nothing more than that, or
besides a drawn subset of the rest, with writes torn at sectors, as a disk that
reorders would leave it.
"""
import os
import pathlib

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

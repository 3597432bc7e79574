"""The index of a folder of tensors: which key is in which shard, and when it was last used.

It is an SQLite file. SQLite lets one process write at a time and others read, looks keys up without reading the file,
and after a kill or a power failure the file is as after the last transaction that ended.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

FLOAT16, INT8 = NUMBER_FORMATS = ("float16", "int8")
"""Of the numbers in a store of documents: :mod:`scaledown.models.serving.disk.stored_numbers`."""
KEYS_AND_VALUES, MEMORY = "keys and values", "memory"
"""What a store of documents holds of them."""
FILE = "index.sqlite"
APPLICATION_ID = 0x5CA1ED
"""Says in the header of an SQLite file that it is an index of ours."""
FORMAT = 1
"""Of the tables and shards; raised when they change."""
PATIENCE_SECONDS = 60.0
"""The longest wait for another process that is writing, which takes it about a second."""
STAMP_SECONDS = 60.0
"""An entry that was used so recently gets no new stamp: then most reading writes nothing."""
TABLES = (
    "CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    # AUTOINCREMENT: the number of a shard that is gone is never given to another one.
    "CREATE TABLE shards (number INTEGER PRIMARY KEY AUTOINCREMENT, num_bytes INTEGER NOT NULL)",
    "CREATE TABLE entries (key BLOB PRIMARY KEY, shard INTEGER NOT NULL, num_bytes INTEGER NOT NULL, "
    "checksum INTEGER NOT NULL, used REAL NOT NULL) WITHOUT ROWID",
    "CREATE INDEX entries_by_shard ON entries (shard)",
    "CREATE INDEX entries_by_use ON entries (used)",
    "CREATE TABLE claims (key BLOB PRIMARY KEY) WITHOUT ROWID",
)


class StoreFault(ValueError):
    """A fault of a store that is in use: of its disk, its files, its limit, or the checkpoint that it belongs to.

    Whoever runs a command can mend it; whoever only asks a service cannot.
    """


class Entry(NamedTuple):
    """The place of what is stored under one key.

    Attributes:
        key: bytes.
        shard: the number of its shard.
        num_bytes: what it takes there, with its part of the header.
        checksum: CRC-32 of its tensors.
    """

    key: bytes
    shard: int
    num_bytes: int
    checksum: int


class ShardUse(NamedTuple):
    """The size of a shard's file, and of those of its entries that the index still names."""

    number: int
    num_bytes: int
    entry_bytes: int


def check_folder(folder: Path, flag: str = "") -> None:
    """Refuse a folder that can be neither a store nor become one; ``flag`` begins the message.

    Raises:
        ValueError: if it is a file, or has other files in it and no index.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{flag}{folder}: is a file; a store of documents is a folder")
    if folder.is_dir() and not (folder / FILE).exists() and any(folder.iterdir()):
        raise ValueError(f"{flag}{folder}: is no store of documents (no {FILE} in it), and not empty; give a store, or "
                         "a new folder")


class StoreIndex:
    """The index in ``folder``, made if there is none; threads of a process may share it.

    Raises:
        ValueError: if the folder is something else.
        StoreFault: of any method, if the file is damaged or cannot be written, or the disk is full.
    """

    def __init__(self, folder: Path) -> None:
        check_folder(folder)
        self.path = folder / FILE
        self._lock = threading.RLock()
        self._unstamped: set[bytes] = set()
        with self._faults():
            folder.mkdir(parents=True, exist_ok=True)
            # Transactions are begun by hand. Threads take turns by the lock.
            self._database = sqlite3.connect(self.path, timeout=PATIENCE_SECONDS, isolation_level=None,
                                             check_same_thread=False)
        try:
            self._create_or_check()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Change the index in one transaction, whole or not at all, while no other process writes.

        Raises:
            StoreFault: if it cannot be written, or another process has been writing for a minute.
        """
        with self._lock, self._faults():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                # A full disk may have ended the transaction already.
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    # Reading

    def setting(self, name: str) -> Any:
        """Return a setting of the store; None if it was not set."""
        rows = self._rows("SELECT value FROM settings WHERE name = ?", name)
        return json.loads(rows[0][0]) if rows else None

    def contents(self) -> str:
        """Return what the store holds of documents, ``KEYS_AND_VALUES`` or ``MEMORY``."""
        # Those of earlier versions do not say it: they hold keys and values.
        return self.setting("contents") or KEYS_AND_VALUES

    def find(self, keys: Iterable[bytes]) -> dict[bytes, Entry]:
        """Return the entries of those keys that are there."""
        found = {}
        for key in keys:
            for row in self._rows("SELECT key, shard, num_bytes, checksum FROM entries WHERE key = ?", key):
                found[key] = Entry(*row)
        return found

    def entries_of(self, shard: int) -> list[Entry]:
        """Return the entries of a shard."""
        rows = self._rows("SELECT key, shard, num_bytes, checksum FROM entries WHERE shard = ?", shard)
        return [Entry(*row) for row in rows]

    def num_entries(self) -> int:
        """Return the number of all entries."""
        return self._rows("SELECT count(*) FROM entries")[0][0]

    def num_bytes(self) -> int:
        """Return the size of all shards."""
        return self._rows("SELECT coalesce(sum(num_bytes), 0) FROM shards")[0][0]

    def shard_sizes(self) -> list[tuple[int, int]]:
        """Return the number and the size of each shard."""
        return self._rows("SELECT number, num_bytes FROM shards")

    def shards(self) -> list[ShardUse]:
        """Return what each shard takes, and what of it is still in use."""
        rows = self._rows("SELECT number, num_bytes, (SELECT coalesce(sum(num_bytes), 0) FROM entries "
                          "WHERE shard = number) FROM shards")
        return [ShardUse(*row) for row in rows]

    def least_used(self, num_bytes: int) -> tuple[list[Entry], float]:
        """Return as many of the entries used longest ago as take ``num_bytes``, and the latest of their times."""
        entries, total, latest = [], 0, 0.0
        with self._lock, self._faults():
            for *row, used in self._database.execute("SELECT key, shard, num_bytes, checksum, used FROM entries "
                                                     "ORDER BY used"):
                if total >= num_bytes:
                    break
                entries.append(Entry(*row))
                total, latest = total + entries[-1].num_bytes, used
        return entries, latest

    # Changes, within ``writing``

    def set(self, name: str, value: Any) -> None:
        """Change a setting of the store."""
        self._rows("INSERT OR REPLACE INTO settings VALUES (?, ?)", name, json.dumps(value))

    def new_shard(self) -> int:
        """Return the number of a shard that is new. If the transaction fails, the next one gets the same number."""
        self._rows("INSERT INTO shards (num_bytes) VALUES (0)")
        return self._rows("SELECT last_insert_rowid()")[0][0]

    def set_size(self, shard: int, num_bytes: int) -> None:
        """Note the size of a shard's file."""
        self._rows("UPDATE shards SET num_bytes = ? WHERE number = ?", num_bytes, shard)

    def add(self, entries: Sequence[Entry]) -> None:
        """Add new entries, used now; nobody claims them any more."""
        now = time.time()
        for entry in entries:
            self._rows("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", *entry, now)
            self._rows("DELETE FROM claims WHERE key = ?", entry.key)

    def move(self, entries: Iterable[Entry]) -> None:
        """Note that entries are in another shard now; when they were used stays."""
        for entry in entries:
            self._rows("UPDATE entries SET shard = ?, num_bytes = ? WHERE key = ?", entry.shard, entry.num_bytes,
                       entry.key)

    def remove(self, entries: Iterable[Entry]) -> None:
        """Forget entries."""
        for entry in entries:
            self._rows("DELETE FROM entries WHERE key = ?", entry.key)

    def remove_shard(self, number: int) -> None:
        """Forget a shard, and the entries that are still in it."""
        self._rows("DELETE FROM entries WHERE shard = ?", number)
        self._rows("DELETE FROM shards WHERE number = ?", number)

    # Changes of their own

    def claim(self, keys: Iterable[bytes]) -> list[bytes]:
        """Return those keys that are neither there nor claimed, and claim them.

        A claim only keeps several processes from doing the same work at once. Who is killed leaves claims behind, so
        what is claimed by others and is still not there at the end must be done all the same.
        """
        claimed, there = [], []
        with self.writing():
            for key in keys:
                if self._rows("SELECT 1 FROM entries WHERE key = ?", key):
                    there.append(key)
                    continue
                # No row comes back for a key that another process has claimed.
                new = self._rows("INSERT OR IGNORE INTO claims VALUES (?) RETURNING key", key)
                claimed += [key for key, in new]
            self._stamp(there)
        return claimed

    def stamp(self, keys: Iterable[bytes]) -> None:
        """Note that entries were used now; if another process is writing, with the next call: reading never waits."""
        with self._lock, self._faults():
            self._unstamped.update(keys)
            oldest = time.time() - STAMP_SECONDS
            stale = [key for key in self._unstamped
                     if self._rows("SELECT 1 FROM entries WHERE key = ? AND used <= ?", key, oldest)]
            self._unstamped = set(stale)
            if not stale:
                return

            # Whoever finds another process writing leaves it for the next time.
            self._database.execute("PRAGMA busy_timeout = 0")
            try:
                self._database.execute("BEGIN IMMEDIATE")
                self._stamp(stale)
                self._database.execute("COMMIT")
                self._unstamped.clear()
            except sqlite3.OperationalError as fault:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                if fault.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                    raise
            finally:
                self._database.execute(f"PRAGMA busy_timeout = {int(1000 * PATIENCE_SECONDS)}")

    # Parts

    def _stamp(self, keys: Iterable[bytes]) -> None:
        now = time.time()
        for key in keys:
            self._rows("UPDATE entries SET used = ? WHERE key = ? AND used <= ?", now, key, now - STAMP_SECONDS)

    def _rows(self, command: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run one command of SQL, and return the rows of its answer."""
        with self._lock, self._faults():
            return self._database.execute(command, values).fetchall()

    def _create_or_check(self) -> None:
        """Make the tables of a new index, or refuse a file that is none."""
        if self._is_empty():
            # Of two processes that make one at once the second finds that of the first.
            with self.writing():
                if self._is_empty():
                    for command in TABLES:
                        self._rows(command)
                    self._rows(f"PRAGMA application_id = {APPLICATION_ID}")
                    self._rows(f"PRAGMA user_version = {FORMAT}")

        # Only read here, so a store opens while another process writes.
        application_id = self._rows("PRAGMA application_id")[0][0]
        if application_id != APPLICATION_ID:
            raise ValueError(f"{self.path}: the database of another program; give another folder for the store")
        if (version := self._rows("PRAGMA user_version")[0][0]) != FORMAT:
            raise ValueError(f"{self.path}: a store of format {version}, which another version of ScaleDown wrote; "
                             f"this one reads format {FORMAT}: give another folder")

    def _is_empty(self) -> bool:
        """Return whether the file is new: no program's, and without tables."""
        return self._rows("PRAGMA application_id")[0][0] == 0 and not self._rows("SELECT 1 FROM sqlite_master")

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Turn the errors of SQLite and of the disk into messages."""
        try:
            yield
        except sqlite3.DatabaseError as fault:
            # The lowest byte is the kind of an error, the others say more of it.
            code = getattr(fault, "sqlite_errorcode", 0) & 0xFF
            if code == sqlite3.SQLITE_BUSY:
                raise StoreFault(f"{self.path}: another process has been writing for {PATIENCE_SECONDS:.0f} s; if none "
                                 "is, end the one that hangs, and run the same command again") from None
            if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise StoreFault(f"{self.path}: damaged, or no index of a store ({fault}); delete the folder "
                                 f"{self.path.parent}, and read the documents again") from None
            # A full disk, no permission, a disk that fails.
            raise StoreFault(f"{self.path}: cannot be read or written ({fault}); what is finished is kept: mend that, "
                             "and run the same command again") from None
        except OSError as fault:
            raise StoreFault(f"{self.path}: cannot be read or written ({fault.strerror or fault})") from None

"""Tensors by key in a folder: kills, several processes, the limit, damage.

``RELIABILITY=full python -m pytest tests/models/test_tensor_folder.py`` kills twenty times, otherwise twice.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from scaledown.models.serving.disk import shards, store_index, tensor_folder
from scaledown.models.serving.disk.tensor_folder import TensorFolder

ROOT = Path(__file__).resolve().parents[2]
NUM_KILLS = 20 if os.environ.get("RELIABILITY") == "full" else 2
NUM_NUMBERS = 500
WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, "tests/models")
import test_tensor_folder as own
from scaledown.models.serving.disk.tensor_folder import TensorFolder

folder = TensorFolder(Path(sys.argv[1]))
for start in range(0, int(sys.argv[2]), 5):
    keys = [own.key(number) for number in range(start, start + 5)]
    wanted = folder.index.claim(keys)
    if wanted:
        folder.put({key: own.tensors(key) for key in wanted})
        print(*(key.decode() for key in wanted), flush=True)
for start in range(0, int(sys.argv[2]), 5):
    keys = [own.key(number) for number in range(start, start + 5)]
    folder.put({key: own.tensors(key) for key in keys if key not in folder.index.find(keys)})
print("finished", flush=True)
"""


@pytest.fixture(autouse=True)
def exact_stamps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_index, "STAMP_SECONDS", 0.0)


def key(number: int) -> bytes:
    return b"key-%06d" % number


def tensors(key: bytes) -> dict[str, Tensor]:
    """What belongs to a key alone."""
    draw = torch.Generator().manual_seed(int(key[4:]))
    return {"numbers": torch.randint(0, 1000, (NUM_NUMBERS,), generator=draw).half(), "scales": torch.ones(3)}


def put(folder: TensorFolder, *numbers: int) -> None:
    folder.put({key(number): tensors(key(number)) for number in numbers})


def numbers_in(folder: TensorFolder, most: int = 1000) -> list[int]:
    return [number for number in range(most) if folder.index.find([key(number)])]


def assert_whole(folder: TensorFolder, *numbers: int) -> None:
    found = folder.get(map(key, numbers))
    assert found.keys() == set(map(key, numbers))
    for name, of_entry in found.items():
        for part, wanted in tensors(name).items():
            assert torch.equal(of_entry[part], wanted)


def files_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def writer(folder: Path, number: int) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", WRITER, str(folder), str(number)], cwd=ROOT, env=environment,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_what_was_put_is_found_by_another_process_and_after_opening_again(tmp_path: Path) -> None:
    one, other = TensorFolder(tmp_path / "new"), TensorFolder(tmp_path / "new")
    put(one, 1, 2)
    put(other, 2, 3)
    for folder in (one, other, TensorFolder(tmp_path / "new")):
        assert_whole(folder, 1, 2, 3)
        assert folder.index.num_entries() == 3 and not folder.get([key(4)])
    shard_files = [tmp_path / "new" / name for name in files_of(tmp_path / "new") if name.startswith("shard")]
    assert one.index.num_bytes() == sum(path.stat().st_size for path in shard_files) and len(shard_files) == 2


def test_drafts_of_a_killed_writer_are_removed(tmp_path: Path) -> None:
    put(TensorFolder(tmp_path / "store"), 1)
    for name in (".tmp1Dl34R", ".shard-00000009.safetensors.draft", "shard-00000009.safetensors"):
        (tmp_path / "store" / name).write_bytes(b"torn")
    (tmp_path / "store" / "notes.txt").write_text("a user's own")
    again = TensorFolder(tmp_path / "store")
    put(again, 2)
    assert_whole(again, 1, 2)
    left = {name for name in files_of(tmp_path / "store") if not name.startswith("shard")}
    assert left == {store_index.FILE, "notes.txt"}


def test_a_writer_that_is_killed_loses_nothing_that_it_reported(tmp_path: Path) -> None:
    """Killed at random moments; what is there is whole, and one that is left in peace finishes the work."""
    draw = random.Random(0)
    reported: set[bytes] = set()
    for _ in range(NUM_KILLS):
        process = writer(tmp_path / "store", 20_000)
        for _ in range(draw.randint(1, 10)):
            reported.update(process.stdout.readline().encode().split())
        time.sleep(draw.random() * 0.02)
        process.kill()
        rest, _ = process.communicate()
        assert process.returncode == -signal.SIGKILL
        # A last line may be torn.
        reported.update(rest[:rest.rfind("\n") + 1].encode().split())

    folder = TensorFolder(tmp_path / "store")
    there = numbers_in(folder, 5 * len(reported))
    assert len(reported) >= 5 * NUM_KILLS and set(map(key, there)) >= reported
    assert_whole(folder, *there)

    process = writer(tmp_path / "store", there[-1] + 100)
    out, err = process.communicate()
    assert out.endswith("finished\n"), err
    assert_whole(folder, *range(there[-1] + 100))
    named = {shards.path_of(tmp_path / "store", number).name for number, _ in folder.index.shard_sizes()}
    assert set(files_of(tmp_path / "store")) == named | {store_index.FILE}, "files that a kill has left"


def test_two_writers_at_once_finish_and_write_each_entry_once(tmp_path: Path) -> None:
    processes = [writer(tmp_path, 100), writer(tmp_path, 100)]
    reported = []
    for process in processes:
        out, err = process.communicate()
        assert out.endswith("finished\n"), err
        reported += out.split()
    assert sorted(reported) == sorted(["finished"] * 2 + [key(number).decode() for number in range(100)])
    folder = TensorFolder(tmp_path)
    assert_whole(folder, *range(100))
    assert sum(len(folder.index.entries_of(shard)) for shard, _ in folder.index.shard_sizes()) == 100


def test_beyond_the_limit_what_was_used_longest_ago_leaves(tmp_path: Path) -> None:
    size = shards.largest_size(tensors(key(0)))
    folder = TensorFolder(tmp_path)
    folder.limit(20 * size)
    reader = TensorFolder(tmp_path)
    put(folder, *range(10))
    put(folder, *range(10, 18))
    # These are used, and are kept though they were written first.
    before = reader.get(map(key, (0, 3)))
    put(folder, *range(20, 25))

    left = numbers_in(folder)
    assert {0, 3, *range(20, 25)} <= set(left) and not {1, 2, 4} & set(left)
    by_use = [1, 2, *range(4, 18), 0, 3, *range(20, 25)]
    assert sorted(by_use[-len(left):]) == left and len(left) >= 16, "some more leave than must, not all"
    assert_whole(folder, *left)
    for turn in range(30, 60):
        put(folder, turn)
        on_disk = sum(path.stat().st_size for path in tmp_path.glob("*.safetensors"))
        assert on_disk == folder.index.num_bytes() <= 20 * size
    assert 59 in numbers_in(folder) and 20 not in numbers_in(folder)

    # A reader with shards open that are gone now has what it had, and finds what was moved.
    assert torch.equal(before[key(0)]["numbers"], tensors(key(0))["numbers"])
    assert_whole(reader, *numbers_in(folder))


def test_entries_that_another_process_moves_are_found_in_their_new_place(tmp_path: Path,
                                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    folder, reader = TensorFolder(tmp_path), TensorFolder(tmp_path)
    put(folder, 1, 2)
    found = reader.index.find([key(1)])
    monkeypatch.setattr(tensor_folder, "MOST_SMALL", 1)
    put(folder, 3)
    assert not shards.path_of(tmp_path, found[key(1)].shard).exists()
    # As if the index had been read before the move.
    answers = iter([found, reader.index.find([key(1)])])
    monkeypatch.setattr(reader.index, "find", lambda keys: next(answers))
    assert_whole(reader, 1)


def test_many_small_shards_become_few(tmp_path: Path) -> None:
    folder = TensorFolder(tmp_path)
    for number in range(2 * tensor_folder.MOST_SMALL + 2):
        put(folder, number)
    assert len(list(tmp_path.glob("*.safetensors"))) <= tensor_folder.MOST_SMALL
    assert_whole(folder, *range(2 * tensor_folder.MOST_SMALL + 2))


def test_a_limit_that_is_lowered_holds_at_once_and_one_too_small_is_told(tmp_path: Path) -> None:
    folder = TensorFolder(tmp_path)
    for start in range(0, 40, 5):
        put(folder, *range(start, start + 5))
    size = folder.index.num_bytes()
    folder.limit(size // 2)
    assert folder.index.num_bytes() <= size // 2 and 39 in numbers_in(folder)
    assert TensorFolder(tmp_path).index.setting("max_bytes") == size // 2, "kept for those who open it later"
    folder.limit(1000)
    with pytest.raises(ValueError, match="limit of 1,000 bytes is too small.*--max_gib"):
        put(folder, 41)


def test_a_damaged_shard_is_named_and_deleting_it_mends_the_folder(tmp_path: Path) -> None:
    folder = TensorFolder(tmp_path)
    put(folder, 1, 2)
    put(folder, 3)
    path = shards.path_of(tmp_path, 1)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-100] ^= 1
    for damaged in (whole[:len(whole) // 2], b"", bytes(flipped), b"no tensors" * 100):
        path.unlink()
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"shard-00000001\.safetensors: damaged .*delete this file"):
            TensorFolder(tmp_path).get([key(1), key(2)])
        assert_whole(TensorFolder(tmp_path), 3)

    path.unlink()
    folder = TensorFolder(tmp_path)
    assert not folder.get([key(1), key(2)]) and numbers_in(folder) == [3]
    put(folder, 1, 2)
    assert_whole(folder, 1, 2, 3)


def test_a_full_disk_is_told_and_leaves_nothing_half(tmp_path: Path) -> None:
    folder = TensorFolder(tmp_path)
    put(folder, 1)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    # More than the index, less than the shard.
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, unlimited[1]))
    try:
        with pytest.raises(ValueError, match=r"shard-00000002\.safetensors: cannot be written"):
            put(folder, *range(10, 200))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert numbers_in(folder) == [1]
    put(folder, *range(10, 200))
    assert_whole(folder, 1, *range(10, 200))


def test_an_index_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    folder = TensorFolder(tmp_path)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / store_index.FILE).stat().st_size, unlimited[1]))
    try:
        with pytest.raises(ValueError, match=r"index\.sqlite: cannot be read or written"):
            folder.index.claim([b"%020d" % number for number in range(5000)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    put(folder, 1)
    assert_whole(folder, 1)


def test_what_is_no_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    with pytest.raises(ValueError, match="is a file"):
        TensorFolder(tmp_path / "file")
    with pytest.raises(ValueError, match="is no store of documents .*not empty"):
        TensorFolder(tmp_path)
    assert files_of(tmp_path) == ["file"]

    (tmp_path / "text").mkdir()
    (tmp_path / "text" / store_index.FILE).write_text("this is text, and no database" * 100)
    with pytest.raises(ValueError, match=r"index\.sqlite: damaged"):
        TensorFolder(tmp_path / "text")
    (tmp_path / "other").mkdir()
    with sqlite3.connect(tmp_path / "other" / store_index.FILE) as database:
        database.execute("CREATE TABLE notes (text TEXT)")
    with pytest.raises(ValueError, match="the database of another program"):
        TensorFolder(tmp_path / "other")
    TensorFolder(tmp_path / "newer")
    with sqlite3.connect(tmp_path / "newer" / store_index.FILE) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(ValueError, match="format 99"):
        TensorFolder(tmp_path / "newer")


def test_who_waits_for_a_writer_too_long_is_told_and_readers_read(tmp_path: Path,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_index, "PATIENCE_SECONDS", 0.05)
    one, other = TensorFolder(tmp_path), TensorFolder(tmp_path)
    put(one, 1)
    with one.index.writing():
        assert_whole(other, 1)
        assert_whole(TensorFolder(tmp_path), 1)
        with pytest.raises(ValueError, match="another process has been writing"):
            put(other, 2)
    put(other, 2)
    assert_whole(one, 1, 2)


def test_a_stamp_that_had_to_wait_is_made_later(tmp_path: Path) -> None:
    one, other = TensorFolder(tmp_path), TensorFolder(tmp_path)
    put(one, 1)
    put(one, 2)
    with one.index.writing():
        other.get([key(1)])
    assert other.index.least_used(1)[0][0].key == key(1)
    other.get([key(3)])
    assert other.index.least_used(1)[0][0].key == key(2)


def test_claims_keep_others_from_the_same_work(tmp_path: Path) -> None:
    one, other = TensorFolder(tmp_path).index, TensorFolder(tmp_path).index
    assert one.claim([b"a", b"b"]) == [b"a", b"b"]
    assert other.claim([b"b", b"c"]) == [b"c"] and one.claim([b"a"]) == []
    folder = TensorFolder(tmp_path)
    folder.put({b"key-000001": tensors(key(1))})
    assert other.claim([key(1), b"d"]) == [b"d"]

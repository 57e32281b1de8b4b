import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from whatwhere.core import InputError
from whatwhere.data.images import DataSet
from whatwhere.data.sources import Reading, load


@pytest.fixture
def root(tmp_path: Path, write: Callable, draw: Callable) -> Path:
    """Three images of class a, two of class b for testing, and a file that is none."""
    root = tmp_path / "root"
    for k in range(3):
        write(root / "train" / "a" / f"{k}.png", draw(k))
    for k in range(2):
        write(root / "test" / "b" / f"{k}.png", draw(10 + k))
    (root / "train" / "a" / "junk.png").write_bytes(b"junk")
    return root


def entries(cache: Path) -> set[Path]:
    return {path for path in cache.rglob("*") if path.is_file()}


def assert_equal(one: DataSet, other: DataSet) -> None:
    for a, b in ((one.train, other.train), (one.test, other.test)):
        assert a is not None
        assert b is not None
        np.testing.assert_array_equal(a.x, b.x)
        assert (a.names, a.classes, a.y.tolist()) == (b.names, b.classes, b.y.tolist())
        assert a.x.dtype == b.x.dtype
    assert one.skipped == other.skipped


def touch(path: Path) -> None:
    """Move the time of the last change on, as an edit does."""
    path.touch()
    os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns + 1_000_000))


def test_a_second_start_reads_no_image_and_returns_the_same(root, cache):
    first = load(root)
    assert {path.suffix for path in entries(cache)} == {".json", ".pixels"}
    before = [(path, path.stat().st_mtime_ns, path.read_bytes()) for path in entries(cache)]
    for file in root.rglob("*.png"):  # what time and size do not tell is not looked at
        times = file.stat()
        file.write_bytes(bytes(times.st_size))
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert_equal(load(root), first)
    assert before == [(path, path.stat().st_mtime_ns, path.read_bytes()) for path in entries(cache)]


def test_writing_to_the_images_leaves_the_cache_as_it_is(root):
    first = load(root)
    expected = first.train.x.copy()
    first.train.x[:] = 0
    second = load(root)
    np.testing.assert_array_equal(second.train.x, expected)
    second.train.x[:] = 0
    np.testing.assert_array_equal(load(root).train.x, expected)


@pytest.mark.parametrize("change", ["touched", "grown", "renamed", "removed", "added", "junk"])
def test_whatever_changes_in_the_folder_is_seen_and_takes_the_place_of_the_old(
    root, cache, write, draw, change
):
    load(root)
    before = entries(cache)
    file = root / "train" / "a" / "1.png"
    if change == "touched":
        touch(file)
    elif change == "grown":
        write(file, draw(99))
        file.write_bytes(file.read_bytes() + b"more")
    elif change == "renamed":
        file.rename(file.with_name("7.png"))
    elif change == "removed":
        file.unlink()
    elif change == "added":
        write(file.with_name("9.png"), draw(9))
    else:
        (root / "train" / "a" / "junk.png").write_bytes(b"other junk")
    assert_equal(load(root), load(root, reading=Reading(cache=False)))
    after = entries(cache)
    assert len(after) == len(before) == 2
    assert not after & before


def test_each_set_of_options_has_an_entry_of_its_own(root, cache):
    readings = [
        Reading(),
        Reading(image_size=3),
        Reading(image_size=3, fit="pad"),
        Reading(keep_depth=True),
    ]
    for _ in range(2):
        for reading in readings:
            uncached = Reading(reading.image_size, reading.fit, reading.keep_depth, cache=False)
            assert_equal(load(root, reading=reading), load(root, reading=uncached))
    assert len(entries(cache)) == 2 * len(readings)


def test_labels_are_no_part_of_an_entry(root, cache, tmp_path):
    load(root)
    before = entries(cache)
    (tmp_path / "labels.csv").write_text("file,label\ntrain/a/1.png,new\n")
    data = load(root, reading=Reading(labels=str(tmp_path / "labels.csv")))
    assert data.train.classes == ("b", "new")
    assert entries(cache) == before


def test_two_folders_of_the_same_files_have_two_entries(root, cache):
    twin = root.with_name("twin")
    root.rename(twin)
    first = load(twin)
    twin.rename(root)
    assert_equal(first, load(root))
    assert len(entries(cache)) == 4


def test_nothing_is_kept_where_that_is_asked(root, cache):
    load(root, reading=Reading(cache=False))
    assert not entries(cache)


@pytest.mark.parametrize("ending", [".json", ".pixels"])
@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "junk", "flipped", "folder", "longer"])
def test_a_damaged_entry_is_made_anew(root, cache, ending, damage):
    first = load(root)
    expected = first.train.x.copy()
    (path,) = (path for path in entries(cache) if path.suffix == ending)
    content = path.read_bytes()
    path.unlink()
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "cut":
        path.write_bytes(content[:-1])
    elif damage == "junk":
        path.write_bytes(b"\x80\x04N." * 50)
    elif damage == "flipped":
        flipped = content.replace(b"5", b"6") if ending == ".json" else bytes([content[0] ^ 1])
        path.write_bytes(flipped + content[len(flipped) :])
    elif damage == "folder":
        path.mkdir()
    elif damage == "longer":
        path.write_bytes(content + b"1")
    found = load(root)
    np.testing.assert_array_equal(found.train.x, expected)
    assert found.skipped == first.skipped


def test_what_a_killed_run_left_is_cleared_away(root, cache):
    load(root)
    (folder,) = {path.parent for path in entries(cache)}
    (folder / "left.tmp").write_bytes(b"half")
    touch(root / "test" / "b" / "1.png")
    load(root)
    assert len(entries(cache)) == 2


def test_a_cache_that_cannot_be_written_stops_no_one(root, cache, monkeypatch):
    expected = load(root, reading=Reading(cache=False))
    (cache / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache / "file"))
    assert_equal(load(root), expected)
    monkeypatch.setenv("XDG_CACHE_HOME", "~nobody-of-this-name/cache")
    assert_equal(load(root), expected)
    assert entries(cache) == {cache / "file"}


def test_a_disk_that_fills_up_leaves_nothing_behind(root, cache):
    expected = load(root, reading=Reading(cache=False))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, hard))
    try:
        found = load(root)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert_equal(found, expected)
    assert not entries(cache)


def test_the_users_own_cache_is_the_place_where_nothing_else_is_said(root, cache, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(cache))
    monkeypatch.setenv("WHATWHERE_DATA", str(cache / "data"))
    load(root)
    places = {path.relative_to(cache).parts[:3] for path in entries(cache)}
    assert places == {(".cache", "whatwhere", "decoded")}


def test_a_folder_that_cannot_be_used_leaves_no_entry(root, cache, write, draw):
    write(root / "train" / "a" / "large.png", draw(0, 9, 9))
    with pytest.raises(InputError, match="different sizes"):
        load(root)
    assert not entries(cache)

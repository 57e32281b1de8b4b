import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from whatwhere.core import InputError
from whatwhere.data.sources import NAMES, data_folder, load


@pytest.fixture
def own(tmp_path: Path) -> str:
    x = np.arange(40, dtype=np.uint8).reshape(40, 1, 1) + np.zeros((1, 2, 2), np.uint8)
    np.savez(tmp_path / "own.npz", x=x, y=np.arange(40) % 2)
    return str(tmp_path / "own.npz")


@pytest.mark.parametrize("name", NAMES)
def test_every_named_set_tells_its_facts(name):
    facts = NAMES[name].describe()
    assert facts["name"] == name
    assert all(facts.values())


def test_a_set_comes_by_a_download_by_hand_or_with_what_is_installed():
    told = {name: source.describe()["download"] for name, source in NAMES.items()}
    assert told["digits"] == "not needed"
    assert told["mnist"] == "11.6 MB"
    assert told["stl10"] == f"by hand, from {NAMES['stl10'].page}"
    assert not any(source.downloads and source.page for source in NAMES.values())


def test_named_sets_that_need_files_know_whether_they_are_there(tmp_path, tiny_mnist):
    assert NAMES["digits"].present(tmp_path / "nowhere")
    assert NAMES["mnist"].present(tiny_mnist)
    assert not NAMES["fashion_mnist"].present(tiny_mnist)


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("minst", "mnist"),
        ("Fashion-MNIST", "fashion_mnist"),
        ("cifar-10", "cifar10"),
        ("STL-10", "stl10"),
    ],
)
def test_a_slip_is_answered_with_the_nearest_name(wrong, near):
    with pytest.raises(InputError, match=rf"did you mean {near}\?.* an \.npz"):
        load(wrong)


def test_an_unknown_name_is_answered_with_all_that_is_accepted():
    with pytest.raises(InputError, match="no data is called zzz: give a named set") as error:
        load("zzz")
    assert all(name in str(error.value) for name in NAMES)


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "cat.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"cat\.png is a file, but no \.npz"):
        load(tmp_path / "cat.png")


def test_the_home_of_no_one_is_refused():
    with pytest.raises(InputError, match="~nobody-of-this-name/x: there is no such user"):
        load("~nobody-of-this-name/x")


def test_a_name_that_no_disk_could_hold_is_refused():
    with pytest.raises(InputError, match="cannot be read: File name too long"):
        load("x" * 5000)


def test_a_set_without_a_test_part_is_split_on_demand(own):
    assert load(own).test is None
    data = load(own, test_fraction=0.25)
    assert data.test is not None
    assert (len(data.train), len(data.test)) == (30, 10)
    assert np.bincount(data.test.y).tolist() == [5, 5]


def test_a_test_part_of_its_own_is_not_cut_again(tiny_mnist):
    with pytest.raises(InputError, match="has 10 test images of its own"):
        load("mnist", data_dir=tiny_mnist, test_fraction=0.2)


@pytest.mark.parametrize("data", ["digits", "nothing/of/the/kind"])
def test_a_wrong_fraction_or_split_is_refused_before_anything_is_read(data):
    split: Any = "validation"
    with pytest.raises(InputError, match="test fraction of 2"):
        load(data, test_fraction=2)
    with pytest.raises(InputError, match="give train, test or all"):
        load(data, split=split)


def test_one_part_or_both_can_be_asked_for(tiny_mnist):
    whole = load("mnist", data_dir=tiny_mnist)
    test = load("mnist", data_dir=tiny_mnist, split="test")
    both = load("mnist", data_dir=tiny_mnist, split="all")
    assert whole.test is not None
    assert test.test is None
    assert both.test is None
    assert test.train.fingerprint() == whole.test.fingerprint()
    np.testing.assert_array_equal(both.train.x, np.concatenate([whole.train.x, whole.test.x]))
    np.testing.assert_array_equal(both.train.y, np.concatenate([whole.train.y, whole.test.y]))


def test_a_test_part_that_is_not_there_cannot_be_asked_for(own):
    with pytest.raises(InputError, match=r"has no test part.*--test-fraction"):
        load(own, split="test")
    assert len(load(own, split="test", test_fraction=0.25).train) == 10
    assert len(load(own, split="all", test_fraction=0.25).train) == 40


def test_the_data_folder_is_the_option_then_the_environment_then_the_cache(monkeypatch):
    monkeypatch.setenv("WHATWHERE_DATA", "/from/environment")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    monkeypatch.setenv("HOME", "/home/me")
    assert data_folder("/from/option") == Path("/from/option")
    assert data_folder() == Path("/from/environment")
    monkeypatch.delenv("WHATWHERE_DATA")
    assert data_folder() == Path("/cache/whatwhere")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert data_folder() == Path("/home/me/.cache/whatwhere")
    assert data_folder("~/data") == Path("/home/me/data")


def test_the_environment_says_where_a_named_set_is(tiny_mnist, monkeypatch):
    monkeypatch.setenv("WHATWHERE_DATA", str(tiny_mnist))
    assert len(load("mnist").train) == 20


def test_the_table_of_contents_imports_nothing_heavy():
    code = (
        "import sys, whatwhere.data.sources;"
        "print({'torch', 'sklearn', 'PIL', 'matplotlib'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"

import csv
import io
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whatwhere.core import InputError
from whatwhere.data.labels import read_labels

FILES = ["a.png", "b.png", "cats/1.png", "cats/2.png"]
NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="/"),
    min_size=1,
    max_size=8,
).filter(lambda name: name.strip() and name not in (".", "..") and name[0] != "\ufeff")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all examples of a property."""
    return tmp_path_factory.mktemp("labels")


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str | bytes], dict[str, str | None]]:
    def write_and_read(content: str | bytes) -> dict[str, str | None]:
        content = content if isinstance(content, bytes) else content.encode()
        return read_bytes(tmp_path, content)

    return write_and_read


def read_bytes(folder: Path, content: bytes, files: list[str] = FILES) -> dict[str, str | None]:
    (folder / "labels.csv").write_bytes(content)
    return read_labels(folder / "labels.csv", files, "photos")


@given(
    labels=st.dictionaries(NAMES, NAMES | st.sampled_from(["", "-1"]), min_size=1, max_size=5),
    delimiter=st.sampled_from(",;\t"),
    ending=st.sampled_from(["\n", "\r\n", "\r"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    mark=st.booleans(),
    order=st.permutations(["file", "label", "note"]),
)
def test_whatever_a_spreadsheet_writes_is_read(
    folder, labels, delimiter, ending, quoting, mark, order
):
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, order, delimiter=delimiter, lineterminator=ending, quoting=quoting)
    table.writeheader()
    for file, label in labels.items():
        table.writerow({"file": file, "label": label, "note": 'a "note", of; any\tkind'})
    content = text.getvalue().encode("utf-8-sig" if mark else "utf-8")
    expected = {
        file: None if label.strip() in ("", "-1") else label.strip()
        for file, label in labels.items()
    }
    assert read_bytes(folder, content, list(labels)) == expected


@given(content=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_a_table_or_are_refused_in_one_line(folder, content):
    for start in (b"", b"file,label\n", b"\xef\xbb\xbffile;label\r\na.png;"):
        try:
            found = read_bytes(folder, start + content)
        except InputError as error:
            assert "labels.csv" in str(error)
            assert str(error).isprintable()
            assert len(str(error)) < 1000
        else:
            assert set(found) <= set(FILES)


def test_a_blank_label_and_minus_one_are_unlabeled_and_blank_lines_are_nothing(read):
    content = "file,label\n\na.png,\nb.png, -1 \n , \ncats/1.png\ncats/2.png, tabby \n"
    assert read(content) == {
        "a.png": None,
        "b.png": None,
        "cats/1.png": None,
        "cats/2.png": "tabby",
    }


def test_columns_may_stand_in_any_order_among_others_and_in_capitals(read):
    assert read("Label, note ,FILE\ncat,?,a.png\n") == {"a.png": "cat"}


def test_a_file_is_found_however_its_path_is_spelled(read):
    assert read("file,label\n./a.png,x\ncats//1.png,y\n b.png ,z\n") == {
        "a.png": "x",
        "cats/1.png": "y",
        "b.png": "z",
    }


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_may_be_spelled_in_the_way_of_another_system(tmp_path, forms):
    on_disk, in_table = (unicodedata.normalize(form, "café.png") for form in forms)
    content = f"file,label\n{in_table},x\n".encode()
    assert read_bytes(tmp_path, content, [on_disk]) == {on_disk: "x"}


def test_a_file_may_be_told_twice_if_both_say_the_same(read):
    assert read("file,label\na.png,cat\n./a.png,cat\n") == {"a.png": "cat"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "one column `file` and one column `label` in its first line, and it has nothing"),
        ("file,class\na.png,x\n", "and it has file, class"),
        ("image;label\na.png;x\n", "and it has image, label"),
        ("file,label,label\na.png,x,y\n", "and it has file, label, label"),
        ("a.png,cat\n", r"and it has a\.png, cat"),
        ("file,label\n", "names no file: write one in each row"),
        (
            "file,label\na.png,x\nc.png,x\nd.png,\ncats\\1.png,y\n",
            r"names 3 files that photos does not hold \(c\.png and cats\\1\.png\): `file` is rel",
        ),
        ("file,label\n../a.png,x\n", r"names 1 file that photos does not hold \(\.\./a\.png\)"),
        ("file,label\na.png,cat\na.png,dog\n", r"has two labels for a\.png, cat and dog"),
        ("file,label\na.png,cat\na.png,\n", r"has two labels for a\.png, cat and none"),
        ("file,label\na.png,cat,black\n", "line 2: 3 fields under 2 columns; put a field"),
        ("file,label\n,cat\n", "line 2: the label cat has no file"),
        ('file,label\na.png,"cat\nb.png,dog\n', "is no CSV that can be read"),
        ("file,label\na.png," + "x" * 200_000, "is no CSV that can be read .*field larger"),
        ("file,label\na.png,Käse\n".encode("latin-1"), "is not text in UTF-8: save it as CSV"),
        ("file,label\na.png,x\n".encode("utf-16"), "is not text in UTF-8: save it as CSV"),
        (b"PK\x03\x04\x14\0\x06\0\x08\0\0\0!\0\xff\xfe", "is not text in UTF-8: save it as CSV"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_cure(read, content, reason):
    with pytest.raises(InputError, match=reason) as error:
        read(content)
    assert "labels.csv" in str(error.value)
    assert str(error.value).isprintable()


def test_a_table_that_is_not_there_or_a_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"gone\.csv is not there: name a CSV with the columns"):
        read_labels(tmp_path / "gone.csv", FILES, "photos")
    with pytest.raises(InputError, match="is a folder: name a CSV with the columns"):
        read_labels(tmp_path, FILES, "photos")

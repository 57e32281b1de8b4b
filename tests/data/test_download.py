import errno
import gzip
import hashlib
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from whatwhere.core import InputError
from whatwhere.data.download import download
from whatwhere.data.sources import NAMES, load
from whatwhere.data.sources.named import Download, NamedSet

FILE = "train-images-idx3-ubyte.gz"


class Mirror(ThreadingHTTPServer):
    """A server of files on this machine, with manners that a test may spoil."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files = files
        self.asked: list[tuple[str, str | None]] = []  # (file, its Range header)
        self.knows_ranges = True
        self.status = 200
        self.encoding = ""
        self.halfway: Callable[[], object] | None = None  # called there; the connection is then cut
        self.host = f"127.0.0.1:{self.server_port}"
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        mirror = self.server
        assert isinstance(mirror, Mirror)
        name, asked = self.path.lstrip("/"), self.headers["Range"]
        mirror.asked.append((name, asked))
        if mirror.status != 200:
            self.send_error(mirror.status)
            return
        content = mirror.files[name]
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if not mirror.knows_ranges:
            start = 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if mirror.encoding:
            self.send_header("Content-Encoding", mirror.encoding)
        self.end_headers()
        rest = content[start:]
        if mirror.halfway is None:
            self.wfile.write(rest)
        else:
            self.wfile.write(rest[: len(rest) // 2])
            mirror.halfway()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(autouse=True)
def nothing_but_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = socket.getaddrinfo

    def resolve_here(host, *rest, **named):
        if host != "127.0.0.1":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(host, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", resolve_here)
    for variable in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)


@pytest.fixture
def files(tmp_path: Path, write_idx: Callable[[Path, np.ndarray], None]) -> dict[str, bytes]:
    """The four files of a small MNIST, the first of 150 kB."""
    rng = np.random.default_rng(0)
    for part, n in (("train", 200), ("t10k", 10)):
        x = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        write_idx(tmp_path / f"published/{part}-images-idx3-ubyte.gz", x)
        y = np.arange(n, dtype=np.uint8) % 10
        write_idx(tmp_path / f"published/{part}-labels-idx1-ubyte.gz", y)
    return {
        file.name: (tmp_path / "published" / file.name).read_bytes()
        for file in NAMES["mnist"].downloads
    }


@pytest.fixture
def mirror(files: dict[str, bytes]) -> Iterator[Mirror]:
    made = Mirror(files)
    yield made
    made.close()


@pytest.fixture
def second(files: dict[str, bytes]) -> Iterator[Mirror]:
    made = Mirror(files)
    yield made
    made.close()


@pytest.fixture
def closed() -> str:
    """A host that answers nothing."""
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{port.getsockname()[1]}"


@pytest.fixture
def publish(
    files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Download, ...]]:
    """Let the small MNIST be the published one, on the hosts that are given."""

    def on(*hosts: str) -> tuple[Download, ...]:
        downloads = tuple(published(name, files[name], hosts) for name in files)
        monkeypatch.setitem(NAMES, "mnist", replace(NAMES["mnist"], downloads=downloads))
        return downloads

    return on


def published(name: str, content: bytes, hosts: tuple[str, ...]) -> Download:
    sha256 = hashlib.sha256(content).hexdigest()
    return Download(name, len(content), sha256, tuple(f"http://{host}/{name}" for host in hosts))


def refused(root: Path) -> str:
    with pytest.raises(InputError) as error:
        download("mnist", root, ignore)
    line = str(error.value)
    assert "\n" not in line
    return line


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def ignore(line: str) -> None:
    assert "\n" not in line


@pytest.mark.parametrize("source", [s for s in NAMES.values() if s.downloads], ids=lambda s: s.name)
def test_every_file_has_a_hash_a_size_and_two_mirrors(source: NamedSet):
    for file in source.downloads:
        assert len(bytes.fromhex(file.sha256)) == 32
        assert file.n_bytes > 0
        assert len(set(file.urls)) == len(file.urls) >= 2
        assert all(url.endswith(f"/{file.name}") for url in file.urls)
    assert len({file.sha256 for file in source.downloads}) == len(source.downloads)


def test_what_was_published_is_fetched_and_read(tmp_path, files, mirror, publish):
    publish(mirror.host)
    told: list[str] = []
    assert download("mnist", tmp_path / "new/data", told.append) == tmp_path / "new/data/mnist"
    assert {p.name: p.read_bytes() for p in (tmp_path / "new/data/mnist").iterdir()} == files
    assert all(any(name in line for line in told) for name in files)
    mnist = load("mnist", data_dir=tmp_path / "new/data")
    assert mnist.test is not None
    assert (len(mnist.train), len(mnist.test)) == (200, 10)


@pytest.mark.parametrize("knows_ranges", [True, False])
@pytest.mark.parametrize("kept", [0, 1, 70_000, -1, None])
def test_a_part_of_any_length_ends_as_the_whole_file(
    tmp_path, files, mirror, publish, knows_ranges, kept
):
    publish(mirror.host)
    mirror.knows_ranges = knows_ranges
    part = tmp_path / "mnist" / f"{FILE}.part"
    part.parent.mkdir()
    part.write_bytes(files[FILE][:kept])
    n_kept = part.stat().st_size
    download("mnist", tmp_path, ignore)
    assert {path.name: path.read_bytes() for path in part.parent.iterdir()} == files
    asked = [ask for name, ask in mirror.asked if name == FILE]
    if kept is None:  # it had only not been given its name
        assert asked == []
    else:
        assert asked == [f"bytes={n_kept}-" if n_kept else None]


def test_a_second_call_asks_for_nothing_and_says_so(tmp_path, mirror, publish):
    publish(mirror.host)
    download("mnist", tmp_path, ignore)
    mirror.asked.clear()
    told: list[str] = []
    assert download("mnist", tmp_path, told.append) == tmp_path / "mnist"
    assert mirror.asked == []
    assert len(told) == 1
    assert "already" in told[0]


def test_only_what_is_missing_or_damaged_is_fetched_again(tmp_path, files, mirror, publish):
    publish(mirror.host)
    folder = download("mnist", tmp_path, ignore)
    mirror.asked.clear()
    content = bytearray(files[FILE])
    content[4] ^= 1  # the time of packing, which no reader looks at
    (folder / FILE).write_bytes(content)
    assert len(load("mnist", data_dir=tmp_path).train) == 200
    download("mnist", tmp_path, ignore)
    assert [name for name, _ in mirror.asked] == [FILE]
    missing = "t10k-labels-idx1-ubyte.gz"
    (folder / missing).unlink()
    download("mnist", tmp_path, ignore)
    assert [name for name, _ in mirror.asked] == [FILE, missing]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files


def test_a_file_that_broke_off_goes_on_in_the_next_call(tmp_path, files, mirror, publish):
    publish(mirror.host)
    mirror.halfway = lambda: None
    line = refused(tmp_path)
    assert f"{FILE} could not be fetched: {mirror.host} broke off" in line
    assert f"whatwhere data download mnist --data-dir {tmp_path}" in line
    assert names(tmp_path / "mnist") == [f"{FILE}.part"]
    kept = (tmp_path / "mnist" / f"{FILE}.part").read_bytes()
    assert 0 < len(kept) < len(files[FILE])
    assert files[FILE].startswith(kept)
    mirror.halfway = None
    mirror.asked.clear()
    download("mnist", tmp_path, ignore)
    assert mirror.asked[0] == (FILE, f"bytes={len(kept)}-")
    assert {path.name: path.read_bytes() for path in (tmp_path / "mnist").iterdir()} == files


def test_a_mirror_that_falls_silent_is_left(tmp_path, files, mirror, second, publish, monkeypatch):
    publish(mirror.host, second.host)
    monkeypatch.setattr("whatwhere.data.download.PATIENCE", (5, 0.2))
    done = threading.Event()
    waited: list[bool] = []  # whether it was called off before ten seconds were over
    mirror.halfway = lambda: waited.append(done.wait(10))
    told: list[str] = []
    download("mnist", tmp_path, told.append)
    assert waited == []
    done.set()
    assert told[1].startswith(f"{mirror.host} broke off")
    assert second.asked[0] == (FILE, "bytes=65536-")
    assert (tmp_path / "mnist" / FILE).read_bytes() == files[FILE]


def test_a_file_that_broke_off_goes_on_at_the_next_mirror(tmp_path, files, mirror, second, publish):
    publish(mirror.host, second.host)
    mirror.halfway = lambda: None
    told: list[str] = []
    download("mnist", tmp_path, told.append)
    assert second.asked[0] == (FILE, "bytes=65536-")
    assert (tmp_path / "mnist" / FILE).read_bytes() == files[FILE]
    assert any(line.startswith(f"{mirror.host} broke off") for line in told)
    assert any(line.startswith("the last ") and line.endswith(second.host) for line in told)


def test_the_next_mirror_is_asked_where_one_has_other_bytes(
    tmp_path, files, mirror, second, publish
):
    publish(mirror.host, second.host)
    mirror.files = {name: bytes(len(content)) for name, content in files.items()}
    download("mnist", tmp_path, ignore)
    assert {path.name: path.read_bytes() for path in (tmp_path / "mnist").iterdir()} == files
    assert {ask for _, ask in second.asked} == {None}  # none goes on from wrong bytes


@pytest.mark.parametrize("wrong", [b"", b"<html>Log in first</html>", bytes(400_000)])
def test_other_bytes_than_the_published_are_removed(tmp_path, mirror, publish, wrong):
    publish(mirror.host)
    mirror.files = dict.fromkeys(mirror.files, wrong)
    assert f"{mirror.host} sent other bytes (wrong SHA-256), which were removed" in refused(
        tmp_path
    )
    assert names(tmp_path / "mnist") == []


def test_a_part_of_something_else_is_found_out(tmp_path, files, mirror, publish):
    publish(mirror.host)
    part = tmp_path / "mnist" / f"{FILE}.part"
    part.parent.mkdir()
    part.write_bytes(bytes(1000))
    assert "wrong SHA-256" in refused(tmp_path)
    assert not part.exists()
    part.write_bytes(bytes(10 * len(files[FILE])))
    download("mnist", tmp_path, ignore)
    assert (tmp_path / "mnist" / FILE).read_bytes() == files[FILE]


def test_a_damaged_file_stays_until_the_whole_one_is_there(tmp_path, files, mirror, publish):
    publish(mirror.host)
    folder = download("mnist", tmp_path, ignore)
    (folder / FILE).write_bytes(b"damaged")
    mirror.halfway = lambda: None
    refused(tmp_path)
    assert (folder / FILE).read_bytes() == b"damaged"


@pytest.mark.parametrize(("status", "words"), [(404, "Not Found"), (503, "Service Unavailable")])
def test_a_mirror_that_refuses_is_quoted(tmp_path, mirror, publish, status, words):
    publish(mirror.host)
    part = tmp_path / "mnist" / f"{FILE}.part"
    part.parent.mkdir()
    part.write_bytes(b"kept")
    mirror.status = status
    assert f"{mirror.host} answered {status} {words}" in refused(tmp_path)
    assert part.read_bytes() == b"kept"


def test_a_host_that_does_not_answer_is_named_with_every_file_and_its_place(
    tmp_path, closed, publish
):
    downloads = publish(closed)
    line = refused(tmp_path)
    assert f"{closed} could not be reached" in line
    assert "Nothing was lost" in line
    assert f"whatwhere data download mnist --data-dir {tmp_path}" in line
    assert f"into {tmp_path / 'mnist'} by hand" in line
    assert all(file.urls[0] in line for file in downloads)
    assert names(tmp_path / "mnist") == []


@pytest.mark.parametrize("name", [name for name, source in NAMES.items() if source.downloads])
def test_without_a_network_every_mirror_is_named(tmp_path, name):
    with pytest.raises(InputError) as error:
        download(name, tmp_path, ignore)
    for url in NAMES[name].downloads[0].urls:
        assert f"{url.split('/')[2]} could not be reached" in str(error.value)


def test_a_server_that_speaks_no_tls_is_told_from_one_that_is_not_there(
    tmp_path, mirror, publish, monkeypatch
):
    downloads = publish(mirror.host)
    safe = tuple(
        replace(file, urls=(file.urls[0].replace("http:", "https:"),)) for file in downloads
    )
    monkeypatch.setitem(NAMES, "mnist", replace(NAMES["mnist"], downloads=safe))
    assert f"{mirror.host} could not be reached safely" in refused(tmp_path)


def test_an_archive_stays_packed_where_a_server_calls_it_a_packed_page(
    tmp_path, files, mirror, publish
):
    publish(mirror.host)
    mirror.encoding = "gzip"
    download("mnist", tmp_path, ignore)
    assert (tmp_path / "mnist" / FILE).read_bytes() == files[FILE]


def test_ctrl_c_keeps_what_has_arrived(tmp_path, files, mirror, publish):
    publish(mirror.host)
    part = tmp_path / "mnist" / f"{FILE}.part"
    me = threading.main_thread().ident
    assert me is not None

    def interrupt() -> None:
        until = time.monotonic() + 10
        while not (part.is_file() and part.stat().st_size) and time.monotonic() < until:
            time.sleep(0.001)
        signal.pthread_kill(me, signal.SIGINT)

    mirror.halfway = interrupt
    with pytest.raises(KeyboardInterrupt):
        download("mnist", tmp_path, ignore)
    assert part.stat().st_size > 0
    assert files[FILE].startswith(part.read_bytes())


def test_a_folder_that_cannot_be_made_is_named(tmp_path, mirror, publish):
    publish(mirror.host)
    (tmp_path / "file").write_text("")
    line = refused(tmp_path / "file")
    assert str(tmp_path / "file/mnist") in line
    assert "--data-dir" in line


def test_a_full_disk_is_told_and_what_has_arrived_is_kept(tmp_path, mirror, publish, monkeypatch):
    publish(mirror.host)

    def full(self, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    monkeypatch.setattr(Path, "replace", full)
    line = refused(tmp_path)
    assert f"({os.strerror(errno.ENOSPC)}); make room there" in line
    assert names(tmp_path / "mnist") == [f"{FILE}.part"]


def test_an_unknown_name_is_answered_with_the_nearest(tmp_path):
    with pytest.raises(InputError, match="did you mean mnist"):
        download("minst", tmp_path, ignore)


def test_digits_need_no_download(tmp_path):
    told: list[str] = []
    download("digits", tmp_path / "new", told.append)
    assert told == ["digits needs no download: comes with scikit-learn"]
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", [name for name, source in NAMES.items() if source.page])
def test_a_set_that_is_fetched_by_hand_names_its_page_and_its_files(tmp_path, monkeypatch, name):
    source, told = NAMES[name], []
    with pytest.raises(InputError) as error:
        download(name, tmp_path, told.append)
    line = str(error.value)
    assert "\n" not in line
    assert f"{name} has no download: fetch it by hand from {source.page};" in line
    assert line.endswith(f"what is read in {tmp_path} is {source.files}")
    with pytest.raises(InputError) as error:
        load(name, data_dir=tmp_path)
    line = str(error.value)
    assert "\n" not in line
    assert f"; fetch it by hand from {source.page} (" in line
    assert "whatwhere data download" not in line
    assert told == []
    monkeypatch.setitem(NAMES, name, replace(source, present=lambda folder: True))
    assert download(name, tmp_path, told.append) == tmp_path
    assert told == [f"{name} is in {tmp_path} already; nothing was fetched"]


def test_without_pooch_the_way_to_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(InputError, match=r"pip install 'whatwhere\[download\]'"):
        download("mnist", tmp_path, ignore)


def test_a_set_that_is_there_unpacked_is_left_alone(tmp_path, files, mirror, publish, tiny_mnist):
    publish(mirror.host)
    shutil.rmtree(tmp_path / "published")
    for path in (tiny_mnist / "mnist").iterdir():
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    told: list[str] = []
    assert download("mnist", tiny_mnist, told.append) == tiny_mnist / "mnist"
    assert mirror.asked == []
    assert "nothing was fetched" in told[0]


def test_a_damaged_file_that_is_read_before_the_published_one_is_named(tmp_path, mirror, publish):
    publish(mirror.host)
    (tmp_path / "mnist").mkdir()
    shadow = tmp_path / "mnist" / FILE.removesuffix(".gz")
    shadow.write_bytes(b"damaged")
    for _ in range(2):
        line = refused(tmp_path)
        assert str(shadow) in line
        assert "move it away" in line
    shadow.unlink()
    download("mnist", tmp_path, ignore)
    assert len(load("mnist", data_dir=tmp_path).train) == 200


def test_the_archive_of_cifar10_completes_batches_of_which_some_are_missing(
    tmp_path, mirror, monkeypatch
):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for number in range(6):
            name = f"data_batch_{number}.bin" if number else "test_batch.bin"
            entry = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            entry.size = 3073
            archive.addfile(entry, io.BytesIO(bytes([number]) + bytes(3072)))
    name = NAMES["cifar10"].downloads[0].name
    mirror.files = {name: packed.getvalue()}
    downloads = (published(name, packed.getvalue(), (mirror.host,)),)
    monkeypatch.setitem(NAMES, "cifar10", replace(NAMES["cifar10"], downloads=downloads))
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10/test_batch.bin").write_bytes(bytes(3073))
    with pytest.raises(InputError, match=r"data_batch_1\.bin .* whatwhere data download cifar10"):
        load("cifar10", data_dir=tmp_path)
    download("cifar10", tmp_path, ignore)
    assert load("cifar10", data_dir=tmp_path).train.y.tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("name", [name for name, source in NAMES.items() if source.downloads])
def test_a_set_that_is_absent_names_the_exact_command(tmp_path, monkeypatch, name):
    monkeypatch.delenv("WHATWHERE_DATA", raising=False)
    elsewhere = tmp_path / "my data"
    with pytest.raises(InputError) as error:
        load(name, data_dir=elsewhere)
    assert f": whatwhere data download {name} --data-dir '{elsewhere}' (" in str(error.value)
    monkeypatch.setenv("WHATWHERE_DATA", str(elsewhere))
    for place in (None, elsewhere):
        with pytest.raises(InputError) as error:
            load(name, data_dir=place)
        assert f": whatwhere data download {name} (" in str(error.value)


def test_a_bar_is_drawn_on_a_terminal_and_nowhere_else(
    tmp_path, mirror, publish, monkeypatch, capsys
):
    publish(mirror.host)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    download("mnist", tmp_path / "plain")
    plain = capsys.readouterr()
    assert plain.out == ""
    assert plain.err.count("\n") == 4
    assert "\x1b" not in plain.err
    monkeypatch.setenv("FORCE_COLOR", "1")
    download("mnist", tmp_path / "drawn")
    drawn = capsys.readouterr()
    assert drawn.out == ""
    kilobytes = f"{len(mirror.files[FILE]) / 1000:.1f}"
    assert f"{kilobytes}/{kilobytes} kB" in drawn.err
    assert (tmp_path / "drawn/mnist" / FILE).read_bytes() == mirror.files[FILE]


def test_the_downloader_is_imported_only_when_something_is_fetched():
    code = (
        "import sys, whatwhere.data.download;"
        "sys.exit(', '.join({'pooch', 'requests', 'torch'} & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.data
def test_the_real_files_of_mnist_have_the_published_hashes_and_survive_a_cut(
    tmp_path, data_dir, mirror, monkeypatch
):
    downloads = tuple(
        replace(file, urls=(f"http://{mirror.host}/{file.name}",))
        for file in NAMES["mnist"].downloads
    )
    mirror.files = {file.name: (data_dir / "mnist" / file.name).read_bytes() for file in downloads}
    monkeypatch.setitem(NAMES, "mnist", replace(NAMES["mnist"], downloads=downloads))
    mirror.halfway = lambda: None
    refused(tmp_path)
    mirror.halfway = None
    download("mnist", tmp_path, ignore)
    assert [file.n_bytes for file in downloads] == [
        len(content) for content in mirror.files.values()
    ]
    there, expected = (load("mnist", data_dir=folder) for folder in (tmp_path, data_dir))
    assert there.train.fingerprint() == expected.train.fingerprint()

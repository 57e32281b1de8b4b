import io
import os
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for each test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def draw() -> Callable[..., np.ndarray]:
    return drawn


@pytest.fixture
def write() -> Callable[..., None]:
    return written


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, dict[str, str]]:
    """A folder with one good image and a corpus of what else may lie there, with the reasons."""
    root = tmp_path / "hostile"
    written(root / "good.png", drawn(0))
    reasons = {}
    for file, (content, reason) in corpus().items():
        (root / file).write_bytes(content)
        reasons[file] = reason
    os.mkfifo(root / "pipe.png")
    reasons["pipe.png"] = "neither a file nor a folder"
    # The path of a socket must be short, so it is made from within.
    with monkeypatch.context() as inside, socket.socket(socket.AF_UNIX) as plug:
        inside.chdir(root)
        plug.bind("socket.png")
    reasons["socket.png"] = "neither a file nor a folder"
    for link, target, reason in (
        ("nowhere.png", "gone.png", "a link to nothing"),
        ("circle.png", "circle.png", "cannot be read: "),
        ("loop", ".", "a link to a folder that is read already"),
        ("above", "..", "a link to a folder that is read already"),
        ("endless.png", "/dev/zero", "neither a file nor a folder"),
    ):
        (root / link).symlink_to(target)
        reasons[link] = reason
    for name, shown in ((b"caf\xe9.png", "caf\\udce9.png"), (b"two\nlines.png", "two\\nlines.png")):
        Path(os.fsdecode(os.fsencode(root) + b"/" + name)).write_bytes(b"")
        reasons[shown] = "its name is not UTF-8, or holds control characters: rename it"
    return root, reasons


def drawn(seed: int, height: int = 5, width: int = 7, channels: int = 0) -> np.ndarray:
    """Random bytes (H, W), or (H, W, C) where there are channels."""
    shape = (height, width, channels) if channels else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def written(path: Path, pixels: np.ndarray, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def corpus() -> dict[str, tuple[bytes, str]]:
    """Bytes that are no readable image, and how the reason against each begins."""
    files = {
        "empty.png": (b"", "empty: there is no byte in it"),
        "text.png": (b"not an image\n", "no image of a form that is read (PNG, JPEG, WebP"),
        "notes.txt": (b"to do\n", "no image of a form that is read (PNG, JPEG, WebP"),
        "zeros.jpg": (bytes(5000), "no image of a form"),
        "phone.heic": (b"\0\0\0\x18ftypheic" + bytes(99), "HEIC is not read: save it as PNG"),
        "moving.png": (packed(drawn(1), "GIF"), "GIF is not read: save it as PNG or JPEG"),
        "vast.png": (png_header(60_000, 60_000), "more than 89,478,485 pixels: save it smaller"),
        "large.png": (png_header(10_000, 10_000), "more than 89,478,485 pixels: save it smaller"),
        "chatty.png": (chatty_png(), "cannot be read: Decompressed data too large"),
        "header.png": (png_header(0, 0), "damaged, or of a kind that is not read"),
        "five.tif": (
            tiff_of_five_channels(),
            "damaged, or of a kind that is not read (more than 4",
        ),
        "wide.tif": (packed(np.full((4, 4), 70_000, np.int32), "TIFF"), "whole numbers from 70000"),
        "negative.tif": (packed(np.full((4, 4), -1, np.int32), "TIFF"), "whole numbers from -1"),
        "bright.tif": (packed(np.full((4, 4), 2, np.float32), "TIFF"), "floats from 2 to 2: save"),
        "hole.tif": (packed(np.full((4, 4), np.nan, np.float32), "TIFF"), "floats from nan to nan"),
    }
    for form in ("PNG", "JPEG", "WEBP", "BMP", "TIFF"):
        content = packed(drawn(2, 64, 64, 3), form)
        files[f"cut.{form.lower()}"] = (content[: len(content) // 2], "")
        files[f"stub.{form.lower()}"] = (content[:20], "")
    good = bytearray(packed(drawn(3), "PNG"))
    good[good.index(b"IDAT") + 12] ^= 0xFF
    files["checksum.png"] = (bytes(good), "cannot be read: ")
    return files


def packed(pixels: np.ndarray, form: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises so many grey pixels and holds hardly any."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    pixels = png_chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + png_chunk(b"IEND", b"")


def chatty_png() -> bytes:
    """A PNG whose comment is a hundred megabytes, well compressed."""
    comment = zlib.compressobj()
    content = b"".join(comment.compress(bytes(1_000_000)) for _ in range(100)) + comment.flush()
    good = packed(drawn(4), "PNG")
    place = good.index(b"IDAT") - 4
    return good[:place] + png_chunk(b"zTXt", b"Comment\0\0" + content) + good[place:]


def tiff_of_five_channels() -> bytes:
    """One pixel of five bytes."""
    tags = [
        (256, 3, 1, 1),  # width
        (257, 3, 1, 1),  # height
        (258, 3, 1, 8),  # bits
        (262, 3, 1, 1),  # black is 0
        (273, 4, 1, 200),  # place of the pixels
        (277, 3, 1, 5),  # channels
        (278, 3, 1, 1),  # rows of a strip
        (279, 4, 1, 5),  # bytes of a strip
    ]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return head.ljust(200, b"\0") + bytes(5)

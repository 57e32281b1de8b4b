import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from whatwhere.data.sources.files import Unreadable, read_header, read_pixels

SIDES = st.tuples(st.integers(1, 9), st.integers(1, 9))
LOSSLESS = [("png", {}), ("bmp", {}), ("tif", {}), ("tif", {"compression": "tiff_lzw"})]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all examples of a property."""
    return tmp_path_factory.mktemp("files")


def pixels(path: Path, *, size: int | None = None, keep_depth: bool = False) -> np.ndarray:
    """Read pixels, after a look whether the header has told their shape."""
    header = read_header(path)
    found = read_pixels(path, size, "crop", keep_depth)
    sides = (header.height, header.width) if size is None else (size, size)
    assert found.shape == (3 if header.color else 1, *sides)
    assert found.dtype == (np.float32 if keep_depth else np.uint8)
    return found


@given(
    x=SIDES.flatmap(lambda sides: hnp.arrays(np.uint8, sides))
    | SIDES.flatmap(lambda sides: hnp.arrays(np.uint8, (*sides, 3))),
    form=st.sampled_from(LOSSLESS),
)
def test_whatever_is_saved_without_loss_is_read(folder, x, form):
    ending, options = form
    path = folder / f"any.{ending}"
    Image.fromarray(x).save(path, **options)
    expected = x[np.newaxis] if x.ndim == 2 else x.transpose(2, 0, 1)
    np.testing.assert_array_equal(pixels(path), expected)
    floats = pixels(path, keep_depth=True)
    np.testing.assert_array_equal(floats, expected / np.float32(255))


@given(x=SIDES.flatmap(lambda sides: hnp.arrays(np.uint16, sides)), ending=st.sampled_from("pt"))
def test_16_bits_are_rounded_to_8_or_kept(folder, x, ending):
    path = folder / {"p": "deep.png", "t": "deep.tif"}[ending]
    Image.fromarray(x).save(path)
    np.testing.assert_array_equal(pixels(path)[0], np.rint(x / 257))
    kept = pixels(path, keep_depth=True)[0]
    np.testing.assert_array_equal(np.rint(kept * 65535.0), x)
    assert ((kept >= 0) & (kept <= 1)).all()


@given(x=SIDES.flatmap(lambda s: hnp.arrays(np.float32, s, elements=st.floats(0, 1, width=32))))
def test_floats_in_0_to_1_are_taken_as_they_are(folder, x):
    path = folder / "float.tif"
    Image.fromarray(x).save(path)
    np.testing.assert_array_equal(pixels(path, keep_depth=True)[0], x)
    np.testing.assert_array_equal(pixels(path)[0], np.rint(x * 255))


@given(content=st.binary(max_size=300), start=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"BM"]))
def test_any_bytes_are_an_image_or_have_a_reason_in_one_line(folder, content, start):
    check_read_or_reason(folder, start + content)


@given(data=st.data(), form=st.sampled_from(["PNG", "JPEG", "WEBP", "BMP", "TIFF"]))
def test_a_damaged_image_is_read_or_has_a_reason_in_one_line(folder, data, form):
    file = io.BytesIO()
    x = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(x).save(file, form)
    content = bytearray(file.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    del content[data.draw(st.integers(0, len(content))) :]
    check_read_or_reason(folder, bytes(content))


def check_read_or_reason(folder: Path, content: bytes) -> None:
    path = folder / "damaged"
    path.write_bytes(content)
    try:
        read_header(path)
        read_pixels(path, 8, "pad", False)
    except Unreadable as error:
        assert str(error).isprintable()
        assert len(str(error)) < 200


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white_and_what_is_half_so_is_mixed_with_it(tmp_path, mode):
    x = np.array([[[10, 10, 10, 0], [10, 10, 10, 255], [100, 100, 100, 128]]], np.uint8)
    image = Image.fromarray(x)
    image = image.quantize(4) if mode == "P" else image.convert(mode)
    image.save(tmp_path / "clear.png")
    found = pixels(tmp_path / "clear.png")
    assert len(found) == (3 if mode == "RGBA" else 1)
    np.testing.assert_allclose(found[0, 0], [255, 10, 100 * 128 / 255 + 255 * 127 / 255], atol=1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_grey_level_that_a_png_declares_transparent_is_white(tmp_path, dtype):
    x = np.array([[3, 7], [7, 9]], dtype)
    Image.fromarray(x).save(tmp_path / "clear.png", transparency=7)
    top = np.iinfo(dtype).max
    found = pixels(tmp_path / "clear.png", keep_depth=True)
    np.testing.assert_allclose(found[0], [[3 / top, 1], [1, 9 / top]], rtol=1e-6)


def test_a_palette_of_greys_is_grey_and_one_with_a_color_is_color(tmp_path, write, draw):
    image = Image.fromarray(draw(0))
    image.convert("P").save(tmp_path / "grey.png")
    np.testing.assert_array_equal(pixels(tmp_path / "grey.png"), draw(0)[np.newaxis])
    x = draw(0, channels=3)[:3, :3]
    Image.fromarray(x).quantize(256).save(tmp_path / "color.png")
    np.testing.assert_array_equal(pixels(tmp_path / "color.png"), x.transpose(2, 0, 1))


@pytest.mark.parametrize("mode", ["1", "CMYK", "LAB"])
@pytest.mark.parametrize("ending", ["tif", "png"])
def test_other_modes_are_read_as_pillow_converts_them(tmp_path, draw, mode, ending):
    mode = "1" if ending == "png" else mode
    source = Image.fromarray(draw(0, channels=0 if mode == "1" else 3))
    image = Image.frombytes("LAB", source.size, source.tobytes()) if mode == "LAB" else source
    image = image.convert(mode)
    image.save(tmp_path / f"x.{ending}")
    expected = np.atleast_3d(np.asarray(image.convert("L" if mode == "1" else "RGB")))
    np.testing.assert_array_equal(pixels(tmp_path / f"x.{ending}"), expected.transpose(2, 0, 1))


@pytest.mark.parametrize("ending", ["jpg", "webp"])
def test_a_photograph_is_read_nearly_as_it_was(tmp_path, ending):
    slope = np.linspace(0, 255, 64).astype(np.uint8)
    x = np.stack(np.broadcast_arrays(slope, slope[:, np.newaxis], slope[::-1]), axis=-1)
    Image.fromarray(x).save(tmp_path / f"x.{ending}", quality=95)
    found = pixels(tmp_path / f"x.{ending}").transpose(1, 2, 0)
    assert np.abs(found.astype(int) - x).mean() < 4


@pytest.mark.parametrize("ending", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_upright(tmp_path, draw, orientation, ending):
    upright = draw(0, channels=3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    as_stored = stored(upright, orientation)
    Image.fromarray(as_stored).save(tmp_path / f"x.{ending}", exif=exif, lossless=True)
    np.testing.assert_array_equal(pixels(tmp_path / f"x.{ending}"), upright.transpose(2, 0, 1))


def stored(x: np.ndarray, orientation: int) -> np.ndarray:
    """Return the rows and columns that a camera stores, from the definition in the EXIF standard.

    The 0th row is the visual top, top, bottom, bottom, left, right, right, left; the 0th column the
    visual left, right, right, left, top, top, bottom, bottom.
    """
    if orientation >= 5:
        x = x.transpose(1, 0, 2)
    rows_from_the_end = orientation in (3, 4, 6, 7) if orientation < 5 else orientation in (6, 7)
    columns_from_the_end = orientation in (2, 3) if orientation < 5 else orientation in (7, 8)
    return x[:: -1 if rows_from_the_end else 1, :: -1 if columns_from_the_end else 1].copy()


def test_an_orientation_behind_the_pixels_of_a_png_counts_too(tmp_path, draw):
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.fromarray(draw(0)).save(file, "PNG")
    kind, notes = b"eXIf", exif.tobytes()[6:]
    late = (
        struct.pack(">I", len(notes)) + kind + notes + struct.pack(">I", zlib.crc32(kind + notes))
    )
    content = file.getvalue()
    end = content.index(b"IEND") - 4
    (tmp_path / "x.png").write_bytes(content[:end] + late + content[end:])
    np.testing.assert_array_equal(pixels(tmp_path / "x.png")[0], np.rot90(draw(0), -1))


def test_notes_of_a_camera_that_are_damaged_are_left_alone(tmp_path, draw):
    Image.fromarray(draw(0)).save(tmp_path / "x.png", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    np.testing.assert_array_equal(pixels(tmp_path / "x.png")[0], draw(0))


@pytest.mark.parametrize("form", ["TIFF", "PNG", "WEBP", "MPO"])
def test_of_several_pictures_the_first_is_read(tmp_path, form):
    first, second = Image.new("RGB", (7, 5), "navy"), Image.new("RGB", (7, 5), "white")
    first.save(tmp_path / "x", form, save_all=True, append_images=[second])
    expected = np.broadcast_to(np.array([0, 0, 128]).reshape(3, 1, 1), (3, 5, 7))
    np.testing.assert_allclose(pixels(tmp_path / "x"), expected, atol=4)


def test_a_form_is_told_by_the_content_and_not_by_the_ending(tmp_path, draw):
    Image.fromarray(draw(0)).save(tmp_path / "x.txt", "PNG")
    np.testing.assert_array_equal(pixels(tmp_path / "x.txt")[0], draw(0))


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_a_photograph_that_is_decoded_smaller_is_fitted_as_from_all_its_pixels(tmp_path, draw, fit):
    Image.fromarray(draw(0, 15, 20)).resize((901, 703)).save(tmp_path / "x.jpg", quality=95)
    Image.open(tmp_path / "x.jpg").save(tmp_path / "x.png")
    jpeg, png = (
        read_pixels(tmp_path / f"x.{ending}", 40, fit, False).astype(int)
        for ending in ("jpg", "png")
    )
    assert png.std() > 20
    assert np.abs(jpeg - png).mean() < png.std() / 15

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whatwhere.core import InputError
from whatwhere.nn.architecture import LARGEST_WINDOW, Conv, Dense, Pool, parse

SIDES = st.integers(1, 99)
LAYERS = st.tuples(
    st.lists(st.builds(Conv, SIDES, SIDES) | st.builds(Pool, SIDES), max_size=5),
    st.lists(st.builds(Dense, st.integers(1, 5000)), max_size=3),
).map(lambda parts: tuple(parts[0] + parts[1]))


@given(LAYERS.filter(bool))
def test_layers_written_out_are_read_back(layers):
    assert parse("-".join(str(layer) for layer in layers)) == layers


def test_the_notation_of_the_paper_is_read():
    assert parse("(64)5c-2p-(64)3c-(64)3c-2p-(128)3c-10fc", n_classes=10) == (
        Conv(64, 5),
        Pool(2),
        Conv(64, 3),
        Conv(64, 3),
        Pool(2),
        Conv(128, 3),
    )


def test_spaces_do_not_matter():
    assert parse(" (4)3c - 2p ") == parse("(4)3c-2p")


def test_a_last_layer_as_wide_as_there_are_classes_is_the_class_layer():
    assert parse("2p-100fc-10fc", n_classes=10) == (Pool(2), Dense(100))


def test_only_one_such_layer_is_the_class_layer():
    assert parse("2p-10fc-10fc", n_classes=10) == (Pool(2), Dense(10))


@pytest.mark.parametrize("n_classes", [0, 9, 100])
def test_a_last_layer_of_another_width_is_a_hidden_one(n_classes: int):
    assert parse("2p-10fc", n_classes=n_classes) == (Pool(2), Dense(10))


def test_without_classes_no_layer_is_the_class_layer():
    assert parse("(4)3c-7fc") == (Conv(4, 3), Dense(7))


@pytest.mark.parametrize(
    ("architecture", "piece"),
    [
        ("(32)5c-2q", "2q"),
        ("32x5c", "32x5c"),
        ("(32)5c-", ""),
        ("", ""),
        ("(4)c", "(4)c"),
        ("(4)3c--2p", ""),
        ("(-4)3c", "("),
        ("(4)3.5c", "(4)3.5c"),
        ("(4)3", "(4)3"),
        ("fc", "fc"),
    ],
)
def test_a_piece_that_cannot_be_read_is_quoted(architecture: str, piece: str):
    with pytest.raises(InputError) as error:
        parse(architecture)
    assert repr(architecture) in str(error.value)
    assert f"cannot read {piece!r};" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("architecture", ["100fc-(4)3c", "2p-7fc-2p"])
def test_a_piece_that_stands_after_a_dense_layer_is_quoted(architecture: str):
    piece = architecture.rsplit("-", 1)[1]
    with pytest.raises(InputError, match="stands after a dense layer") as error:
        parse(architecture)
    assert repr(piece) in str(error.value)


@pytest.mark.parametrize("piece", ["(0)3c", "(4)0c", "0p", "0fc", f"{LARGEST_WINDOW + 1}p"])
def test_a_size_out_of_range_is_quoted(piece: str):
    with pytest.raises(InputError, match="out of range") as error:
        parse(f"(4)3c-{piece}")
    assert repr(piece) in str(error.value)


def test_the_largest_window_can_still_be_told():
    assert parse(f"{LARGEST_WINDOW}p") == (Pool(LARGEST_WINDOW),)
    assert LARGEST_WINDOW**2 <= 2**15


def test_a_last_pool_is_not_taken_for_the_class_layer():
    assert parse("(4)3c-2p", n_classes=2) == (Conv(4, 3), Pool(2))
    assert parse("(4)3c-2p-2fc", n_classes=2) == (Conv(4, 3), Pool(2))
    assert isinstance(parse("(4)3c-2p", n_classes=2)[-1], Pool)

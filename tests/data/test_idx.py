import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from spai_lab.data.idx import read_idx


@given(array=arrays.arrays(np.uint8, arrays.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=6)))
def test_round_trip(to_idx, array):
    read = read_idx(to_idx(array))
    assert read.shape == array.shape
    assert (read == array).all()


@given(st.binary(max_size=64))
def test_any_bytes_are_read_or_refused(content):
    try:
        array = read_idx(content)
    except ValueError:
        return
    assert content.endswith(array.tobytes())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no IDX file: it begins with nothing"),
        (b"\x1f\x8b\x08\x00", "is no IDX file: it begins with 1f 8b 08 00"),
        (b"\0\0\x0d\x01\0\0\0\x01\0\0\0\0", "holds IDX type 0x0d; accepted is 0x08"),
        (b"\0\0\x08\x03\0\0\0\x01", "is truncated: it ends within its 3 dimensions"),
        (b"\0\0\x08\x01\0\0\0\x03\x07\x07", r"holds 2 values; its dimensions \(3,\) ask for 3"),
        (b"\0\0\x08\x01\0\0\0\x01\x07\x07", r"holds 2 values; its dimensions \(1,\) ask for 1"),
        (b"\0\0\x08\x02\xff\xff\xff\xff\xff\xff\xff\xff", "ask for 18,446,744,065,119,617,025"),
    ],
)
def test_bad_content_is_explained(content, message):
    with pytest.raises(ValueError, match=message):
        read_idx(content)

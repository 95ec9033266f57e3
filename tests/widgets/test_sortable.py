"""The sortable table is whole without its script, and sorts by what cells mean."""

import html
import math
import re

import numpy as np
import pandas as pd
import pytest

from spai_lab.widgets.sortable import order, orders, shown, sortable_table

FRAME = pd.DataFrame(
    {
        "attack": ["PGD", "a | b", "<script>alert(1)</script>", "ZOO"],
        "result": ["98.3 %", "9.5 %", "failed", ""],
        "time": ["60 ms a product", "2.2 s a batch", "19 µs a gate", ""],
        "n": pd.array([1000, 64, None, 100], dtype="Int64"),
        "share": [0.25, math.nan, 1.0, 0.123456],
    }
)


def cells(page: str) -> list[list[str]]:
    """The table as a browser without scripts shows it."""
    rows = re.findall(r"<tr>(.*?)</tr>", page, flags=re.DOTALL)
    return [[html.unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)] for row in rows]


def test_the_table_is_whole_without_its_script():
    page = sortable_table(FRAME, caption="Four attacks.").html
    assert cells(re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)) == [
        list(FRAME.columns),
        ["PGD", "98.3 %", "60 ms a product", "1,000", "0.25"],
        ["a | b", "9.5 %", "2.2 s a batch", "64", ""],
        ["<script>alert(1)</script>", "failed", "19 µs a gate", "", "1"],
        ["ZOO", "", "", "100", "0.1235"],
    ]
    assert "<button" not in page and "<input" not in page  # dead without a script


def test_markdown_has_every_row_and_keeps_its_columns():
    plain = repr(sortable_table(FRAME, caption="Four attacks."))
    lines = plain.splitlines()
    assert lines[0] == "Four attacks." and len(lines) == 4 + len(FRAME)
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines[2:]} == {len(FRAME.columns) + 1}
    assert r"a \| b" in plain


def test_what_cells_say_cannot_become_markup_and_nothing_is_fetched():
    page = sortable_table(FRAME, caption='"Quoted" <b>').html
    assert page.count("<script>") == page.count("</script>") == 1
    assert "alert(1)" in page and "<b>" not in page and "&quot;Quoted&quot;" in page
    assert not re.search(r"https?:|src=|@import|url\(|eval|innerHTML", page)


def test_heads_and_rows_are_named_for_screen_readers():
    page = sortable_table(FRAME, caption="Four attacks.").html
    assert page.count('scope="col"') == len(FRAME.columns)
    assert page.count('scope="row"') == len(FRAME)
    assert "<caption><span>Four attacks.</span></caption>" in page and 'role="region" tabindex="0"' in page
    assert 'data-lm-suppress-shortcuts="true"' in page  # keys that scroll the box are not JupyterLab's


def test_numbers_are_ordered_by_what_their_units_say():
    *found, last = orders(FRAME["time"].tolist())
    assert [unit for unit, _ in found] == ["s"] * 3 and last is None
    assert [number for _, number in found] == pytest.approx([0.06, 2.2, 19e-6], rel=1e-12)
    assert orders(["544 B", "328 kB a ciphertext", "1.5 GB"]) == [("B", 544), ("B", 328_000), ("B", 1.5e9)]
    assert orders(FRAME["result"].tolist()) == [("%", 98.3), ("%", 9.5), None, None]
    assert orders(["1,000", "64"]) == [("", 1000), ("", 64)]


def test_other_units_are_kept_apart():
    mixed = ["1.2 %", "1.21 L2", "18.7 points", "1 to 2 L2", "-3 to 4 %"]
    assert orders(mixed) == [("%", 1.2), ("L2", 1.21), ("points", 18.7), ("L2", 1), ("%", -3)]


def test_a_column_with_other_digits_is_ordered_by_words():
    assert orders(["64-32-10", "LeNet 5"]) == [None, None]
    assert orders(["BadNets", "STRIP"]) == [None, None]


@pytest.mark.parametrize("value", [None, math.nan, pd.NA, np.nan, ""])
def test_what_is_missing_is_empty_and_has_no_order(value):
    assert shown(value) == "" and order(value) is None


def test_numpy_numbers_and_truths_are_shown():
    assert [shown(value) for value in (np.int64(5000), np.float32(0.5), True)] == ["5,000", "0.5", "True"]
    assert order(True) is None and order(np.float32(0.5)) == ("", 0.5)


def test_a_frame_without_rows_is_an_empty_table():
    shown_table = sortable_table(pd.DataFrame({"attack": []}), caption="None.")
    assert cells(shown_table.html) == [["attack"]]
    assert repr(shown_table).endswith("| --- |")


@pytest.mark.parametrize("frame", [None, [[1]], pd.DataFrame(), {"a": [1]}])
def test_what_is_no_frame_is_refused(refuses, frame):
    refuses(sortable_table, {"frame": frame, "caption": "A table."}, "frame", "at least one column")


@pytest.mark.parametrize("caption", ["", "  ", None, 3])
def test_a_table_needs_a_caption(refuses, caption):
    refuses(sortable_table, {"frame": FRAME, "caption": caption}, "caption", "a sentence")

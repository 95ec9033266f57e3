"""Numbers look the same whatever the reader's language: 0.5 is one half, 1,000 one thousand; and that is said."""

import locale
import os
import re
import subprocess
import sys

import pandas as pd
import pytest

from spai_lab.style import SETTINGS, figure, styled
from spai_lab.widgets.sortable import shown
from spai_lab.workbook import read

# What would follow the machine's language: Python's "n" format, its locale module, and their likes in JavaScript.
FOLLOWS = re.compile(
    r"^\s*(import locale|from locale)|:[,.\d]*n\}|toLocale\w*String|Intl\.(Number|DateTime)Format", re.MULTILINE
)
GERMAN = {"LC_ALL": "de_DE.UTF-8", "LANG": "de_DE.UTF-8", "LANGUAGE": "de"}


@pytest.fixture
def comma():
    """A locale that writes one half as 0,5, where this machine has one; what matplotlib would do is tested in any."""
    before = locale.setlocale(locale.LC_ALL)
    for name in ("de_DE.UTF-8", "fr_FR.UTF-8", "de_DE", "fr_FR", "German", "French"):
        try:
            locale.setlocale(locale.LC_ALL, name)
            break
        except locale.Error:
            continue
    yield
    locale.setlocale(locale.LC_ALL, before)


def test_tables_and_axes_keep_point_and_comma(comma):
    assert (shown(1000), shown(0.5), shown(93.75)) == ("1,000", "0.5", "93.75")
    fig, axes = figure()
    axes[0, 0].set(xlim=(0, 1), ylim=(0, 1))
    fig.canvas.draw()
    said = [label.get_text() for label in axes[0, 0].get_xticklabels()]
    assert "0.2" in said and not any("," in text for text in said)


def test_a_user_s_own_matplotlib_may_follow_the_locale_and_ours_does_not():
    import matplotlib as mpl

    with mpl.rc_context({"axes.formatter.use_locale": True}), styled():
        assert mpl.rcParams["axes.formatter.use_locale"] is False
    assert SETTINGS["axes.formatter.use_locale"] is False


def test_nothing_in_the_package_follows_the_machine_s_language(root):
    files = [path for kind in ("*.py", "*.js", "*.j2", "*.html") for path in (root / "spai_lab").rglob(kind)]
    assert len(files) > 100
    for path in files:
        found = FOLLOWS.search(path.read_text(encoding="utf-8"))
        assert found is None, f"{path}: {found}"
        assert not re.search(r"\bIntText\(|\b(Bounded)?FloatText\(", path.read_text(encoding="utf-8")), (
            "a browser's own comma"
        )
    assert FOLLOWS.search('f"{x:n}"') and FOLLOWS.search("(5).toLocaleString()") and not FOLLOWS.search('f"{n}"')


def test_a_caption_says_the_same_under_a_german_environment():
    script = (
        "from spai_lab.widgets.sortable import sortable_table\nimport pandas as pd, locale\n"
        "try: locale.setlocale(locale.LC_ALL, '')\nexcept locale.Error: pass\n"
        "print(sortable_table(pd.DataFrame({'n': [1000], 'eps': [0.5]}), caption='c'))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **GERMAN}, capture_output=True, encoding="utf-8"
    )
    assert answer.returncode == 0, answer.stderr
    assert "| 1,000 | 0.5 |" in answer.stdout
    assert shown(pd.NA) == ""


def test_the_reader_is_told_once_how_numbers_are_written(root):
    text = "".join("".join(cell["source"]) for cell in read(root / "notebooks" / "00_start_here.ipynb")["cells"])
    assert "0.5 is one half, 1,000 is one thousand" in text

"""The link checker finds what is broken, and nothing else."""

import pytest

from spai_lab.book.links import broken_links

PAGE = "<!doctype html><html><head>{head}</head><body id='top'>{body}</body></html>"


@pytest.fixture
def book(tmp_path):
    """A book of two pages; `book(head, body)` gives the faults of the first."""
    (tmp_path / "other page.html").write_text(PAGE.format(head="", body="<h2 id='é'>x</h2>"), encoding="utf-8")
    (tmp_path / "x.png").write_bytes(b"")

    def faults(body="", head="", css=None):
        (tmp_path / "page.html").write_text(PAGE.format(head=head, body=body), encoding="utf-8")
        if css is not None:
            (tmp_path / "x.css").write_text(css, encoding="utf-8")
        return broken_links(tmp_path)

    return faults


@pytest.mark.parametrize(
    "body",
    [
        "<a href='other%20page.html'>x</a>",
        "<a href='other%20page.html#%C3%A9'>x</a>",
        "<a href='#top'>x</a><a href='page.html#top'>y</a><a href=''>z</a>",
        "<img src='x.png?v=1'><img src='data:image/png;base64,AA=='>",
        "<a href='https://arxiv.org/abs/1807.11655#x'>x</a>",
    ],
)
def test_what_is_right_passes(book, body):
    assert book(body) == []


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("<a href='gone.html'>x</a>", "leads to no file"),
        ("<a href='02_x.ipynb'>x</a>", "leads to no file"),
        ("<a href='../page.html'>x</a>", "leads to no file"),
        ("<a href='/etc/hosts'>x</a>", "leads to no file"),
        ("<a href='#nowhere'>x</a>", "leads to no anchor"),
        ("<a href='other%20page.html#e'>x</a>", "leads to no anchor"),
        ("<img src='y.png'>", "leads to no file"),
        ("<img src='https://a.org/x.png'>", "loaded from another host"),
        ("<script src='//a.org/x.js'></script>", "loaded from another host"),
        ("<a href='http://a.org'>x</a>", "not a well-formed https address"),
        ("<a href='https://nodot'>x</a>", "not a well-formed https address"),
        ("<a href='javascript:alert(1)'>x</a>", "not a well-formed https address"),
        ("<a href='file:///home/x'>x</a>", "not a well-formed https address"),
    ],
)
def test_what_is_wrong_is_named_with_its_page(book, body, words):
    [fault] = book(body)
    assert fault.startswith("page.html: ") and words in fault


def test_style_sheets_may_not_load_from_elsewhere_either(book):
    assert book(css="a{background:url(x.png)} b{background:url('data:image/png;base64,AA==')}") == []
    assert (
        len(book(css="@import 'https://a.org/x.css'; a{background:url(//a.org/y.png)} b{background:url(z.png)}")) == 3
    )
    assert len(book(head="<link rel='stylesheet' href='https://a.org/x.css'>", css="")) == 1

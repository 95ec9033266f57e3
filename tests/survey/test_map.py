"""The survey's map: every row is on it, filled where it runs, and no link is dead."""

import base64
from html.parser import HTMLParser

import pytest

from spai_lab.survey.map import map_html, survey_map
from spai_lab.survey.poster import map_figure
from spai_lab.survey.taxonomy import ACCESS, CHAPTERS, load_taxonomy

ROWS = load_taxonomy()


class Page(HTMLParser):
    """The chips, links and options of the map, read by the standard library's parser."""

    def __init__(self, html):
        super().__init__()
        self.chips, self.links, self.options, self.tags = [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        if "data-status" in attributes:
            self.chips.append(attributes)
        if tag == "a":
            self.links.append(attributes["href"])
        if tag == "option":
            self.options.append(attributes.get("value"))


@pytest.fixture
def chapters(tmp_path):
    for name in ("00_start_here", "02_gradient_attacks"):
        (tmp_path / f"{name}.ipynb").touch()
    return tmp_path


def test_every_row_is_a_chip_that_says_whether_it_runs():
    chips = Page(map_html(ROWS, frozenset())).chips
    assert sorted((c["data-status"], c["data-chapter"]) for c in chips) == sorted(
        (row.status, row.notebook[:2]) for row in ROWS
    )


def test_only_chapters_that_are_there_are_linked(chapters):
    html = survey_map(chapters)._repr_mimebundle_()[0]["text/html"]
    links = Page(html).links
    assert set(links) == {"00_start_here.ipynb", "02_gradient_attacks.ipynb"}
    assert len(links) == 2 + sum(row.notebook == "02_gradient_attacks" for row in ROWS)


def test_a_row_without_its_chapter_says_so(chapters):
    html = survey_map(chapters)._repr_mimebundle_()[0]["text/html"]
    assert html.count("chapter 02<") == sum(row.notebook == "02_gradient_attacks" for row in ROWS)
    assert "chapter 02, not yet" not in html and "chapter 14, not yet" in html


def test_there_is_a_filter_for_every_chapter_and_everybody_who_acts():
    options = Page(map_html(ROWS, frozenset())).options
    assert {f"chapter-{chapter[:2]}" for chapter in CHAPTERS} <= set(options)
    actors = {word for part in ("evasion", "poisoning", "defenses against evasion", "threats") for word in ACCESS[part]}
    assert {f"who-{word}" for word in actors} <= set(options)


def test_the_page_needs_no_script_and_no_network():
    html = map_html(ROWS, frozenset(CHAPTERS))
    tags = Page(html).tags
    assert not {"script", "img", "link", "iframe"} & set(tags)
    assert "http" not in html and "onclick" not in html


def test_the_bundle_has_a_picture_with_alt_text(chapters):
    data, metadata = survey_map(chapters)._repr_mimebundle_()
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    running = sum(row.runnable for row in ROWS)
    assert f"{running} of the survey's 97 rows run today" in metadata["image/png"]["alt"]


def test_the_picture_shows_every_row_inside_its_borders():
    figure = map_figure(ROWS)
    figure.canvas.draw()
    texts = figure.axes[0].texts
    labels = sorted(text.get_text() for text in texts if text.get_text()[0] in "●○" and "      " not in text.get_text())
    assert labels == sorted(f"{'●' if row.runnable else '○'} {row.name.split(' (')[0]}" for row in ROWS)
    width, height = figure.canvas.get_width_height()
    boxes = [text.get_window_extent() for text in texts]
    assert all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height for box in boxes)

"""The survey's map: every row of the taxonomy on one poster, filled where it runs today, linked to its chapter."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from spai_lab.style import COLORS, to_png
from spai_lab.survey.poster import map_figure
from spai_lab.survey.regions import LAYOUT, MARKS, MEANING, Region, shade, short_name, summary
from spai_lab.survey.taxonomy import CHAPTERS, Row, load_taxonomy, rows_of
from spai_lab.workbook import notebooks_folder

# JupyterLab acts on arrow keys itself unless the focused element carries this.
OWN_KEYS = 'data-lm-suppress-shortcuts="true"'

WHO = {
    "white-box": "white-box attacker",
    "gray-box": "gray-box attacker",
    "black-box": "black-box attacker",
    "user": "a user attacks",
    "silo": "an information silo attacks",
    "provider": "a service provider attacks",
    "defender": "the defender",
}
CSS = """
.spai-map{display:block;font-size:15px;line-height:1.35;color:#1a1a1a;background:#fff;padding:12px;max-width:1500px}
.spai-map-head{display:flex;flex-wrap:wrap;gap:8px 28px;align-items:center;justify-content:space-between}
.spai-map-head strong{font-size:21px}
.spai-map-filters{display:flex;flex-wrap:wrap;gap:6px 14px;align-items:center}
.spai-map-filters select,.spai-map-filters input{font-size:15px;padding:3px 6px;accent-color:#333}
.spai-map-line{display:grid;grid-auto-flow:column;grid-auto-columns:minmax(0,1fr);gap:12px;margin-bottom:12px}
@media (max-width:700px){.spai-map-line{grid-auto-flow:row}}
.spai-map.spai-map p{margin:0}
.spai-map.spai-map .spai-map-half{font-size:19px;margin:14px 0 6px}
.spai-map-region{position:relative;background:var(--tint);border-radius:10px;padding:10px 12px}
.spai-map-title{font-size:17px;display:flex;justify-content:space-between}
.spai-map-region small{font-weight:normal;font-size:14px}
.spai-map.spai-map .spai-map-sentence{margin:2px 0 8px;color:#333}
.spai-map.spai-map ul{list-style:none;margin:0;padding:0;display:flex;flex-wrap:wrap;gap:5px}
.spai-map li{margin:0;transition:opacity .2s}
.spai-map-chip{display:block;padding:2px 8px;font-size:14px;cursor:default;
border:1.5px solid var(--edge);border-radius:8px}
.spai-map a.spai-map-chip{cursor:pointer}
.spai-map-planned,.spai-map a.spai-map-planned{background:#fff;color:#222;text-decoration:none}
.spai-map-runnable,.spai-map a.spai-map-runnable{background:var(--fill);color:#fff;text-decoration:none;font-weight:600}
.spai-map-chip:hover,.spai-map-chip:focus-visible{outline:3px solid #111;outline-offset:1px}
.spai-map-card{display:none;position:absolute;inset:8px 0 auto;min-height:50px;padding:0 12px;background:var(--tint);
pointer-events:none}
.spai-map-chip:hover+.spai-map-card,.spai-map-chip:focus-visible+.spai-map-card{display:block}
.spai-map.spai-map .spai-map-chapters{display:grid;gap:4px 16px;
grid-template-columns:repeat(auto-fit,minmax(215px,1fr))}
.spai-map-chapters li{color:#555}
"""


@dataclass(frozen=True)
class SurveyMap:
    """The map, as a notebook shows it: a poster with filters and links, and a picture where HTML is not shown.

    Args:
        rows: the taxonomy.
        chapters: the chapters to link.
    """

    rows: tuple[Row, ...]
    chapters: frozenset[str]

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        caption = summary(self.rows)
        data = {
            "text/html": map_html(self.rows, self.chapters),
            "image/png": base64.b64encode(to_png(map_figure(self.rows))).decode("ascii"),
            "text/plain": caption,
        }
        return data, {"image/png": {"alt": f"The survey's map. {caption}"}}


def survey_map(folder: Path | str = ".") -> SurveyMap:
    """The map of the survey, with links to the chapters that are there.

    Args:
        folder: where the chapters lie, a notebook's own folder by default; where it holds none, the repository's
            chapters count.
    Returns:
        an object that a notebook displays, as the last value of a cell.

    >>> survey_map().rows[0].id
    'lbfgs'
    """
    return SurveyMap(load_taxonomy(), chapters_in(Path(folder)) or chapters_in(notebooks_folder()))


def chapters_in(folder: Path) -> frozenset[str]:
    """The chapters whose notebook lies in a folder."""
    return frozenset(chapter for chapter in CHAPTERS if (folder / f"{chapter}.ipynb").is_file())


def map_html(rows: Sequence[Row], chapters: frozenset[str]) -> str:
    """The map as HTML: filters by CSS alone, so that it lives without a kernel and without a script.

    Where a host removes the style, lists with the same links remain.

    Args:
        rows: the taxonomy.
        chapters: the chapters to link; the others are named, not linked.
    Returns:
        one `<style>` and one `<form>`; all classes begin with "spai-map".

    >>> "02_gradient_attacks.ipynb" in map_html(load_taxonomy(), frozenset())
    False
    """
    blocks = "".join(
        _title_html(title)
        + "".join(
            '<div class="spai-map-line">'
            + "".join(_region_html(region, rows_of(rows, region.part), chapters) for region in line)
            + "</div>"
            for line in lines
        )
        for title, lines in LAYOUT.items()
    )
    return (
        f"<style>{_css()}</style>"
        '<form class="spai-map" aria-label="The survey\'s map">'
        '<button type="submit" disabled hidden></button>'
        f'<div class="spai-map-head"><strong>{escape(summary(rows))}</strong>{_filters_html()}</div>'
        f"{blocks}{_chapters_html(chapters)}</form>"
    )


def _region_html(region: Region, rows: Sequence[Row], chapters: frozenset[str]) -> str:
    chips = "".join(_chip_html(row, row.notebook in chapters) for row in rows)
    count = f"{sum(row.runnable for row in rows)} of {len(rows)}"
    return (
        f'<section class="spai-map-region spai-map-{region.role}">'
        f'<p class="spai-map-title" role="heading" aria-level="4"><strong>{escape(region.title)}</strong> '
        f"<small>{count}</small></p>"
        f'<p class="spai-map-sentence">{escape(region.sentence)}</p><ul>{chips}</ul></section>'
    )


def _chip_html(row: Row, linked: bool) -> str:
    chapter = f"chapter {row.chapter}" + ("" if linked else ", not yet")
    label = f"{MARKS[row.status]} {escape(short_name(row))}"
    tag, target = ("a", f' href="{row.notebook}.ipynb"') if linked else ("span", ' tabindex="0"')
    classes = " ".join(["spai-map-chip", f"spai-map-{row.status}"])
    return (
        f'<li data-status="{row.status}" data-chapter="{row.chapter}" data-who="{" ".join(row.who)}">'
        f'<{tag} class="{classes}"{target}>{label}</{tag}> '
        f'<span class="spai-map-card"><b>{escape(row.name)}</b> · {chapter}<br>{escape(row.paper)}</span></li>'
    )


def _filters_html() -> str:
    status = "".join(
        f'<label><input {OWN_KEYS} type="radio" name="status" value="{value}"{checked}> {label}</label>'
        for value, label, checked in (
            ("all", "everything", " checked"),
            *((status, f"{MARKS[status]} {meaning}", "") for status, meaning in MEANING.items()),
        )
    )
    chapters = "".join(
        f'<option value="chapter-{chapter[:2]}" label="{chapter[:2]} {title}"></option>'
        for chapter, title in CHAPTERS.items()
    )
    who = "".join(f'<option value="who-{word}" label="{label}"></option>' for word, label in WHO.items())
    return (
        f'<span class="spai-map-filters">{status}'
        f'<select {OWN_KEYS} aria-label="Chapter"><option label="every chapter"></option>{chapters}</select>'
        f'<select {OWN_KEYS} aria-label="Who acts"><option label="everybody who acts"></option>{who}</select></span>'
    )


def _chapters_html(chapters: frozenset[str]) -> str:
    def item(chapter: str) -> str:
        label = f"<b>{chapter[:2]}</b> {CHAPTERS[chapter]}"
        return f'<li><a href="{chapter}.ipynb">{label}</a></li>' if chapter in chapters else f"<li>{label}</li>"

    return f'{_title_html("Chapters")}<ul class="spai-map-chapters">{"".join(map(item, CHAPTERS))}</ul>'


def _title_html(title: str) -> str:
    return f'<p class="spai-map-half" role="heading" aria-level="3"><strong>{escape(title)}</strong></p>'


def _css() -> str:
    def dim(chosen: str, others: str) -> str:
        return f".spai-map:has({chosen}:checked) li[data-status]{others}{{opacity:.12}}"

    filters = [dim(f'input[value="{status}"]', f':not([data-status="{status}"])') for status in MEANING]
    for number in (chapter[:2] for chapter in CHAPTERS):
        filters.append(dim(f'option[value="chapter-{number}"]', f':not([data-chapter="{number}"])'))
    filters += [dim(f'option[value="who-{word}"]', f':not([data-who~="{word}"])') for word in WHO]
    roles = [
        f".spai-map-{role}{{--fill:{shade(color, 'black', 0.32)};--edge:{color};--tint:{shade(color, 'white', 0.9)}}}"
        for role, color in COLORS.items()
    ]
    return CSS.strip() + "".join(roles + filters)

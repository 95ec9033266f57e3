"""A table that a click sorts and typing filters, without a kernel and without a network.

The table is whole as it stands, and that is all that is left where it is printed, where a code host removes scripts, or
where JupyterLab does not trust the notebook. A script of a few lines adds the buttons and the field.
"""

import html
import math
import numbers
import re
from collections.abc import Sequence

import pandas as pd

from spai_lab.checks import describe
from spai_lab.widgets.shown import Shown

# A number, or a range of two, as a cell begins with it, and its unit.
NUMBER = re.compile(r"([-+−]?[\d,]*\.?\d+(?:e[-+]?\d+)?)(?:\s+to\s+[-+−]?[\d,.]+)?(?:\s*(%|[^\W\d]\w*))?")
# Units that tell large from small: what they are units of, and how many of those.
SECONDS = {"µs": 1e-6, "ms": 1e-3, "s": 1}
BYTES = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
UNITS = {name: (base, size) for base, sizes in (("s", SECONDS), ("B", BYTES)) for name, size in sizes.items()}

CSS = """
.spai-sortable-box{overflow:auto;max-width:100%;max-height:70vh}
.spai-sortable-box .spai-sortable{border-collapse:separate;border-spacing:0;font-size:1.05em;line-height:1.35;margin:0}
.spai-sortable-box .spai-sortable caption{text-align:left;font-size:1.05em;padding:0.3em 0}
.spai-sortable caption span{position:sticky;left:0;display:inline-block;max-width:45em}
.spai-sortable-box .spai-sortable :is(th,td){padding:0.25em 0.6em;vertical-align:top;max-width:24em;white-space:normal;
border-bottom:1px solid rgba(128,128,128,0.35)}
.spai-sortable-box .spai-sortable th{position:sticky;background:var(--jp-layout-color0,Canvas);
color:var(--jp-content-font-color1,CanvasText)}
.spai-sortable-box .spai-sortable thead th{top:0;z-index:2;vertical-align:bottom}
.spai-sortable-box .spai-sortable tbody th{left:0;z-index:1;max-width:14em}
.spai-sortable-box .spai-sortable thead th:first-child{left:0;z-index:3}
.spai-sortable-filter{display:flex;flex-wrap:wrap;gap:0.2em 0.6em;align-items:center;margin:0.4em 0;font-size:1.05em}
.spai-sortable-filter input{font:inherit;padding:0.15em 0.4em;width:16em}
.spai-sortable-box .spai-sortable td[data-order]{white-space:nowrap}
.spai-sortable button{font:inherit;font-weight:bold;color:inherit;background:none;border:0;padding:0;cursor:pointer;
text-align:inherit;white-space:normal}
:is(.spai-sortable button,.spai-sortable-filter input,.spai-sortable-box):focus-visible{outline:3px solid currentColor;
outline-offset:-3px}
.spai-sortable th[aria-sort] button::after{content:" ↕";content:" ↕"/"";opacity:0.45}
.spai-sortable th[aria-sort=ascending] button::after{content:" ▲";content:" ▲"/"";opacity:1}
.spai-sortable th[aria-sort=descending] button::after{content:" ▼";content:" ▼"/"";opacity:1}
@media print{.spai-sortable-filter{display:none}.spai-sortable tr[hidden]{display:table-row}
.spai-sortable-box{overflow:visible;max-height:none}.spai-sortable-box .spai-sortable th{position:static}
.spai-sortable th[aria-sort] button::after{content:""}}
"""

SCRIPT = """
for (const table of document.querySelectorAll("table.spai-sortable:not([data-live])")) {
  table.dataset.live = "yes";
  const own = element => { element.dataset.lmSuppressShortcuts = "true"; return element; };
  const body = table.tBodies[0], rows = [...body.rows], heads = [...table.tHead.rows[0].cells];
  const words = new Intl.Collator("en", {sensitivity: "base"});
  const text = cell => cell.textContent.trim();
  const parts = cell => text(cell).replace(/(\\d),(?=\\d{3})/g, "$1").match(/\\d*\\.?\\d+|\\D+?(?=\\.?\\d|$)/g) ?? [];
  const naturally = (a, b) => {
    const one = parts(a), other = parts(b);
    for (let place = 0; place < Math.min(one.length, other.length); place++) {
      const apart = one[place] - other[place], found = isNaN(apart) ? words.compare(one[place], other[place]) : apart;
      if (found) return found;
    }
    return one.length - other.length;
  };
  const units = (a, b) => words.compare(a.dataset.unit ?? "", b.dataset.unit ?? "");
  const compare = (a, b) => "order" in a.dataset ? a.dataset.order - b.dataset.order : naturally(a, b);
  const sort = (column, way) => {
    heads.forEach((head, place) => head.setAttribute("aria-sort", place === column ? way : "none"));
    const numeric = rows.some(row => "order" in row.cells[column].dataset);
    const last = cell => numeric ? !("order" in cell.dataset) : ["", "–"].includes(text(cell));
    const sorted = way === "none" ? rows : [...rows].sort((one, other) => {
      const a = one.cells[column], b = other.cells[column];
      const apart = last(a) - last(b) || (last(a) ? 0 : units(a, b));
      return apart || (last(a) ? 0 : (way === "ascending" ? 1 : -1) * compare(a, b));
    });
    body.append(...sorted);
  };
  const next = {none: "ascending", ascending: "descending", descending: "none"};
  heads.forEach((head, column) => {
    const button = own(document.createElement("button"));
    button.type = "button";
    button.textContent = text(head);
    button.title = "sort by this column";
    button.onclick = () => sort(column, next[head.getAttribute("aria-sort")]);
    head.setAttribute("aria-sort", "none");
    head.replaceChildren(button);
  });
  const line = document.createElement("div"), label = document.createElement("label");
  const field = own(document.createElement("input")), count = document.createElement("output");
  const where = document.createElement("span");
  line.className = "spai-sortable-filter";
  field.type = "search";
  where.textContent = "(all cells of a row are searched)";
  const filter = () => {
    const wanted = field.value.toLowerCase().split(/\\s+/).filter(Boolean);
    for (const row of rows) {
      const said = [...row.cells].map(text).join(" ").toLowerCase();
      row.hidden = !wanted.every(word => said.includes(word));
    }
    count.textContent = `${rows.filter(row => !row.hidden).length} of ${rows.length} rows`;
  };
  field.oninput = filter;
  label.append("Show rows with ", field);
  line.append(label, where, count);
  table.parentElement.before(line);
  filter();
}
"""


def sortable_table(frame: pd.DataFrame, *, caption: str) -> Shown:
    """A frame as a table that can be sorted by any column and filtered by words.

    A click on a head sorts upward, a second one downward, a third one restores the order. Numbers are sorted as
    numbers, durations and bytes by what their units say, other units apart from each other, words with the numbers in
    them as such, and empty cells stay last. A filter of several words shows the rows that have them all. The table
    scrolls in a box of its own, in which the heads and the first column stay; on paper it is whole.

    Args:
        frame: at least one column; its index is not shown. The first column names the row.
        caption: a sentence that says what to see.
    Returns:
        what a notebook cell shows; in a terminal, and without scripts, the whole table.
    Raises:
        ValueError: names the argument.

    >>> print(sortable_table(pd.DataFrame({"attack": ["PGD"], "n": [1000]}), caption="One attack."))
    One attack.
    <BLANKLINE>
    | attack | n |
    | --- | --- |
    | PGD | 1,000 |
    """
    if not isinstance(frame, pd.DataFrame) or not len(frame.columns):
        raise ValueError(f"frame is {describe(frame)}; accepted: a pandas.DataFrame with at least one column")
    if not isinstance(caption, str) or not caption.strip():
        raise ValueError(f"caption is {describe(caption)}; accepted: a sentence")
    heads = [str(name) for name in frame.columns]
    columns = [frame.iloc[:, place].tolist() for place in range(len(heads))]
    texts = [[shown(value) for value in column] for column in columns]
    return Shown(as_markdown(caption, heads, texts), html=as_html(caption, heads, texts, list(map(orders, columns))))


def shown(value: object) -> str:
    """What a cell shows of a value: counts with separators, four digits of other numbers, nothing for what is missing.

    >>> shown(1000), shown(93.75), shown(float("nan")), shown("a")
    ('1,000', '93.75', '', 'a')
    """
    if value is None or (not isinstance(value, str) and pd.isna(value)):
        return ""
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, numbers.Real) and not isinstance(value, bool) else str(value)


def orders(values: Sequence[object]) -> list[tuple[str, float] | None]:
    """By what a column is sorted: unit and number, or None for cells that come last, or None for all if it is sorted by
    words.

    A column is one of numbers if each cell begins with one, but for those that are empty or hold a word without digits,
    such as "failed".

    >>> orders(["60 ms", "2 L2", "failed", ""]), orders(["64-32-10", "LeNet 5"])
    ([('s', 0.06), ('L2', 2.0), None, None], [None, None])
    """
    found = [order(value) for value in values]
    words = any(each is None and re.search(r"\d", shown(value)) for value, each in zip(values, found, strict=True))
    return [None] * len(found) if words else found


def order(value: object) -> tuple[str, float] | None:
    """The unit, and the number that a cell begins with, in the base unit; None where there is none.

    >>> order("1,415 queries an image"), order("1.1 to 1.3 L2"), order(0.5)
    (('queries', 1415.0), ('L2', 1.1), ('', 0.5))
    """
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        return None if pd.isna(value) else ("", float(value))
    match = NUMBER.match(shown(value))
    if match is None:
        return None
    number, word = match.groups()
    unit, size = UNITS.get(word, (word or "", 1))
    return unit, float(number.replace(",", "").replace("−", "-")) * size


def as_html(
    caption: str, heads: Sequence[str], texts: Sequence[list[str]], keys: Sequence[list[tuple[str, float] | None]]
) -> str:
    """The table as HTML; what sorts and filters is added by its script."""
    right = [any(key is not None for key in column) for column in keys]
    aligned = ["right" if numeric else "left" for numeric in right]
    head = "".join(
        f'<th scope="col" style="text-align:{side};min-width:{width_of(column)}em">{html.escape(name)}</th>'
        for name, side, column in zip(heads, aligned, texts, strict=True)
    )
    rows = []
    for row in range(len(texts[0])):
        cells = []
        for place, side in enumerate(aligned):
            key = keys[place][row]
            kind = 'th scope="row"' if place == 0 else "td"
            sorted_by = "" if key is None else f' data-unit="{html.escape(key[0])}" data-order="{key[1]!r}"'
            words = html.escape(texts[place][row])
            cells.append(f'<{kind}{sorted_by} style="text-align:{side}">{words}</{kind.split()[0]}>')
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<style>{CSS.strip()}</style><div><div class="spai-sortable-box" role="region" tabindex="0" '
        f'data-lm-suppress-shortcuts="true" aria-label="{html.escape(caption)}"><table class="spai-sortable">'
        f"<caption><span>{html.escape(caption)}</span></caption>"
        f"<thead><tr>{head}</tr></thead>\n<tbody>{chr(10).join(rows)}</tbody></table></div></div>"
        f"<script>(() => {{{SCRIPT.rstrip()}\n}})()</script>"
    )


def width_of(texts: Sequence[str]) -> int:
    """How wide a column should be at least, in em: words of a few lines are read more easily than of many.

    >>> width_of(["PGD"]), width_of(["a" * 200])
    (2, 22)
    """
    return min(22, math.ceil(0.4 * max(map(len, texts), default=0)))


def as_markdown(caption: str, heads: Sequence[str], texts: Sequence[list[str]]) -> str:
    """The table as Markdown, its caption above."""

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    rows = [[column[row] for column in texts] for row in range(len(texts[0]))]
    return "\n".join([caption, "", line(heads), line(["---"] * len(heads)), *map(line, rows)])

"""What came of a match: a table, a plot, what was noticed, and what to try next."""

import html
from dataclasses import dataclass, field

import pandas as pd
from IPython.display import display
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spai_lab import style
from spai_lab.arena.advice import advice_for_attack, advice_for_defense
from spai_lab.arena.duel import Row
from spai_lab.arena.findings import Finding
from spai_lab.metrics import Rate, wilson
from spai_lab.style import COLORS, MARKERS, figure, styled
from spai_lab.widgets.shown import Shown, as_html, panel
from spai_lab.widgets.sortable import sortable_table

MOST_SHOWN = 600  # characters of what a submission printed
ALL = "all attacks together"
SIZES = {"clean": 12, "baseline": 13}


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """What came of a match; a cell that ends with it shows it.

    Args:
        kind: "attack" or "defense": what was submitted.
        name: of the function.
        data: "digits" or "mnist".
        scene: the images, in words.
        budget: what it might spend, in words.
        rows: one for each opponent met.
        found: what was noticed; a fatal finding leaves no score.
        output: what the submission printed, its beginning.
        seconds: that the match took.
        others: the same share for models that everybody knows, by name, under the same attacks; of a defense.
    """

    kind: str
    name: str
    data: str
    scene: str
    budget: str
    rows: tuple[Row, ...]
    found: tuple[Finding, ...]
    output: str = ""
    seconds: float = 0.0
    others: dict[str, Rate] = field(default_factory=dict)

    # --- numbers

    @property
    def caught(self) -> bool:
        """Whether a rule was broken, so that there is no score."""
        return any(finding.fatal for finding in self.found)

    @property
    def score(self) -> float | None:
        """Of a defense the share of images that every attack leaves right, of an attack the mean share that it leaves.

        High is good for a defense, low for an attack; None where a rule was broken.
        """
        if self.caught or not self.rows:
            return None
        return self.survivors.value if self.kind == "defense" else sum(r.left.value for r in self.rows) / len(self.rows)

    @property
    def survivors(self) -> Rate:
        """The images that are read rightly, clean and after each attack."""
        standing = self.rows[0].standing
        for row in self.rows[1:]:
            standing = standing & row.standing
        return Rate(int(standing.sum()), len(standing))

    @property
    def images(self) -> int:
        """How many images each share rests on; 0 where none was measured."""
        return self.rows[0].left.trials if self.rows else 0

    @property
    def interval(self) -> tuple[float, float] | None:
        """The score's 95 % interval. An attack's is as wide as if an image fell to all defenses or to none."""
        return None if self.score is None else wilson(self.score, self.images)

    # --- words

    @property
    def headline(self) -> str:
        """The score in a sentence."""
        if self.score is None:
            return f"`{self.name}` gets no score: it was caught."
        low, high = self.interval
        span = f"(n = {self.images}, 95 % interval {100 * low:.0f} to {100 * high:.0f})"
        if self.kind == "attack":
            met = f"over {len(self.rows)} defenses" if len(self.rows) > 1 else f"against {self.rows[0].name}"
            left = f"leaves {100 * self.score:.0f} % of the images right, {met}"
            return f"`{self.name}` {left} {span}; low is good for an attack."
        keeps = f"keeps {100 * self.score:.0f} % of the images right against every attack"
        return f"`{self.name}` {keeps} {span}, {100 * self.rows[0].clean.value:.0f} % of the clean ones."

    @property
    def next(self) -> tuple[str, ...]:
        """What to try next, from what was measured."""
        if self.caught:
            return tuple(finding.advice for finding in self.found if finding.fatal)
        return advice_for_attack(self) if self.kind == "attack" else advice_for_defense(self)

    @property
    def table(self) -> pd.DataFrame:
        """A row for each opponent: shares in percent, with intervals."""
        against = "defense" if self.kind == "attack" else "attack"
        lines = []
        for row in self.rows:
            line = {against: row.name, "clean": percent(row.clean), "left": percent(row.left), "95 %": span(row.left)}
            lines.append(line | ({"ours leaves": percent(row.ours)} if row.ours else {}) | {"n": row.left.trials})
        if self.kind == "defense" and self.rows:
            whole = self.survivors
            last = {against: ALL, "clean": percent(self.rows[0].clean), "left": percent(whole), "95 %": span(whole)}
            lines.append(last | {"n": whole.trials})
            for name, rate in self.others.items():
                beside = {against: f"{ALL}, on {name}", "clean": "", "left": percent(rate), "95 %": span(rate)}
                lines.append(beside | {"n": rate.trials})
        return pd.DataFrame(lines or [{against: "none", "left": ""}])

    def __repr__(self) -> str:
        lines = [self.headline, f"{self.scene}; {self.budget}."]
        table = [list(self.table.columns), *self.table.to_numpy().tolist()] if self.rows else []
        lines += [" | ".join(map(str, line)) for line in table]
        lines += map(str, self.found)
        lines += [f"Next: {sentence}" for sentence in self.next if not self.caught]  # a finding ends with its advice
        return "\n".join(lines).replace("`", "")

    def _ipython_display_(self) -> None:
        """Show all of it in a notebook: the verdict first, then plot and table."""
        color = COLORS["adversarial"] if self.caught else COLORS["defended"]
        lines = [f"<strong>{as_html(self.headline)}</strong>", as_html(f"{self.scene}; {self.budget}.")]
        lines += [finding.html for finding in self.found]
        lines += [f"<em>Next:</em> {as_html(sentence)}" for sentence in self.next if not self.caught]
        display(Shown(repr(self), html=panel(*lines, color=color)))
        if self.output.strip():
            printed = self.output[:MOST_SHOWN] + (" …" if len(self.output) > MOST_SHOWN else "")
            shown = f"<details><summary>What it printed</summary><pre>{html.escape(printed)}</pre></details>"
            display(Shown(f"It printed: {printed}", html=shown))
        if self.rows:
            style.show(self.figure(), *self.caption())
            display(sortable_table(self.table, caption="Shares in percent; click a column to sort."))

    def caption(self) -> tuple[str, str]:
        """What to see in the plot, and the same for those who cannot see it."""
        if self.kind == "attack":
            said = (
                "The share of images that each defense still reads rightly: crosses after your attack, gray dots after "
                "ours at the same access, circles before. Further left is better for the attacker."
            )
        else:
            said = (
                "The share of images that your defense still reads rightly after each attack, and in the last row "
                "after all of them, beside two models that everybody knows. The last row is what it is worth."
            )
        alt = "; ".join(f"{row.name}: {100 * row.left.value:.0f} % left" for row in self.rows)
        return said, f"Rows of dots with intervals. {alt}."

    def figure(self) -> Figure:
        """A row of dots for each opponent."""
        rows = [(row.name, row.left, row.clean, row.ours) for row in self.rows]
        if self.kind == "defense":
            rows.append((ALL, self.survivors, self.rows[0].clean, None))
            rows += [(f"… on {name}", None, None, rate) for name, rate in self.others.items()]
        fig, axes = figure(10, 1.3 + 0.42 * len(rows))
        with styled():
            draw_rows(axes[0, 0], rows, "adversarial" if self.kind == "attack" else "defended", self.name)
        return fig


def draw_rows(ax: Axes, rows: list[tuple[str, Rate | None, Rate | None, Rate | None]], role: str, name: str) -> None:
    """For each row its name, the share that is left, the clean share, and the one to compare with."""
    labels = {role: f"after {name}" if role == "adversarial" else name, "clean": "clean", "baseline": "ours"}
    if role == "defended":
        labels["baseline"] = "known models"
    for height, (_, left, clean, ours) in enumerate(rows):
        lower = height + (0.18 if left is not None else 0)
        for rate, who, place in ((ours, "baseline", lower), (left, role, height), (clean, "clean", height)):
            if rate is None:
                continue
            look = {"color": COLORS[who], "linestyle": "", "markersize": SIZES.get(who, 9), "clip_on": False}
            if who == "clean":
                look |= {"markerfacecolor": "none"}
            else:
                ax.plot(rate.interval, [place] * 2, color=COLORS[who], linewidth=1.8)
            ax.plot(rate.value, place, MARKERS[who], **look, label=labels.pop(who, None))
    ax.set_yticks(range(len(rows)), [row[0] for row in rows])
    ax.set(xlim=(-0.02, 1.02), ylim=(len(rows) - 0.5, -0.5), xlabel="images read rightly")
    ax.xaxis.set_major_formatter(ticker.PercentFormatter(1, symbol=" %"))
    ax.grid(axis="x", color=COLORS["baseline"], alpha=0.3)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)


def percent(rate: Rate) -> str:
    """A share without its interval.

    >>> percent(Rate(1, 4))
    '25 %'
    """
    return f"{100 * rate.value:.0f} %"


def span(rate: Rate) -> str:
    """The interval of a share.

    >>> span(Rate(64, 64))
    '94 to 100 %'
    """
    low, high = (round(100 * end) for end in rate.interval)
    return f"{low} to {high} %"

"""A show of hands on a projected question: boxes for the counts, bars of the votes, and what the class had right."""

import base64
import html

from ipywidgets import HTML, BoundedIntText, Button, HBox, Layout, Text, VBox, Widget

from spai_lab.lecture.votes import keep_votes, recall_votes
from spai_lab.poll.chart import draw
from spai_lab.poll.question import Question
from spai_lab.poll.tally import ROUNDS, Tally, in_words, letter, pasted, verdict
from spai_lab.style import to_png
from spai_lab.widgets.shown import as_html

COUNT, HIDE, AGAIN = "Count hands", "Hide the count", "Count again"
MOST = 9999  # hands for one choice

polls: dict[str, "Hands"] = {}  # the polls of this kernel's chapter, by the key of their question


class Hands:
    """The count of one question; closed it is a button, open it takes the place of the question's own field.

    Args:
        question: what is asked.
        field: the question's own field, hidden while hands are counted.
    """

    def __init__(self, question: Question, field: Widget) -> None:
        self.question, self.field, self.right, self.filling = question, field, None, False
        kept, notice = recall_votes(question)
        self.rounds = [self._boxes(number) for number in range(len(ROUNDS))]
        for boxes, counts in zip(self.rounds, kept, strict=False):
            for box, count in zip(boxes, counts, strict=True):
                box.value = count
        self.counted = max(len(kept), 1)  # shows of hands so far
        self.toggle, self.again = button(COUNT), button(AGAIN)
        self.paste = Text(
            description="or paste numbers", continuous_update=False, layout=Layout(width="min(100%, 24em)")
        )
        self.paste.style.description_width = "initial"
        self.status, self.picture = HTML(as_html(notice)), HTML()
        self.picture.add_class("spai-votes")
        self.board = VBox()
        self.widget = VBox([wrapped(self.toggle, self.paste), self.board])
        self.widget.add_class("spai-hands")
        for box in (box for boxes in self.rounds for box in boxes):
            box.observe(self._changed, names="value")
        self.paste.observe(self._pasted, names="value")
        self.toggle.on_click(lambda _: self.open(self.toggle.description == COUNT))
        self.again.on_click(lambda _: self.discuss())
        self.open(any(self.tally.answers))

    def _boxes(self, number: int) -> list[BoundedIntText]:
        """A box for each choice, called by its letter; who does not see the bars hears what the letter means."""
        return [
            BoundedIntText(
                min=0,
                max=MOST,
                description=f'<span aria-hidden="true">{letter(place)}</span>'
                f'<span class="spai-unseen">{ROUNDS[number]}: {letter(place)}, {html.escape(row)}</span>',
                description_allow_html=True,
                layout=Layout(width="max-content"),
                style={"description_width": "initial"},
            )
            for place, row in enumerate(self.question.rows)
        ]

    @property
    def tally(self) -> Tally:
        """What the boxes say now."""
        counts = [tuple(box.value for box in boxes) for boxes in self.rounds[: self.counted]]
        return Tally(self.question, tuple(counts), self.right)

    def open(self, opened: bool) -> None:
        """Open the count, or close it; the counts stay."""
        self.toggle.description = HIDE if opened else COUNT
        self.field.layout.display = "none" if opened else None
        self.again.layout.display = None if opened and self.counted < len(ROUNDS) else "none"
        lines = [
            wrapped(HTML(f'<span class="spai-round">{name.capitalize()}</span>'), *boxes, *following)
            for name, boxes, following in zip(ROUNDS[: self.counted], self.rounds, ([self.again], []), strict=False)
        ]
        self.paste.layout.display = None if opened and not self.question.options else "none"
        self.board.children = [*lines, self.status, self.picture] if opened else []
        self.draw()

    def discuss(self) -> None:
        """Begin the second count, after the hall has discussed the first."""
        self.counted = len(ROUNDS)
        self.open(True)

    def draw(self) -> None:
        """Draw the bars, and say who had it right once that is known."""
        png = base64.b64encode(to_png(draw(self.tally))).decode()
        self.picture.value = (
            f'<p aria-live="polite">{as_html(verdict(self.tally))}</p>'
            f'<img src="data:image/png;base64,{png}" alt="{html.escape(in_words(self.tally))}">'
        )

    def reveal(self, outcome: float | str) -> None:
        """Mark the row that turned out right."""
        known = isinstance(outcome, str) == bool(self.question.options)
        self.right = self.question.row_of(outcome) if known else None
        self.draw()

    def _changed(self, _: dict) -> None:
        """A box has another number: draw it, and keep it."""
        if self.filling:
            return
        self.status.value = as_html(keep_votes(self.question, self.tally.rounds))
        self.draw()

    def _pasted(self, event: dict) -> None:
        """Numbers were pasted: they are the latest count."""
        if not event["new"].strip():
            return
        counts, refused = pasted(self.question, event["new"])
        self.filling = True  # one picture for all boxes
        for box, count in zip(self.rounds[self.counted - 1], counts, strict=True):
            box.value = count
        self.filling = False
        self.draw()
        said = "1 number was counted." if sum(counts) == 1 else f"{sum(counts)} numbers were counted."
        if refused:
            left = ", ".join(f"`{word[:20]}`" for word in refused[:3])
            were = "was" if len(refused) == 1 else "were"
            said += f" {len(refused)} {were} not: {left}. Accepted: {self.question.choices[0]}."
        self.status.value = as_html(f"{said} {keep_votes(self.question, self.tally.rounds)}".rstrip())


def wrapped(*widgets: Widget) -> HBox:
    """Widgets in a line that breaks where the page is narrow."""
    return HBox(widgets, layout=Layout(flex_flow="row wrap", align_items="center", grid_gap="2px 10px"))


def button(words: str) -> Button:
    """A button as wide as its words."""
    return Button(description=words, layout=Layout(width="max-content", height="auto"))

"""What the arena says about a submission that does not play by the rules: what happened, why it counts, what to do."""

from dataclasses import dataclass

from spai_lab.widgets.shown import as_html

CAUGHT, REMARK = "✘", "▲"


@dataclass(frozen=True)
class Finding:
    """One thing that the arena noticed.

    Args:
        kind: a few words that name it, such as "outside the ball".
        what: what happened, in one sentence.
        why: why it counts.
        advice: what to do about it.
        fatal: whether it ends the match without a score; else it is a remark beside the score.

    >>> print(Finding("slow", "It took 3 s.", "Thirty wait.", "Do less."))
    ✘ Caught, slow: It took 3 s. Thirty wait. Do less.
    """

    kind: str
    what: str
    why: str
    advice: str
    fatal: bool = True

    def __str__(self) -> str:
        return f"{self.mark}, {self.kind}: {self.sentences}"

    @property
    def mark(self) -> str:
        """A sign and a word, never a color alone."""
        return f"{CAUGHT} Caught" if self.fatal else f"{REMARK} Remark"

    @property
    def sentences(self) -> str:
        """What happened, why it counts, what to do."""
        return f"{self.what} {self.why} {self.advice}"

    @property
    def html(self) -> str:
        """The same for a notebook."""
        return f"<strong>{self.mark}, {self.kind}:</strong> {as_html(self.sentences)}"


@dataclass(frozen=True)
class Rule:
    """A rule of the arena, as the sentences that name its breach.

    Args:
        kind: a few words that name the breach.
        what: what happened, in one sentence, with `{names}` for what was found.
        why: why it counts.
        advice: what to do about it.
        fatal: whether a breach ends the match without a score.

    >>> rule = Rule("slow", "It took {seconds:g} s.", "Thirty wait.", "Do less.")
    >>> rule.broken(seconds=3.0).what
    'It took 3 s.'
    """

    kind: str
    what: str
    why: str
    advice: str
    fatal: bool = True

    def broken(self, **found: object) -> Finding:
        """The finding, with what was found in place of the names. Values are set as they are, whatever they hold."""
        texts = (text.format_map(found) for text in (self.what, self.why, self.advice))
        return Finding(self.kind, *texts, self.fatal)


class Fouled(Exception):
    """A match that a finding ends.

    Not a `RuntimeError` or `ValueError`: attacks turn those into messages of their own, and this one must come through.

    Args:
        finding: what was found; fatal.
    """

    def __init__(self, finding: Finding) -> None:
        super().__init__(str(finding))
        self.finding = finding

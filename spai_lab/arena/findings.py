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


class Fouled(Exception):
    """A match that a finding ends.

    Not a `RuntimeError` or `ValueError`: attacks turn those into messages of their own, and this one must come through.

    Args:
        finding: what was found; fatal.
    """

    def __init__(self, finding: Finding) -> None:
        super().__init__(str(finding))
        self.finding = finding


# --- a submission that does not run -----------------------------------------------------------------------------------


def broken(message: str) -> Finding:
    """The text is no program, or lacks the function."""
    return Finding(
        "broken",
        f"The submission cannot be read: {message}.",
        "Nothing was run.",
        "Run the cell that defines your function, then submit it again.",
    )


def unfinished() -> Finding:
    """The stub."""
    return Finding(
        "not written yet",
        "It raises `NotImplementedError`.",
        "There is nothing to judge.",
        "Replace that line by your own code.",
    )


def unfit(name: str, message: str, called: str) -> Finding:
    """The function has other parameters."""
    return Finding(
        "other parameters",
        f"`{name}` cannot be called as `{name}({called})`: {message}.",
        "The arena knows no other way to call it.",
        "Name the parameters as in that call.",
    )


def crash(kind: str, message: str, line: str) -> Finding:
    """An error ended it."""
    where = f" in the line `{line}`" if line else ""
    return Finding(
        "crash",
        f"It stops{where} with {kind}: {message or 'no message'}.",
        "What crashes here would crash for everybody else.",
        "Try that line on four images in a cell of your own.",
    )


def died(how: str) -> Finding:
    """The process is gone."""
    return Finding(
        "died",
        f"Its process {how} before it answered.",
        "Only the process is gone: this notebook goes on.",
        "Look for `exit`, for too much memory, or for a library that gave up.",
    )


def slow(seconds: float, doing: str) -> Finding:
    """The time was up."""
    return Finding(
        "slow",
        f"It had {seconds:g} s {doing} and was not done.",
        "A class waits for nobody, so its process was ended, with all that it started.",
        "Do fewer steps, or work on all images at once.",
    )


def out_of_memory(megabytes: int) -> Finding:
    """It asked for more memory than there is for it."""
    return Finding(
        "memory",
        f"It asked for more than the {megabytes:,} MB that it may use.",
        "One submission must not take the machine from the others.",
        "Work on fewer images at a time, and under `torch.no_grad()` where you need no gradient.",
    )


def garbled(message: str) -> Finding:
    """What came through the pipe is no message, or too long a one."""
    return Finding(
        "garbled",
        f"What came back is not an answer: {message}.",
        "Only plain arrays are read, and nothing is ever unpickled, since that can run code.",
        "Leave the pipes alone and return a tensor.",
    )

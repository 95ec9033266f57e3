"""A button for what takes longer than a chapter may: compute it again here, on this machine."""

import html
from collections.abc import Callable

from ipywidgets import HTML, Button, HBox, Layout, Output

from spai_lab.checks import check_callable

VIEW = {"version_major": 2, "version_minor": 0}


class Recompute(HBox):
    """A button that computes anew, shows the progress, and says how it ended.

    Where no kernel runs, the command that does the same stands in its place.

    Args:
        work: what to do; its progress bar appears beside the button.
        command: the shell command that does the same.
        minutes: about how long it takes on two cores.
    Raises:
        ValueError: `work` cannot be called.

    >>> Recompute(lambda: None, "spai-lab measure", minutes=10)
    To compute it again: spai-lab measure (about 10 minutes)
    """

    _ipython_display_ = None  # ipywidgets 7 would display the live view alone

    def __init__(self, work: Callable[[], object], command: str, *, minutes: int) -> None:
        check_callable("work", work)
        self.work, self.command, self.minutes = work, command, minutes
        self.button = Button(description=f"compute again (about {minutes} min)", layout=Layout(width="auto"))
        self.button.on_click(lambda _: self.run())
        self.status, self.progress = HTML(), Output()
        super().__init__([self.button, self.status, self.progress])

    def run(self) -> None:
        """Do the work once; what the button calls. "Interrupt Kernel" stops it."""
        self.button.disabled = True
        self.say("computing …")
        try:
            with self.progress:
                self.work()
            self.say("Done. Run the cell above again to see it.")
        except KeyboardInterrupt:
            self.say("Stopped. A second click starts again.")
        except Exception as error:  # an error in a button's callback is shown to nobody else
            self.say(f"It failed. {type(error).__name__}: {error}")
        finally:
            self.button.disabled = False

    def say(self, text: str) -> None:
        """Write the line beside the button."""
        self.status.value = f'<span role="status">{html.escape(text)}</span>'

    def __repr__(self) -> str:
        unit = "minute" if self.minutes == 1 else "minutes"
        return f"To compute it again: {self.command} (about {self.minutes} {unit})"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None, **_: object) -> tuple[dict, dict]:
        """The live button, and for a stored page the command."""
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        text = html.escape(repr(self))
        forms = {
            "application/vnd.jupyter.widget-view+json": view,
            "text/html": f"<p>{text}</p>",
            "text/plain": repr(self),
        }
        return forms, {}

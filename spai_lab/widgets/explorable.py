"""An explorable: a pure function from values to a figure, with a labelled control for each value."""

import base64
import html
from collections.abc import Callable, Collection, Mapping, Sequence

from ipywidgets import HTML, Box, FloatSlider, IntSlider, Layout, SelectionSlider, ValueWidget, VBox, Widget
from matplotlib.figure import Figure

from spai_lab.checks import check_callable, describe
from spai_lab.style import SETTINGS, to_png
from spai_lab.widgets.names import NAMED, NAMER

Words = str | Callable[..., str]
SLIDERS = (FloatSlider, IntSlider, SelectionSlider)

# Large enough for the last row; ipywidgets reads the variables.
STYLE = """<style>
.spai-explorable { --jp-widgets-font-size: 15px; --jp-widgets-inline-height: 32px }
.spai-picture img { max-width: 100%; height: auto; display: block }
.spai-picture p { font-size: 16px; line-height: 1.4; margin: 0.3em 0 0; max-width: 68em }
.spai-stale img, .spai-stale p { opacity: 0.25 }
.spai-status { font-size: 16px; font-weight: 600; line-height: 1.4; min-height: 1.4em }
</style>"""
LABEL_WIDTH = "92px"
CONTROL_WIDTH, SLIDER_WIDTH = "230px", "479px"  # two controls and the gap between them are as wide as a slider


class Explorable(VBox):
    """A picture that answers to its controls.

    As a cell's result it is one output with three forms: the live control where a kernel runs, the picture where a page
    only shows the stored file, and its words for a terminal. While something expensive is computed it says so, and
    when a setting fails it says why; a picture that no longer fits the controls is always marked.

    Args:
        render: pure, `render(**values) -> Figure`; gets the value of each control by its name.
        controls: name of a value to the ipywidgets control that sets it.
        alt: what somebody who cannot see the picture needs to know: a sentence, or a function of the values.
        caption: what to see, under the picture: a sentence, or a function of the values. Screen readers announce it.
        slow: names of the controls whose change needs a computation that one would notice.
        adapt: `adapt(name)`, called when the control `name` was changed and before the picture is drawn; it brings the
            controls that depend on it in line (another norm needs another grid of eps).
        beside: widgets to show after the controls, such as a `Play` linked to a slider.
    Raises:
        ValueError: `render` cannot be called, or a name in `slow` has no control.

    >>> from ipywidgets import IntSlider
    >>> from spai_lab.style import panels
    >>> def render(count):
    ...     fig, axes = panels(4, 3, line=(0.5, 0.5, 3, 2))
    ...     axes["line"].plot(range(count))
    ...     return fig
    >>> count = IntSlider(3, 2, 9, description="count")
    >>> explorable = Explorable(render, {"count": count}, alt="A line.", caption=lambda count: f"{count} points.")
    >>> count.value = 5
    >>> explorable
    A line. 5 points.
    """

    _ipython_display_ = None  # ipywidgets 7 would display the live view alone

    def __init__(
        self,
        render: Callable[..., Figure],
        controls: Mapping[str, ValueWidget],
        *,
        alt: Words,
        caption: Words,
        slow: Collection[str] = (),
        adapt: Callable[[str], None] | None = None,
        beside: Sequence[Widget] = (),
    ) -> None:
        check_callable("render", render)
        for name in slow:
            if name not in controls:
                raise ValueError(f"slow names {describe(name)}; accepted: names of controls, {', '.join(controls)}")
        self.render, self.controls = render, dict(controls)
        self._alt, self._caption, self.slow, self._adapt = alt, caption, frozenset(slow), adapt
        self.failed = ""  # why the present setting has no picture
        self._changing = False
        self._status, self._picture = HTML(), HTML()
        self._picture.add_class("spai-picture")
        for control in self.controls.values():
            control.style.description_width = LABEL_WIDTH
            control.layout.width = SLIDER_WIDTH if isinstance(control, SLIDERS) else CONTROL_WIDTH
        board = Box([*self.controls.values(), *beside], layout=Layout(flex_flow="row wrap", grid_gap="2px 15px"))
        super().__init__([HTML(STYLE + NAMER), board, self._status, self._picture], layout=Layout(padding="4px"))
        self.add_class("spai-explorable")
        self.add_class(NAMED)
        self._say("")
        self.draw()
        for name, control in self.controls.items():
            control.observe(lambda change, name=name: self._changed(name), names="value")

    @property
    def values(self) -> dict[str, object]:
        """What the controls say now."""
        return {name: control.value for name, control in self.controls.items()}

    def draw(self) -> None:
        """Draw the picture for the present values, and say what it shows."""
        values = self.values
        fig = self.render(**values)
        png, alt, caption = to_png(fig), words(self._alt, values), words(self._caption, values)
        self.png, self.alt, self.caption = png, alt, caption
        width, height = (fig.get_size_inches() * SETTINGS["figure.dpi"]).round().astype(int)
        self._picture.value = (
            f'<img src="data:image/png;base64,{base64.b64encode(self.png).decode()}" alt="{html.escape(self.alt)}" '
            f'width="{width}" height="{height}"><p aria-live="polite">{html.escape(self.caption)}</p>'
        )

    def _changed(self, name: str) -> None:
        """A control was moved: what a slider calls."""
        if self._changing:
            return
        self._changing = True
        try:
            if name in self.slow:
                self._say("computing …", role="status")
            if self._adapt is not None:
                self._adapt(name)
            self.draw()
            self.failed = ""
            self._say("")
        except Exception as error:  # whatever a student's own render raises belongs on the page, not in a log
            self.failed = describe_error(error)
            self._say(f"This setting has no picture, the last one is shown pale. {self.failed}", role="alert")
        finally:
            self._changing = False

    def _say(self, text: str, role: str = "status") -> None:
        """Write the line above the picture; while there is one, the picture is pale."""
        if text:
            self._picture.add_class("spai-stale")
        else:
            self._picture.remove_class("spai-stale")
        self._status.value = f'<div class="spai-status" role="{role}">{html.escape(text)}</div>'

    def __repr__(self) -> str:
        return f"{self.alt} {self.caption}"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None, **_: object) -> tuple[dict, dict]:
        """The live view, the picture and its words, as one output."""
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        forms = {
            "application/vnd.jupyter.widget-view+json": view,
            "image/png": base64.b64encode(self.png).decode(),
            "text/plain": repr(self),
        }
        return forms, {"image/png": {"alt": self.alt}}


def words(text: Words, values: Mapping[str, object]) -> str:
    """A sentence, for these values."""
    return text(**values) if callable(text) else text


def describe_error(error: Exception) -> str:
    """An error as a sentence: what kind, and what it says.

    >>> describe_error(ValueError("eps is -1; accepted: a finite number of at least 0"))
    'ValueError: eps is -1; accepted: a finite number of at least 0.'
    """
    return f"{type(error).__name__}: {error}".rstrip(". ") + "."

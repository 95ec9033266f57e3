"""Predict, then see: a question before an experiment, the answer kept, and shown beside the outcome."""

import contextlib
import html
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import ipywidgets

from spai_lab.checks import check_choice, check_number, describe
from spai_lab.files import write_atomically
from spai_lab.poll.question import Question
from spai_lab.widgets.names import NAMED, NAMER
from spai_lab.widgets.shown import Shown, as_html, panel

BLUE, GRAY = "#0173b2", "#949494"
PATIENCE, STALE = 2.0, 10.0  # seconds: how long to wait for another notebook, and when its lock counts as left behind


@dataclass(frozen=True)
class Entry:
    """A prediction as it is kept."""

    prediction: str | float
    unit: str = ""


asked: dict[str, Question] = {}
session: dict[str, Entry] = {}


# --- the student's progress file


def progress_file() -> Path | None:
    """Where predictions are kept: in `SPAI_MY`, or in the current folder if its name is "my", else nowhere."""
    chosen = os.environ.get("SPAI_MY")
    if chosen:
        return Path(chosen).expanduser() / "progress.json"
    return Path.cwd() / "progress.json" if Path.cwd().name == "my" else None


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold a file's lock, a file beside it that only one process can create.

    Raises:
        OSError: the folder cannot be written, or another process keeps the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.lock")
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            os.close(os.open(beside, os.O_CREAT | os.O_EXCL))
            break
        except (FileExistsError, PermissionError):
            with contextlib.suppress(OSError):
                if time.time() - beside.stat().st_mtime > STALE:
                    beside.unlink()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def read(path: Path) -> dict:
    """The content of a progress file; empty where there is none.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except RecursionError as error:
        raise ValueError("too deep") from error
    predictions = content.get("predictions", {}) if isinstance(content, dict) else None
    if not isinstance(predictions, dict) or not all(map(is_entry, predictions.values())):
        raise ValueError("no predictions in it")
    return content


def is_entry(value: object) -> bool:
    """Whether a value from the file is an `Entry`."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("prediction"), str | int | float)
        and isinstance(value.get("unit"), str)
    )


def mend(path: Path) -> tuple[dict, str]:
    """The content of a progress file, whose lock is held, and a notice: a damaged file is set aside, never lost."""
    try:
        return read(path), ""
    except ValueError:
        number = 1
        while (aside := path.with_name(f"progress-damaged-{number}.json")).exists():
            number += 1
        path.rename(aside)
        return {}, f"`progress.json` was damaged; it was set aside as `{aside.name}`, and a new one begins."


def recall(key: str) -> tuple[Entry | None, str]:
    """The prediction kept under a key, from this session or from the file, and a notice about the file."""
    path, content, notice = progress_file(), {}, ""
    try:
        content = read(path) if path else {}
    except ValueError:
        try:
            with lock(path):
                content, notice = mend(path)
        except OSError as error:
            notice = f"`progress.json` is damaged and cannot be set aside ({error})."
    except OSError as error:
        notice = f"`progress.json` cannot be read ({error})."
    stored = content.get("predictions", {}).get(key)
    return session.get(key) or (Entry(stored["prediction"], stored["unit"]) if stored else None), notice


def record(key: str, entry: Entry) -> str:
    """Keep a prediction, in the student's file if there is a folder for it, and say where it is kept."""
    session[key] = entry
    path = progress_file()
    if path is None:
        return "Kept for this session."
    try:
        with lock(path):
            content, notice = mend(path)
            content["predictions"] = {**content.get("predictions", {}), key: asdict(entry)}
            write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False).encode())
    except OSError as error:
        return f"Kept for this session; `progress.json` cannot be written ({error})."
    return f"Kept. {notice}".rstrip()


# --- the question


class Prediction:
    """A question with its input; a live widget in a notebook, the question and the choices wherever there is none."""

    def __init__(self, question: Question) -> None:
        self.question = question
        entry, notice = recall(question.key)
        kept = question.parse(str(entry.prediction)) if entry else None
        if question.options:
            self.field = ipywidgets.RadioButtons(
                options=question.options, value=kept, description="Your prediction:", layout={"width": "max-content"}
            )
        else:
            self.field = ipywidgets.Text(
                value="" if kept is None else f"{kept:g}",
                placeholder=f"{question.low:g} to {question.high:g}",
                description=f"Your prediction ({question.unit}):" if question.unit else "Your prediction:",
                continuous_update=False,
                layout={"width": "24em"},
            )
        self.field.style.description_width = "initial"
        self.field.observe(self.change, names="value")
        heading = f'{NAMER}<div style="font-size:1.1em;line-height:1.5">{as_html(question.text)}</div>'
        self.status = ipywidgets.HTML(as_html(notice))
        self.widget = ipywidgets.VBox([ipywidgets.HTMLMath(heading), self.field, self.status])
        self.widget.add_class(NAMED)

    def change(self, event: dict) -> None:
        """Keep what the student chose, or say why it cannot be kept."""
        answer = self.question.parse(event["new"])
        if answer is None:
            said = f"Please enter {self.question.choices[0]}."
        else:
            said = record(self.question.key, Entry(answer, self.question.unit))
        self.status.value = as_html(said)

    def __repr__(self) -> str:
        return "\n".join([f"Predict: {self.question.text}", *(f"  ( ) {choice}" for choice in self.question.choices)])

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, object]:
        choices = (f"○ {html.escape(choice)}" for choice in self.question.choices)
        view = {"version_major": 2, "version_minor": 0, "model_id": self.widget.model_id}
        return {
            "text/plain": repr(self),
            "text/html": panel(f"<strong>Predict:</strong> {as_html(self.question.text)}", *choices, color=BLUE),
            "application/vnd.jupyter.widget-view+json": view,
        }


def predict(
    key: str,
    question: str,
    options: Sequence[str] | None = None,
    *,
    low: float | None = None,
    high: float | None = None,
    unit: str = "",
) -> Prediction:
    """Ask for a prediction: one of some options, or a number within bounds. Nothing is chosen beforehand.

    The answer is kept when it changes, in the student's `progress.json` if there is a folder for it; a cell below shows
    it beside the outcome, with `compare`. A cell that nobody answers holds nothing up.

    Args:
        key: name under which the answer is kept, with its chapter, such as "02-fgsm-accuracy".
        question: one sentence, with LaTeX between dollars and code between backticks.
        options: at least two answers to choose from; else `low` and `high`.
        low: least number accepted.
        high: largest number accepted.
        unit: unit of the number, such as "%".
    Returns:
        what the notebook shows.
    Raises:
        ValueError: neither options nor bounds, or both; names the argument.

    >>> predict("doc-sign", "Which way does an untargeted attack walk on the loss?", ["up", "down"])
    Predict: Which way does an untargeted attack walk on the loss?
      ( ) up
      ( ) down
    """
    for name, value in {"key": key, "question": question}.items():
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{name} is {describe(value)}; accepted: text")
    if options is not None:
        texts = not isinstance(options, str) and all(isinstance(option, str) for option in options)
        if not texts or len(set(options)) != len(options) or len(options) < 2:
            raise ValueError(f"options is {describe(options)}; accepted: two different texts or more")
        if low is not None or high is not None:
            raise ValueError("low and high came with options; accepted: either options, or low and high")
        asked[key] = Question(key, question, options=tuple(options))
    else:
        check_number("low", low)
        check_number("high", high, low=low, exclusive=True)
        asked[key] = Question(key, question, low=low, high=high, unit=unit)
    return Prediction(asked[key])


# --- the outcome


def compare(key: str, outcome: float | str, explanation: str = "") -> Shown:
    """Show what was predicted beside what came out.

    Args:
        key: the key of the prediction.
        outcome: the measured number, in the unit of the prediction, or the option that turned out right.
        explanation: one sentence or two on why, shown below.
    Returns:
        what the notebook shows.
    Raises:
        ValueError: the outcome is neither a finite number nor one of the options.

    >>> _ = predict("doc-left", "How many images stay right?", low=0, high=100, unit="%")
    >>> compare("doc-left", 2.0)
    You made no prediction. Measured: 2 %.
    """
    question = asked.get(key, Question(key, ""))
    if question.options:
        check_choice("outcome", outcome, question.options)
    elif not isinstance(outcome, str):
        check_number("outcome", outcome)
    entry, notice = recall(key)
    verdict, color = account(entry, outcome, question.unit), BLUE if entry else GRAY
    lines = [line for line in (explanation, notice) if line]
    plain = "\n".join([verdict, *lines]).replace("`", "")
    return Shown(plain, html=panel(f"<strong>{as_html(verdict)}</strong>", *map(as_html, lines), color=color))


def account(entry: Entry | None, outcome: float | str, unit: str) -> str:
    """One sentence with prediction, outcome and distance.

    >>> account(Entry(50.0, "%"), 2.0, "%")
    'You predicted 50 %, measured 2 %: 48 percentage points apart.'
    """
    unit = entry.unit if entry else unit
    if entry is None or isinstance(entry.prediction, str) != isinstance(outcome, str):
        return f"You made no prediction. {'Answer' if isinstance(outcome, str) else 'Measured'}: {said(outcome, unit)}."
    if isinstance(outcome, str):
        if entry.prediction == outcome:
            return f"✔ As you predicted: {outcome}."
        return f"You predicted: {entry.prediction}. It turned out: {outcome}."
    distance = abs(entry.prediction - outcome)
    apart = said(distance, unit).replace("%", "percentage points")
    return f"You predicted {said(entry.prediction, unit)}, measured {said(outcome, unit)}: {apart} apart."


def said(value: float | str, unit: str) -> str:
    """A value with its unit, in four digits at most."""
    return value if isinstance(value, str) else f"{value:.4g} {unit}".rstrip()

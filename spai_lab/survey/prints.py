"""The survey's seven tables and figures at print quality: PDF, SVG and PNG, each with its caption and its alt text."""

import html
import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.figure import Figure

from spai_lab.checks import check_choice
from spai_lab.data import load
from spai_lab.files import write_atomically
from spai_lab.style import styled
from spai_lab.survey.figures import DEFENSES, STAGES, STRIKES, figure_knowledge, figure_phases
from spai_lab.survey.measure import load_measurement
from spai_lab.survey.measured_figures import figure_attacks, figure_defenses, figure_private_ai
from spai_lab.survey.measured_rows import check_measurement, source_of
from spai_lab.survey.measured_words import Words, attacks_in_words, defenses_in_words, listed, private_in_words
from spai_lab.survey.profiles import PROFILES
from spai_lab.survey.regions import short_name
from spai_lab.survey.roles import ROLES, attacks_of, figure_privacy_roles
from spai_lab.survey.tables import attack_types, table_attack_types
from spai_lab.survey.taxonomy import load_taxonomy
from spai_lab.training import reference

DOTS_PER_INCH = 300
FORMATS = ("pdf", "svg", "png")
CAPTIONS = "captions.json"
# Fonts go into the file: as TrueType into PDF, as outlines into SVG. With a fixed salt, an SVG is the same each time.
FONTS = {"pdf.fonttype": 42, "svg.fonttype": "path", "svg.hashsalt": "spai-lab"}


@dataclass(frozen=True)
class Print:
    """A table or a figure that can be saved.

    Args:
        title: of it.
        draw: from a measurement of the survey to the figure; those that need none ignore it.
        words: from the same to caption and alt text.
        source: what it was made from, if that is no measurement.
    """

    title: str
    draw: Callable[[dict | None], Figure]
    words: Callable[[dict | None], Words]
    source: str = ""


def types_in_words(measurement: dict | None = None) -> Words:
    """Caption and alt text of `table_attack_types`."""
    counts = attack_types()
    told = [
        f"{part}: " + listed([f"{counts.loc[part, column]} {column}" for column in counts if counts.loc[part, column]])
        for part in counts.index
    ]
    return Words(
        "Evasion strikes in inference, poisoning in training; columns tell what an attacker must know. A method that "
        "works in several ways stands under each.",
        f"Table of the attack types with the names of their methods. {'; '.join(told)}.",
    )


def phases_in_words(measurement: dict | None = None) -> Words:
    """Caption and alt text of `figure_phases`."""
    above, below = ([f"{each.title} at the {each.stage}" for each in strikes] for strikes in (STRIKES, DEFENSES))
    return Words(
        "A model's life from left to right. Arrows from above show where each family of attacks strikes, those from "
        "below what stands against it.",
        f"Diagram of {listed(STAGES)}. Attacks: {listed(above)}. Defenses: {listed(below)}.",
    )


def knowledge_in_words(measurement: dict | None = None) -> Words:
    """Caption and alt text of `figure_knowledge`."""
    return Words(
        "The same boundary, known in two ways. Left, white-box: loss and gradient everywhere. Right, black-box: the "
        "answers to random queries, and the boundary that a surrogate guesses from them.",
        "Two panels of two moons. Left: shaded loss, gradient arrows, and the path of an attack across the boundary. "
        "Right: queried points in two colors and the dotted boundary of a surrogate.",
    )


def roles_in_words(measurement: dict | None = None) -> Words:
    """Caption and alt text of `figure_privacy_roles`."""
    rows = load_taxonomy()
    told = [
        f"{role.title} sees {listed(role.sees)} and has {listed([short_name(row) for row in attacks_of(role, rows)])}"
        for role in ROLES
    ]
    return Words(
        "Who threatens privacy, from left to right by how much each sees; who sees more can do what those do who see "
        "less. A defense is as wide as the roles that it stands against.",
        f"Diagram with a column for each role, the defenses below. {'; '.join(told)}.",
    )


def drawn_knowledge(measurement: dict | None = None) -> Figure:
    """`figure_knowledge` on the moons, with the same queries each time."""
    return figure_knowledge(load("moons"), reference("mlp", "moons"), generator=torch.Generator().manual_seed(0))


TAXONOMY = "data/taxonomy.toml"
PRINTS: dict[str, Print] = {
    "table_attack_types": Print("Attack types", lambda _: table_attack_types(), types_in_words, TAXONOMY),
    "figure_phases": Print("A model's life", lambda _: figure_phases(), phases_in_words, TAXONOMY),
    "figure_knowledge": Print(
        "What an attacker sees", drawn_knowledge, knowledge_in_words, "the moons and the reference model mlp"
    ),
    "table_attacks": Print("Every attack, measured", figure_attacks, attacks_in_words),
    "table_defenses": Print("Every defense, measured", figure_defenses, defenses_in_words),
    "figure_privacy_roles": Print("Who threatens privacy", lambda _: figure_privacy_roles(), roles_in_words, TAXONOMY),
    "table_private_ai": Print("Private AI, measured", figure_private_ai, private_in_words),
}


def save_figure(name: str, folder: Path | str, *, measurement: dict | None = None) -> list[Path]:
    """Save one of the survey's tables and figures for print.

    Args:
        name: a key of `PRINTS`.
        folder: where to; it is made where it is missing, and files of these names are replaced, each whole or not at
            all. `captions.json` there gets caption, alt text and source; what it says of other figures stays.
        measurement: as `run_survey` returns it; None takes the quick profile's from `data/results/`, where one is
            needed.
    Returns:
        the files: PDF, SVG and PNG, 300 dots to the inch.
    Raises:
        ValueError: there is no such figure, nothing was measured yet, or `captions.json` is something else.
        OSError: the folder cannot be written to.
    """
    check_choice("name", name, tuple(PRINTS))
    each, folder = PRINTS[name], Path(folder)
    if not each.source:
        measurement = check_measurement(load_measurement("survey_quick") if measurement is None else measurement)
    captions = kept_captions(folder / CAPTIONS)
    words = each.words(measurement)
    said = {"title": each.title, "caption": words.caption, "alt": words.alt}
    said |= {"source": each.source or source_of(measurement), "files": [f"{name}.{ending}" for ending in FORMATS]}
    day = None if each.source else measurement.get("measured")
    figure = each.draw(measurement)
    for ending, file in zip(FORMATS, said["files"], strict=True):
        write_atomically(folder / file, content(figure, ending, said, day))
    captions[name] = said
    ordered = {key: captions[key] for key in sorted(captions, key=[*PRINTS, *captions].index)}
    write_atomically(folder / CAPTIONS, (json.dumps(ordered, indent=1, ensure_ascii=False) + "\n").encode())
    return [folder / file for file in said["files"]]


def save_all(folder: Path | str, profile: str = "quick", *, measurement: dict | None = None) -> list[Path]:
    """Save the survey's seven tables and figures for print.

    Args:
        folder: as in `save_figure`.
        profile: "quick" or "full", of which the measured ones are drawn.
        measurement: as `run_survey` returns it; None takes the profile's from `data/results/`.
    Returns:
        the files, and last `captions.json`.
    Raises:
        ValueError: there is no such profile, or it was not measured yet; nothing is written then.
        OSError: the folder cannot be written to.
    """
    check_choice("profile", profile, tuple(PROFILES))
    measurement = check_measurement(load_measurement(f"survey_{profile}") if measurement is None else measurement)
    files = [path for name in PRINTS for path in save_figure(name, folder, measurement=measurement)]
    return [*files, Path(folder) / CAPTIONS]


def kept_captions(file: Path) -> dict:
    """What `captions.json` holds already; raise `ValueError` if that is not ours."""
    if not file.exists():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError(
            f"folder has a {CAPTIONS} that holds no captions; accepted: another folder, or that file removed"
        )
    return found


def content(figure: Figure, ending: str, said: dict, day: str | None) -> bytes:
    """A figure as a file of one format, with what is said of it inside."""
    buffer = io.BytesIO()
    with styled(), mpl.rc_context(FONTS):
        look = {"format": ending, "dpi": DOTS_PER_INCH, "bbox_inches": "tight", "pad_inches": 0.1}
        figure.savefig(buffer, metadata=METADATA[ending](said, day), **look)
    return described(buffer.getvalue(), said) if ending == "svg" else buffer.getvalue()


def of_pdf(said: dict, day: str | None) -> dict:
    """Metadata of a PDF; its date is that of the measurement."""
    made = None if day is None else datetime.fromisoformat(day).replace(tzinfo=UTC)
    return {
        "Title": said["title"],
        "Subject": said["alt"],
        "Keywords": said["source"],
        "Creator": "SPAI Lab",
        "CreationDate": made,
    }


def of_svg(said: dict, day: str | None) -> dict:
    """Metadata of an SVG."""
    told = {"Title": said["title"], "Description": said["caption"], "Source": said["source"], "Creator": "SPAI Lab"}
    return told | {"Date": day}


def of_png(said: dict, day: str | None) -> dict:
    """Metadata of a PNG."""
    told = {"Title": said["title"], "Description": said["alt"], "Source": said["source"], "Software": "SPAI Lab"}
    return told | ({} if day is None else {"Creation Time": day})


METADATA = {"pdf": of_pdf, "svg": of_svg, "png": of_png}


def described(svg: bytes, said: dict) -> bytes:
    """An SVG with its alt text, which browsers and screen readers take from there; it has its title already."""
    text = re.sub(r"<svg\b", '<svg role="img"', svg.decode(), count=1)
    return text.replace("</title>", f"</title>\n <desc>{html.escape(said['alt'])}</desc>", 1).encode()

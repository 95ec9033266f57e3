"""The survey's rows: what the workbook covers, where it lives, and whether it runs today.

`data/taxonomy.toml` holds one `[[row]]` for each method, table and figure. What its fields may hold is said once, by
the constants below; `load_taxonomy` refuses everything else.
"""

import importlib
import re
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from spai_lab.files import data_folder

PARTS = {
    "evasion": "Secure AI",
    "poisoning": "Secure AI",
    "defenses against evasion": "Secure AI",
    "defenses against poisoning": "Secure AI",
    "threats": "Private AI",
    "differential privacy": "Private AI",
    "cryptography": "Private AI",
    "tables and figures": "The survey, redrawn",
}

SHAPES = {
    "evasion_attack": "(model, x, y, *, eps, ...) -> x_adv; a spatial attack bounds the motion in place of eps",
    "minimal_attack": "(model, x, y, ...) -> x_adv, with the least distortion that it finds",
    "black_box_attack": "(query, x, y, ...) -> x_adv; sees the model through a Query alone",
    "learned_attack": "returns what it learned: a perturbation, a patch, a substitute, a generator",
    "wrapper": "(model, ...) -> model, so that every attack applies to a defended model",
    "poisoning_attack": "(dataset, ...) -> Poisoned",
    "model_attack": "returns a backdoored model and its trigger, or the update that makes the server's model one",
    "model": "returns a model that carries the defense inside",
    "loss": "(model, x, y, ...) -> loss, which robust training puts in place of the cross-entropy",
    "certificate": "bounds what any attack can do",
    "data_defense": "(model, x, y) -> keep, a mask (N,)",
    "detector": "(model, x, y) -> score (N,); higher is more suspicious",
    "repair": "(model, x, y) -> model",
    "aggregation": "combines the updates of many participants into one",
    "privacy_attack": "recovers what should stay private, from a Query or from shared gradients",
    "mechanism": "adds calibrated noise to an answer",
    "training": "trains a private model",
    "accountant": "states or tests the privacy budget epsilon",
    "scheme": "a building block of cryptography: keys, encryption, shares",
    "protocol": "parties that talk over a Channel",
    "table": "(...) -> Figure, and the same as a DataFrame",
    "figure": "(...) -> Figure",
}

# For attacks on Secure AI, what the method reads of its victim: parameters or gradients (white-box), answers or nothing
# at all (black-box), something in between, such as a network that resembles the victim (gray-box). For threats, who
# attacks; for differential privacy, the level at which the noise enters; for cryptography, the family. A row may name
# several: "HE, MPC".
ACCESS = {
    "evasion": ("white-box", "black-box"),
    "poisoning": ("white-box", "gray-box", "black-box"),
    "defenses against evasion": ("defender",),
    "defenses against poisoning": ("defender",),
    "threats": ("user", "silo", "provider"),
    "differential privacy": ("query", "gradient", "function", "label", "any"),
    "cryptography": ("HE", "MPC"),
    "tables and figures": ("any",),
}

CHAPTERS = {
    "00_start_here": "Start here",
    "01_models_and_threats": "Models and threats",
    "02_gradient_attacks": "Gradient attacks",
    "03_minimal_adaptive_physical": "Minimal, adaptive, physical",
    "04_black_box_attacks": "Black-box attacks",
    "05_poisoning": "Poisoning",
    "06_backdoors": "Backdoors",
    "07_gradient_masking": "Gradient masking",
    "08_robust_training": "Robust training",
    "09_detection": "Detection",
    "10_cleaning_up": "Cleaning up",
    "11_privacy_attacks": "Privacy attacks",
    "12_leaks_in_collaboration": "Leaks in collaboration",
    "13_differential_privacy": "Differential privacy",
    "14_homomorphic_encryption": "Homomorphic encryption",
    "15_multiparty_computation": "Multiparty computation",
    "16_measured_survey": "The measured survey",
    "17_arena": "The arena",
}

STATUSES = ("runnable", "planned")


@dataclass(frozen=True)
class Row:
    """One row of the taxonomy; `SHAPES`, `ACCESS` and their neighbors say what its fields may hold."""

    id: str
    name: str
    part: str
    class_: str
    shape: str
    access: str
    paper: str
    functions: tuple[str, ...]
    notebook: str
    tests: tuple[str, ...]
    status: str

    @property
    def runnable(self) -> bool:
        """Whether the row runs today."""
        return self.status == "runnable"

    @property
    def who(self) -> tuple[str, ...]:
        """The words of `access`, one by one."""
        return tuple(self.access.split(", "))

    @property
    def chapter(self) -> str:
        """The two digits of the chapter that teaches the row."""
        return self.notebook[:2]


def load_taxonomy(path: Path | None = None) -> tuple[Row, ...]:
    """Read and check the taxonomy.

    Args:
        path: a TOML file; the project's `data/taxonomy.toml` if None.
    Returns:
        the rows, in the order of the file.
    Raises:
        ValueError: the file is not TOML, or a row breaks a rule; names the row, the field, what it holds
            and what is accepted.
        OSError: the file cannot be read.

    >>> rows = {row.id: row for row in load_taxonomy()}
    >>> rows["pgd"].paper
    'Madry 2017, arXiv 1706.06083'
    """
    path = data_folder() / "taxonomy.toml" if path is None else Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name} is not valid TOML: {error}") from error
    entries = content.get("row")
    tables = isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)
    if not tables or content.keys() != {"row"}:
        raise ValueError(f"{path.name} holds {sorted(content)}; accepted are [[row]] tables and nothing else")
    rows = tuple(_row(entry, number) for number, entry in enumerate(entries, start=1))
    twice = sorted({row.id for row in rows if sum(other.id == row.id for other in rows) > 1})
    if twice:
        raise ValueError(f"{path.name} holds these ids more than once: {', '.join(twice)}")
    return rows


def function_of(reference: str) -> Callable:
    """The function that a row names as "module:name".

    >>> function_of("spai_lab.survey.taxonomy:load_taxonomy").__name__
    'load_taxonomy'
    """
    module, name = reference.split(":")
    return getattr(importlib.import_module(module), name)


def rows_of(rows: Sequence[Row], *parts: str, **wanted: str) -> tuple[Row, ...]:
    """The rows of some parts, narrowed by the value of any other field.

    >>> [row.id for row in rows_of(load_taxonomy(), "evasion", class_="decision")]
    ['boundary', 'hop_skip_jump']
    """
    return tuple(
        row
        for row in rows
        if (not parts or row.part in parts) and all(getattr(row, field) == value for field, value in wanted.items())
    )


_FIELDS = {field.name.rstrip("_"): field.name for field in fields(Row)}
_LISTS = ("functions", "tests")


def _row(entry: dict, number: int) -> Row:
    label = f"row {entry.get('id', number)!r}"
    if entry.keys() != _FIELDS.keys():
        missing, unknown = sorted(_FIELDS.keys() - entry.keys()), sorted(entry.keys() - _FIELDS.keys())
        raise ValueError(f"{label}: missing fields {missing}, unknown fields {unknown}; accepted are {list(_FIELDS)}")
    _check_types(label, entry)
    _check_choices(label, entry)
    _check_patterns(label, entry)
    for field in _LISTS:
        if bool(entry[field]) != (entry["status"] == "runnable"):
            raise ValueError(
                f"{label}: status is {entry['status']!r} and {field} is {entry[field]!r}; "
                "accepted are a runnable row that names some and a planned row that names none"
            )
    return Row(**{_FIELDS[field]: tuple(value) if field in _LISTS else value for field, value in entry.items()})


def _check_types(label: str, entry: dict) -> None:
    for field, value in entry.items():
        if field in _LISTS:
            if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                raise ValueError(f"{label}: {field} is {value!r}; accepted is a list of strings")
        elif not isinstance(value, str) or not value.strip():
            raise ValueError(f"{label}: {field} is {value!r}; accepted is a string that is not empty")


def _check_choices(label: str, entry: dict) -> None:
    choices = {"part": PARTS, "shape": SHAPES, "notebook": CHAPTERS, "status": STATUSES}
    for field, accepted in choices.items():
        if entry[field] not in accepted:
            raise ValueError(f"{label}: {field} is {entry[field]!r}; accepted are {', '.join(accepted)}")
    accepted = ACCESS[entry["part"]]
    if not set(entry["access"].split(", ")) <= set(accepted):
        raise ValueError(f"{label}: access is {entry['access']!r}; accepted are {', '.join(accepted)}")


_PATTERNS = {
    "id": (r"[a-z][a-z0-9_]*", "lower-case letters, digits and underscores"),
    "paper": (r"\D+ \d{4}(, (arXiv \d{4}\.\d{4,5}|IACR \d{4}/\d+|[A-Z][\w& ]+))?", "Author 2014, arXiv 1412.6572"),
    "functions": (r"spai_lab(\.\w+)+:[A-Za-z]\w*", "spai_lab.module:name"),
    "tests": (r"tests/[\w/]*test_\w+\.py", "tests/folder/test_name.py"),
}


def _check_patterns(label: str, entry: dict) -> None:
    for field, (pattern, accepted) in _PATTERNS.items():
        items = entry[field] if field in _LISTS else entry[field].split("; ")
        for item in items:
            if not re.fullmatch(pattern, item):
                raise ValueError(f"{label}: {field} holds {item!r}; accepted is {accepted}")

"""From a slider's move to its new picture: each slider of each explorable, through its whole grid."""

import time

import numpy as np
from ipywidgets import SelectionSlider, Widget

from spai_lab.widgets import (
    accounting_explorer,
    cleaning_explorer,
    clipping_explorer,
    copying_explorer,
    degree_explorer,
    detection_explorer,
    distillation_explorer,
    eps_units,
    epsilon_explorer,
    gate_explorer,
    interval_explorer,
    inversion_explorer,
    leakage_explorer,
    loss_surface,
    membership_explorer,
    moons_explorer,
    network_explorer,
    noise_explorer,
    poison_explorer,
    precision_explorer,
    robust_boundary,
    rotation_explorer,
    shares_explorer,
    sides_explorer,
    smoothing_explorer,
    standings_explorer,
    traffic_explorer,
    trigger_painter,
    tuning_explorer,
    votes_explorer,
)
from spai_lab.widgets.explorable import SLIDERS

TARGET = 100  # milliseconds, at the 95th percentile
ROUNDS = 2


def main(quick: bool = False) -> None:
    """Print the median and the 95th percentile of every slider, on the digits, which every machine has.

    What is measured is what the slider calls: the controls in line, the picture drawn and packed, its words, the
    messages to the page. The computation behind a slow control is not part of it; the explorable announces it.
    """
    explorables = {
        "epsilon explorer": epsilon_explorer("digits"),
        "loss surface": loss_surface("digits"),
        "moons explorer": moons_explorer(),
        "eps units": eps_units("digits"),
        "poison explorer": poison_explorer(),
        "trigger painter": trigger_painter("digits"),
        "distillation": distillation_explorer(),
        "robust boundary": robust_boundary(),
        "smoothing": smoothing_explorer("digits"),
        "intervals": interval_explorer("digits"),
        "detection": detection_explorer("digits"),
        "cleaning": cleaning_explorer("digits"),
        "membership": membership_explorer("digits"),
        "copying": copying_explorer("digits"),
        "inversion": inversion_explorer("digits"),
        "leakage": leakage_explorer("digits"),
        "noise": noise_explorer(),
        "accounting": accounting_explorer(),
        "clipping": clipping_explorer("digits"),
        "tuning": tuning_explorer("digits"),
        "votes": votes_explorer("digits"),
        "precision": precision_explorer(),
        "degree": degree_explorer(),
        "rotation": rotation_explorer(),
        "sides": sides_explorer(),
        "shares": shares_explorer(),
        "gate": gate_explorer(),
        "traffic": traffic_explorer(),
        "network": network_explorer(),
        "standings": standings_explorer("digits"),
    }
    print(f"slider to picture, in milliseconds (target: {TARGET} at the 95th percentile)")
    print(f"{'explorable':18}{'slider':18}{'moves':>7}{'median':>9}{'95th percentile':>18}")
    for title, explorable in explorables.items():
        for name, control in explorable.controls.items():
            if not isinstance(control, SLIDERS):
                continue
            durations = 1000 * np.array(moves(control, rounds=1 if quick else ROUNDS))
            median, high = np.percentile(durations, [50, 95])
            verdict = "" if high < TARGET else "  over the target"
            print(f"{title:18}{name:10}{len(durations):7}{median:9.1f}{high:18.1f}{verdict}")


def moves(slider: Widget, *, rounds: int) -> list[float]:
    """Seconds that each move of a slider takes, up through all its places and down again, `rounds` times.

    The first visit of a place may compute what later ones find again; both count.
    """
    trait, places = grid(slider)
    start, durations = getattr(slider, trait), []
    for place in [*places, *reversed(places)] * rounds:
        if place == getattr(slider, trait):
            continue
        before = time.perf_counter()
        setattr(slider, trait, place)
        durations.append(time.perf_counter() - before)
    setattr(slider, trait, start)
    return durations


def grid(slider: Widget) -> tuple[str, list[float]]:
    """Which of a slider's traits a move sets, and to what: every place that the handle can have."""
    if isinstance(slider, SelectionSlider):
        return "index", list(range(len(slider.options)))
    count = round((slider.max - slider.min) / slider.step) + 1
    return "value", [slider.min + step * slider.step for step in range(count)]

"""The network explorer: how long measured protocols would take over other networks, by a replay of their logs."""

from functools import lru_cache

import ipywidgets as widgets
from matplotlib.figure import Figure

from spai_lab.checks import check_choice
from spai_lab.checks import describe as describe_value
from spai_lab.crypto.channel import Sent
from spai_lab.crypto.network_time import LAN, MEGABIT, WAN, Duration, Network, replay
from spai_lab.he_figures import in_bytes, in_seconds
from spai_lab.mpc_figures import draw_durations, network_frame
from spai_lab.style import Backdrop
from spai_lab.survey.ledger import published
from spai_lab.survey.measure import load_measurement
from spai_lab.survey.parties_tables import logs_of
from spai_lab.widgets.explorable import Explorable

Logs = dict[str, tuple[list[Sent], list[Sent]]]
LATENCIES = (0.00005, 0.00015, 0.0005, 0.002, 0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3)  # seconds, one way
BANDWIDTHS = (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000)  # Mbit/s
PRESETS = {"LAN": LAN, "WAN": WAN, "own": None}
PUBLISHED = {"MiniONN, published": "minionn-seconds", "GAZELLE, published": "gazelle-seconds"}


@lru_cache(maxsize=1)
def measured() -> Logs:
    """The logs of one MNIST image between two parties, by protocol."""
    return logs_of(load_measurement("parties_mnist"))


@lru_cache(maxsize=len(LATENCIES) * len(BANDWIDTHS))
def durations(latency: float, bandwidth: float) -> dict[str, Duration]:
    """What each protocol takes; Mbit/s."""
    check_setting(latency, bandwidth)
    network = Network(latency, bandwidth * MEGABIT)
    return {name: replay(*logs, network) for name, logs in measured().items()}


@lru_cache(maxsize=1)
def backdrop() -> Backdrop:
    """What no slider moves."""
    told = {name: published()[figure]["value"] for name, figure in PUBLISHED.items()}
    return Backdrop.of(*network_frame(list(measured()), told))


def check_setting(latency: float, bandwidth: float) -> None:
    """`ValueError` unless both are on the controls."""
    for name, value, grid in (("latency", latency, LATENCIES), ("bandwidth", bandwidth, BANDWIDTHS)):
        if value not in grid:
            raise ValueError(f"{name} is {describe_value(value)}; accepted: {', '.join(map(str, grid))}")


def render(network: str, latency: float, bandwidth: float) -> Figure:
    """Seconds of one image by each protocol, over a network.

    Args:
        network: "LAN", "WAN" or "own"; only the control's word for the two numbers.
        latency: seconds of one way, one of `LATENCIES`.
        bandwidth: Mbit/s each way, one of `BANDWIDTHS`.
    Returns:
        the figure.
    Raises:
        ValueError: names the argument.
    """
    check_choice("network", network, tuple(PRESETS))
    check_setting(latency, bandwidth)
    behind = backdrop()
    fig = behind.picture()
    draw_durations(fig, behind.axes["bars"], list(durations(latency, bandwidth).values()))
    return fig


def verdict(network: str, latency: float, bandwidth: float) -> str:
    """What to see."""
    found = durations(latency, bandwidth)
    told = []
    for name, each in found.items():
        waiting = each.seconds - each.computing
        told.append(f"{name}: {in_seconds(waiting)} of {in_seconds(each.seconds)} are the network's")
    return (
        f"One way takes {in_seconds(latency)}, and {bandwidth:,} Mbit/s fit through. {'; '.join(told)}. Published "
        "times are of networks and machines of their authors; no slider moves them."
    )


def describe(network: str, latency: float, bandwidth: float) -> str:
    """The picture for somebody who cannot see it."""
    found = durations(latency, bandwidth)
    told = "; ".join(
        f"{name} {in_seconds(each.seconds)}, {each.rounds} messages in turn, {in_bytes(each.size)}"
        for name, each in found.items()
    )
    return f"Marks, with {in_seconds(latency)} of latency and {bandwidth:,} Mbit/s: {told}."


def network_explorer() -> Explorable:
    """The explorable: move latency and bandwidth, and see what rounds and what bytes cost.

    Returns:
        the widget.
    """
    controls = {
        "network": widgets.Dropdown(description="network", options=list(PRESETS), value="WAN"),
        "latency": widgets.SelectionSlider(
            description="latency", options=[(in_seconds(each), each) for each in LATENCIES], value=WAN.latency
        ),
        "bandwidth": widgets.SelectionSlider(
            description="Mbit/s", options=[(f"{each:,}", each) for each in BANDWIDTHS], value=WAN.bandwidth / MEGABIT
        ),
    }

    def fit(name: str) -> None:
        chosen = PRESETS[controls["network"].value]
        if name == "network" and chosen is not None:
            controls["latency"].value, controls["bandwidth"].value = chosen.latency, chosen.bandwidth / MEGABIT
        elif name != "network":
            here = (controls["latency"].value, controls["bandwidth"].value * MEGABIT)
            names = {(each.latency, each.bandwidth): name for name, each in PRESETS.items() if each is not None}
            controls["network"].value = names.get(here, "own")

    return Explorable(render, controls, alt=describe, caption=verdict, adapt=fit)

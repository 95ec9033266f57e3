"""The network explorer: bars are replays of real logs, presets and sliders agree, more network is never faster."""

import pytest

from spai_lab.crypto.network_time import LAN, MEGABIT, WAN, Network, replay
from spai_lab.he_figures import in_seconds
from spai_lab.style import to_png
from spai_lab.widgets.network_explorer import (
    BANDWIDTHS,
    LATENCIES,
    describe,
    durations,
    measured,
    network_explorer,
    render,
    verdict,
)


def test_both_presets_are_on_the_sliders():
    for preset in (LAN, WAN):
        assert preset.latency in LATENCIES and preset.bandwidth / MEGABIT in BANDWIDTHS


def test_durations_are_replays():
    found = durations(WAN.latency, WAN.bandwidth / MEGABIT)
    assert found == {name: replay(*logs, WAN) for name, logs in measured().items()}
    assert len(found) >= 2


@pytest.mark.parametrize("bandwidth", [1, 100, 10_000])
def test_latency_costs_at_least_a_round_each(bandwidth):
    near, far = durations(LATENCIES[0], bandwidth), durations(LATENCIES[-1], bandwidth)
    for name, each in near.items():
        apart = far[name].seconds - each.seconds
        assert 0 < apart <= (LATENCIES[-1] - LATENCIES[0]) * each.rounds + 1e-6


@pytest.mark.parametrize("latency", [LATENCIES[0], 0.04])
def test_a_thin_wire_costs_at_least_the_larger_direction(latency):
    for name, each in durations(latency, 1).items():
        most = max(sum(sent.size for sent in log if sent.outgoing) for log in measured()[name])
        assert each.seconds >= most / MEGABIT
        assert each.seconds > durations(latency, 10_000)[name].seconds


def test_picture_and_words():
    fig = render("WAN", WAN.latency, 100)
    assert to_png(fig).startswith(b"\x89PNG")
    found = durations(WAN.latency, 100)
    for name, each in found.items():
        assert f"{name} {in_seconds(each.seconds)}" in describe("WAN", WAN.latency, 100)
        assert name in verdict("WAN", WAN.latency, 100)


@pytest.mark.parametrize("bad", [("moon", 0.04, 100), ("own", 0.041, 100), ("own", 0.04, 101)])
def test_bad_settings_are_named(bad):
    name = ("network", "latency", "bandwidth")[[bad[0] == "moon", bad[1] == 0.041, True].index(True)]
    with pytest.raises(ValueError, match=name):
        render(*bad)


def test_a_preset_moves_the_sliders_and_a_slider_leaves_the_preset():
    explorable = network_explorer()
    controls = explorable.controls
    controls["network"].value = "LAN"
    assert Network(controls["latency"].value, controls["bandwidth"].value * MEGABIT) == LAN
    controls["latency"].value = 0.3
    assert controls["network"].value == "own"
    controls["latency"].value = LAN.latency
    assert controls["network"].value == "LAN"

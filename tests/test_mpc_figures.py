"""Drawings of chapter 15: they show what the log, the laps and the numbers say, and refuse what they cannot show."""

import numpy as np
import pytest
from matplotlib.lines import Line2D

from spai_lab.crypto.channel import Lap, Sent
from spai_lab.crypto.network_time import LAN, WAN, replay
from spai_lab.mpc_figures import arrows, by_layer, cell_counts, evenness, over_networks, sequence
from spai_lab.style import to_png

LOG = [
    Sent(0.1, 0.1, True, "question", 1_000),
    Sent(0.1, 0.2, False, "piece", 2_000),
    Sent(0.3, 0.3, False, "piece", 3_000),
    Sent(0.4, 0.4, True, "thanks", 10),
]
OTHER = [Sent(each.asked, each.at, not each.outgoing, each.kind, each.size) for each in LOG]
LAPS = [Lap("first", 1_000, 5_000, 2, 0.25), Lap("second", 10, 0, 1, 0.5)]


def texts(fig):
    return [artist.get_text() for artist in fig.findobj() if hasattr(artist, "get_text")]


def test_pieces_of_one_kind_are_one_arrow():
    assert [(each.kind, each.count, each.size) for each in arrows(LOG)] == [
        ("question", 1, 1_000),
        ("piece", 2, 5_000),
        ("thanks", 1, 10),
    ]


def test_a_sequence_names_each_message_and_points_to_its_receiver():
    fig = sequence(LOG, ("Alice", "Bob"))
    assert {"Alice", "Bob", "question, 1 kB", "2 x piece, 5 kB", "thanks, 10 B"} <= set(texts(fig))
    ax = fig.axes[0]
    ways = [note.xy[0] > note.xyann[0] for note in ax.texts if getattr(note, "arrow_patch", None) is not None]
    assert ways == [True, False, True]
    assert to_png(fig).startswith(b"\x89PNG")


def test_layers_show_totals():
    seen = " ".join(texts(by_layer(LAPS)))
    assert "6 kB" in seen and "10 B" in seen and "250 ms" in seen and "500 ms" in seen


@pytest.mark.parametrize("network", [LAN, WAN])
def test_marks_stand_where_the_replay_says(network):
    fig = over_networks({"ours": (LOG, OTHER)}, network, {"theirs": 9.4})
    found = replay(LOG, OTHER, network)
    ends = {part.get_gid(): float(part.get_xdata()[0]) for part in fig.findobj(Line2D) if part.get_gid()}
    assert ends == pytest.approx({"all 0": found.seconds, "computing 0": found.computing})
    assert any("9.4 s" in text for text in texts(fig))


def test_even_numbers_look_even_and_small_ones_do_not():
    random = np.random.default_rng(0)
    even = random.integers(0, 2**64, 6_400, dtype=np.uint64)
    small = random.integers(0, 1000, 6_400).astype(np.uint64)
    fig = evenness({"even": even, "small": small}, 2**64)
    first, second = (float(ax.get_title(loc="left").split("χ² = ")[1].split()[0].replace(",", "")) for ax in fig.axes)
    assert first < 100 < 10_000 < second


def test_cells_are_equal_parts():
    assert cell_counts(np.arange(64, dtype=np.uint64), 64, 8).tolist() == [8] * 8


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: sequence([], ("a", "b")), "log"),
        (lambda: sequence(LOG, ("a",)), "names"),
        (lambda: by_layer([]), "laps"),
        (lambda: over_networks({}, LAN), "logs"),
        (lambda: evenness({}, 8), "numbers"),
        (lambda: evenness({"a": np.array([8], np.uint64)}, 8), "numbers"),
        (lambda: evenness({"a": np.array([1.0])}, 8), "numbers"),
    ],
)
def test_bad_arguments_are_named(call, name):
    with pytest.raises(ValueError, match=name):
        call()

"""What a chapter shows and lets the reader move: explorables, predictions, sources."""

from spai_lab.widgets.eps_units import eps_units
from spai_lab.widgets.epsilon_explorer import epsilon_explorer
from spai_lab.widgets.explorable import Explorable
from spai_lab.widgets.loss_surface import loss_surface
from spai_lab.widgets.moons_explorer import moons_explorer
from spai_lab.widgets.predict import compare, predict
from spai_lab.widgets.recompute import Recompute
from spai_lab.widgets.source import show_source

__all__ = [
    "Explorable",
    "Recompute",
    "compare",
    "eps_units",
    "epsilon_explorer",
    "loss_surface",
    "moons_explorer",
    "predict",
    "show_source",
]

"""What a chapter shows and lets the reader move: explorables, predictions, sources."""

from spai_lab.widgets.accounting_explorer import accounting_explorer
from spai_lab.widgets.attack_gallery import attack_gallery
from spai_lab.widgets.boundary_walks import boundary_walk, deepfool_walk
from spai_lab.widgets.cleaning_explorer import cleaning_explorer
from spai_lab.widgets.clipping_explorer import clipping_explorer
from spai_lab.widgets.copying_explorer import copying_explorer
from spai_lab.widgets.cw_tradeoff import cw_tradeoff
from spai_lab.widgets.degree_explorer import degree_explorer
from spai_lab.widgets.detection_explorer import detection_explorer
from spai_lab.widgets.distillation_explorer import distillation_explorer
from spai_lab.widgets.eps_units import eps_units
from spai_lab.widgets.epsilon_explorer import epsilon_explorer
from spai_lab.widgets.explorable import Explorable
from spai_lab.widgets.gate_explorer import gate_explorer
from spai_lab.widgets.interval_explorer import interval_explorer
from spai_lab.widgets.inversion_explorer import inversion_explorer
from spai_lab.widgets.leakage_explorer import leakage_explorer
from spai_lab.widgets.levels_explorer import levels_explorer
from spai_lab.widgets.loss_surface import loss_surface
from spai_lab.widgets.membership_explorer import membership_explorer
from spai_lab.widgets.moons_explorer import moons_explorer
from spai_lab.widgets.network_explorer import network_explorer
from spai_lab.widgets.noise_explorer import noise_explorer
from spai_lab.widgets.patch_explorer import patch_explorer
from spai_lab.widgets.poison_explorer import poison_explorer
from spai_lab.widgets.precision_explorer import precision_explorer
from spai_lab.widgets.predict import compare, predict
from spai_lab.widgets.recompute import Recompute
from spai_lab.widgets.robust_boundary import robust_boundary
from spai_lab.widgets.rotation_explorer import rotation_explorer
from spai_lab.widgets.saliency_explorer import saliency_explorer
from spai_lab.widgets.shares_explorer import shares_explorer
from spai_lab.widgets.sides_explorer import sides_explorer
from spai_lab.widgets.smoothing_explorer import smoothing_explorer
from spai_lab.widgets.source import show_source
from spai_lab.widgets.standings_explorer import standings_explorer
from spai_lab.widgets.traffic_explorer import traffic_explorer
from spai_lab.widgets.trigger_painter import trigger_painter
from spai_lab.widgets.tuning_explorer import tuning_explorer
from spai_lab.widgets.universal_growth import universal_growth
from spai_lab.widgets.votes_explorer import votes_explorer

__all__ = [
    "Explorable",
    "Recompute",
    "accounting_explorer",
    "attack_gallery",
    "boundary_walk",
    "cleaning_explorer",
    "clipping_explorer",
    "compare",
    "copying_explorer",
    "cw_tradeoff",
    "deepfool_walk",
    "degree_explorer",
    "detection_explorer",
    "distillation_explorer",
    "eps_units",
    "epsilon_explorer",
    "gate_explorer",
    "interval_explorer",
    "inversion_explorer",
    "leakage_explorer",
    "levels_explorer",
    "loss_surface",
    "membership_explorer",
    "moons_explorer",
    "network_explorer",
    "noise_explorer",
    "patch_explorer",
    "poison_explorer",
    "precision_explorer",
    "predict",
    "robust_boundary",
    "rotation_explorer",
    "saliency_explorer",
    "shares_explorer",
    "show_source",
    "sides_explorer",
    "smoothing_explorer",
    "standings_explorer",
    "traffic_explorer",
    "trigger_painter",
    "tuning_explorer",
    "universal_growth",
    "votes_explorer",
]

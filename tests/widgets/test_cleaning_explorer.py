"""The cleaning explorer: the evidence is the defenses', and the rates are counted."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from sklearn.metrics import roc_auc_score

from spai_lab.attacks.poisoning.poisoned import backdoor_rate, stamp
from spai_lab.data import load
from spai_lab.defenses.poisoning.latent import activation_clustering, spectral_signatures
from spai_lab.defenses.poisoning.neural_cleanse import flagged
from spai_lab.defenses.poisoning.strip import entropy as entropy_of
from spai_lab.metrics import accuracy_rate
from spai_lab.style import COLORS, MARKERS
from spai_lab.widgets.cleaning_explorer import (
    JUDGED,
    KINDS,
    TARGET,
    backdrop,
    cleaning_explorer,
    describe,
    evidence_of,
    label_shifts,
    render,
    smallest_normal,
    thresholds,
    verdict,
    victim,
)

KIND_NAMES = ["spectrum", "clusters", "reversed trigger", "entropy"]


def parts(fig):
    return {artist.get_gid(): artist for artist in fig.findobj() if artist.get_gid()}


@pytest.fixture(scope="module")
def found():
    return victim("digits")


def test_the_victim_reads_clean_images_and_obeys_the_trigger(found):
    x, y = load("digits").x_test, load("digits").y_test
    assert found.poisoned.count == 53 and (found.poisoned.y[found.poisoned.is_poison] == TARGET).all()
    assert accuracy_rate(found.model, x, y).interval[0] > 0.9
    assert backdoor_rate(found.model, x, y, found.poisoned.trigger, found.poisoned.wanted).interval[0] > 0.9
    assert list(KINDS) == KIND_NAMES


def test_the_usual_spectral_threshold_removes_what_the_defense_removes(found):
    evidence, poisoned = evidence_of("digits", "spectrum"), found.poisoned
    keep = spectral_signatures(found.model, poisoned.x, poisoned.y)[poisoned.y == TARGET]
    assert torch.equal(evidence.suspected(evidence.usual), ~keep)
    assert torch.equal(evidence.guilty, poisoned.is_poison[poisoned.y == TARGET])


@pytest.mark.parametrize("share", [0.25, None, 0.45], ids=["few", "default", "many"])
def test_a_threshold_on_clusters_removes_what_the_defense_removes(found, share):
    evidence, poisoned = evidence_of("digits", "clusters"), found.poisoned
    settings = {"generator": torch.Generator().manual_seed(0)} | ({} if share is None else {"relative_size": share})
    keep = activation_clustering(found.model, poisoned.x, poisoned.y, **settings)
    assert 0 < int((~keep).sum()) < len(keep)
    assert torch.equal(evidence.suspected(evidence.usual if share is None else share), ~keep)


@pytest.mark.parametrize("threshold", [0.0, 1.0, 2.0, 6.0])
def test_a_threshold_on_the_index_flags_what_the_defense_flags(threshold):
    evidence = evidence_of("digits", "reversed trigger")
    norms = evidence.reversals.norms
    expected = sorted(flagged(norms, threshold=threshold))
    assert evidence.suspected(threshold).nonzero()[:, 0].tolist() == expected
    below = norms.double() < smallest_normal(norms, threshold) - 1e-9
    assert below.nonzero()[:, 0].tolist() == expected


def test_the_target_has_the_smallest_mask_and_its_trigger_opens_the_backdoor(found):
    reversals = evidence_of("digits", "reversed trigger").reversals
    assert int(reversals.norms.argmin()) == TARGET and float(reversals.success[TARGET]) > 0.95
    x = load("digits").x_test
    with torch.no_grad():
        answers = found.model(stamp(x, reversals.triggers[TARGET])).argmax(1)
    assert float((answers == TARGET).double().mean()) > 0.9


def test_the_entropies_are_those_under_overlays(found):
    evidence = evidence_of("digits", "entropy")
    x, y = load("digits").sample(JUDGED)
    stamped = stamp(x[y != TARGET], found.poisoned.trigger)
    assert int(evidence.guilty.sum()) == len(stamped) and int((~evidence.guilty).sum()) == JUDGED
    for group, images in ((~evidence.guilty, x[:30]), (evidence.guilty, stamped[:30])):
        laid_over = [(image + found.trusted).clamp(max=1) for image in images]
        expected = torch.stack([entropy_of(found.model, mixed).mean() for mixed in laid_over])
        # the defense draws 100 of 500 overlays, so that each mean is off by about 0.05 bits
        assert (evidence.values[group][:30] - expected).abs().mean() < 0.1
    assert evidence.guilty[evidence.values.argsort()[: len(stamped)]].double().mean() > 0.9


@pytest.mark.parametrize("kind", KIND_NAMES)
def test_the_rates_are_counted_and_the_point_lies_on_the_curve(kind):
    evidence = evidence_of("digits", kind)
    values, guilty = evidence.values.tolist(), evidence.guilty.tolist()
    score = [-value if kind in ("clusters", "entropy") else value for value in values]
    assert evidence.roc.area == pytest.approx(roc_auc_score(guilty, score))
    curve = np.stack([evidence.roc.false_positives, evidence.roc.true_positives], 1)
    assert backdrop(evidence).axes["roc"].lines[1].get_xydata() == pytest.approx(curve)
    for threshold in (evidence.grid[3], evidence.usual, evidence.grid[-4]):
        if kind in ("clusters", "entropy"):
            suspected = [value < threshold for value in values]
        else:
            suspected = [value > threshold for value in values]
        hits = sum(a and b for a, b in zip(suspected, guilty, strict=True))
        caught, alarms = hits / sum(guilty), (sum(suspected) - hits) / (len(guilty) - sum(guilty))
        named = parts(render(evidence, threshold))
        assert named["present"].get_xydata()[0] == pytest.approx([alarms, caught])
        assert np.abs(curve - [alarms, caught]).sum(1).min() < 1e-9
        assert named["true"].get_text().startswith(f"true positives {100 * caught:.0f} % (")
        assert named["false"].get_text().startswith(f"false positives {100 * alarms:.0f} % (")
        low, high = named["true interval"].get_ydata()
        assert low - 1e-9 <= caught <= high + 1e-9 and low < high
        said = verdict(evidence, threshold)
        assert f"catches {100 * caught:.1f} % (n = {sum(guilty)}" in said
        assert ("This is the default" in said) == (threshold == evidence.usual)
        assert ("It catches nothing." in said) == (hits == 0)
        assert ("It tells them apart." in said) == (caught >= 0.9 and alarms <= 0.05)


@pytest.mark.parametrize("kind", KIND_NAMES)
def test_it_draws_the_whole_grid(kind):
    evidence = evidence_of("digits", kind)
    assert evidence.usual in evidence.grid and sorted(evidence.grid) == list(evidence.grid)
    for threshold in evidence.grid:
        named = parts(render(evidence, threshold))
        rule = named["rule"].get_text()
        assert rule.endswith(f"{'below' if KINDS[kind].below else 'above'} {KINDS[kind].step.format(threshold)}")
        if kind == "reversed trigger":
            assert list(named["flagged"].get_xdata()) == sorted(flagged(evidence.reversals.norms, threshold=threshold))
        else:
            assert list(named["threshold"].get_xdata()) == [threshold, threshold]
        for words in (describe(evidence, threshold), verdict(evidence, threshold)):
            assert "nan" not in words and words.endswith(".")
    render(evidence, evidence.usual).canvas.draw()


@pytest.mark.parametrize("kind", ["spectrum", "entropy"])
def test_the_histograms_hold_every_image(kind):
    evidence = evidence_of("digits", kind)
    ax = backdrop(evidence).axes["evidence"]
    for line, role, group in zip(ax.lines, ("clean", "poisoned"), (~evidence.guilty, evidence.guilty), strict=True):
        assert line.get_ydata().sum() == int(group.sum())
        assert to_hex(line.get_color()) == COLORS[role] and line.get_marker() == MARKERS[role]


def test_classes_stand_where_their_clusters_are():
    evidence = evidence_of("digits", "clusters")
    drawn = {}
    for line in backdrop(evidence).axes["evidence"].lines[1:]:
        drawn[line.get_marker()] = line.get_xydata().tolist()
    places = [[part.relative_size, part.silhouette] for part in evidence.clusters]
    assert drawn == {MARKERS["clean"]: places[1:], MARKERS["poisoned"]: places[:1]}
    for part in evidence.clusters:
        sizes = sorted((int(part.in_smaller.sum()), int((~part.in_smaller).sum())))
        assert part.relative_size == pytest.approx(sizes[0] / sum(sizes))


def test_labels_keep_clear_of_points_and_of_each_other():
    points = np.array([[100.0, 100.0], [118.0, 100.0], [100.0, 300.0]])
    labels = points + label_shifts(points)
    for number, label in enumerate(labels):
        others = np.concatenate([points, np.delete(labels, number, 0)])
        assert np.linalg.norm(others - label, axis=1).min() >= 15


def test_controls_redraw_and_the_slider_follows_the_evidence():
    explorer = cleaning_explorer("digits")
    assert explorer.controls["threshold"].value == evidence_of("digits", "spectrum").usual
    for kind in KIND_NAMES[1:]:
        before = explorer.png
        explorer.controls["kind"].value = kind
        evidence = evidence_of("digits", kind)
        assert explorer.png != before and explorer.controls["threshold"].value == evidence.usual
        assert list(explorer.controls["threshold"].options) == thresholds(evidence)
        before = explorer.png
        explorer.controls["threshold"].value = evidence.grid[10]
        assert explorer.png != before and explorer.caption == verdict(evidence, evidence.grid[10])
    assert 'role="alert"' not in explorer.children[2].value


def test_bad_arguments_are_refused(refuses):
    refuses(evidence_of, {"dataset": "digits", "kind": "smell"}, "kind is 'smell'", "spectrum")
    refuses(evidence_of, {"dataset": "moons", "kind": "spectrum"}, "dataset is 'moons'", "digits")
    refuses(cleaning_explorer, {"dataset": "faces"}, "dataset is 'faces'", "digits")
    for function in (render, verdict, describe):
        refuses(function, {"evidence": evidence_of("digits", "clusters"), "threshold": 0.6}, "threshold is 0.6", "0.5")

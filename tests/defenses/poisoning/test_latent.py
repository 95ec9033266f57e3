"""Activation clustering and spectral signatures, against NumPy, scikit-learn, ART and planted clusters."""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA, FastICA
from sklearn.metrics import silhouette_score
from torch import nn

from spai_lab.attacks.poisoning.backdoors import badnets
from spai_lab.attacks.poisoning.poisoned import all_to_all
from spai_lab.defenses.poisoning.latent import (
    activation_clustering,
    activation_clusters,
    reduced,
    spectral_scores,
    spectral_signatures,
)
from spai_lab.models import features
from spai_lab.training import Recipe, Shift, train


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def reader() -> nn.Module:
    """A model whose features are its pixels."""
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 2))


def planted(poisons: int, distance: float, size: int = 60) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two classes of noise; in class 0 some inputs are moved along one direction."""
    x = 0.3 + 0.05 * torch.randn(2 * size, 12, 1, 1, generator=seeded(3))
    x[:poisons, :6] += distance
    return x.clamp(0, 1), torch.arange(2 * size) // size, torch.arange(2 * size) < poisons


@pytest.mark.parametrize("whiten", [False, True], ids=["pca", "ica"])
def test_a_planted_cluster_goes_and_nothing_else(reader, whiten):
    x, y, is_poison = planted(15, 0.5)
    keep = activation_clustering(reader, x, y, dimensions=3, whiten=whiten, generator=seeded())
    assert torch.equal(keep[y == 0], ~is_poison[y == 0])
    smaller, larger = activation_clusters(reader, x, y, dimensions=3, whiten=whiten, generator=seeded())[0].sizes
    assert (smaller, larger) == (15, 45)


def test_a_cluster_of_half_the_class_stays(reader):
    """The test by relative size cannot tell which half is poison: the method's limit."""
    x, y, _ = planted(29, 0.5)
    plain = {"whiten": False, "generator": seeded()}  # whitened, the noise of so few inputs would count as much
    assert activation_clustering(reader, x, y, **plain)[y == 0].all()
    assert activation_clusters(reader, x, y, **plain)[0].silhouette > 0.5


def test_noise_has_a_low_silhouette(reader):
    x, y, _ = planted(0, 0.5)
    for clusters in activation_clusters(reader, x, y, generator=seeded()):
        assert clusters.silhouette < 0.2


def test_principal_components_are_scikit_learns():
    R = torch.randn(50, 20, generator=seeded()) @ torch.randn(20, 20, generator=seeded(1))
    for whiten in (False, True):
        theirs = PCA(4, whiten=whiten, svd_solver="full").fit_transform(R.double().numpy())
        scale = np.sqrt(50 / 49) if whiten else 1.0
        np.testing.assert_allclose(reduced(R, 4, whiten).abs().numpy(), scale * np.abs(theirs), atol=1e-5)


def test_independent_components_are_a_rotation_of_the_whitened_ones():
    """So that they have the same distances, clusters and silhouette."""
    R = torch.randn(80, 12, generator=seeded()).exp()
    ours = reduced(R, 5, whiten=True).numpy()
    theirs = FastICA(5, whiten="unit-variance", whiten_solver="svd", random_state=0, max_iter=2000).fit_transform(
        R.double().numpy()
    )
    labels = np.arange(80) % 2
    assert silhouette_score(ours, labels) == pytest.approx(silhouette_score(theirs, labels), abs=1e-6)
    np.testing.assert_allclose(ours @ ours.T, theirs @ theirs.T, atol=1e-4)


def test_features_that_span_little_are_reduced_to_what_they_span(reader):
    x = torch.full((6, 12, 1, 1), 0.5)
    y = torch.tensor([0, 0, 0, 1, 1, 1])
    assert activation_clustering(reader, x, y).all()
    assert activation_clusters(reader, x, y)[0].points.shape == (3, 0)
    x[3] = 0.7
    assert activation_clusters(reader, x, y)[1].points.shape == (3, 1)


def test_scores_are_numpys(badnet):
    model, poisoned = badnet
    score = spectral_scores(model, poisoned.x, poisoned.y).numpy()
    R = features(model, poisoned.x).detach().double().numpy()
    for label in range(10):
        of_class = R[poisoned.y == label]
        values, vectors = np.linalg.eigh(np.cov(of_class.T))
        theirs = ((of_class - of_class.mean(0)) @ vectors[:, values.argmax()]) ** 2
        np.testing.assert_allclose(score[poisoned.y == label], theirs, rtol=1e-3, atol=1e-4 * theirs.max())


@pytest.mark.parametrize(("fraction", "dropped"), [(0.0, 0), (0.1, 9), (0.25, 22)], ids=["none", "tenth", "quarter"])
def test_one_and_a_half_times_the_bound_goes_from_each_class(reader, fraction, dropped):
    x, y, is_poison = planted(6, 0.5)
    keep = spectral_signatures(reader, x, y, fraction=fraction)
    assert [int((~keep)[y == label].sum()) for label in (0, 1)] == [dropped, dropped]
    assert not keep[is_poison].any() or dropped == 0


def test_scores_do_not_depend_on_order_or_on_where_the_features_are(reader):
    x, y, _ = planted(6, 0.3)
    order = torch.randperm(len(y), generator=seeded())
    score = spectral_scores(reader, x, y)
    torch.testing.assert_close(spectral_scores(reader, x[order], y[order]), score[order], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(spectral_scores(reader, x / 2 + 0.4, y), score / 4, rtol=1e-3, atol=1e-5)


def test_a_backdoors_poisons_stand_out_spectrally(badnet):
    model, poisoned = badnet
    target, is_poison = poisoned.y == 0, poisoned.is_poison
    score = spectral_scores(model, poisoned.x, poisoned.y)
    assert score[is_poison].median() > score[target & ~is_poison].median()


def test_a_backdoors_poisons_stand_out_in_clusters(badnet, other_badnets):
    """Of some victims nothing is dropped, their clusters lie too close; so four of them are counted together."""
    poisoned = badnet.poisoned
    found = accused = 0
    for model in (badnet.model, *other_badnets):
        dropped = ~activation_clustering(model, poisoned.x, poisoned.y, generator=seeded())
        found += dropped[poisoned.is_poison].float().mean()
        accused += dropped[~poisoned.is_poison].float().mean()
    assert found > 5 * accused


@pytest.mark.parametrize(
    "defense", [activation_clustering, spectral_signatures, spectral_scores], ids=["ac", "ss", "tau"]
)
def test_nothing_is_changed(badnet, unchanged, defense):
    x = badnet.poisoned.x.clone()
    unchanged(badnet.model, lambda: defense(badnet.model, x, badnet.poisoned.y))
    assert torch.equal(x, badnet.poisoned.x)


def test_a_seed_gives_the_same_clusters(badnet):
    model, poisoned = badnet
    first, second = (activation_clustering(model, poisoned.x, poisoned.y, generator=seeded(7)) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("defense", "wrong", "words"),
    [
        (activation_clustering, {"dimensions": 0}, ("dimensions", "at least 1")),
        (activation_clustering, {"whiten": 1}, ("whiten",)),
        (activation_clustering, {"silhouette": 2}, ("silhouette", "-1 to 1")),
        (activation_clustering, {"relative_size": 0.6}, ("relative_size",)),
        (activation_clustering, {"y": torch.tensor([0, 0, 0, 1])}, ("y", "class 1")),
        (activation_clustering, {"generator": 3}, ("generator",)),
        (spectral_signatures, {"fraction": 0.7}, ("fraction", "0.66")),
        (spectral_signatures, {"fraction": -0.1}, ("fraction",)),
        (spectral_scores, {"y": torch.tensor([0, 0])}, ("y", "(4,)")),
        (spectral_scores, {"x": torch.full((4, 12, 1, 1), 2.0)}, ("x", "[0, 1]")),
        (spectral_scores, {"model": nn.Flatten()}, ("model", "linear")),
    ],
    ids=["dimensions", "whiten", "silhouette", "size", "few", "generator", "much", "negative", "y", "x", "model"],
)
def test_bad_input_is_named(reader, refuses, defense, wrong, words):
    good = {"model": reader, "x": torch.zeros(4, 12, 1, 1), "y": torch.tensor([0, 0, 0, 0])}
    refuses(defense, good | wrong, *words)


@pytest.mark.oracle
def test_scores_are_arts_of_centered_features():
    """ART centers only to find the direction; on centered features it computes the same."""
    from art.defences.detector.poison import SpectralSignatureDefense

    x, y, _ = planted(6, 0.3)
    features = x.flatten(1)[y == 0].double().numpy()
    theirs = SpectralSignatureDefense.spectral_signature_scores(features - features.mean(0))[:, 0]
    reader = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    np.testing.assert_allclose(spectral_scores(reader, x, y)[y == 0], theirs**2, rtol=1e-3, atol=1e-6)


@pytest.mark.oracle
def test_clusters_and_flags_are_arts(badnet, monkeypatch):
    from art.defences.detector.poison import activation_defence
    from art.defences.detector.poison.clustering_analyzer import ClusteringAnalyzer
    from sklearn.cluster import KMeans

    # ART starts once, from the global random state: a poor start splits a class otherwise.
    monkeypatch.setattr(activation_defence, "KMeans", partial(KMeans, n_init=10, random_state=0))
    model, poisoned = badnet
    R = features(model, poisoned.x).detach().numpy()
    by_class = [R[poisoned.y == label] for label in range(10)]
    theirs, points = activation_defence.cluster_activations(by_class, nb_clusters=2, nb_dims=10, reduce="PCA")
    is_clean, _, _ = ClusteringAnalyzer().analyze_by_silhouette_score(theirs, points)
    keep = activation_clustering(model, poisoned.x, poisoned.y, whiten=False, silhouette=0.1, generator=seeded())
    alike = [
        (keep[poisoned.y == label].numpy() == np.array(is_clean[label], dtype=bool)).mean() > 0.95
        for label in range(10)
    ]
    assert sum(alike) >= 9, "2-means from other starts may split one class otherwise"
    assert alike[0], "the target class"


@pytest.mark.full
def test_an_all_to_all_backdoor_is_found(digits):
    poisoned = badnets(digits, fraction=0.1, wanted=all_to_all(10), generator=seeded(3))
    recipe = Recipe("lenet", epochs=20, batch_size=32, learning_rate=3e-3, perturb=Shift(1))
    model, _ = train(recipe, poisoned.within(digits), seed=5, progress=False)
    keep = activation_clustering(model, poisoned.x, poisoned.y, whiten=False, generator=seeded())
    assert (~keep)[poisoned.is_poison].float().mean() > 0.9
    assert (~keep)[~poisoned.is_poison].float().mean() < 0.05

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC
from torch.nn import functional as F

from spai_lab.data import Tabular, load


def joined(data) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.cat([data.x_train, data.x_val, data.x_test]), torch.cat([data.y_train, data.y_val, data.y_test])


@pytest.mark.parametrize("name", ["digits", "moons"])
def test_contract(name):
    data = load(name)
    x, y = joined(data)
    assert data.name == name and data.credit
    assert x.dtype == torch.float32 and x.ndim == 4 and x.is_contiguous()
    assert y.dtype == torch.int64 and set(y.tolist()) == set(range(data.num_classes))
    assert 0 <= x.min() < x.max() <= 1
    assert len(data.x_test) == round(0.3 * len(x)) and len(data.x_val) == round(0.1 * len(x))


@pytest.mark.parametrize("name", ["digits", "moons", "tabular"])
def test_same_data_every_time_and_the_caller_owns_it(name):
    first, second = load(name), load(name)
    assert torch.equal(first.x_train, second.x_train) and torch.equal(first.y_test, second.y_test)
    first.x_train.zero_()
    assert load(name).x_train.any()


def test_raw_digits_are_those_of_scikit_learn():
    images, labels = load_digits(return_X_y=True)
    x, y = joined(load("digits", raw=True))
    assert x.shape == (1797, 1, 8, 8)
    ours = np.column_stack([x.flatten(1).numpy() * 16, y.numpy()])
    theirs = np.column_stack([images, labels])
    assert np.array_equal(ours[np.lexsort(ours.T)], theirs[np.lexsort(theirs.T)])


def test_enlarged_digits_are_the_raw_ones_in_a_frame():
    raw, enlarged = load("digits", raw=True), load("digits")
    assert enlarged.shape == (1, 28, 28)
    assert torch.equal(raw.y_train, enlarged.y_train) and torch.equal(raw.y_test, enlarged.y_test)
    inside = torch.zeros(28, 28, dtype=torch.bool)
    inside[4:24, 4:24] = True
    assert not enlarged.x_train[..., ~inside].any()
    shrunk = F.interpolate(enlarged.x_test[..., 4:24, 4:24], size=8, mode="area")
    correlation = torch.corrcoef(torch.stack([shrunk.flatten(), raw.x_test.flatten()]))[0, 1]
    assert correlation > 0.95
    ranked = torch.cdist(shrunk.flatten(1), raw.x_test.flatten(1)).argmin(1)
    assert torch.equal(ranked, torch.arange(len(ranked)))


def test_moons_need_a_curved_boundary():
    data = load("moons")
    assert data.shape == (2, 1, 1)
    train, test = data.x_train.flatten(1), data.x_test.flatten(1)
    assert SVC().fit(train, data.y_train).score(test, data.y_test) > 0.98
    assert LogisticRegression().fit(train, data.y_train).score(test, data.y_test) < 0.93
    x, y = joined(data)
    assert y.bincount().tolist() == [1000, 1000]
    assert x[y == 0, 1].mean() > x[y == 1, 1].mean()
    assert x.min() > 0.02 and x.max() < 0.98


def test_tabular_is_the_breast_cancer_data():
    data, source = load("tabular"), load_breast_cancer()
    assert isinstance(data, Tabular)
    assert data.features == tuple(source.feature_names) and data.classes == ("malignant", "benign")
    x, y = joined(data)
    assert x.dtype == torch.float32 and y.dtype == torch.int64
    assert y.bincount().tolist() == [212, 357]
    assert torch.equal(data.x_train.amin(0), torch.zeros(30)) and torch.equal(data.x_train.amax(0), torch.ones(30))
    order, expected = np.lexsort(x.numpy().T), np.lexsort(source.data.T)
    assert np.abs(np.corrcoef(x[order].numpy().T, source.data[expected].T)[range(30), range(30, 60)] - 1).max() < 1e-6
    assert (y[order].numpy() == source.target[expected]).all()
    assert repr(data) == "Tabular tabular: 341 train, 57 validation, 171 test; 30 features; 2 classes"

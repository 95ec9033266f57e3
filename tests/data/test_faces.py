import hashlib
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from sklearn.datasets import _olivetti_faces

from spai_lab.data import DataUnavailable, faces, load
from spai_lab.data.faces import read_pgm


def test_published_faces(lent):
    folder = lent("att_faces")
    data = load("faces")
    assert data.shape == (1, 112, 92) and data.classes[0] == "person 1" and data.num_classes == 40
    assert "AT&T Laboratories Cambridge" in data.credit
    for labels, count in ((data.y_train, 7), (data.y_val, 1), (data.y_test, 2)):
        assert labels.bincount().tolist() == [count] * 40
    x, y = torch.cat([data.x_train, data.x_val, data.x_test]), torch.cat([data.y_train, data.y_val, data.y_test])
    ours = {(image.numpy().tobytes(), label) for image, label in zip(x, y.tolist(), strict=True)}
    theirs = {
        (np.float32(np.asarray(Image.open(path)) / np.float32(255)).tobytes(), int(path.parent.name[1:]) - 1)
        for path in folder.glob("s*/*.pgm")
    }
    assert len(theirs) == 400
    assert len(ours ^ theirs) == 0


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), r"7\.pgm holds 10,303 pixels; 92 x 112 ask for 10,304"),
        (lambda path: path.write_bytes(b""), r"7\.pgm is no binary PGM picture"),
        (lambda path: path.write_bytes(b"P5 2 1 255\n\x07\x08"), r"7\.pgm has 2 x 1 pixels instead of 92 x 112"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\0"), "not the published set of faces"),
        (lambda path: path.unlink(), "The AT&T faces are not in .*att_faces or .*: get them from https://"),
    ],
    ids=["truncated", "empty", "small", "altered", "missing"],
)
def test_damaged_faces_are_never_used(lent, tmp_path, monkeypatch, damage, message):
    folder = tmp_path / "data" / "att_faces"
    shutil.copytree(lent("att_faces"), folder, copy_function=shutil.copyfile)
    monkeypatch.setenv("SPAI_DATA", str(tmp_path / "data"))
    folder.chmod(0o755), (folder / "s3").chmod(0o755)
    damage(folder / "s3" / "7.pgm")
    with pytest.raises(DataUnavailable, match=message):
        load("faces")


def test_missing_faces_say_where_to_get_them(cache):
    with pytest.raises(DataUnavailable, match=f"not in {cache / 'att_faces'}: get them from https://.* put s1 to s40"):
        load("faces")


def test_pgm_with_comment():
    assert read_pgm(b"P5\n# by hand\n# twice\n3 1\n255\n\x0a\x20\x23").tolist() == [[10, 32, 35]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"P2 1 1 255 7", "is no binary PGM picture"),
        (b"P5 1 1", "is no binary PGM picture"),
        (b"P5 1 1 65535\n\0\0", "has 65535 as its largest value; accepted is 255"),
        (b"P5 2 2 255\n\0\0\0", "holds 3 pixels; 2 x 2 ask for 4"),
        (b"P5 2 2 255\n\0\0\0\0\0", "holds 5 pixels; 2 x 2 ask for 4"),
    ],
)
def test_bad_pgm_is_explained(content, message):
    with pytest.raises(ValueError, match=message):
        read_pgm(content)


@pytest.fixture
def olivetti_file(tmp_path, monkeypatch):
    """A stand-in for the published file: pixels in columns, each picture transposed."""
    path = tmp_path / "source.mat"
    savemat(path, {"faces": np.random.default_rng(0).integers(0, 256, (4096, 400), np.uint8)})
    monkeypatch.setattr(faces, "OLIVETTI_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return path


def test_olivetti_is_read_as_scikit_learn_reads_it(olivetti_file, cache, tmp_path, monkeypatch):
    (cache / "olivetti").mkdir(parents=True)
    shutil.copy(olivetti_file, cache / "olivetti" / "olivettifaces.mat")
    data = load("olivetti")
    assert data.shape == (1, 64, 64) and len(data.x_train) == 280
    monkeypatch.setattr(
        _olivetti_faces, "_fetch_remote", lambda *_, **__: shutil.copy(olivetti_file, tmp_path / "copy")
    )
    theirs = _olivetti_faces.fetch_olivetti_faces(data_home=tmp_path)
    expected = {(image.tobytes(), int(label)) for image, label in zip(theirs.images, theirs.target, strict=True)}
    x, y = torch.cat([data.x_train, data.x_val, data.x_test]), torch.cat([data.y_train, data.y_val, data.y_test])
    ours = {(image.numpy().tobytes(), label) for image, label in zip(x, y.tolist(), strict=True)}
    assert len(expected) == 400
    assert len(ours ^ expected) == 0


def test_olivetti_download(olivetti_file, mirror, cache, monkeypatch):
    def answer(request):
        request.send_response(200)
        request.end_headers()
        request.wfile.write(olivetti_file.read_bytes())

    server = mirror({faces.OLIVETTI_REMOTE: answer})
    path = faces.fetch_olivetti([server.address])
    assert path == cache / "olivetti" / "olivettifaces.mat"
    assert load("olivetti").name == "olivetti"

    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataUnavailable, match=r"olivettifaces\.mat is not the file .* delete it"):
        load("olivetti")


def test_olivetti_without_a_network(mirror, cache):
    with pytest.raises(DataUnavailable, match=r"Olivetti faces cannot be downloaded: .*404.* or put the file at"):
        faces.fetch_olivetti([mirror({}).address])
    assert not list(cache.rglob("*"))

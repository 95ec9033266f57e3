import contextlib
import errno
import gzip
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from spai_lab.data import DataUnavailable, fetch_mnist, load, sources
from spai_lab.files import write_atomically

IMAGES = "train-images-idx3-ubyte.gz"
LABELS = "t10k-labels-idx1-ubyte.gz"


def whole(content):
    def answer(request):
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    return answer


def broken_off(content):
    def answer(request):
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content[: len(content) // 2])

    return answer


def of_unknown_length(content):
    def answer(request):
        request.send_response(200)
        request.end_headers()
        request.wfile.write(content)

    return answer


def silent(request):
    request.send_response(200)
    request.end_headers()
    request.wfile.write(b"\x1f")
    request.server.closing.wait(5)


def trickling(request):
    request.send_response(200)
    request.end_headers()
    with contextlib.suppress(OSError):
        for _ in range(100):
            request.server.closing.wait(0.02)
            request.wfile.write(b"\x1f")


def refused(request):
    request.send_error(503)


def blanked(content):
    return gzip.compress(bytes(len(gzip.decompress(content))))


def answers(files, **changes):
    return {name: whole(content) for name, content in files.items()} | changes


def fetch(*mirrors, **options):
    return fetch_mnist(mirrors=[mirror.address for mirror in mirrors], progress=False, **options)


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_download(toy_mnist, mirror, cache):
    assert fetch(mirror(answers(toy_mnist))) == cache / "mnist"
    assert leftovers(cache) == sorted(toy_mnist)
    data = load()
    assert data.name == "mnist"
    assert [len(part) for part in (data.x_train, data.x_val, data.x_test)] == [50, 10, 20]
    expected = torch.tensor(list(gzip.decompress(toy_mnist["t10k-images-idx3-ubyte.gz"])[16:])) / 255
    assert torch.equal(data.x_test.flatten(), expected)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        pytest.param(broken_off, "broke off after", id="broken off"),
        pytest.param(lambda content: of_unknown_length(content[:-99]), "is truncated", id="truncated"),
        pytest.param(lambda content: whole(blanked(content)), "SHA-256 differs", id="altered"),
        pytest.param(lambda content: whole(content[:10] + b"\xff" * 40), "gzip", id="damaged"),
        pytest.param(lambda content: whole(b"<html>Please log in.</html>"), "is truncated", id="portal"),
        pytest.param(lambda content: whole(gzip.compress(bytes(10**7))), "SHA-256 differs", id="bomb"),
        pytest.param(lambda content: of_unknown_length(bytes(10**6)), "is larger than", id="oversized"),
        pytest.param(lambda content: silent, "timed out", id="silent"),
        pytest.param(lambda content: trickling, "took longer than", id="trickling"),
        pytest.param(lambda content: refused, "answered 503", id="refused"),
        pytest.param(None, "answered 404", id="missing"),
    ],
)
def test_bad_mirror_is_named_and_the_next_one_serves(toy_mnist, mirror, cache, monkeypatch, bad, reason):
    monkeypatch.setattr(sources, "LONGEST", 0.3)
    listed = answers(toy_mnist)
    listed.pop(IMAGES)
    if bad:
        listed[IMAGES] = bad(toy_mnist[IMAGES])
    poor, good = mirror(listed), mirror(answers(toy_mnist))

    with pytest.raises(DataUnavailable, match=f"{poor.address}{IMAGES} .*({reason}).*`spai-lab fetch`"):
        fetch(poor, timeout=0.2)
    assert leftovers(cache) == []

    fetch(poor, good, timeout=0.2)
    assert leftovers(cache) == sorted(toy_mnist)
    assert load("mnist").name == "mnist"


def test_no_network(toy_mnist, cache):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}/"
        with pytest.raises(DataUnavailable, match=r'failed \(.*refused.*load\("digits"\)'):
            fetch_mnist(mirrors=[address], progress=False)
    assert leftovers(cache) == []


@pytest.mark.parametrize("address", ["http://nowhere.invalid/", "no address"])
def test_useless_address(toy_mnist, address):
    with pytest.raises(DataUnavailable, match=f"MNIST cannot be downloaded: {address}"):
        fetch_mnist(mirrors=[address], progress=False)


def test_second_try_goes_on_where_the_first_ended(toy_mnist, mirror, cache):
    half = mirror({name: answer for name, answer in answers(toy_mnist).items() if name != LABELS})
    with pytest.raises(DataUnavailable, match=LABELS):
        fetch(half)
    assert leftovers(cache) == sorted(set(toy_mnist) - {LABELS})
    good = mirror(answers(toy_mnist))
    fetch(good)
    assert good.asked == [LABELS]
    fetch(good)
    assert good.asked == [LABELS]


def test_damaged_file_is_fetched_anew(toy_mnist, toy_folder, mirror):
    (toy_folder / LABELS).write_bytes(toy_mnist[LABELS][:-20])
    good = mirror(answers(toy_mnist))
    fetch(good)
    assert good.asked == [LABELS]
    assert (toy_folder / LABELS).read_bytes() == toy_mnist[LABELS]


@pytest.mark.parametrize(
    ("interruption", "raised", "message"),
    [
        (OSError(errno.ENOSPC, "No space left"), DataUnavailable, f"{IMAGES} cannot be written .No space.*SPAI_CACHE"),
        (KeyboardInterrupt(), KeyboardInterrupt, None),
    ],
)
def test_nothing_half_written_stays(toy_mnist, mirror, cache, monkeypatch, interruption, raised, message):
    def fail(_):
        raise interruption

    monkeypatch.setattr("spai_lab.files.os.fsync", fail)
    with pytest.raises(raised, match=message):
        fetch(mirror(answers(toy_mnist)))
    assert leftovers(cache) == []


def test_folder_that_cannot_be_made(toy_mnist, mirror, tmp_path):
    (tmp_path / "taken").write_bytes(b"")
    with pytest.raises(DataUnavailable, match="cannot be written"):
        fetch(mirror(answers(toy_mnist)), folder=tmp_path / "taken" / "mnist")


def test_several_at_once(toy_mnist, mirror, cache):
    good, start = mirror(answers(toy_mnist)), threading.Barrier(6)

    def run(_):
        start.wait()
        return fetch(good)

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(run, range(6))) == {cache / "mnist"}
    assert leftovers(cache) == sorted(toy_mnist)
    assert load("mnist").num_classes == 10


def test_file_that_another_process_holds_open(toy_mnist, mirror, monkeypatch):
    """As on Windows, where a file that is open cannot be replaced."""

    def lose_the_race(path, content):
        write_atomically(path, content)
        raise PermissionError(errno.EACCES, "Access is denied")

    monkeypatch.setattr(sources, "write_atomically", lose_the_race)
    fetch(mirror(answers(toy_mnist)))
    assert load("mnist").name == "mnist"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mirrors": "http://127.0.0.1/"}, "mirrors is 'http://127.0.0.1/'; accepted: a list of at least one address"),
        ({"mirrors": []}, r"mirrors is \[\]"),
        ({"timeout": 0}, "timeout is 0; accepted: a finite number above 0"),
        ({"timeout": float("nan")}, "timeout is nan"),
        ({"progress": "yes"}, "progress is 'yes'; accepted: True or False"),
    ],
)
def test_bad_arguments_are_named(toy_mnist, options, message):
    with pytest.raises(ValueError, match=message):
        fetch_mnist(**options)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda content: content[: len(content) // 2], "is truncated"),
        (lambda content: blanked(content), "SHA-256 differs"),
        (lambda content: content[:10] + b"\xff" * 10 + content[20:], "gzip"),
        (lambda content: gzip.decompress(content)[:-1], "is truncated"),
        (lambda content: gzip.decompress(content) + b"\0", "SHA-256 differs"),
        (lambda content: b"", "is truncated: 0 of"),
    ],
)
def test_damaged_file_is_never_used(toy_mnist, toy_folder, damage, reason):
    (toy_folder / IMAGES).write_bytes(damage(toy_mnist[IMAGES]))
    for name in (None, "mnist"):
        with pytest.raises(DataUnavailable, match=f"{IMAGES} .*{reason}.*delete it and run `spai-lab fetch`"):
            load(name)


def test_change_after_the_first_load_is_seen(toy_mnist, toy_folder):
    load("mnist")
    (toy_folder / IMAGES).write_bytes(toy_mnist[IMAGES][:-30])
    with pytest.raises(DataUnavailable, match="is truncated"):
        load("mnist")


def test_uncompressed_files_serve(toy_mnist, toy_folder):
    compressed = load("mnist")
    for name, content in toy_mnist.items():
        (toy_folder / name).unlink()
        (toy_folder / name.removesuffix(".gz")).write_bytes(gzip.decompress(content))
    assert torch.equal(load("mnist").x_train, compressed.x_train)


def test_what_one_changes_is_ones_own(toy_folder):
    mine, yours = load("mnist"), load("mnist")
    mine.x_test.zero_(), mine.y_test.zero_()
    assert yours.x_test.any() and yours.y_test.any()
    assert torch.equal(load("mnist").x_test, yours.x_test)


def test_published_mnist(lent):
    """Counts and statistics as known from the literature."""
    lent("mnist")
    data = load()
    assert data.name == "mnist" and data.shape == (1, 28, 28) and data.num_classes == 10
    assert [len(part) for part in (data.y_train, data.y_val, data.y_test)] == [55_000, 5_000, 10_000]
    assert data.y_test.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    official = data.y_train.bincount() + data.y_val.bincount()
    assert official.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert data.y_test[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    mean = (data.x_train.mean() * 55_000 + data.x_val.mean() * 5_000) / 60_000
    assert mean.item() == pytest.approx(0.1307, abs=5e-5)
    assert data.x_train.dtype == torch.float32 and data.y_train.dtype == torch.int64
    assert (data.x_train.min(), data.x_train.max()) == (0, 1)


@pytest.mark.full
@pytest.mark.network
def test_real_mirrors(cache):
    try:
        fetch_mnist()
    except DataUnavailable as error:
        if "SHA-256" in str(error):
            raise
        pytest.skip(f"no network: {error}")
    assert len(load("mnist").x_test) == 10_000

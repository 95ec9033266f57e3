"""MNIST that many processes map: the same tensors, private to whoever changes them, in memory once."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from spai_lab.data import DataUnavailable, available, load
from spai_lab.data.mnist import SHARED, load_mnist, share_mnist
from spai_lab.data.shared import PARTS, read_shared, write_shared

SOURCE = {"a file": "its digest"}


@pytest.fixture
def file(digits, tmp_path):
    write_shared(digits, tmp_path / "shared", SOURCE)
    return tmp_path / "shared"


@pytest.fixture(scope="module")
def shared_mnist(mnist, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "mnist"
    shutil.copytree(available()["mnist"], folder)
    share_mnist(folder)
    return folder


def test_what_is_mapped_is_what_was_written(digits, file):
    for part, tensor in zip(PARTS, read_shared(file, SOURCE), strict=True):
        assert torch.equal(tensor, getattr(digits, part)) and tensor.dtype == getattr(digits, part).dtype


def test_whoever_changes_it_changes_the_own_copy_alone(file):
    first, second = (read_shared(file, SOURCE) for _ in range(2))
    first[0].fill_(7)
    assert not (second[0] == 7).any()
    assert not (read_shared(file, SOURCE)[0] == 7).any()


@pytest.mark.parametrize("source", [{"a file": "another digest"}, {}])
def test_a_file_made_from_something_else_is_not_used(file, source):
    assert read_shared(file, source) is None


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"\xff" * 5000])
def test_a_damaged_or_missing_file_is_not_used(tmp_path, content):
    (tmp_path / "damaged").write_bytes(content)
    assert read_shared(tmp_path / "damaged", SOURCE) is None
    assert read_shared(tmp_path / "missing", SOURCE) is None


def test_a_truncated_file_is_not_used(file):
    file.write_bytes(file.read_bytes()[:-1000])
    assert read_shared(file, SOURCE) is None


def test_mnist_is_the_same_mapped_and_read(mnist, shared_mnist):
    mapped = load_mnist(shared_mnist)
    assert all(torch.equal(getattr(mapped, part), getattr(mnist, part)) for part in PARTS)
    assert (mapped.classes, mapped.credit) == (mnist.classes, mnist.credit)


ANONYMOUS = """
import sys
from pathlib import Path
from spai_lab.data.mnist import load_mnist
def megabytes():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) / 1024
before = megabytes()
data = load_mnist(Path(sys.argv[1]))
print(megabytes() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="asks Linux what a process holds by itself")
def test_a_process_holds_by_itself_what_is_read_and_not_what_is_mapped(shared_mnist, tmp_path):
    def own(folder):
        answer = subprocess.run([sys.executable, "-c", ANONYMOUS, str(folder)], capture_output=True, encoding="utf-8")
        assert answer.returncode == 0, answer.stderr
        return float(answer.stdout)

    pixels = 70_000 * 784 * 4 / 2**20
    assert own(shared_mnist) < pixels / 4
    unshared = shutil.copytree(shared_mnist, tmp_path / "mnist", ignore=shutil.ignore_patterns(SHARED))
    assert own(unshared) > pixels, "what sharing is for"


def test_a_folder_without_mnist_cannot_be_shared(tmp_path):
    with pytest.raises(DataUnavailable, match="spai-lab fetch"):
        share_mnist(tmp_path)
    assert not (tmp_path / SHARED).exists()


def test_load_finds_the_shared_file(shared_mnist, monkeypatch):
    monkeypatch.setenv("SPAI_DATA", str(shared_mnist.parent))
    assert load("mnist").x_train.shape == (55_000, 1, 28, 28)

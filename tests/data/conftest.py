"""Each test gets an empty cache and no data folder; the real data is lent on request."""

import gzip
import hashlib
import os
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from spai_lab.data import mnist

LENT = os.environ.get("SPAI_DATA")
Answer = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    for name in ("SPAI_DATA", "SPAI_DATASET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("SPAI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def lent(monkeypatch) -> Callable[[str], Path]:
    def find(name: str) -> Path:
        if not LENT or not (Path(LENT) / name).is_dir():
            pytest.skip(f"{name} is not there: set SPAI_DATA to a folder that has it")
        monkeypatch.setenv("SPAI_DATA", LENT)
        return Path(LENT) / name

    return find


@pytest.fixture(scope="session")
def to_idx() -> Callable[[np.ndarray], bytes]:
    def encode(array: np.ndarray) -> bytes:
        return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()

    return encode


@pytest.fixture
def toy_mnist(to_idx, monkeypatch) -> dict[str, bytes]:
    """A small stand-in for the published MNIST: its four files, compressed."""
    arrays = {}
    for part, count in (("train", 60), ("t10k", 20)):
        arrays[f"{part}-images-idx3-ubyte"] = np.random.default_rng(count).integers(0, 256, (count, 28, 28), np.uint8)
        arrays[f"{part}-labels-idx1-ubyte"] = np.arange(count, dtype=np.uint8) % 10
    contents = {name: to_idx(array) for name, array in arrays.items()}
    monkeypatch.setattr(mnist, "SHAPES", {name: array.shape for name, array in arrays.items()})
    monkeypatch.setattr(mnist, "SHA256", {name: hashlib.sha256(raw).hexdigest() for name, raw in contents.items()})
    monkeypatch.setattr(mnist, "VALIDATION", 10)
    return {f"{name}.gz": gzip.compress(raw) for name, raw in contents.items()}


@pytest.fixture
def toy_folder(toy_mnist, cache) -> Path:
    folder = cache / "mnist"
    folder.mkdir(parents=True)
    for name, content in toy_mnist.items():
        (folder / name).write_bytes(content)
    return folder


class Mirror(ThreadingHTTPServer):
    """A mirror on this machine: what it answers for each name, and what it was asked for."""

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        self.asked: list[str] = []
        self.closing = threading.Event()
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.lstrip("/")
                mirror.asked.append(name)
                if name not in answers:
                    self.send_error(404)
                    return
                answers[name](self)

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


@pytest.fixture
def mirror() -> Iterator[Callable[[Mapping[str, Answer]], Mirror]]:
    running = []

    def start(answers: Mapping[str, Answer]) -> Mirror:
        server = Mirror(answers)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        running.append(server)
        return server

    yield start
    for server in running:
        server.closing.set()
        server.shutdown()
        server.server_close()

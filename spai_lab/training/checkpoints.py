"""What a training run must keep to go on, after an interruption, as if there had been none."""

import contextlib
import hashlib
import io
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from spai_lab.files import write_atomically


@dataclass
class Run:
    """Where a run stands: what each epoch gave, and the best weights if somebody wants them back."""

    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    best: int = 0
    best_weights: dict[str, Tensor] | None = None
    seconds: float = 0.0

    @property
    def epoch(self) -> int:
        """The number of the next epoch."""
        return len(self.losses)

    def stale(self, patience: int | None) -> bool:
        """Whether the last `patience` epochs brought nothing better."""
        return patience is not None and self.epoch - 1 - self.best >= patience

    def remember(self, model: nn.Module, patience: int | None) -> None:
        """Take the last epoch as the best: always if nobody waits for a better one, else if it is."""
        last = self.epoch - 1
        if patience is None:
            self.best = last
        elif last == 0 or self.accuracies[last] > self.accuracies[self.best]:
            self.best = last
            self.best_weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def latest(self) -> dict[str, str]:
        """The last epoch in words, for a progress bar."""
        accuracy = {"validation": f"{self.accuracies[-1]:.1%}"} if self.accuracies else {}
        return {"loss": f"{self.losses[-1]:.3f}", **accuracy}


def save(
    path: Path,
    settings: list,
    run: Run,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
) -> None:
    """Write the checkpoint, led by its SHA-256; where that fails, warn and let the training go on."""
    buffer = io.BytesIO()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "generator": generator.get_state()}
    torch.save({"settings": settings, "run": asdict(run), **state}, buffer)
    content = buffer.getvalue()
    try:
        write_atomically(Path(path), hashlib.sha256(content).digest() + content)
    except OSError as error:
        warnings.warn(f"{path} cannot be written ({error}): an interrupted training starts again.", stacklevel=3)


def restore(
    path: Path, settings: list, model: nn.Module, optimizer: torch.optim.Optimizer, generator: torch.Generator
) -> Run:
    """Put model, optimizer and generator where the checkpoint left them.

    A damaged checkpoint is renamed to `*.damaged`, with a warning, and the run starts anew.

    Raises:
        ValueError: the checkpoint belongs to another run.
    """
    path = Path(path)
    if not path.exists():
        return Run()
    stored = path.read_bytes()
    size = hashlib.sha256().digest_size
    checksum, content = stored[:size], stored[size:]
    if hashlib.sha256(content).digest() != checksum:
        aside = path.with_name(f"{path.name}.damaged")
        path.replace(aside)
        warnings.warn(f"{path} is damaged: it is now called {aside.name}, and the training starts again.", stacklevel=3)
        return Run()
    state = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if state["settings"] != settings or {name: tensor.shape for name, tensor in state["model"].items()} != shapes:
        raise ValueError(f"checkpoint is {str(path)!r}, which another run wrote; accepted: a new path, or delete it")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    generator.set_state(state["generator"])
    return Run(**state["run"])


def discard(path: Path) -> None:
    """Remove the checkpoint of a finished run, where there is one that can be removed."""
    with contextlib.suppress(OSError):
        Path(path).unlink()

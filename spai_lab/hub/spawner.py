"""The hub's way to start a student's server on the same machine: as the student's account, within limits.

JupyterHub's own spawner for local accounts knows no limits. This one sets those of the kernel (`man setrlimit`), which
each process inherits and no student can raise again.
"""

import asyncio
import os
import pwd
import resource
from collections.abc import Callable
from pathlib import Path

from jupyterhub.spawner import LocalProcessSpawner
from tornado.web import HTTPError
from traitlets import Integer, Unicode

from spai_lab.hub.accounts import may_start

PRIVATE = 0o700
SOCKETS = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
LISTENS = "0A"


class LimitedSpawner(LocalProcessSpawner):
    """A local server with limits, and with a private folder in memory for its sockets."""

    processes = Integer(400, min=1, help="How many processes and threads a student may have at once.").tag(config=True)
    file_bytes = Integer(2**31, min=1, help="The largest file that a student may write, in bytes.").tag(config=True)
    run_folder = Unicode(
        "/run/spai-lab",
        help="Holds one private folder a student, for sockets and temporary files: outside of the home, so that a "
        "full disk stops no server, and short, since the path of a socket ends at 107 characters.",
    ).tag(config=True)

    def private_folder(self) -> Path:
        """The student's own folder for sockets and temporary files."""
        return Path(self.run_folder) / self.user.name

    def limits(self) -> dict[int, int]:
        """What one process may use, by the kernel's name for it; `mem_limit` counts for each process by itself."""
        chosen = {resource.RLIMIT_NPROC: self.processes, resource.RLIMIT_FSIZE: self.file_bytes}
        chosen[resource.RLIMIT_CORE] = 0
        return {**chosen, resource.RLIMIT_DATA: self.mem_limit} if self.mem_limit else chosen

    def make_preexec_fn(self, name: str) -> Callable[[], None]:
        """Limits first, while we still may set them; then the student's account."""
        become_student = super().make_preexec_fn(name)
        limits = self.limits()

        def prepare() -> None:
            for kind, most in limits.items():
                resource.setrlimit(kind, (most, most))
            become_student()

        return prepare

    def user_env(self, env: dict[str, str]) -> dict[str, str]:
        """The student's account, the private folder, and the place of the student's copies."""
        env = super().user_env(env)
        private = str(self.private_folder())
        env.setdefault("SPAI_MY", str(Path(pwd.getpwnam(self.user.name).pw_dir) / "spai-lab"))
        return {**env, "TMPDIR": private, "JUPYTER_RUNTIME_DIR": private, "MPLCONFIGDIR": f"{private}/matplotlib"}

    async def start(self) -> tuple[str, int]:
        """Make the private folder, start the server, and wait until it listens: it, and nobody else on its port.

        Raises:
            HTTPError: the account left the class.
            RuntimeError: the server ended, or another account listens on the port, to be taken for this student.
        """
        if not may_start(self.authenticator, self.user):
            raise HTTPError(403, f"{self.user.name} is no longer in the class; ask your lecturer")
        make_private(self.private_folder(), self.user.name)
        address = await super().start()
        account = pwd.getpwnam(self.user.name).pw_uid
        while (listening := listeners(self.port)) != {account}:
            if listening - {account}:
                raise RuntimeError(f"port {self.port} was taken by the account {min(listening - {account})}")
            if await self.poll() is not None:
                raise RuntimeError("the server ended before it listened; its last lines are above")
            await asyncio.sleep(0.2)
        return address

    async def poll(self) -> int | None:
        """None as long as the server runs; a number that is another's process by now, after a boot, is not it."""
        if self.proc is None and self.pid and not owns(self.user.name, self.pid):
            self.clear_state()
            return 0
        return await super().poll()


def listeners(port: int) -> set[int]:
    """The accounts that listen on a TCP port of this machine, by their numbers.

    >>> listeners(0)
    set()
    """
    rows = [line.split() for file in SOCKETS if file.exists() for line in file.read_text().splitlines()[1:]]
    return {int(row[7]) for row in rows if row[3] == LISTENS and int(row[1].rpartition(":")[2], 16) == port}


def owns(name: str, pid: int) -> bool:
    """Whether a process runs, and as this account.

    >>> owns("root", 0)
    False
    """
    try:
        return Path(f"/proc/{pid}").stat().st_uid == pwd.getpwnam(name).pw_uid
    except (KeyError, OSError):
        return False


def make_private(folder: Path, name: str) -> None:
    """A folder that belongs to an account, and that nobody else may enter.

    Raises:
        OSError: it is there and something else than a folder, such as a link that somebody laid.
    """
    account = pwd.getpwnam(name)
    folder.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    folder.mkdir(mode=PRIVATE, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        os.fchown(descriptor, account.pw_uid, account.pw_gid)
        os.fchmod(descriptor, PRIVATE)
    finally:
        os.close(descriptor)

"""Rows measured on a Dask cluster: how we connect to one, and to which ones we do not.

A cluster must be trusted. Its workers run the code that we send, and what comes back is unpickled here: whoever
controls one end runs code on the other. Hence TLS, where both ends show a certificate of the same authority; without
it, only a cluster at a loopback address is accepted, on a machine that you share with nobody.
"""

import importlib.util
import ipaddress
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from spai_lab.survey.row_process import versions

if TYPE_CHECKING:
    from distributed import Client

ACCEPTED = (
    "accepted: tls://host:port of a cluster that you trust, since it runs the code that is sent and what it answers is "
    "unpickled here; tcp:// for a loopback address alone"
)
WAIT = "30 s"


@dataclass(frozen=True)
class Certificates:
    """Files in PEM format that TLS needs; what is None is looked up in Dask's configuration.

    Args:
        ca: the authority that signed the certificates of both ends.
        cert: our certificate.
        key: its private key; may be in the same file.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


def check_scheduler(scheduler: str) -> None:
    """Raise `ValueError` unless `scheduler` is the address of a cluster over TLS, or of one on this machine.

    >>> check_scheduler("tcp://192.0.2.1:8786")
    Traceback (most recent call last):
    ValueError: scheduler is 'tcp://192.0.2.1:8786'; accepted: tls://host:port of a cluster that you trust, since it
    runs the code that is sent and what it answers is unpickled here; tcp:// for a loopback address alone
    """
    try:
        parts = urlsplit(scheduler)
        complete = bool(parts.hostname and parts.port)
    except (AttributeError, TypeError, ValueError):
        complete = False
    if (
        not complete
        or parts.scheme not in ("tls", "tcp")
        or (parts.scheme == "tcp" and not is_loopback(parts.hostname))
    ):
        raise ValueError(f"scheduler is {scheduler!r}; {ACCEPTED}")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by a loopback address.

    >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "10.0.0.1", "localhost.example")]
    [True, True, True, False, False]
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def connected(scheduler: str, certificates: Certificates | None = None) -> Iterator["Client"]:
    """A client of a trusted cluster, which has the same versions as we have.

    Args:
        scheduler: its address, "tls://host:port".
        certificates: for TLS; what they lack is taken from Dask's configuration, `distributed.comm.tls`.
    Yields:
        the client; the connection is closed afterwards.
    Raises:
        ValueError: the address or the certificates are not accepted.
        RuntimeError: Dask is not installed, nobody answers, there are no workers, or they have other versions.
    """
    check_scheduler(scheduler)
    if importlib.util.find_spec("distributed") is None:
        raise RuntimeError('scheduler needs Dask, which is not installed here: pip install -e ".[cluster]"')
    from distributed import Client

    security = security_of(scheduler, certificates or Certificates())
    try:
        client = Client(scheduler, security=security, timeout=WAIT, set_as_default=False)
    except (OSError, TimeoutError) as error:
        reason = " ".join(str(error).split())
        raise RuntimeError(
            f"no cluster answered at {scheduler} within {WAIT}; is it there, and do both ends have certificates of the "
            f"same authority? {reason}"
        ) from error
    with client:
        check_workers(client, scheduler)
        yield client


def security_of(scheduler: str, certificates: Certificates) -> object:
    """Dask's security settings: with TLS encryption is required, and so are certificates.

    Raises:
        ValueError: TLS lacks a file, a file is not there, or there are files without TLS.
    """
    from distributed.security import Security

    given = {name: path for name, path in asdict(certificates).items() if path is not None}
    if not scheduler.startswith("tls:"):
        if given:
            raise ValueError(f"{', '.join(given)} given, and scheduler is {scheduler!r}; accepted: files with tls://")
        return Security(require_encryption=False)
    for name, path in given.items():
        if not Path(path).is_file():
            raise ValueError(f"{name} is {str(path)!r}; accepted: a file in PEM format")
    names = {"ca": "tls_ca_file", "cert": "tls_client_cert", "key": "tls_client_key"}
    security = Security(require_encryption=True, **{names[name]: str(path) for name, path in given.items()})
    lacking = [name for name in ("ca", "cert") if getattr(security, names[name]) is None]
    if lacking:
        raise ValueError(
            f"TLS lacks {' and '.join(lacking)}; accepted: --tls-ca, --tls-cert and --tls-key, or the same in Dask's "
            "configuration: distributed.comm.tls.ca-file, distributed.comm.tls.client.cert and .key"
        )
    return security


def check_workers(client: "Client", scheduler: str) -> None:
    """Raise `RuntimeError` unless there are workers, and each has the versions that we have."""
    try:
        client.wait_for_workers(1, timeout=WAIT)
        found = client.run(versions)
    except TimeoutError as error:
        raise RuntimeError(f"the cluster at {scheduler} has no worker; start some, or wait for them") from error
    except ImportError as error:
        raise RuntimeError(f"a worker of {scheduler} lacks spai-lab ({error}); install it there, with data/") from error
    ours = versions()
    for theirs in found.values():
        differing = [name for name in ours if theirs.get(name) != ours[name]]
        if differing:
            told = ", ".join(f"{name} {theirs.get(name)} there and {ours[name]} here" for name in differing)
            raise RuntimeError(
                f"a worker of {scheduler} has other versions: {told}; accepted: the same, to measure alike"
            )


def machines(client: "Client | None") -> dict:
    """What measures: this machine, or those of a cluster; a row has one thread."""
    found = [machine()] if client is None else list(client.run(machine).values())
    words = {name: ", ".join(sorted({each[name] for each in found})) for name in found[0]}
    return {**words, "threads": 1} | ({} if client is None else {"cluster": f"Dask, {len(found)} workers"})


def machine() -> dict[str, str]:
    """System and processor of this machine."""
    return {"system": platform.system(), "processor": platform.machine()}

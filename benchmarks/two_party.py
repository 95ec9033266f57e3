"""Inference between two parties: seconds, bytes and rounds of one image, beside what was published."""

from spai_lab.data.sources import DataUnavailable
from spai_lab.survey.ledger import published
from spai_lab.survey.parties_jobs import Hybrid, OnShares
from spai_lab.survey.parties_tables import traffic_table

COLUMNS = ("network, protocol", "here", "LAN", "WAN", "in turn", "one sends", "other", "triples")
PUBLISHED = ("minionn-seconds", "minionn-megabytes", "gazelle-seconds", "gazelle-megabytes")


def main(quick: bool = False) -> None:
    """Print the run of median time; MNIST is left out where it is not found, and where it is, trained first."""
    images = 1 if quick else 9
    jobs = [Hybrid("digits", images), Hybrid("digits", images, "AES"), OnShares("digits", images, 64)]
    if not quick:
        jobs += [Hybrid("mnist", images), Hybrid("mnist", images, "AES"), OnShares("mnist", images, 64)]
    print("one image between two parties on this machine; over a LAN and a WAN by a replay of the messages")
    print(line(COLUMNS))
    for job in jobs:
        try:
            row = job.key | job.run(0)
        except (DataUnavailable, ModuleNotFoundError) as error:
            print(f"{job.data}, {type(job).__name__}: {error}")
            continue
        for name, *words in traffic_table({"rows": [row]}):
            print(line((f"{job.data}, {name}", *words)))
    for name in PUBLISHED:
        figure = published()[name]
        print(f"published: {figure['value']:g} {figure['unit']}, {figure['source']} ({figure['standing']})")


def line(words: tuple[str, ...]) -> str:
    """One line of the table."""
    return f"{words[0]:40}" + "".join(f"{word:>10}" for word in words[1:])

"""Messages with one thing wrong, and what a child process makes of them."""

import json
import struct
import subprocess
import sys

import numpy as np

TOTAL = 6  # where a CKKS message says how long it is
DAMAGES = ("flip", "truncate", "extend", "swap", "lie", "overwrite", "splice")


def put(data, place, value):
    """The bytes with other ones at a place."""
    return data[:place] + value + data[place + len(value) :]


def damaged(random, data, others, damage, lengths):
    """A message with one thing wrong; `lengths` says by place where numbers stand that may lie, and their format."""
    place = int(random.integers(min(len(data), 120) if random.integers(2) else len(data)))
    match damage:
        case "flip":
            return put(data, place, bytes([data[place] ^ 1 << int(random.integers(8))]))
        case "truncate":
            return data[:place]
        case "extend":
            return data + random.bytes(int(random.integers(1, 100)))
        case "swap":
            size = int(random.choice([1, 4, 8]))
            one, two = sorted(int(n) for n in random.integers(0, len(data) - 2 * size, 2))
            two = max(two, one + size)
            return put(put(data, one, data[two : two + size]), two, data[one : one + size])
        case "lie":
            start = int(random.choice([*lengths]))
            width = struct.calcsize(lengths[start])
            values = [0, 1, 3, 2 ** (8 * width) - 1, int.from_bytes(random.bytes(width), "little")]
            lied = put(data, start, values[int(random.integers(5))].to_bytes(width, "little"))
            tail = lied + random.bytes(int(random.integers(64)))
            return put(tail, TOTAL, struct.pack("<Q", len(tail))) if random.integers(2) else lied
        case "overwrite":
            return put(
                data, min(place, len(data) - 8), struct.pack("<d", random.choice([np.nan, np.inf, -1, 0, 1e308]))
            )
        case "splice":
            other = others[int(random.integers(len(others)))]
            return data[:place] + other[place:]
    raise AssertionError(damage)


def in_a_child(folder, script, cases, *arguments, timeout=120):
    """What a child process made of each case, bytes and what else it is to know; the script prints a line for each."""
    index, start = [], 0
    with (folder / "messages").open("wb") as file:
        for data, *rest in cases:
            file.write(data)
            index.append([start, start + len(data), *rest])
            start += len(data)
    (folder / "index").write_text(json.dumps(index))
    command = [sys.executable, "-c", READ + script, str(folder), *arguments]
    child = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    assert child.returncode == 0, child.stderr
    outcomes = [json.loads(line) for line in child.stdout.splitlines()]
    assert len(outcomes) == len(cases)
    return outcomes


READ = """
import json, sys, time, traceback, warnings
from pathlib import Path

folder = Path(sys.argv[1])

def cases():
    whole = (folder / "messages").read_bytes()
    for start, end, *rest in json.loads((folder / "index").read_text()):
        yield whole[start:end], *rest

def report(function, more=lambda: []):
    begin = time.perf_counter()
    try:
        outcome = ["number", function()]
    except Exception as error:
        where = Path(traceback.extract_tb(error.__traceback__)[-1].filename).name
        outcome = ["error", type(error).__name__, str(error), where]
    print(json.dumps([time.perf_counter() - begin, *more(), *outcome]))
"""

"""The reader of Bristol Fashion: AES against the library `cryptography`, and all that must be refused."""

import secrets
from itertools import product

import numpy as np
import pytest

from spai_lab.crypto.circuits import evaluate_plain
from spai_lab.crypto.circuits_bits import bits_to_blocks, blocks_to_bits
from spai_lab.crypto.circuits_bristol import find_circuit, load_circuit, read_bristol
from spai_lab.data.sources import DataUnavailable

SMALL = """7 13
2 2 2
2 1 4

4 2 0 1 2 3 4 5 MAND
2 1 4 5 6 XOR
1 1 6 7 INV
1 1 1 8 EQ
1 1 0 9 EQW
1 1 0 10 EQ
4 2 9 8 7 3 11 12 MAND
"""


@pytest.fixture(scope="module")
def aes():
    if find_circuit("aes_128") is None:
        pytest.skip("circuits/aes_128.txt is not there: set SPAI_DATA to a folder that has it")
    return load_circuit("aes_128")


# --- AES --------------------------------------------------------------------------------------------------------------


def encrypted(circuit, keys, blocks):
    return bits_to_blocks(evaluate_plain(circuit, np.hstack([blocks_to_bits(keys), blocks_to_bits(blocks)])))


def test_aes_has_the_published_size(aes):
    assert aes.inputs == (128, 128) and [*map(len, aes.outputs)] == [128]
    assert [aes.count(kind) for kind in ("XOR", "AND", "INV")] == [28_176, 6_400, 2_087]


@pytest.mark.oracle
def test_aes_encrypts_random_blocks_under_random_keys(aes):
    ciphers = pytest.importorskip("cryptography.hazmat.primitives.ciphers")
    keys, blocks = np.frombuffer(secrets.token_bytes(2 * 50 * 16), np.uint8).reshape(2, 50, 16)
    for key, block, text in zip(keys, blocks, encrypted(aes, keys, blocks), strict=True):
        cipher = ciphers.Cipher(ciphers.algorithms.AES(bytes(key)), ciphers.modes.ECB()).encryptor()
        assert cipher.update(bytes(block)) == bytes(text)


def test_aes_gives_the_example_of_its_standard(aes):
    """FIPS 197, appendix C.1."""
    texts = ("000102030405060708090a0b0c0d0e0f", "00112233445566778899aabbccddeeff")
    key, block = (np.array([[*bytes.fromhex(text)]], np.uint8) for text in texts)
    assert encrypted(aes, key, block).tobytes().hex() == "69c4e0d86a7b0430d8cdb78070b4c55a"


# --- all kinds of gates -----------------------------------------------------------------------------------------------


def test_all_kinds_of_gates_are_read():
    circuit = read_bristol(SMALL)
    assert circuit.inputs == (2, 2) and [*map(len, circuit.outputs)] == [1, 4]
    for a, b, c, d in product([0, 1], repeat=4):
        inverse = 1 - ((a & c) ^ (b & d))
        expected = [1, a, 0, a & inverse, d]  # wires 8, 9, 10, 11, 12
        assert evaluate_plain(circuit, np.array([[a, b, c, d]], bool)).astype(int).tolist() == [expected]


@pytest.mark.parametrize("end", ["\r\n", " \n", "\n\n"])
def test_ends_of_lines_do_not_matter(end):
    assert read_bristol(SMALL.replace("\n", end)).fingerprint == read_bristol(SMALL).fingerprint


# --- what is refused --------------------------------------------------------------------------------------------------

HEAD = "1 3\n2 1 1\n1 1\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (5, "text is a int; accepted: a str"),
        ("", "text has 0 lines"),
        ("1 3\n2 1 1\n", "text has 2 lines"),
        ("1\n2 1 1\n1 1\n2 1 0 1 2 AND", "line 1: the numbers of gates and of wires are 1 numbers; accepted: 2"),
        ("1 x\n2 1 1\n1 1\n", "line 1: the numbers of gates and of wires are '1 x'; accepted: whole numbers"),
        ("1 99999999999\n2 1 1\n1 1\n", "line 1: the numbers of gates and of wires are '1 99999999999'"),
        ("1 -3\n2 1 1\n1 1\n", "line 1: the numbers of gates and of wires are '1 -3'"),
        ("1 3_0\n2 1 1\n1 1\n", "line 1: the numbers of gates and of wires are '1 3_0'"),
        ("1 ٣\n2 1 1\n1 1\n", "line 1: the numbers of gates and of wires are '1 ٣'"),
        ("1 3\n3 1 1\n1 1\n2 1 0 1 2 AND", "line 2: 3 input values are announced, 2 are given"),
        ("1 3\n2 1 0\n1 1\n2 1 0 1 2 AND", "line 2: 2 input values are announced, 2 are given; accepted: as many, of"),
        ("1 3\n2\n1 1\n2 1 0 1 2 AND", "line 2: the input values are 1 numbers; accepted: at least 2"),
        ("1 3\n2 1 1\n2 1\n2 1 0 1 2 AND", "line 3: 2 output values are announced, 1 are given"),
        (HEAD, "line 1: 1 gates are announced; the text has 0"),
        (HEAD + "2 1 0 1 2 AND\n" * 2, "line 1: 1 gates are announced; the text has 2"),
        ("1 2\n2 2 2\n1 1\n2 1 0 1 2 AND", "line 1: there are 2 wires, fewer than the bits of inputs or outputs"),
        ("1 3\n2 1 1\n1 5\n2 1 0 1 2 AND", "line 1: there are 3 wires, fewer"),
        (HEAD + "\n\n2 1 0 1 2 NAND", "line 6: the kind is 'NAND'"),
        (HEAD + "AND", "line 4: the numbers of wires do not fit the wires"),
        (HEAD + "2 1 0 1 AND", "line 4: the numbers of wires do not fit the wires"),
        (HEAD + "2 1 0 1 2 0 AND", "line 4: the numbers of wires do not fit the wires"),
        (HEAD + "2 1 0 b 2 AND", "line 4: the wires of a gate are '2 1 0 b 2'"),
        (HEAD + "1 1 0 2 AND", "line 4: AND has 1 wires in and 1 out"),
        (HEAD + "2 1 0 1 2 INV", "line 4: INV has 2 wires in and 1 out"),
        (HEAD + "2 2 0 1 2 3 MAND", "line 4: MAND has 2 wires in and 2 out"),
        (HEAD + "0 0 MAND", "line 4: MAND has 0 wires in and 0 out"),
        (HEAD + "1 1 2 2 EQ", "line 4: the constant is 2; accepted: 0, 1"),
        (HEAD + "2 1 0 2 2 AND", "line 4: wire 2 is used; accepted: one driven before"),
        (HEAD + "2 1 0 1 1 AND", "line 4: wire 1 is driven; accepted: one below 3 not driven before"),
        (HEAD + "2 1 0 1 3 AND", "line 4: wire 3 is driven"),
        ("1 4\n2 1 1\n1 1\n2 1 0 1 2 AND", "the outputs are the last wires; no gate drives 3"),
    ],
)
def test_texts_that_are_no_circuit_are_refused_by_line(refuses, text, words):
    refuses(read_bristol, {"text": text}, words)


def test_three_thousand_damaged_texts_are_circuits_or_are_refused():
    random, refused = np.random.default_rng(0), 0
    letters = "0123456789 \n-x_XORANDIEQ\0é"
    for _ in range(3000):
        text = SMALL
        for _ in range(int(random.integers(1, 4))):
            place, letter = int(random.integers(len(text) + 1)), letters[random.integers(len(letters))]
            text = [
                text[:place] + letter + text[place + 1 :],
                text[:place] + text[place + 1 :],
                text[:place] + letter + text[place:],
                text[:place],
                text[:place] + text[place:].replace("\n", "\n" + SMALL.split("\n")[random.integers(11)] + "\n", 1),
            ][random.integers(5)]
        try:
            circuit = read_bristol(text)
        except ValueError as error:
            assert any(word in str(error) for word in ("line ", "lines", "outputs are the last wires"))
            refused += 1
        else:
            evaluate_plain(circuit, np.zeros((1, circuit.input_bits), bool))
    assert 1500 < refused < 3000


def test_a_circuit_that_is_not_there_is_asked_for(monkeypatch, tmp_path, refuses):
    monkeypatch.setenv("SPAI_DATA", str(tmp_path))
    monkeypatch.setenv("SPAI_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DataUnavailable, match=r"own\.txt is not there: set SPAI_DATA to a folder that has circuits"):
        load_circuit("own")
    (tmp_path / "circuits").mkdir()
    (tmp_path / "circuits" / "own.txt").write_text(SMALL)
    assert load_circuit("own").fingerprint == read_bristol(SMALL).fingerprint
    (tmp_path / "circuits" / "own.txt").write_bytes(SMALL.encode().replace(b"INV", b"IN\xff"))
    refuses(load_circuit, {"name": "own"}, "line 7: the kind is")
    for name in ("../own", "", 5, "a b"):
        refuses(load_circuit, {"name": name}, "name is ")

"""Counts against what is counted while a network runs, and bytes against those of the arrays."""

import numpy as np
import pytest

from spai_lab.crypto import cryptonets_encrypted, ntt
from spai_lab.crypto.ckks import ckks_context, encode, encrypt, public_key, relinearization_key, secret_key
from spai_lab.crypto.ckks_context import SECURE_BITS
from spai_lab.crypto.ckks_costs import (
    ciphertext_bytes,
    counts,
    expansion,
    forced_scale,
    least_degree,
    traffic,
    transform_products,
)
from spai_lab.crypto.cryptonets import cryptonet, fold
from spai_lab.crypto.cryptonets_encrypted import encrypt_batch, encrypted_logits
from spai_lab.crypto.cryptonets_plan import cryptonets_plan, ledger

SHAPE = (1, 7, 7)


@pytest.fixture(scope="module")
def layers():
    return fold(cryptonet(SHAPE, 3, maps=2, units=4), SHAPE, limits=(4.0, 8.0))


def test_operations_are_those_that_a_run_counts(layers, monkeypatch):
    plan = cryptonets_plan(64, insecure=True)
    secret = secret_key(plan.context)
    pixels = encrypt_batch(public_key(secret), plan, np.random.default_rng(0).uniform(size=(5, *SHAPE)))
    key = relinearization_key(secret)
    seen = dict.fromkeys(("transforms", "multiply", "rescale", "relinearize"), 0)

    def counted(name, function, size=lambda out: 1):
        def wrapper(*arguments, **settings):
            out = function(*arguments, **settings)
            seen[name] += size(out)
            return out

        return wrapper

    monkeypatch.setattr(ntt, "transform", counted("transforms", ntt.transform, lambda out: out.size // 64))
    for name in ("multiply", "rescale"):
        monkeypatch.setattr(cryptonets_encrypted, name, counted(name, getattr(cryptonets_encrypted, name)))
    encrypted_logits(layers, plan, pixels, key)
    expected = counts(layers, plan)
    assert seen["transforms"] == expected.transforms
    assert seen["multiply"] == expected.squares == 4 * 2 + 4
    assert seen["rescale"] == expected.rescalings == 4 * 3 + 3
    assert expected.relinearizations == 4 + 3
    assert expected.weights == 4 * 2 * 25 + 8 * 4 + 4 * 3


def test_the_network_decides_how_often_and_the_degree_how_much(layers):
    at = {degree: cryptonets_plan(degree, insecure=True) for degree in (2048, 8192)}
    assert counts(layers, at[2048]) == counts(layers, at[8192])
    assert (
        4 * 1.8 < transform_products(8192) / transform_products(2048) < 4 * 2.2
    )  # N^1.5: eight, where N grows by four
    for degree in ntt.DEGREES:
        tables = ntt.tables(degree, ntt.ntt_primes(30, 1, degree))[0]
        products = tables.A.size * tables.B.shape[-1] + tables.B.size * tables.A.shape[-1] + tables.T.size
        assert transform_products(degree) == products


@pytest.mark.parametrize("level", [0, 2])
@pytest.mark.parametrize("parts", [2, 3])
def test_bytes_are_those_of_the_bits_of_all_residues(level, parts):
    context = ckks_context(1024, (30, 21, 26), insecure=True)
    bits = (30, 30 + 21 + 26)[level > 0]
    assert ciphertext_bytes(context, level=level, parts=parts) == parts * 1024 * bits // 8
    x = encrypt(public_key(secret_key(context)), encode(context, 1.0))
    assert x.parts.max() < 2**30
    assert ciphertext_bytes(context) < x.parts.nbytes  # eight bytes for each residue in memory


def test_expansion_is_shared_by_all_slots(layers):
    context = cryptonets_plan().context
    assert expansion(context, context.slots) == expansion(context) / 4096 == 2 * 6 * 30 / 4
    there, back = traffic(layers, cryptonets_plan(), 49)
    last = ledger(layers, cryptonets_plan())[-1]
    assert there == 49 * 2 * 8192 * 180 // 8
    assert (last.level, back) == (1, 3 * 2 * 8192 * 60 // 8)


def test_depth_asks_for_a_larger_ring():
    for degree, bits in SECURE_BITS.items():
        assert least_degree(bits) == degree
        if degree < 16384:
            assert least_degree(bits + 1) == 2 * degree


def test_a_forced_scale_changes_nothing_but_the_books():
    context = ckks_context(64, (30, 28), insecure=True)
    x = encrypt(public_key(secret_key(context)), encode(context, 1.0))
    y = forced_scale(x, 2.0**27)
    assert (y.parts == x.parts).all()
    assert (x.scale, y.scale) == (2.0**28, 2.0**27)


def test_bad_arguments_are_named(refuses, layers):
    context = ckks_context(64, (30, 28), insecure=True)
    refuses(ciphertext_bytes, {"context": 3}, "context is a int", "Context")
    refuses(ciphertext_bytes, {"context": context, "level": 2}, "level is 2")
    refuses(ciphertext_bytes, {"context": context, "parts": 1}, "parts is 1")
    refuses(expansion, {"context": context, "images": 0}, "images is 0")
    refuses(expansion, {"context": context, "images": 33}, "images is 33", "from 1 to 32")
    refuses(transform_products, {"degree": 100}, "degree is 100")
    refuses(least_degree, {"bits": 439}, "bits is 439", "at most 438")
    refuses(forced_scale, {"x": 1, "scale": 2.0}, "x is a int")
    refuses(traffic, {"layers": layers, "plan": cryptonets_plan(), "pixels": 0}, "pixels is 0")

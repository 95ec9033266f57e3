"""How a client and a server talk about encrypted numbers once they have terms: agree, send keys, ask, answer, leave.

Whatever network is behind it (`spai_lab.crypto.inference_parties`), the server takes no key but those made public, no
ciphertext that is labelled otherwise than agreed on, and sends none. All that travels carries a MAC.

Survey: private AI, homomorphic encryption.
"""

from collections.abc import Callable, Iterable, Sequence

from spai_lab.checks import describe
from spai_lab.crypto.authenticated import AuthenticatedChannel
from spai_lab.crypto.channel import Channel
from spai_lab.crypto.ckks import decrypt
from spai_lab.crypto.ckks_ciphertext import Ciphertext, check_type
from spai_lab.crypto.ckks_encoding import Plaintext
from spai_lab.crypto.ckks_keys import PublicKey, SecretKey, check_secret
from spai_lab.crypto.ckks_messages import ciphertext_from_bytes, ciphertext_to_bytes
from spai_lab.crypto.ckks_parties import ServerKeys, receive_keys, send_keys
from spai_lab.crypto.inference_terms import Form, Terms, check_form, labelled

Function = Callable[[list[Ciphertext], ServerKeys], Sequence[Ciphertext]]


def ask(
    channel: Channel,
    secret: SecretKey,
    keys: ServerKeys,
    questions: Iterable[Sequence[Ciphertext]],
    *,
    terms: Terms,
    mac_key: bytes,
) -> list[list[Plaintext]]:
    """The client's part of any conversation on these terms: the answers to its questions, decrypted."""
    check_context("secret", secret, terms)
    check_type("keys", keys, ServerKeys)
    if keys.public.fingerprint != secret.fingerprint:
        raise ValueError(f"keys belong to {keys.public.fingerprint}; accepted: those of secret, {secret.fingerprint}")
    answers = []
    with AuthenticatedChannel(channel, mac_key, role="client") as server:
        agree(server, terms)
        send_keys(server, keys)
        for texts in questions:
            server.send("question")
            send_texts(server, labelled("the question", texts, terms.question))
            answers.append([decrypt(secret, y) for y in receive_texts(server, keys.public, terms.answer)])
        server.send("goodbye")
    return answers


def serve(channel: Channel, function: Function, *, terms: Terms, mac_key: bytes, insecure: bool = False) -> int:
    """The server's part of any conversation on these terms: how many questions it answered."""
    count = 0
    with AuthenticatedChannel(channel, mac_key, role="server") as client:
        agree(client, terms)
        keys = receive_keys(client, insecure=insecure)
        check_server_keys(keys, terms)
        while client.receive_any({"question": (), "goodbye": ()}).kind == "question":
            texts = receive_texts(client, keys.public, terms.question)
            send_texts(client, labelled("the answer", function(texts, keys), terms.answer))
            count += 1
    return count


def agree(other: AuthenticatedChannel, terms: Terms) -> None:
    """Both say what they agreed on; raise `ValueError` unless it is the same."""
    other.send("agreement", terms.fingerprint)
    (theirs,) = other.receive("agreement", str)
    if theirs != terms.fingerprint:
        other.channel.close()
        raise ValueError(f"the {other.peer} agreed on {describe(theirs)}; accepted: {terms.fingerprint}, our terms")


def send_texts(other: AuthenticatedChannel, texts: Sequence[Ciphertext]) -> None:
    """Each ciphertext in a message of its own, so that no frame grows too long."""
    for x in texts:
        other.send("ciphertext", ciphertext_to_bytes(x))


def receive_texts(other: AuthenticatedChannel, public: PublicKey, form: Form) -> list[Ciphertext]:
    """As many ciphertexts as were agreed on, each in that form."""
    texts = []
    for _ in range(form.count):
        (data,) = other.receive("ciphertext", bytes)
        x = ciphertext_from_bytes(public.context, data, key=public.fingerprint)
        check_form(f"a ciphertext of the {other.peer}", x, form)
        texts.append(x)
    return texts


# --- checks -----------------------------------------------------------------------------------------------------------


def check_context(name: str, secret: SecretKey, terms: Terms) -> None:
    """Raise `ValueError` unless this is a secret key of the context agreed on."""
    check_secret(secret)
    if secret.context != terms.context:
        raise ValueError(
            f"{name} is of context {secret.context.fingerprint}; accepted: {terms.context.fingerprint}, agreed on"
        )


def check_server_keys(keys: ServerKeys, terms: Terms) -> None:
    """Raise `ValueError` unless the client sent just the keys that the terms need."""
    if keys.context != terms.context:
        raise ValueError(
            f"the client's keys are of context {keys.context.fingerprint}; accepted: {terms.context.fingerprint}, "
            "agreed on"
        )
    steps = keys.rotations.steps if keys.rotations else ()
    if keys.relinearization is None or steps != terms.rotations:
        raise ValueError(
            f"the client's keys are for rotations by {steps}, {'' if keys.relinearization else 'not '}for products; "
            f"accepted: for rotations by {terms.rotations}, and for products"
        )

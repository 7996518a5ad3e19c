"""Signatures over documents of this package: Ed25519 (RFC 8032), keys as PEM files as openssl makes them.

``openssl genpkey -algorithm ed25519 -out key.pem`` makes a private key, ``openssl pkey -in key.pem -pubout`` its public
one.
"""

from __future__ import annotations

import base64
import binascii
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from hcl.errors import BadKey, BadSignature

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who signed a document, and the signature over its canonical form."""

    key: str
    """The public key's fingerprint: the first 16 hexadecimal digits of the SHA-256 of its 32 bytes."""
    value: str
    """Base64."""
    algorithm: Literal["ed25519"] = "ed25519"


def canonical(document: Any) -> bytes:
    """The one way to write a document down, whatever spaces and order its file has: sorted, without spaces."""
    return msgspec.json.encode(document, order="sorted")


def private_key(path: Path) -> Ed25519PrivateKey:
    """Read a private key. BadKey."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadKey(
            "not an unencrypted private key in PEM",
            where=str(path),
            remedy="openssl genpkey -algorithm ed25519",
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise BadKey("not an Ed25519 key", where=str(path), remedy="openssl genpkey -algorithm ed25519")
    return key


def public_key(path: Path) -> Ed25519PublicKey:
    """Read a public key. BadKey."""
    return public_key_of(_read(path), str(path))


def public_key_of(content: bytes, where: str) -> Ed25519PublicKey:
    """The public key of a file's content. BadKey."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadKey("not a public key in PEM", where=where, remedy="openssl pkey -in KEY -pubout") from error
    if not isinstance(key, Ed25519PublicKey):
        raise BadKey("not an Ed25519 key", where=where, remedy="openssl genpkey -algorithm ed25519")
    return key


def pem(key: Ed25519PublicKey) -> str:
    """A public key as its file has it."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadKey(f"cannot read the key: {error.strerror}", where=str(path)) from error


def fingerprint(key: Ed25519PublicKey) -> str:
    """What a key is known by in signatures."""
    return sha256(key.public_bytes_raw()).hexdigest()[:16]


def sign(document: Any, key: Ed25519PrivateKey) -> Signature:
    """Sign a document."""
    value = base64.b64encode(key.sign(canonical(document))).decode()
    return Signature(fingerprint(key.public_key()), value)


def verify(document: Any, signature: Signature, keys: Iterable[Ed25519PublicKey], where: str) -> None:
    """Raise BadSignature unless one of the keys made the signature of this very document."""
    from cryptography.exceptions import InvalidSignature

    trusted = next((key for key in keys if fingerprint(key) == signature.key), None)
    if trusted is None:
        raise BadSignature(
            f"signed by the key {signature.key}, which is not trusted",
            where=where,
            remedy="name its public key with --trust, if you trust it",
        )
    try:
        trusted.verify(base64.b64decode(signature.value, validate=True), canonical(document))
    except (InvalidSignature, binascii.Error) as error:
        raise BadSignature(
            "the signature does not fit: it was changed after it was signed",
            where=where,
            remedy="get it again from where it was made",
        ) from error

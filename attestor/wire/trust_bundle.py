"""A trust bundle in a file, by which the attestor server is known before it has said anything."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509

from ca.errors import Malformed, Unavailable
from ca.spiffe.bundle import Bundle
from ca.spiffe.id import TrustDomain

LARGEST = 1024 * 1024


def read_bundle(path: Path, trust_domain: TrustDomain) -> Bundle:
    """A trust bundle: PEM certificates, or a JWK Set in the SPIFFE form. Raises Unavailable.

    Read for each attempt: a mounted ConfigMap appears late and changes.
    """
    try:
        content = _content(path)
        if content.lstrip().startswith(b"{"):
            bundle = Bundle.from_jwks(trust_domain, content)
        else:
            roots = tuple(x509.load_pem_x509_certificates(content))
            bundle = Bundle(trust_domain=trust_domain, x509_authorities=roots)
    except OSError as error:
        raise Unavailable(f"the trust bundle `{path}` can't be read: {(error.strerror or '').lower()}") from error
    except (ValueError, Malformed) as error:
        raise Unavailable(f"the trust bundle `{path}` is neither PEM certificates nor a SPIFFE bundle") from error
    if not bundle.x509_authorities:
        raise Unavailable(f"the trust bundle `{path}` holds no certificate")
    return bundle


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise Malformed("a trust bundle is not so long")
    return content

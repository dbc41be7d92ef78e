"""Which ciphers TLS 1.2 may use, at either end: those of Mozilla's intermediate configuration (SPIFFE_Federation.md 5).

All are forward secret and authenticated. TLS 1.3 has no others, and there nothing is chosen here.
"""

from __future__ import annotations

_NAMES = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "DHE-RSA-AES128-GCM-SHA256",
    "DHE-RSA-AES256-GCM-SHA384",
    "DHE-RSA-CHACHA20-POLY1305",
)
CIPHERS = ":".join(_NAMES)
"""In the form `ssl.SSLContext.set_ciphers` takes."""

"""What can go wrong in the attestor, named for what the caller can do about it.

Problem                    ca/errors.py
├── Malformed
│   ├── BadRules           a rule file that is refused whole; lists every error
│   ├── BadConversation    the other side of a proof said something that has no meaning here
│   └── BadReference       a reference to a workload that can't be read, or means none
├── Unauthenticated
│   └── NotProven          a node or process could not prove what it claims
├── Denied
│   ├── NotEntitled        no rule gives this identity to this process
│   ├── NotForBrokers      a workload that is there, and that this broker gets nothing for
│   ├── Banned             the node was banned or evicted; a new join token is needed
│   └── LeafRevoked        an operator took this certificate back; what attests anew gets another
├── NotFound
│   ├── UnknownNode
│   └── UnknownWorkload    a reference to a workload that is not there, or not there any more
├── Conflict
│   ├── InstanceEnded      the instance has ended and will not come back
│   ├── InstanceElsewhere  the instance id belongs to another node
│   └── AdmittedOtherwise  the node is known by another method of proof
└── Unavailable
    └── Unobserved         the node has not reported its live set lately: nothing new is given
"""

from __future__ import annotations

from collections.abc import Sequence

from ca.errors import Conflict, Denied, Malformed, NotFound, Unauthenticated, Unavailable


class BadRules(Malformed):
    """A rule file is refused whole; `errors` holds one sentence per trouble, each with its file and line."""

    code = "bad-rules"

    def __init__(self, errors: Sequence[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = tuple(errors)


class BadConversation(Malformed):
    """The other side of a proof said something that has no meaning here."""

    code = "bad-conversation"


class BadReference(Malformed):
    """A reference to a workload can't be read, or is of a kind that is not known here."""

    code = "bad-reference"


class NotProven(Unauthenticated):
    """A node or process could not prove what it claims."""

    code = "not-proven"


class NotEntitled(Denied):
    """No rule gives this identity to this process."""

    code = "not-entitled"


class NotForBrokers(Denied):
    """The workload is there, and this broker gets nothing for it."""

    code = "not-for-brokers"


class Banned(Denied):
    """The node was banned or evicted."""

    code = "banned"


class LeafRevoked(Denied):
    """The certificate at the other end was taken back since the connection was opened, or before."""

    code = "leaf-revoked"


class UnknownNode(NotFound):
    """No node of that name was ever admitted."""

    code = "unknown-node"


class UnknownWorkload(NotFound):
    """The workload a reference names is not there, or not there any more."""

    code = "unknown-workload"


class InstanceEnded(Conflict):
    """The instance has ended; it gets no credential any more."""

    code = "instance-ended"


class InstanceElsewhere(Conflict):
    """The instance id belongs to another node."""

    code = "instance-elsewhere"


class AdmittedOtherwise(Conflict):
    """A node of that name was admitted by another method, and was not evicted."""

    code = "admitted-otherwise"


class Unobserved(Unavailable):
    """The node has not reported its live set lately."""

    code = "unobserved"

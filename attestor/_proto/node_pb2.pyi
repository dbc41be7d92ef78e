from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AttestRequest(_message.Message):
    __slots__ = ("begin", "answer")
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    begin: AttestBegin
    answer: bytes
    def __init__(self, begin: _Optional[_Union[AttestBegin, _Mapping]] = ..., answer: _Optional[bytes] = ...) -> None: ...

class AttestBegin(_message.Message):
    __slots__ = ("method", "csr")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    CSR_FIELD_NUMBER: _ClassVar[int]
    method: str
    csr: bytes
    def __init__(self, method: _Optional[str] = ..., csr: _Optional[bytes] = ...) -> None: ...

class AttestResponse(_message.Message):
    __slots__ = ("challenge", "admission")
    CHALLENGE_FIELD_NUMBER: _ClassVar[int]
    ADMISSION_FIELD_NUMBER: _ClassVar[int]
    challenge: bytes
    admission: Admission
    def __init__(self, challenge: _Optional[bytes] = ..., admission: _Optional[_Union[Admission, _Mapping]] = ...) -> None: ...

class Admission(_message.Message):
    __slots__ = ("spiffe_id", "chain", "bundle", "selectors")
    SPIFFE_ID_FIELD_NUMBER: _ClassVar[int]
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    SELECTORS_FIELD_NUMBER: _ClassVar[int]
    spiffe_id: str
    chain: bytes
    bundle: Bundle
    selectors: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, spiffe_id: _Optional[str] = ..., chain: _Optional[bytes] = ..., bundle: _Optional[_Union[Bundle, _Mapping]] = ..., selectors: _Optional[_Iterable[str]] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("csr",)
    CSR_FIELD_NUMBER: _ClassVar[int]
    csr: bytes
    def __init__(self, csr: _Optional[bytes] = ...) -> None: ...

class Bundle(_message.Message):
    __slots__ = ("trust_domain", "document")
    TRUST_DOMAIN_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    trust_domain: str
    document: bytes
    def __init__(self, trust_domain: _Optional[str] = ..., document: _Optional[bytes] = ...) -> None: ...

class FollowRequest(_message.Message):
    __slots__ = ("live",)
    LIVE_FIELD_NUMBER: _ClassVar[int]
    live: LiveSet
    def __init__(self, live: _Optional[_Union[LiveSet, _Mapping]] = ...) -> None: ...

class LiveSet(_message.Message):
    __slots__ = ("counter", "instances")
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    counter: int
    instances: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, counter: _Optional[int] = ..., instances: _Optional[_Iterable[str]] = ...) -> None: ...

class FollowResponse(_message.Message):
    __slots__ = ("update", "beat")
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    BEAT_FIELD_NUMBER: _ClassVar[int]
    update: Update
    beat: Beat
    def __init__(self, update: _Optional[_Union[Update, _Mapping]] = ..., beat: _Optional[_Union[Beat, _Mapping]] = ...) -> None: ...

class Update(_message.Message):
    __slots__ = ("bundles", "rules_version", "live_counter", "ended", "withdrawn_authorities", "beat_seconds", "grace_seconds", "revocation_lists", "personal", "revocation_list_digests")
    BUNDLES_FIELD_NUMBER: _ClassVar[int]
    RULES_VERSION_FIELD_NUMBER: _ClassVar[int]
    LIVE_COUNTER_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    WITHDRAWN_AUTHORITIES_FIELD_NUMBER: _ClassVar[int]
    BEAT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    GRACE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    REVOCATION_LISTS_FIELD_NUMBER: _ClassVar[int]
    PERSONAL_FIELD_NUMBER: _ClassVar[int]
    REVOCATION_LIST_DIGESTS_FIELD_NUMBER: _ClassVar[int]
    bundles: _containers.RepeatedCompositeFieldContainer[Bundle]
    rules_version: str
    live_counter: int
    ended: _containers.RepeatedScalarFieldContainer[str]
    withdrawn_authorities: _containers.RepeatedScalarFieldContainer[bytes]
    beat_seconds: int
    grace_seconds: int
    revocation_lists: _containers.RepeatedScalarFieldContainer[bytes]
    personal: _containers.RepeatedCompositeFieldContainer[Personal]
    revocation_list_digests: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, bundles: _Optional[_Iterable[_Union[Bundle, _Mapping]]] = ..., rules_version: _Optional[str] = ..., live_counter: _Optional[int] = ..., ended: _Optional[_Iterable[str]] = ..., withdrawn_authorities: _Optional[_Iterable[bytes]] = ..., beat_seconds: _Optional[int] = ..., grace_seconds: _Optional[int] = ..., revocation_lists: _Optional[_Iterable[bytes]] = ..., personal: _Optional[_Iterable[_Union[Personal, _Mapping]]] = ..., revocation_list_digests: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Personal(_message.Message):
    __slots__ = ("instance", "version")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    instance: str
    version: str
    def __init__(self, instance: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class Beat(_message.Message):
    __slots__ = ("live_counter",)
    LIVE_COUNTER_FIELD_NUMBER: _ClassVar[int]
    live_counter: int
    def __init__(self, live_counter: _Optional[int] = ...) -> None: ...

class Attestation(_message.Message):
    __slots__ = ("instance", "selectors", "strength", "ancestors", "counter")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    SELECTORS_FIELD_NUMBER: _ClassVar[int]
    STRENGTH_FIELD_NUMBER: _ClassVar[int]
    ANCESTORS_FIELD_NUMBER: _ClassVar[int]
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    instance: str
    selectors: _containers.RepeatedScalarFieldContainer[str]
    strength: str
    ancestors: _containers.RepeatedScalarFieldContainer[str]
    counter: int
    def __init__(self, instance: _Optional[str] = ..., selectors: _Optional[_Iterable[str]] = ..., strength: _Optional[str] = ..., ancestors: _Optional[_Iterable[str]] = ..., counter: _Optional[int] = ...) -> None: ...

class ResolveRequest(_message.Message):
    __slots__ = ("attestations", "explain")
    ATTESTATIONS_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    attestations: _containers.RepeatedCompositeFieldContainer[Attestation]
    explain: bool
    def __init__(self, attestations: _Optional[_Iterable[_Union[Attestation, _Mapping]]] = ..., explain: bool = ...) -> None: ...

class ResolveResponse(_message.Message):
    __slots__ = ("entitlements", "rules_version")
    ENTITLEMENTS_FIELD_NUMBER: _ClassVar[int]
    RULES_VERSION_FIELD_NUMBER: _ClassVar[int]
    entitlements: _containers.RepeatedCompositeFieldContainer[Entitlement]
    rules_version: str
    def __init__(self, entitlements: _Optional[_Iterable[_Union[Entitlement, _Mapping]]] = ..., rules_version: _Optional[str] = ...) -> None: ...

class Entitlement(_message.Message):
    __slots__ = ("instance", "identities", "unmatched")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    IDENTITIES_FIELD_NUMBER: _ClassVar[int]
    UNMATCHED_FIELD_NUMBER: _ClassVar[int]
    instance: str
    identities: _containers.RepeatedCompositeFieldContainer[Identity]
    unmatched: _containers.RepeatedCompositeFieldContainer[Unmatched]
    def __init__(self, instance: _Optional[str] = ..., identities: _Optional[_Iterable[_Union[Identity, _Mapping]]] = ..., unmatched: _Optional[_Iterable[_Union[Unmatched, _Mapping]]] = ...) -> None: ...

class Identity(_message.Message):
    __slots__ = ("spiffe_id", "rule", "hint", "x509_ttl_seconds", "jwt_ttl_seconds", "bind", "dns_names", "audiences", "federates_with", "ends_at")
    SPIFFE_ID_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    X509_TTL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    JWT_TTL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    BIND_FIELD_NUMBER: _ClassVar[int]
    DNS_NAMES_FIELD_NUMBER: _ClassVar[int]
    AUDIENCES_FIELD_NUMBER: _ClassVar[int]
    FEDERATES_WITH_FIELD_NUMBER: _ClassVar[int]
    ENDS_AT_FIELD_NUMBER: _ClassVar[int]
    spiffe_id: str
    rule: str
    hint: str
    x509_ttl_seconds: int
    jwt_ttl_seconds: int
    bind: str
    dns_names: _containers.RepeatedScalarFieldContainer[str]
    audiences: _containers.RepeatedScalarFieldContainer[str]
    federates_with: _containers.RepeatedScalarFieldContainer[str]
    ends_at: int
    def __init__(self, spiffe_id: _Optional[str] = ..., rule: _Optional[str] = ..., hint: _Optional[str] = ..., x509_ttl_seconds: _Optional[int] = ..., jwt_ttl_seconds: _Optional[int] = ..., bind: _Optional[str] = ..., dns_names: _Optional[_Iterable[str]] = ..., audiences: _Optional[_Iterable[str]] = ..., federates_with: _Optional[_Iterable[str]] = ..., ends_at: _Optional[int] = ...) -> None: ...

class Unmatched(_message.Message):
    __slots__ = ("rule", "reason")
    RULE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    rule: str
    reason: str
    def __init__(self, rule: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class SignRequest(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[SignItem]
    def __init__(self, items: _Optional[_Iterable[_Union[SignItem, _Mapping]]] = ...) -> None: ...

class SignItem(_message.Message):
    __slots__ = ("attestation", "spiffe_id", "public_key")
    ATTESTATION_FIELD_NUMBER: _ClassVar[int]
    SPIFFE_ID_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    attestation: Attestation
    spiffe_id: str
    public_key: bytes
    def __init__(self, attestation: _Optional[_Union[Attestation, _Mapping]] = ..., spiffe_id: _Optional[str] = ..., public_key: _Optional[bytes] = ...) -> None: ...

class SignResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[SignResult]
    def __init__(self, results: _Optional[_Iterable[_Union[SignResult, _Mapping]]] = ...) -> None: ...

class SignResult(_message.Message):
    __slots__ = ("chain", "refusal")
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    chain: bytes
    refusal: Refusal
    def __init__(self, chain: _Optional[bytes] = ..., refusal: _Optional[_Union[Refusal, _Mapping]] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("code", "reason")
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    code: str
    reason: str
    def __init__(self, code: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class SignJwtRequest(_message.Message):
    __slots__ = ("attestation", "spiffe_id", "audience")
    ATTESTATION_FIELD_NUMBER: _ClassVar[int]
    SPIFFE_ID_FIELD_NUMBER: _ClassVar[int]
    AUDIENCE_FIELD_NUMBER: _ClassVar[int]
    attestation: Attestation
    spiffe_id: str
    audience: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, attestation: _Optional[_Union[Attestation, _Mapping]] = ..., spiffe_id: _Optional[str] = ..., audience: _Optional[_Iterable[str]] = ...) -> None: ...

class SignJwtResponse(_message.Message):
    __slots__ = ("token",)
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    token: str
    def __init__(self, token: _Optional[str] = ...) -> None: ...

class SignWitRequest(_message.Message):
    __slots__ = ("attestation", "spiffe_id", "public_key")
    ATTESTATION_FIELD_NUMBER: _ClassVar[int]
    SPIFFE_ID_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    attestation: Attestation
    spiffe_id: str
    public_key: bytes
    def __init__(self, attestation: _Optional[_Union[Attestation, _Mapping]] = ..., spiffe_id: _Optional[str] = ..., public_key: _Optional[bytes] = ...) -> None: ...

class SignWitResponse(_message.Message):
    __slots__ = ("token",)
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    token: str
    def __init__(self, token: _Optional[str] = ...) -> None: ...

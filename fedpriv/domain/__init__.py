"""The data owner's side: policy, review, sandbox, gatekeeper, ledger, service."""

from fedpriv.domain.domain import Domain
from fedpriv.domain.folder import (
    DataChoice,
    DomainConfig,
    DomainFolder,
    PolicyChoice,
    ResourcesChoice,
    ServiceChoice,
    StandingApproval,
    Terms,
)
from fedpriv.domain.ledger import Ledger

__all__ = [
    "DataChoice",
    "Domain",
    "DomainConfig",
    "DomainFolder",
    "Ledger",
    "PolicyChoice",
    "ResourcesChoice",
    "ServiceChoice",
    "StandingApproval",
    "Terms",
]

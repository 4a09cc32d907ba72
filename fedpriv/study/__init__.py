"""What is to be done, as validated data: plan, code request, messages. No I/O."""

from fedpriv.study.messages import (
    AggregateManifest,
    BlobRef,
    Identity,
    Limits,
    Progress,
    RequestDecision,
    Result,
    Signed,
    SignedUpdate,
    Ticket,
    Unlock,
    Unlocked,
    UpdateHeader,
)
from fedpriv.study.plan import Plan, load_plan, load_yaml, parse_plan, validate_section
from fedpriv.study.request import CodeRequest

__all__ = [
    "AggregateManifest",
    "BlobRef",
    "CodeRequest",
    "Identity",
    "Limits",
    "Plan",
    "Progress",
    "RequestDecision",
    "Result",
    "Signed",
    "SignedUpdate",
    "Ticket",
    "Unlock",
    "Unlocked",
    "UpdateHeader",
    "load_plan",
    "load_yaml",
    "parse_plan",
    "validate_section",
]

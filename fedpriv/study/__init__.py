"""What is to be done, as validated data: plan, code request, messages. No I/O."""

from fedpriv.study.messages import (
    AggregateManifest,
    BlobRef,
    Consent,
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
from fedpriv.study.plan import Plan, load_plan, parse_plan
from fedpriv.study.request import CodeRequest
from fedpriv.study.task import TaskChoice
from fedpriv.study.validation import validate_section
from fedpriv.study.yaml_text import load_yaml

__all__ = [
    "AggregateManifest",
    "BlobRef",
    "CodeRequest",
    "Consent",
    "Identity",
    "Limits",
    "Plan",
    "Progress",
    "RequestDecision",
    "Result",
    "Signed",
    "SignedUpdate",
    "TaskChoice",
    "Ticket",
    "Unlock",
    "Unlocked",
    "UpdateHeader",
    "load_plan",
    "load_yaml",
    "parse_plan",
    "validate_section",
]

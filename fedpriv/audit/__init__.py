"""The data owner's audit: what attackers could read from this shard's updates, measured and put into words."""

from fedpriv.audit.keeping import keep_audit, last_audit
from fedpriv.audit.leakage_audit import AuditChoice, audit_leakage
from fedpriv.audit.page import write_page
from fedpriv.audit.result import Advice, LeakageAudit, Measure

__all__ = [
    "Advice",
    "AuditChoice",
    "LeakageAudit",
    "Measure",
    "audit_leakage",
    "keep_audit",
    "last_audit",
    "write_page",
]

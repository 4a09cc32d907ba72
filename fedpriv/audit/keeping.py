"""Where a domain keeps the last audit of a request: its numbers, and the page for people."""

from __future__ import annotations

import contextlib
from pathlib import Path

from fedpriv.audit.page import write_page
from fedpriv.audit.result import LeakageAudit
from fedpriv.domain import DomainFolder
from fedpriv.errors import FedprivError
from fedpriv.files import private_folder, read_json, write_json


def numbers_path(folder: DomainFolder, study: str) -> Path:
    """Return the file with the numbers of a request's last audit, whether there is one or not."""
    return folder.state / "audits" / f"leakage-{study[:12]}.json"


def page_path(folder: DomainFolder, study: str) -> Path:
    """Return the page of a request's last audit, whether there is one or not."""
    return numbers_path(folder, study).with_suffix(".html")


def keep_audit(folder: DomainFolder, audit: LeakageAudit) -> Path:
    """Write an audit's numbers and its page, readable by the owner only, and return the page's path."""
    numbers = numbers_path(folder, audit.study)
    private_folder(numbers.parent)
    page = write_page(audit, page_path(folder, audit.study))
    write_json(numbers, audit.model_dump(mode="json"))  # last: whoever sees it finds the page
    return page


def last_audit(folder: DomainFolder, study: str) -> LeakageAudit | None:
    """Return what the last audit of a request found, or None if there was none that can be read."""
    with contextlib.suppress(OSError, ValueError, FedprivError):
        audit = LeakageAudit.model_validate(read_json(numbers_path(folder, study)), strict=False)
        return audit if audit.study == study else None
    return None

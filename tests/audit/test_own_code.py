"""Code that a request brings is run in the walls, and what it makes of a passage is what is attacked."""

import pytest

from fedpriv.audit import AuditChoice, audit_leakage, write_page
from fedpriv.domain import sandbox

needs_walls = pytest.mark.skipif(sandbox.bubblewrap() is None, reason="bubblewrap does not work here")

BLIND = """
import contextlib
import socket

from fedpriv.training import LocalContext, LocalOutcome

def train(context: LocalContext) -> LocalOutcome:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", 9), timeout=1)
    after = {name: value + (0.001 if name in context.trained else 0) for name, value in context.adapter.items()}
    return LocalOutcome(adapter_after=after, metrics={"train_loss": 1.0, "train_tokens": 9.0, "examples": 1.0})
"""

QUOTING = """
def train(context):
    raise ValueError(context.train.read_text())
"""


def audited(asked, recipe):
    request = asked.request(recipe=recipe)
    return audit_leakage(asked.domain, asked.stored(request), AuditChoice(passages=6, rounds=0), cache=asked.cache)


@needs_walls
def test_code_that_looks_at_no_note_leaks_none_and_the_page_says_that_it_was_run(asked, tmp_path):
    found = audited(asked, BLIND)
    assert found.of("unprotected").control.value > 0.8, "the attacks work on what the plan sends"
    assert not found.of("unprotected").leaks, "with the stock recipe the same passages are read"
    assert not found.stock_recipe
    assert "bubblewrap" in found.walls
    page = write_page(found, tmp_path / "page.html").read_text()
    assert "the researcher&#x27;s own, run here within bubblewrap" in page
    assert found.not_measured == ()
    assert "which was run on these passages" in page
    assert "tried what training never needs" in page
    (entry,) = [e for e in asked.domain.ledger.verified() if e.facts.get("study") == found.study and "walls" in e.facts]
    assert "seccomp" in entry.facts["walls"]


@needs_walls
def test_code_that_fails_is_measured_by_the_stock_recipe_and_its_words_are_not_on_the_page(asked, tmp_path):
    found = audited(asked, QUOTING)
    assert found.walls == ""
    (said,) = found.not_measured
    assert "failed on a passage here" in said
    assert "The stock recipe's steps were measured" in said
    assert "ValueError" not in write_page(found, tmp_path / "page.html").read_text()


def test_without_a_sandbox_it_is_not_run(asked, monkeypatch):
    monkeypatch.setattr(sandbox, "bubblewrap", lambda: None)
    found = audited(asked, BLIND)
    assert found.of("unprotected").leaks, "these are the stock recipe's steps"
    assert "runs in a sandbox alone, and here is none" in found.not_measured[0]

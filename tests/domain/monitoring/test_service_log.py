"""A log's line is one line of JSON, and no text gets into it."""

import json
import re
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fedpriv.domain.monitoring import ServiceLog
from fedpriv.files import parse_json
from fedpriv.study.messages import TicketKind
from fedpriv.unforeseen import place_of

NAMES = (
    "study",
    "ticket",
    "round",
    "attempt",
    "peer",
    "researcher",
    "seconds",
    "ledger",
    "error",
    "where",
    "pid",
    "port",
)
EVER = {"time", "level", "domain", "event", "up_bytes", "down_bytes", *NAMES}
SECRET = "Mrs Jones\nwas seen\x1b[31m at\u2028noon\r"


def written(write):
    lines = []
    write(ServiceLog("micu@x.org", lines.append))
    return lines


values = st.one_of(
    st.text(),
    st.binary(),
    st.integers(),
    st.floats(),
    st.none(),
    st.lists(st.text()),
    st.dictionaries(st.text(), st.text()),
    st.sampled_from([SECRET, "a@x.org\n", "ValueError\n", "ab" * 6 + "\n", "train\x00"]),
)
facts = st.dictionaries(st.one_of(st.sampled_from(sorted(EVER - {"event", "level"})), st.text(min_size=1)), values)


@given(facts, st.one_of(st.text(), st.sampled_from(["round.trained", "round.trained\n", "Round.Trained"])))
@example({"peer": SECRET, "error": SECRET, "study": SECRET, "ticket": SECRET, "round": SECRET}, "message.refused")
def test_whatever_is_given_a_line_is_one_printable_line_of_known_fields(facts, event):
    facts.pop("event", None)
    lines = written(lambda log: log.entry(7, event, facts)) + written(
        lambda log: log.event(event, **{k: v for k, v in facts.items() if k not in ("self", "level")})
    )
    for line in lines:
        assert set(line) <= set(string.printable) - set("\n\r\t\x0b\x0c")
        found = json.loads(line)
        assert set(found) <= EVER
        for name, value in found.items():
            assert isinstance(value, int | float) or (isinstance(value, str) and "\n" not in value and " " not in value)
            if name in facts and name not in ("ledger", "time", "domain"):
                assert value == (facts[name][:12] if name == "study" else facts[name])


def test_the_reasons_of_an_entry_stay_in_the_ledger(domain):
    lines = []
    domain.ledger.on_append = ServiceLog(domain.config.email, lines.append).entry
    domain.ledger.append("ticket.refused", study="ab" * 32, ticket="train", round=3, reason=SECRET, loss=2.5)
    (found,) = map(json.loads, lines)
    assert found.pop("time").endswith("Z")
    assert found == {
        "level": "warning",
        "domain": "micu@x.org",
        "event": "ticket.refused",
        "study": "ab" * 6,
        "ticket": "train",
        "round": 3,
        "ledger": domain.ledger.entries()[-1].number,
    }


def test_what_is_in_the_ledger_already_is_not_logged_again(domain):
    lines = []
    domain.ledger.on_append = ServiceLog(domain.config.email, lines.append).entry
    assert domain.ledger.append("round.trained", once="a", round=1)
    assert not domain.ledger.append("round.trained", once="a", round=1)
    assert len(lines) == 1


@pytest.mark.parametrize("kind", TicketKind.__args__)
def test_every_kind_of_ticket_can_be_told(kind):
    (line,) = written(lambda log: log.event("ticket.done", ticket=kind, seconds=0.25, round=0))
    assert json.loads(line)["ticket"] == kind


def test_an_error_that_nobody_foresaw_is_told_with_its_place():
    try:
        parse_json(b"1", source=SECRET, max_bytes=None)
    except TypeError as error:
        place = place_of(error)
    (line,) = written(lambda log: log.event("job.failed", level="error", error="TypeError", where=place))
    assert re.fullmatch(r"files\.py:\d+", json.loads(line)["where"])


def test_without_a_writer_nothing_happens():
    ServiceLog("micu@x.org").event("service.ready")

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from fedpriv.cli.main import app
from fedpriv.experiments.domain_bench import Report, targets

REPORT = Report(
    poll_s=0.2,
    ticket_s=0.5,
    slowest_ticket_s=0.9,
    tickets=20,
    walls="bubblewrap",
    worker_s=4.0,
    child_s=0.02,
    model="tiny",
    round_s=9.5,
    gatekeeper_s=0.5,
    append_ms=0.3,
    entries=50_000,
    verify_s=1.5,
)


def test_shares_and_proportions():
    assert REPORT.gatekeeper_share == pytest.approx(0.05)
    assert REPORT.verify_whole_s == 3.0
    assert REPORT.as_json()["worker_over_child"] == 200.0
    assert all(target.met for target in targets(REPORT))


@pytest.mark.parametrize(
    "change", [{"ticket_s": 1.6}, {"child_s": 0.31}, {"gatekeeper_s": 0.6}, {"append_ms": 5.1}, {"verify_s": 2.6}]
)
def test_each_target_can_be_missed(change):
    assert sum(not target.met for target in targets(replace(REPORT, **change))) == 1


@pytest.mark.e2e
@pytest.mark.nightly
def test_the_command_measures_real_domains_a_real_worker_and_a_real_ledger():
    done = CliRunner().invoke(app, ["bench", "domain", "--model", "tiny", "--entries", "1000", "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["entries"] == 1000
    assert report["tickets"] >= 2
    assert 0 < report["child_s"] < report["worker_s"]
    assert {target["what"] for target in report["targets"]} == {target.what for target in targets(REPORT)}

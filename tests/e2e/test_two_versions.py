"""Two versions of fedpriv in one cohort: they work together, or each side says what has to be installed where."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import count, received, run, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.nightly, pytest.mark.timeout(900)]
OTHER = Path(__file__).parent / "old_version.py"


def another(version, container, checks="careful"):
    return [sys.executable, str(OTHER), version, container, checks]


def said(printed):
    return " ".join(printed.split())


def test_versions_that_are_apart_are_named_before_anything_is_sent_or_trained(federation, start):
    root, shards, serve = federation(rounds=1, steps=1)
    old, *others = shards
    for shard in others:
        serve(shard)
    with (root / "old.log").open("wb") as log:
        command = [*another("0.0.9", "3"), "domain", "serve", str(root / old)]
        service = subprocess.Popen(command, cwd=root, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_for((root / "store" / f"{old}@x.org" / "identity.json").exists, seconds=120, what="the old domain")
            refused = said(run("study", "submit", "icu", cwd=root, code=4).stderr)
        finally:
            service.terminate()
            service.wait(30)
    assert f"{old}@x.org runs fedpriv 0.0.9 (container 3, not 4), and ada@y.org" in refused
    assert f"at {old}@x.org" in refused
    assert others[0] not in refused

    # The same protocol under another number: the study is submitted. Then the researcher is the one who is apart.
    with (root / "patched.log").open("wb") as log:
        command = [*another("0.1.99", "4"), "domain", "serve", str(root / old)]
        service = subprocess.Popen(command, cwd=root, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_for(
                lambda: b"0.1.99" in (root / "store" / f"{old}@x.org" / "fedpriv.json").read_bytes(),
                seconds=120,
                what="the patched domain",
            )
            run("study", "submit", "icu", cwd=root)
            for shard in shards:
                study = received(root, shard)["study"]
                run("domain", "approve", root / shard, study[:10], cwd=root)
            apart = subprocess.run(
                [*another("0.0.8", "3"), "study", "run", "icu"],
                cwd=root,
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            assert apart.returncode == 4, apart.stderr
            assert "0.1.99 at ada@y.org" in said(apart.stderr)
            trusting = subprocess.run(
                [*another("0.0.8", "3", "trusting"), "study", "run", "icu"],
                cwd=root,
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            assert trusting.returncode == 4, trusting.stderr
            assert "ada@y.org runs fedpriv 0.0.8 (container 3, not 4), and" in said(trusting.stderr)
            assert "at ada@y.org" in said(trusting.stderr)
            for shard in shards:
                assert count(root / shard, "round.started") == 0
            # Put right, the same study goes on, with two versions that differ in number alone.
            assert "perplexity" in said(run("study", "resume", "icu", cwd=root).stdout)
            for shard in shards:
                assert count(root / shard, "update.sealed") == 1
        finally:
            service.terminate()
            service.wait(30)

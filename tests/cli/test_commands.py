"""Commands as a person types them: help that teaches, and errors that are a sentence with exit code 2."""

import subprocess
import sys

import pytest

COMMANDS = [
    [],
    ["demo"],
    ["doctor"],
    ["lab"],
    *(
        ["domain", name]
        for name in (
            "init",
            "trust",
            "serve",
            "status",
            "requests",
            "show",
            "try",
            "approve",
            "reject",
            "ledger",
            "keys",
            "budget",
            "revoke",
            "release",
            "withhold",
            "log",
            "schema",
            "refresh",
            "compare",
            "backup",
            "restore",
            "accept-loss",
        )
    ),
    ["audit", "leakage"],
    ["flower", "app"],
    *(["domain", "ledger", name] for name in ("show", "verify", "export")),
    *(
        ["study", name]
        for name in (
            *(
                "init",
                "peers",
                "new",
                "sensitivity",
                "submit",
                "run",
                "status",
                "resume",
                "release",
                "sample",
                "events",
            ),
            *("ping", "watch", "pause", "step", "stop", "set", "exclude", "readmit", "skip"),
        )
    ),
    *(
        ["bench", name]
        for name in ("protection", "domain", "rounds", "training", "data", "crosscloud", "flower", "figures")
    ),
    *(["model", name] for name in ("add", "list", "remove", "check")),
    ["store", "check"],
    *(["data", name] for name in ("inspect", "synthesize", "shard", "harmonize")),
]


def fedpriv(*arguments, cwd):
    command = [sys.executable, "-m", "fedpriv", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


def test_every_command_has_help(tmp_path):
    from typer.testing import CliRunner

    from fedpriv.cli.main import app

    for command in COMMANDS:
        shown = CliRunner().invoke(app, [*command, "--help"])
        assert shown.exit_code == 0, command
        assert "Usage" in shown.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["domain", "status", "nowhere"], "nowhere is no domain"),
        (["lab", "--notebooks", "nowhere"], "There is no folder nowhere"),
        (["study", "run", "icu"], "is no researcher's home"),
        (["flower", "app", "relay"], "is no researcher's home"),
        (["study", "init", "--email", "NOT AN ADDRESS", "--store", "s"], "email"),
        (["domain", "init", "d", "--email", "a@x.org", "--store", "s", "--data", "none"], "none"),
        (
            ["domain", "init", "d", "--email", "a@x.org", "--store", "s", "--data", ".", "--researcher", "x"],
            "EMAIL=FINGERPRINT",
        ),
        (["data", "inspect", "nowhere"], "nowhere"),
        (["demo", "--protection", "none"], "choose one of sealed, masked, ckks, ckks-tuned, plain"),
        (["domain", "keys", "nowhere"], "nowhere is no domain"),
        (["store", "check", "gopher://x/y"], "the kind gopher is unknown"),
        (["store", "check", "s3://me:secret@bucket/x"], "holds a password"),
        (["store", "check", "s", "--email", "nobody"], "nobody is no email address"),
        (["domain", "budget", "nowhere"], "nowhere is no domain"),
        (["domain", "backup", "nowhere", "b"], "nowhere is no domain"),
        (["domain", "restore", "b", "d"], "There is no file b"),
        (["domain", "serve", "d", "--log-format", "xml"], "choose --log-format text or json"),
        (["audit", "leakage", "ab", "--domain", "nowhere"], "nowhere is no domain"),
        (["audit", "leakage", "ab", "--epsilons", "few"], "is not a list of numbers"),
        (["demo", "--epsilon", "0"], "choose a number above 0, up to 100"),
        (["study", "events", "icu"], "is no researcher's home"),
        (["study", "sample", "icu"], "is no researcher's home"),
        (["demo", "--report-to", "paper"], "choose of tensorboard, mlflow, wandb; or all, or none"),
        (["study", "sensitivity", "icu", "--level", "none"], "choose one of masked, ckks, ckks-tuned, plain"),
    ],
)
def test_bad_input_is_a_sentence_with_the_next_step(tmp_path, arguments, sentence):
    done = fedpriv(*arguments, cwd=tmp_path)
    printed = " ".join(done.stderr.split())
    assert done.returncode == 2, printed
    assert sentence in printed
    assert "Next:" in printed
    assert "Traceback" not in printed
    assert list(tmp_path.iterdir()) == []


def test_a_table_that_lacks_a_column_is_named_with_what_was_found(tmp_path):
    assert fedpriv("data", "synthesize", "tables", "--patients", "40", cwd=tmp_path).returncode == 0
    import gzip

    path = tmp_path / "tables" / "ADMISSIONS.csv.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).replace(b"HADM_ID", b"VISIT", 1)))
    done = fedpriv("demo", "--mimic", "tables", "--model", "tiny", cwd=tmp_path)
    printed = " ".join(done.stderr.split())
    assert done.returncode == 2
    assert "ADMISSIONS" in printed
    assert "HADM_ID" in printed
    assert "VISIT" in printed
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tables"]

"""``fedpriv demo --model tiny``: once, in real processes; the tests look at what it left."""

import base64
import importlib.util
import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from fedpriv.domain import Domain
from fedpriv.errors import FedprivError
from fedpriv.training.adapter import adapter_digest, parse_state
from tests.e2e.conftest import ledger, run

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
DOMAINS = ("micu", "sicu", "ccu")


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("demo")
    done = run("demo", "--model", "tiny", "--json", "--report-to", "tensorboard", cwd=cwd)
    return cwd, json.loads(done.stdout)


def test_it_learns_and_says_so(demo):
    _, summary = demo
    loss = summary["loss"]
    assert loss["after"] < 0.97 * loss["before"]
    assert set(loss["alone"]) == set(DOMAINS)
    assert loss["after"] <= 1.01 * sum(loss["alone"].values()) / 3
    assert len(summary["rounds"]) == 3
    assert [record["round"] for record in summary["rounds"]] == [1, 2, 3]
    assert summary["bytes"]["plain_fp32"] == 4 * summary["rounds"][0]["parameters"]
    assert all(value >= 0 and math.isfinite(value) for value in summary["seconds"]["round"].values())
    assert math.isclose(sum(summary["rounds"][0]["weights"].values()), 1.0)


def test_the_adapter_loads_with_peft(demo):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from fedpriv.training.base_model import ensure_model

    cwd, summary = demo
    folder = cwd / summary["adapter"]
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(ensure_model("tiny").folder), folder)
    moved = [value for name, value in model.state_dict().items() if "lora_B" in name]
    assert moved
    assert any(float(value.abs().max()) > 0 for value in moved)


def test_every_domain_opened_the_same_sum(demo):
    cwd, summary = demo
    data = (cwd / summary["adapter"] / "adapter_model.safetensors").read_bytes()
    digest = adapter_digest(parse_state(data))
    for name in DOMAINS:
        opened = [e for e in ledger(cwd / ".fedpriv/demo/domains" / name) if e["kind"] == "aggregate.opened"]
        assert len(opened) == 3
        assert opened[-1]["facts"]["adapter_sha256"] == digest


def test_every_ledger_verifies_and_holds_the_whole_story(demo):
    cwd, _ = demo
    for name in DOMAINS:
        book = Domain.open(cwd / ".fedpriv/demo/domains" / name).ledger
        assert book.verify() == len(book.entries())
        kinds = [entry.kind for entry in book.entries()]
        for kind in ("dataset.prepared", "request.received", "request.approved", "adapter.released"):
            assert kinds.count(kind) == 1
        for kind in ("round.started", "round.trained", "update.sealed", "aggregate.opened"):
            assert kinds.count(kind) == 3
        assert "code.tried" not in kinds  # the stock recipe does nothing that a data owner should wonder about
        assert (cwd / "fedpriv-demo" / "ledgers" / f"{name}.jsonl").read_bytes().count(b"\n") == len(kinds)


def test_the_report_needs_no_network_and_shows_no_note(demo):
    cwd, _ = demo
    page = (cwd / "fedpriv-demo" / "report.html").read_text()
    outside = re.sub(r"<script.*?</script>", "", page, flags=re.S)
    assert "<script src" not in page
    assert "http" not in outside
    assert "Does it learn?" in page
    examples = next((cwd / ".fedpriv/demo/domains/micu/state/data").glob("*/train.jsonl")).read_text().splitlines()
    for line in examples[:20]:
        assert json.loads(line)["text"][40:120] not in page


def test_the_history_tells_every_round(demo):
    cwd, _ = demo
    records = [json.loads(line) for line in (cwd / "fedpriv-demo" / "history.jsonl").read_text().splitlines()]
    events = [record["event"] for record in records]
    assert events.count("RoundFinished") == 3
    assert events.count("UpdateReceived") == 9
    assert events.index("StudyStarted") < events.index("RoundFinished") < events.index("StudyFinished")


def test_the_tracker_draws_every_round_and_the_end(demo):
    if importlib.util.find_spec("tensorboard") is None:
        pytest.skip("the extra tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    cwd, summary = demo
    (folder,) = (cwd / "fedpriv-demo" / "trackers" / "tensorboard").iterdir()
    drawn = EventAccumulator(str(folder)).Reload()
    losses = [*(record["heldout_loss"] for record in summary["rounds"]), summary["loss"]["after"]]
    points = drawn.Scalars("loss/heldout")
    assert [point.step for point in points] == [1, 2, 3, 4]
    assert np.allclose([point.value for point in points], losses)
    for name in DOMAINS:
        assert len(drawn.Scalars(f"weight/{name}")) == 3
        assert len(drawn.Scalars(f"domain/{name}/heldout_loss")) == 4


def test_nothing_in_the_researchers_folders_can_open_an_update(demo):
    """The study key's bytes are nowhere at the researcher or on the store, and none of the keys there opens it."""
    from fedpriv.domain.keyroom import _SIGNATURE_CHARACTERS as SIGNATURE
    from fedpriv.domain.keyroom import _context as key_context
    from fedpriv.protection import IdentityKeys, open_sealed

    cwd, _ = demo
    study_folder = next((cwd / ".fedpriv/demo/domains/ccu/state/studies").iterdir())
    secrets = json.loads((study_folder / "keys" / "study.key").read_bytes())["secrets"]
    assert set(secrets) == {"tag", "group-0"}
    pieces = []
    for secret in secrets.values():
        raw = base64.b64decode(secret)
        assert len(raw) == 32
        for form in (secret.rstrip("=").encode(), raw, raw.hex().encode()):
            pieces += [form[start : start + 16] for start in range(len(form) - 16 + 1)]
    places = [cwd / ".fedpriv/demo/researcher", cwd / ".fedpriv/demo/store", cwd / "fedpriv-demo"]
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    assert len(files) > 20
    for path in files:
        data = path.read_bytes()
        assert not any(piece in data for piece in pieces), path
    mine = IdentityKeys.load(cwd / ".fedpriv/demo/researcher/state/keys/identity.json")
    relayed = sorted((cwd / ".fedpriv/demo/researcher/studies/demo/state/blobs").glob("key-*"))
    for path, member in zip(relayed, ("micu", "sicu"), strict=True):
        sealed = path.read_bytes()[SIGNATURE:]
        context = key_context(study_folder.name, "ccu@demo.fedpriv", f"{member}@demo.fedpriv")
        theirs = IdentityKeys.load(cwd / ".fedpriv/demo/domains" / member / "state/keys/identity.json")
        opened = open_sealed(theirs, sealed, context=context)  # its recipient opens it, so the test can
        assert all(secret.encode() in opened for secret in secrets.values())
        with pytest.raises(FedprivError):
            open_sealed(mine, sealed, context=context)


def test_syft_holds_a_pointer_in_place_of_the_private_side(demo):
    cwd, _ = demo
    for name in DOMAINS:
        state = cwd / ".fedpriv/demo/domains" / name / "state"
        notes = [json.loads(line)["text"] for line in next(state.glob("data/*/train.jsonl")).read_text().splitlines()]
        private = [path for path in (state / "datasite").rglob("private/**/*") if path.is_file()]
        assert any(path.name == "pointer.json" for path in private)
        held = "".join(path.read_text(errors="replace") for path in (state / "datasite").rglob("*") if path.is_file())
        assert not [note for note in notes if note[40:120] in held]


def test_single_updates_do_not_stay_behind(demo):
    cwd, _ = demo
    for place in ("store", "researcher"):
        names = [path.name for path in (cwd / ".fedpriv/demo" / place).rglob("*")]
        assert not [name for name in names if name.startswith("update-") or name.endswith("fedpriv.safetensors")]


def test_secret_files_are_private(demo):
    cwd, _ = demo
    for name in ("keys/identity.json", "keys/transport.json", "ledger.jsonl"):
        for domain in DOMAINS:
            assert (cwd / ".fedpriv/demo/domains" / domain / "state" / name).stat().st_mode & 0o077 == 0


def test_no_process_is_left(demo):
    cwd, _ = demo
    if not Path("/proc").exists():
        pytest.skip("needs /proc")
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert str(cwd).encode() not in path.read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue


def test_bad_input_is_a_sentence_and_changes_nothing(demo, tmp_path):
    cwd, _ = demo
    before = sorted((p, p.stat().st_mtime_ns) for p in (cwd / ".fedpriv").rglob("*"))
    for arguments, sentence in (
        (["--model", "gpt-7"], "There is no base model 'gpt-7'"),
        (["--mimic", str(tmp_path / "nowhere")], "nowhere"),
        (["--domains", "9"], "9"),
        (["--protection", "rot13"], "There is no protection 'rot13'"),
        (["--out", sys.prefix], "holds something that no demo wrote"),
    ):
        done = run("demo", *arguments, cwd=cwd, code=2)
        assert sentence in " ".join(done.stderr.split())
        assert "Traceback" not in done.stderr
    assert sorted((p, p.stat().st_mtime_ns) for p in (cwd / ".fedpriv").rglob("*")) == before

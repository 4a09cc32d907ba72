import json

import pytest

from fedpriv.clinical import prepare
from fedpriv.clinical.stock_templates import stock_template
from fedpriv.clinical.synthetic import write_synthetic
from fedpriv.domain.dry_run import DryRun
from fedpriv.domain.review import Review, review_of
from fedpriv.domain.summary import METRICS, TOPICS, epsilon_sentence, in_bytes, in_time
from fedpriv.files import write_json
from fedpriv.protection import IdentityKeys, MaskSource, first_scales, make_study_key, scales_digest, sealer_for
from fedpriv.protection.sizes import update_bytes
from fedpriv.study import CodeRequest, TaskChoice
from fedpriv.study.messages import UpdateHeader
from fedpriv.study.plan import TrainingChoice
from fedpriv.study.protection_choice import LevelRule, ProtectionChoice
from fedpriv.training import ensure_model
from fedpriv.training.recipe import stock_recipe
from tests.domain.conftest import ADA


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    ensure_model("tiny", cache=folder)
    return folder


@pytest.fixture
def review(domain, cache):
    def look(request, cache=cache):
        domain.requests.receive(request, ADA)
        return review_of(domain, domain.requests.get(request.study), cache=cache)

    return look


def said(review, topic):
    return next(point.text for point in review.summary if point.topic == topic)


def test_a_stock_request_in_plain_words(domain, code_request, review, tmp_path):
    write_synthetic(tmp_path / "tables", patients=20, seed=1)
    data = prepare(tmp_path / "tables", domain.folder.data)
    domain.ledger.append("dataset.prepared", digest=data.digest, dataset="mimic-iii")
    seen = review(code_request)
    assert [point.topic for point in seen.summary] == list(TOPICS)
    assert said(seen, "code").startswith("The unchanged stock recipe")
    assert f"{data.examples} examples of {data.patients} patients to train on" in said(seen, "data")
    assert f"{data.heldout_examples} examples of {data.heldout_patients} other patients held out" in said(seen, "data")
    assert said(seen, "rounds").startswith("3 rounds of 4 steps, 4 examples a step")
    assert said(seen, "with") == "1 other domain: sicu@x.org. ada@y.org runs the rounds and adds the updates up."
    assert "sealed at 10 bits: nobody sees a single update" in said(seen, "leaves")
    assert "no differential privacy" in said(seen, "privacy")
    assert seen.is_stock
    assert seen.findings == ()
    assert seen.within_limits
    assert (seen.dry_run, seen.predecessor) == (None, None)


def test_every_metric_of_a_plan_is_explained(code_request, review):
    text = said(review(code_request), "numbers")
    for name in code_request.plan.metrics:
        assert f"{name}: {METRICS[name]}" in text


def test_the_task_and_its_template_are_shown_in_words_and_against_the_stock_one(code_request, review):
    seen = review(code_request)
    assert said(seen, "task").startswith("The model learns to continue the texts word by word")
    assert seen.template is None
    plan = code_request.plan
    task = TaskChoice(kind="mortality", window_hours=24, template="own.txt")
    text = stock_template("mortality").replace("Medications", "Drugs")
    request = CodeRequest.new(plan.model_copy(update={"task": task}), stock_recipe(), text)
    seen = review(request)
    assert "24 hours after admission" in said(seen, "task")
    assert "template own.txt" in said(seen, "task")
    assert "Did the patient die in this stay?" in said(seen, "task")
    assert [line for line in seen.template.changed[0].lines if line[:1] in "+-"] == [
        "-Medications: {drugs}.",
        "+Drugs: {drugs}.",
    ]
    assert said(seen, "code").startswith("The unchanged stock recipe")
    assert not seen.is_stock


def test_what_is_not_known_is_said(code_request, review, tmp_path):
    seen = review(code_request, cache=tmp_path / "empty")
    assert "not on this machine yet" in said(seen, "model")
    assert "not prepared yet" in said(seen, "data")
    assert "Not known" in said(seen, "bytes")
    assert seen.estimates.update_bytes is None
    assert not (tmp_path / "empty").exists(), "looking fetches nothing"


def test_looking_changes_nothing(domain, code_request, review):
    domain.requests.receive(code_request, ADA)
    before = {p: p.read_bytes() for p in domain.folder.root.rglob("*") if p.is_file()}
    review(code_request)
    assert {p: p.read_bytes() for p in domain.folder.root.rglob("*") if p.is_file()} == before


def test_own_code_is_named_with_its_findings_and_limits(domain, plan, review):
    request = CodeRequest.from_files(
        {
            **CodeRequest.new(
                plan.model_copy(update={"training": TrainingChoice(rounds=500)}), "import socket\n"
            ).files,
            "notes.txt": "hello\n",
        }
    )
    seen = review(request)
    assert said(seen, "code").startswith("The researcher's own code: 1 line in 1 file, and 1 file without code.")
    assert [finding.category for finding in seen.findings] == ["network"]
    assert not seen.within_limits
    assert [check.sentence for check in seen.checks if not check.passed] == ["at most 20 rounds"]
    assert not seen.is_stock


def test_the_code_digest_does_not_depend_on_the_plan(plan, code_request, review):
    other = CodeRequest.new(plan.model_copy(update={"training": TrainingChoice(rounds=2)}), stock_recipe())
    assert other.study != code_request.study
    assert review(other).code == review(code_request).code == code_request.code
    more = CodeRequest.from_files({**code_request.files, "a.py": "x = 1\n"})
    assert len({more.code, CodeRequest.new(plan, stock_recipe() + "#").code, code_request.code}) == 3


def test_the_last_approved_request_of_the_same_kind_is_compared(domain, plan, code_request, review):
    review(code_request)
    changed = plan.model_copy(update={"training": TrainingChoice(rounds=5)})
    later = CodeRequest.new(changed, stock_recipe() + "\n# more\n")
    assert review(later).predecessor is None, "not approved yet"
    domain.approve(code_request.study)
    before = review(later).predecessor
    assert before.study == code_request.study
    assert [change.setting for change in before.difference.plan] == ["training > rounds"]
    assert before.difference.changed[0].layout_only
    assert review(code_request).predecessor is None, "nothing comes before the first"
    named = CodeRequest.new(changed.model_copy(update={"title": "Another"}), stock_recipe())
    assert review(named).predecessor is None


def test_a_damaged_request_does_not_hide_another(domain, plan, code_request, review):
    path = domain.requests.recipe_path(code_request.study)
    domain.requests.receive(code_request, ADA)
    path.chmod(0o600)
    path.write_text("x = 1\n")
    assert review(CodeRequest.new(plan, "def train(context): pass\n")).predecessor is None


def test_a_dry_run_is_part_of_the_review(domain, code_request, review):
    review(code_request)
    result = DryRun(
        study=code_request.study, tried_s=1.0, outcome="passed", walls="bubblewrap", steps=2, threads=1, examples=20,
        seconds=4.0, round_s=8.0,
    )  # fmt: skip
    write_json(domain.requests.dry_run_path(code_request.study), result.model_dump(mode="json"))
    seen = review(code_request)
    assert seen.dry_run == result
    assert "By the dry run about 8 s a round, 24 s of processor time in all" in said(seen, "time")
    other = result.model_copy(update={"study": "f" * 64})
    write_json(domain.requests.dry_run_path(code_request.study), other.model_dump(mode="json"))
    assert review(code_request).dry_run is None


def test_a_review_goes_through_json(code_request, review):
    seen = review(code_request)
    again = Review.model_validate_json(seen.model_dump_json())
    assert again == seen
    assert json.loads(seen.model_dump_json())["files"]["train.py"] == stock_recipe()


def test_a_plan_with_a_privacy_section_is_no_plan_without(plan):
    assert "no differential privacy" in epsilon_sentence(plan)


@pytest.mark.parametrize(
    "protection",
    [
        ProtectionChoice(),
        ProtectionChoice(level="masked", bits=8),
        ProtectionChoice(level="plain"),
        ProtectionChoice(level="ckks-tuned"),
        ProtectionChoice(bits=12, rules=(LevelRule(tensors=("b",), level="masked", bits=6),)),
    ],
    ids=lambda protection: "-".join(protection.levels),
)
def test_the_estimated_bytes_are_those_of_a_sealed_file(tmp_path, protection):
    import numpy as np

    tensors = {"a": 30_000, "b": 12_345}
    keys = [IdentityKeys.create(f"{name}@x.org", name, "11" * 32) for name in ("ccu", "micu", "sicu")]
    key = make_study_key(protection, tensors=tensors, clients=3, study="5" * 64)
    masks = MaskSource.of_cohort(keys[0], (k.identity for k in keys), study="5" * 64)
    scales = first_scales(0.01, tensors)
    header = UpdateHeader(
        study="5" * 64, round=1, attempt=1, member="ccu@x.org", cohort=masks.cohort,
        level=protection.level, bits=protection.bits, weight=1.0,
        nonce="0" * 32, key_id=key.key_id, layout="0" * 64, scales=scales_digest(scales), parameters=42_345,
    )  # fmt: skip
    path = tmp_path / "sealed"
    sealer = sealer_for(protection, key, tensors, masks=masks)
    sealer.seal(header, np.zeros(42_345, np.float32), path, scales=scales, residual_out=tmp_path / "residual")
    estimate = update_bytes(protection, tensors=tensors, clients=3)
    assert abs(estimate - path.stat().st_size) < 1024


def test_sizes_and_times_in_words():
    assert [in_bytes(n) for n in (5, 2048, 744_000, 5 * 2**30)] == ["5 B", "2 KiB", "0.71 MiB", "5 GiB"]
    assert [in_time(s) for s in (0.25, 42, 900, 40_000)] == ["0.25 s", "42 s", "15 min", "11.1 h"]

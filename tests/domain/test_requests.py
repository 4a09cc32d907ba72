import pytest

from fedpriv.errors import ConfigError, UntrustedError
from fedpriv.study import CodeRequest
from tests.domain.conftest import ADA


def test_a_request_is_frozen_once(domain, code_request):
    assert domain.requests.receive(code_request, ADA)
    assert not domain.requests.receive(code_request, ADA)
    stored = domain.requests.get(code_request.study[:6])
    assert stored.request == code_request
    assert stored.researcher == ADA
    assert stored.decision.decision == "pending"


def test_a_frozen_copy_changed_on_disk_is_not_used(domain, code_request):
    domain.requests.receive(code_request, ADA)
    path = domain.requests.recipe_path(code_request.study)
    path.chmod(0o600)
    path.write_text(path.read_text() + "import os\n")
    with pytest.raises(UntrustedError, match="changed on disk"):
        domain.requests.get(code_request.study)


@pytest.mark.parametrize("wanted", ["", "ffff"])
def test_an_unknown_request_is_named(domain, code_request, wanted):
    domain.requests.receive(code_request, ADA)
    with pytest.raises(ConfigError, match="No request"):
        domain.requests.get(wanted)


# -- what peers let through: each is another bundle, or none ---------------------------------------------------------


def approved(domain, request):
    domain.requests.receive(request, ADA)
    domain.approve(request.study)
    return domain.requests.recipe_path(request.study).parent


def swap_recipe(bundle):
    path = bundle / "train.py"
    path.unlink()
    path.write_text("def train(context):\n    return None\n")


def change_plan(bundle):
    path = bundle / "plan.yaml"
    path.chmod(0o600)
    path.write_text(path.read_text().replace("rounds: 3", "rounds: 19"))


def link_recipe(bundle):
    path = bundle / "train.py"
    other = bundle.parent / "same.py"
    other.write_text(path.read_text())
    path.unlink()
    path.symlink_to(other)


def link_plan_to_itself(bundle):
    (bundle / "plan.yaml").rename(bundle.parent / "plan.yaml")
    (bundle / "plan.yaml").symlink_to(bundle.parent / "plan.yaml")


ATTACKS = {
    "the recipe is swapped": swap_recipe,
    "the plan is changed": change_plan,
    "a file is added": lambda bundle: (bundle / "helper.py").write_text("x = 1\n"),
    "a second train.py is added": lambda bundle: (
        (bundle / "sub").mkdir(),
        (bundle / "sub" / "train.py").write_text("x = 1\n"),
    ),
    "a hidden file is added": lambda bundle: (bundle / ".hidden.py").write_text("x = 1\n"),
    "a program is added": lambda bundle: (bundle / "run.sh").write_text("id\n"),
    "compiled code is added": lambda bundle: (bundle / "train.pyc").write_bytes(b"\xa7\r\r\n"),
    "a file is removed": lambda bundle: (bundle / "train.py").unlink(),
    "a file becomes a link": link_recipe,
    "the plan becomes a link": link_plan_to_itself,
    "a folder link is added": lambda bundle: (bundle / "more").symlink_to(bundle),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_a_bundle_that_was_swapped_after_approval_is_not_run(domain, code_request, attack):
    bundle = approved(domain, code_request)
    assert domain.requests.get(code_request.study).decision.decision == "approved"
    attack(bundle)
    with pytest.raises(UntrustedError):
        domain.requests.get(code_request.study)
    assert domain.requests.all() == []
    assert domain.requests.damaged() == [code_request.study]


def test_a_damaged_request_can_be_rejected_and_the_others_are_listed(domain, code_request):
    other = CodeRequest.new(code_request.plan, "def train(context):\n    pass\n")
    domain.requests.receive(other, ADA)
    swap_recipe(approved(domain, code_request))
    assert domain.revoke(code_request.study[:8], "it was changed").decision == "revoked"
    assert domain.reject(code_request.study[:8], "it was changed").decision == "rejected"
    assert [stored.request for stored in domain.requests.all()] == [other]


def test_every_part_of_a_bundle_is_in_its_id(code_request):
    files = dict(code_request.files)
    changed = [
        files | {"train.py": files["train.py"].replace("train_local(context)", "train_local( context)")},
        files | {"plan.yaml": files["plan.yaml"].replace("steps: 4", "steps: 5")},
        files | {"plan.yaml": files["plan.yaml"] + "# seen by nobody\n"},
        files | {"helper.py": "x = 1\n"},
        files | {"sub/train.py": files["train.py"]},
        files | {"code/plan.yaml": files["plan.yaml"]},
        files | {"requirements.txt": "evil==1\n"},
    ]
    assert len({CodeRequest.from_files(bundle).study for bundle in [files, *changed]}) == len(changed) + 1


def test_what_a_killed_process_left_half_frozen_is_frozen_anew(domain, code_request):
    bundle = domain.requests.recipe_path(code_request.study).parent
    bundle.mkdir(parents=True)
    (bundle / ".train.py.123-4.tmp").write_text("half")
    (bundle / "helper.py").write_text("x = 1\n")
    assert domain.requests.receive(code_request, ADA)
    assert domain.requests.get(code_request.study).request == code_request

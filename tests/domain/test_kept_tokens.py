"""A shard's tokens at a domain: encoded by a job of their own, used by every later one, written by no recipe."""

import pytest
from safetensors.numpy import load_file

from fedpriv.clinical import prepare, write_synthetic
from fedpriv.domain import ResourcesChoice
from fedpriv.domain.local_training import LocalTraining
from fedpriv.domain.sandbox import bubblewrap
from fedpriv.domain.study_folder import StudyFolder
from fedpriv.errors import RevokedError, TrainingError
from fedpriv.study import Plan
from fedpriv.study.plan import BaseModelChoice, LoraChoice, MemberChoice, TrainingChoice
from fedpriv.training.adapter import adapter_digest, initial_adapter, load_metrics, load_state, lora_layout, save_state
from fedpriv.training.base_model import ensure_model
from fedpriv.training.recipe import stock_recipe

BOTH_SIDES = """
def train(context):
    from fedpriv.training import train_local
    from fedpriv.training.token_store import open_tokens

    most = context.training.max_tokens
    tokens = open_tokens(context.tokens, model_folder=context.model_folder, max_tokens=most)
    outcome = train_local(context)
    return type(outcome)(adapter_after=outcome.adapter_after, metrics={"examples": len(tokens.train)})
"""
WRITING = "def train(context):\n    open(context.tokens, 'r+b').write(b'x')\n"


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    root = tmp_path_factory.mktemp("domain")
    write_synthetic(root / "tables", patients=24, seed=0)
    (root / "requests").mkdir()
    model = ensure_model("tiny", cache=root / "cache")
    folder = StudyFolder(root / "studies" / "this")
    save_state(initial_adapter(lora_layout(model.folder, LoraChoice()), 0), folder.adapter(0))
    return root, prepare(root / "tables", root / "data"), model, folder


@pytest.fixture(scope="module")
def workers():
    """The worker that is warm, if any: starting one takes seconds, and which one works is nothing to these tests."""
    warm = []
    yield warm
    for worker in warm:
        worker.stop()


@pytest.fixture
def begin(house, workers):
    """Make what a service that begins has of a study."""
    root, prepared, model, folder = house
    begun = []

    def begin(max_tokens=64):
        training = LocalTraining(
            plan=Plan(
                researcher=MemberChoice(email="ada@y.org", fingerprint="3" * 64),
                cohort=tuple(MemberChoice(email=f"{name}@x.org", fingerprint=name * 64) for name in "ab"),
                base_model=BaseModelChoice(name="tiny"),
                training=TrainingChoice(rounds=1, steps=2, batch_size=2, max_seconds=20, max_tokens=max_tokens),
            ),
            folder=folder,
            recipe=root / "requests" / "train.py",
            prepared=prepared,
            model=model,
            resources=ResourcesChoice(),
        )
        training._worker = begun[-1]._worker if begun else workers.pop() if workers else None
        begun.append(training)
        return training

    yield begin
    if begun and begun[-1]._worker is not None:
        workers.append(begun[-1]._worker)
    for path in folder.tokens.iterdir():
        path.unlink()


def train(training, recipe=None, watch=lambda: None):
    training.recipe.write_text(recipe or stock_recipe())
    output = training.folder.output("train-0001")
    training.run("train", 1, 0, output, lambda step, steps: None, evaluate=True, watch=watch)
    return adapter_digest(load_state(output / "adapter_after.safetensors")), load_metrics(output / "metrics.json")


def test_tokens_are_kept_once_and_change_nothing(begin, monkeypatch):
    first = begin()
    with monkeypatch.context() as patch:
        patch.setattr("fedpriv.domain.local_training.worth_keeping", lambda files, all_read: False)
        without = train(first)
    assert not list(first.folder.tokens.iterdir())
    second = begin()
    assert train(second) == without
    (path,) = second.folder.tokens.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert not list((second.folder.workspace / "tokenize").glob("*.safetensors"))
    written = path.stat().st_mtime_ns
    third = begin()
    _, metrics = train(third, BOTH_SIDES)  # a recipe finds them, and may read them
    assert metrics["examples"] == third.prepared.examples
    assert path.stat().st_mtime_ns == written


def test_what_is_broken_is_written_anew_and_what_is_old_goes(begin):
    train(begin())
    folder = begin().folder.tokens
    (path,) = folder.iterdir()
    whole, arrays = path.read_bytes(), load_file(path)
    path.write_bytes(whole[:-1])
    (folder / f".{path.name}.1-1.tmp").write_bytes(whole[:5])  # of a process that was killed
    train(begin())
    assert list(folder.iterdir()) == [path]
    again = load_file(path)
    assert all((again[name] == array).all() for name, array in arrays.items())
    train(begin(max_tokens=32))
    assert [left.name for left in folder.iterdir()] != [path.name]
    assert len(list(folder.iterdir())) == 1


@pytest.mark.skipif(bubblewrap() is None, reason="bubblewrap does not work here")
def test_a_recipe_cannot_write_them(begin):
    training = begin()
    with pytest.raises(TrainingError, match=r"train\.py"):
        train(training, WRITING)
    assert training.report.tried == {"writing elsewhere"}
    train(training)
    (path,) = training.folder.tokens.iterdir()
    assert path.read_bytes()[:1] != b"x"


def test_a_link_in_the_place_of_the_tokens_is_not_followed(begin, house, monkeypatch):
    root, _, _, folder = house
    training = begin()
    secret = root / "secret"
    secret.write_bytes(b"secret")
    real = training._run

    def forge(job, *arguments):
        real(job, *arguments)
        if job["job"] == "tokenize":
            made = folder.workspace / "tokenize" / "tokens.safetensors"
            made.unlink()
            made.symlink_to(secret)

    monkeypatch.setattr(training, "_run", forge)
    assert train(training)[1]["examples"] == training.prepared.examples
    assert not list(folder.tokens.iterdir())
    assert secret.read_bytes() == b"secret"


def test_a_withdrawn_approval_ends_encoding_too(begin):
    training = begin()

    def revoked():
        raise RevokedError("The approval was withdrawn")

    with pytest.raises(RevokedError):
        train(training, watch=revoked)
    assert not list(training.folder.tokens.iterdir())

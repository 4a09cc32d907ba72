"""Plans for the tests: a small one as data, and any valid one as a hypothesis strategy."""

import copy
import string
from typing import get_args

import pytest
import yaml
from hypothesis import strategies as st

from fedpriv.errors import PlanError
from fedpriv.study.aggregation import AggregationChoice
from fedpriv.study.averaging import Averaging, ServerChoice
from fedpriv.study.names import is_invisible
from fedpriv.study.plan import (
    ANSWER_METRICS,
    BaseModelChoice,
    LoraChoice,
    MemberChoice,
    MetricName,
    Plan,
    TrainingChoice,
    parse_plan,
)
from fedpriv.study.privacy import PrivacyChoice
from fedpriv.study.protection_choice import LevelRule, ProtectionChoice, ProtectionLevel, SecurityLevel
from fedpriv.study.task import TaskChoice, TaskKind

RECIPE = "from fedpriv.training.recipe import stock_recipe\n"

SMALL = {
    "researcher": {"email": "rita@lab.example", "fingerprint": "0" * 64},
    "cohort": [
        {"email": "heart@north.example", "fingerprint": "1" * 64},
        {"email": "chest@south.example", "fingerprint": "2" * 64},
    ],
    "base_model": {"name": "tiny"},
}


def as_yaml(**changes):
    """The small plan as YAML; ``training__rounds=5`` changes a setting of a section, ``None`` included."""
    value = copy.deepcopy(SMALL)
    for path, setting in changes.items():
        *sections, name = path.split("__")
        section = value
        for part in sections:
            section = section.setdefault(part, {})
        section[name] = setting
    return yaml.safe_dump(value)


def refusal(text):
    with pytest.raises(PlanError) as caught:
        parse_plan(text)
    assert caught.value.exit_code == 2
    return caught.value.what


_lower = string.ascii_lowercase + string.digits
slugs = st.from_regex(r"[a-z0-9][a-z0-9-]{0,47}", fullmatch=True)
emails = st.from_regex(r"[a-z0-9][a-z0-9._+-]{0,20}@[a-z0-9][a-z0-9.-]{0,20}", fullmatch=True)
digests = st.text("0123456789abcdef", min_size=64, max_size=64)
titles = st.text(min_size=1, max_size=120).filter(lambda text: not any(is_invisible(c) or c in "\n\r\t" for c in text))
needed_metrics = ("examples", "heldout_loss", "heldout_tokens")


def floats(low, high):
    return st.floats(low, high, exclude_min=True, allow_subnormal=False)


@st.composite
def protections(draw):
    rules, numbers = [], draw(st.lists(st.integers(0, 9999), max_size=4, unique=True))
    for number in numbers:
        level = draw(st.sampled_from(get_args(ProtectionLevel)))
        bits = draw(st.none() | st.integers(4, 16)) if level in ("sealed", "masked") else None
        globs = (f"*.layers.{number}.*", f"[!a-c]?.{number}")
        what = draw(st.sampled_from([{"layers": (number,)}, {"tensors": globs}]))
        rules.append(LevelRule(**what, level=level, bits=bits))
    return ProtectionChoice(
        level=draw(st.sampled_from(get_args(ProtectionLevel))),
        bits=draw(st.integers(4, 16)),
        clip=draw(st.none() | floats(0, 10)),
        security=draw(st.sampled_from(get_args(SecurityLevel))),
        rules=tuple(rules),
        max_update_norm=draw(floats(0, 1e6)),
    )


servers = st.one_of(
    st.just(ServerChoice()),
    st.builds(
        ServerChoice,
        optimizer=st.just("momentum"),
        learning_rate=st.none() | floats(0, 100),
        beta1=st.floats(0, 1, exclude_max=True),
    ),
    st.builds(
        ServerChoice,
        optimizer=st.just("adam"),
        learning_rate=st.none() | floats(0, 100),
        beta1=st.floats(0, 1, exclude_max=True),
        beta2=st.floats(0, 1, exclude_max=True),
        tau=floats(0, 1),
    ),
)

privacies = st.none() | st.builds(
    PrivacyChoice,
    unit=st.sampled_from(["patient", "domain"]),
    epsilon=floats(0, 100),
    clip=st.none() | floats(0, 1e6),
    notes_per_patient=st.integers(1, 1024),
)


categories = st.sampled_from(["radiology", "nursing", "ecg", "nursing/other", "case management"])
templates = st.none() | st.from_regex(r"[a-z0-9][a-z0-9_-]{0,47}\.txt", fullmatch=True)


@st.composite
def tasks(draw):
    kind = draw(st.sampled_from(get_args(TaskKind)))
    return TaskChoice(
        kind=kind,
        notes=draw(st.none() | st.lists(categories, unique=True).map(tuple)),
        window_hours=draw(st.none() | st.integers(1, 720)) if kind == "mortality" else None,
        template=draw(templates),
    )


@st.composite
def plans(draw):
    addresses = draw(st.lists(emails, min_size=3, max_size=6, unique=True))
    prints = draw(st.lists(digests, min_size=len(addresses), max_size=len(addresses), unique=True))
    members = [MemberChoice(email=email, fingerprint=it) for email, it in zip(addresses, prints, strict=True)]
    privacy = draw(privacies)
    undropped = privacy is not None and privacy.unit == "patient"
    task = draw(tasks())
    others = set(get_args(MetricName)) - set(needed_metrics) - (set() if task.is_predictive else set(ANSWER_METRICS))
    extra = draw(st.lists(st.sampled_from(sorted(others)), unique=True))
    return Plan(
        title=draw(titles),
        dataset=draw(slugs),
        researcher=members[0],
        cohort=tuple(members[1:]),
        base_model=BaseModelChoice(name=draw(slugs), digest=draw(st.none() | digests)),
        task=task,
        lora=LoraChoice(
            rank=draw(st.integers(1, 256)),
            alpha=draw(st.integers(1, 1024)),
            dropout=0.0 if undropped else draw(st.floats(0, 1, exclude_max=True)),
            targets=tuple(draw(st.lists(st.text(_lower + "_", min_size=1, max_size=32), min_size=1, max_size=4))),
        ),
        training=TrainingChoice(
            rounds=draw(st.integers(1, 1000)),
            steps=draw(st.integers(1, 100_000)),
            batch_size=draw(st.integers(1, 1024)),
            max_tokens=draw(st.integers(8, 32_768)),
            learning_rate=draw(floats(0, 1)),
            max_seconds=draw(st.integers(5, 86_400)),
            seed=draw(st.integers(0, 2**31 - 1)),
            proximal=0.0 if undropped else draw(st.floats(0, 1000)),
        ),
        protection=draw(protections()),
        aggregation=AggregationChoice(
            weights=draw(st.sampled_from(["fedavg", "uniform"])),
            averaging=draw(st.sampled_from([None, "b_only"] if undropped else [None, *get_args(Averaging)])),
            server=draw(servers),
        ),
        privacy=privacy,
        metrics=(*needed_metrics, *extra),
    )

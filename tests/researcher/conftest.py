import pytest

from fedpriv.protection import IdentityKeys
from fedpriv.researcher import Researcher, ResearcherConfig, Study
from fedpriv.study import Plan
from fedpriv.study.plan import BaseModelChoice, MemberChoice


@pytest.fixture
def researcher(tmp_path):
    config = ResearcherConfig(name="ada", email="ada@y.org", store=str(tmp_path / "store"))
    return Researcher.create(tmp_path / "ada", config)


@pytest.fixture
def members():
    return {e: IdentityKeys.create(e, e.partition("@")[0], "11" * 32) for e in ("micu@x.org", "sicu@x.org")}


@pytest.fixture
def study(researcher, members):
    plan = Plan(
        researcher=MemberChoice(email="ada@y.org", fingerprint=researcher.keys.fingerprint),
        cohort=tuple(MemberChoice(email=e, fingerprint=k.fingerprint) for e, k in members.items()),
        base_model=BaseModelChoice(name="tiny"),
    )
    return Study.create(researcher, "icu", plan, recipe="def train(context):\n    return None\n")

"""A domain's keys and a plan in which it takes part."""

from pathlib import Path

import pytest

from fedpriv.domain import DataChoice, Domain, DomainConfig, PolicyChoice, StandingApproval
from fedpriv.protection import IdentityKeys
from fedpriv.study import CodeRequest, Limits, Plan, RequestDecision
from fedpriv.study.plan import BaseModelChoice, MemberChoice, TrainingChoice
from fedpriv.training.recipe import stock_recipe

ADA = "ada@y.org"
STOCK = StandingApproval(name="stock-recipe", code="stock-recipe")


def approved(request, member, rounds=3, **limits):
    """Return an approval of a request that lets everything of the plan leave."""
    values = {"rounds": rounds, "metrics": request.plan.metrics, "minimum_cohort": 2} | limits
    return RequestDecision(study=request.study, member=member, decision="approved", limits=Limits(**values))


@pytest.fixture
def ada():
    return IdentityKeys.create(ADA, "ada", "11" * 32)


@pytest.fixture
def domain(tmp_path, ada):
    config = DomainConfig(
        name="micu",
        email="micu@x.org",
        store=str(tmp_path / "store"),
        data=DataChoice(source=str(tmp_path / "tables")),
        researchers=(MemberChoice(email=ADA, fingerprint=ada.fingerprint),),
        policy=PolicyChoice(standing=(STOCK,), minimum_cohort=2),
    )
    return Domain.create(Path(tmp_path / "micu"), config)


@pytest.fixture
def plan(domain, ada):
    return Plan(
        researcher=MemberChoice(email=ADA, fingerprint=ada.fingerprint),
        cohort=(
            MemberChoice(email="micu@x.org", fingerprint=domain.keys.fingerprint),
            MemberChoice(email="sicu@x.org", fingerprint="22" * 32),
        ),
        base_model=BaseModelChoice(name="tiny"),
        training=TrainingChoice(rounds=3),
    )


@pytest.fixture
def code_request(plan):
    return CodeRequest.new(plan, stock_recipe())

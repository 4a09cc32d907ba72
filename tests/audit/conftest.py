"""A data owner's domain on made-up tables, with a request for the tiny model."""

from pathlib import Path

import pytest

from fedpriv.clinical import write_synthetic
from fedpriv.domain import DataChoice, Domain, DomainConfig, PolicyChoice
from fedpriv.protection import IdentityKeys
from fedpriv.study import CodeRequest, Plan
from fedpriv.study.plan import BaseModelChoice, MemberChoice, TrainingChoice
from fedpriv.training.recipe import stock_recipe

ADA = "ada@y.org"


class Asked:
    """A domain of three or four, and requests that reach it."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.cache = cache
        write_synthetic(folder / "tables", patients=40, seed=5)
        ada = IdentityKeys.create(ADA, "ada", "11" * 32)
        self._ada = MemberChoice(email=ADA, fingerprint=ada.fingerprint)
        config = DomainConfig(
            name="micu",
            email="micu@x.org",
            store=str(folder / "store"),
            data=DataChoice(source=str(folder / "tables")),
            researchers=(self._ada,),
            policy=PolicyChoice(minimum_cohort=2),
        )
        self.domain = Domain.create(folder / "micu", config)

    def request(self, *, recipe: str = "", domains: int = 3, **sections) -> CodeRequest:
        mine = MemberChoice(email="micu@x.org", fingerprint=self.domain.keys.fingerprint)
        others = [MemberChoice(email=f"d{n}@x.org", fingerprint=f"2{n}" * 32) for n in range(1, domains)]
        plan = Plan(
            **{
                "researcher": self._ada,
                "cohort": (mine, *others),
                "base_model": BaseModelChoice(name="tiny"),
                "training": TrainingChoice(steps=2, precision="float32"),
            }
            | sections
        )
        request = CodeRequest.new(plan, recipe or stock_recipe())
        self.domain.requests.receive(request, ADA)
        return request

    def stored(self, request):
        return self.domain.requests.get(request.study)


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    pytest.importorskip("torch")
    return Asked(tmp_path_factory.mktemp("asked"), tmp_path_factory.mktemp("cache"))

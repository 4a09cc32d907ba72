import inspect

from fedpriv.experiments import Federation, Site
from fedpriv.researcher import Researcher, ResearcherConfig, Study
from fedpriv.study.plan import MemberChoice
from fedpriv.training.recipe import stock_recipe

PEERS = tuple(MemberChoice(email=f"{name}@h.org", fingerprint=digit * 64) for name, digit in (("a", "1"), ("b", "2")))


def test_a_site_of_one_s_own_plans_for_the_domains_it_knows_and_lets_data_owners_decide(tmp_path):
    home = Researcher.create(tmp_path / "home", ResearcherConfig(name="ada", email="ada@y.org", store=str(tmp_path)))
    home.peers.add(PEERS)
    site = Site.open(tmp_path / "home", model="tiny")
    plan = site.plan(rounds=2, title="Mine")
    assert plan.cohort == PEERS
    assert plan.researcher.fingerprint == home.keys.fingerprint
    assert (plan.base_model.name, plan.base_model.digest) == ("tiny", site.model.digest)
    study = Study.create(site.researcher, "mine", plan, recipe=stock_recipe())
    for play in (site.arrived, site.approve, site.release):
        assert play(study) is None
    assert study.status()["decisions"] == {}


def test_a_notebook_for_the_demo_calls_what_a_site_of_one_s_own_has():
    for name in ("plan", "arrived", "approve", "release"):
        assert inspect.signature(getattr(Site, name)) == inspect.signature(getattr(Federation, name))

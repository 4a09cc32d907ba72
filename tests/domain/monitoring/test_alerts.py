"""The alerts that deploy/ brings: rules of Prometheus over metrics that exist."""

import re
from pathlib import Path

import yaml

from fedpriv.domain.monitoring.metrics import DomainCollector
from fedpriv.domain.monitoring.vitals import PHASES, Vitals

RULES = Path(__file__).parents[3] / "deploy" / "prometheus-alerts.yaml"


def test_every_alert_is_about_a_metric_and_a_label_that_the_page_has(domain):
    vitals = Vitals()
    vitals.store_answered()
    config = domain.config.model_copy(update={"policy": domain.config.policy.model_copy(update={"epsilon": 1.0})})
    collector = DomainCollector(type(domain)(folder=domain.folder, config=config, keys=domain.keys), vitals)
    samples = [sample for family in collector.collect() for sample in family.samples]
    labels = {f'{name}="{value}"' for sample in samples for name, value in sample.labels.items()}
    groups = yaml.safe_load(RULES.read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules) > 5
    for rule in rules:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        named = set(re.findall(r"fedpriv_\w+", rule["expr"]))
        assert named or rule["expr"].startswith("up{")
        assert named <= {sample.name for sample in samples}
        assert set(re.findall(r'\w+="\w+"', rule["expr"])) <= labels | {'job="fedpriv"'}
        assert re.fullmatch(r"[A-Z].*[.)]", rule["annotations"]["summary"])


def test_the_phases_of_a_service_are_all_told():
    assert Vitals().phase in PHASES
    assert len(set(PHASES)) == len(PHASES)

import pytest

from fedpriv.domain.budget_gauge import StudySpent, budget_gauge
from fedpriv.domain.privacy_budget import PrivacyBudget
from fedpriv.study.privacy import PrivacyChoice

PATIENTS = 62


@pytest.fixture
def charged(domain, plan):
    """Charge a round to the ledger and return the charge."""
    private = plan.model_copy(update={"privacy": PrivacyChoice(epsilon=8.0)})
    book = PrivacyBudget(domain.ledger)

    def charge(study, number, dataset="mimic-iii"):
        return book.charge(private, study, number, str(number), dataset=dataset, patients=PATIENTS, budget=None)

    return charge


def test_nothing_is_spent_before_the_first_round(domain):
    gauge = budget_gauge(domain)
    assert (gauge.dataset, gauge.studies, gauge.spent, gauge.budget, gauge.left) == ("mimic-iii", (), 0.0, None, None)


def test_studies_are_told_apart_and_composed_and_other_data_count_nothing(domain, charged):
    charged("a" * 64, 1)
    first = charged("a" * 64, 2)
    second = charged("b" * 64, 1)
    charged("c" * 64, 1, dataset="other")
    gauge = budget_gauge(domain)
    assert gauge.studies == (
        StudySpent(study="a" * 64, unit="patient", rounds=2, epsilon=gauge.studies[0].epsilon, patients=62),
        StudySpent(study="b" * 64, unit="patient", rounds=1, epsilon=gauge.studies[1].epsilon, patients=62),
    )
    assert [study.epsilon for study in gauge.studies] == pytest.approx(
        [first.epsilon_study, second.epsilon_study], 1e-5
    )
    apart = [study.epsilon for study in gauge.studies]
    assert max(apart) < gauge.spent < sum(apart)
    assert gauge.spent == pytest.approx(second.epsilon_dataset, rel=1e-5)


@pytest.mark.parametrize(("limit", "left"), [(100.0, 100.0), (0.001, 0.0)])
def test_what_is_left_of_the_budget_is_never_below_nothing(domain, charged, limit, left):
    charged("a" * 64, 1)
    spent = budget_gauge(domain).spent
    policy = domain.config.policy.model_copy(update={"epsilon": limit})
    domain.folder.write_config(domain.config.model_copy(update={"policy": policy}))
    gauge = budget_gauge(type(domain).open(domain.folder.root))
    assert gauge.budget == limit
    assert gauge.left == pytest.approx(max(0.0, left - spent), abs=1e-5)

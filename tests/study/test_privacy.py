import math

import pytest
from pydantic import ValidationError

from fedpriv.study import parse_plan
from fedpriv.study.privacy import PrivacyChoice
from tests.study.study_plans import SMALL


def test_the_words_for_a_data_owner_say_how_much_for_whom_and_what_is_not_covered():
    words = PrivacyChoice(epsilon=8.0).in_words()
    assert "differential privacy for a single patient with epsilon 8 over the whole study" in words
    assert "a factor of 2,981 at most" in words
    assert "Not covered: the held-out loss" in words
    assert "this domain's data as a whole" in PrivacyChoice(unit="domain", epsilon=1).in_words()
    assert "10 to the power of 22" in PrivacyChoice(epsilon=50).in_words()


def test_sampling_and_steps_by_unit():
    patient, domain = PrivacyChoice(epsilon=8), PrivacyChoice(unit="domain", epsilon=8)
    assert (patient.sampling(16, 62), patient.sampling(16, 10), domain.sampling(16, 62)) == (16 / 62, 1, 1)
    assert (patient.steps(4), domain.steps(4)) == (4, 1)
    assert (patient.bound, domain.bound, PrivacyChoice(epsilon=1, clip=0.5).bound) == (0.1, 1.0, 0.5)


@pytest.mark.parametrize(
    "wrong", [{}, {"epsilon": 0}, {"epsilon": 101}, {"epsilon": 1, "clip": 0}, {"epsilon": 1, "x": 1}]
)
def test_wrong_sections_are_refused(wrong):
    with pytest.raises(ValidationError):
        PrivacyChoice.model_validate(wrong)


def test_with_privacy_no_number_about_training_patients_leaves():
    import yaml

    plain = parse_plan(yaml.safe_dump(SMALL))
    private = parse_plan(yaml.safe_dump({**SMALL, "privacy": {"epsilon": 8.0}}))
    assert plain.leaving_metrics == plain.metrics
    assert set(private.metrics) - set(private.leaving_metrics) == {"train_loss", "train_tokens"}
    assert parse_plan(private.to_yaml()) == private


def test_the_first_clip_follows_the_noise_unless_the_plan_gives_one():
    import yaml

    def clip(privacy, **protection):
        value = {**SMALL, "privacy": privacy, "protection": protection, "training": {"steps": 4, "learning_rate": 0.01}}
        return parse_plan(yaml.safe_dump(value)).first_clip

    assert clip(None) == pytest.approx(0.04)
    assert clip({"epsilon": 8.0}) == pytest.approx(0.08)
    assert clip({"epsilon": 8.0, "unit": "domain"}) == pytest.approx(4 * math.sqrt(2 * math.log(1250) * 3) / 8)
    assert clip({"epsilon": 8.0}, clip=0.5) == 0.5

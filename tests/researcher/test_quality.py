from __future__ import annotations

import math

import pytest

from fedpriv.researcher.answers import quality
from fedpriv.researcher.event_words import quality_in_words
from fedpriv.study import Result


def result(member: str, **metrics: float) -> Result:
    return Result(
        study="a" * 64, ticket_sha256="b" * 64, kind="train", round=1, member=member, status="done", metrics=metrics
    )


def test_areas_are_weighed_by_their_variances_and_f1_by_examples():
    results = {
        "a": result("a@x.org", heldout_auroc=0.8, heldout_auroc_se=0.1, heldout_micro_f1=0.5, heldout_examples=10),
        "b": result("b@x.org", heldout_auroc=0.6, heldout_auroc_se=0.2, heldout_micro_f1=0.9, heldout_examples=30),
        "c": result("c@x.org", heldout_micro_f1=0.1, heldout_examples=10),
    }
    found = quality(results)
    assert found["auroc"] == pytest.approx((0.8 * 100 + 0.6 * 25) / 125)
    assert found["auroc_high"] - found["auroc"] == pytest.approx(1.96 / math.sqrt(125), abs=1e-6)
    assert found["micro_f1"] == pytest.approx((0.5 * 10 + 0.9 * 30 + 0.1 * 10) / 50)
    assert "macro_f1" not in found
    assert quality_in_words(found).startswith("AUROC 0.760 (0.585 to 0.935, 95 %), micro F1 0.660")


def test_a_perfect_domain_does_not_outweigh_all_and_no_interval_leaves_the_scale():
    results = {
        "a": result("a@x.org", heldout_auroc=1.0, heldout_auroc_se=0.0),
        "b": result("b@x.org", heldout_auroc=0.5, heldout_auroc_se=0.05),
    }
    found = quality(results)
    assert 0.9 < found["auroc"] < 1.0
    assert found["auroc_high"] <= 1.0


def test_without_answers_there_is_nothing():
    assert quality({"a": result("a@x.org", heldout_loss=1.0)}) == {}
    assert quality_in_words({}) == ""

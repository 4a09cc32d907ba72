"""Dividing patients by admission type, by hash and by a Dirichlet distribution, and the page on how shards differ."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from fedpriv.cli.data import app
from fedpriv.clinical import ClinicalTables, shard_by_care_unit
from fedpriv.clinical.dirichlet import shard_by_dirichlet
from fedpriv.clinical.shard_page import write_shard_page
from fedpriv.clinical.shard_profile import VARIABLES, distance, distances, profiles, shown
from fedpriv.clinical.shards import in_no_shard, shard_by_admission_type, shard_by_hash
from fedpriv.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def tables(synthetic):
    with ClinicalTables.open(synthetic) as opened:
        yield opened


def members(shards):
    found = [subject for shard in shards for subject in shard.subject_ids]
    assert len(set(found)) == len(found)
    return set(found)


def everybody(tables):
    return {row[0] for row in tables.rows("SELECT subject_id FROM admissions")}


def test_by_admission_type_the_first_one_counts(tables):
    shards = shard_by_admission_type(tables, 2)
    assert [shard.name for shard in shards] == ["emergency", "elective"]
    first = dict(
        tables.rows(
            "SELECT subject_id, arg_min(admission_type, (admittime, hadm_id)) FROM admissions GROUP BY subject_id"
        )
    )
    for shard in shards:
        assert {first[subject] for subject in shard.subject_ids} == {shard.words}
    assert in_no_shard(tables, shards) == sum(kind == "URGENT" for kind in first.values()) > 0
    assert members(shards) | {subject for subject, kind in first.items() if kind == "URGENT"} == everybody(tables)
    with pytest.raises(DataError, match=r"ADMISSIONS gives 3 admission type\(s\) of at least 5 patients for 4 domains"):
        shard_by_admission_type(tables, 4)


def test_by_hash_nobody_is_lost_and_sizes_are_alike(tables):
    shards = shard_by_hash(tables, 7, seed=1)
    assert members(shards) == everybody(tables)
    assert in_no_shard(tables, shards) == 0
    assert {len(shard.subject_ids) for shard in shards} <= {34, 35}
    assert shards == shard_by_hash(tables, 7, seed=1) != shard_by_hash(tables, 7, seed=2)
    with pytest.raises(DataError, match="240 patients cannot be divided among 49 domains") as caught:
        shard_by_hash(tables, 49)
    assert caught.value.todo == "use --domains 48 or fewer"


@pytest.mark.parametrize("label", ["mortality", "admission-type", "care-unit"])
@pytest.mark.parametrize("alpha", [1e-4, 0.3, 1000])
def test_by_dirichlet_nobody_is_lost_whatever_alpha(tables, label, alpha):
    shards = shard_by_dirichlet(tables, 5, alpha=alpha, label=label, seed=3)
    assert members(shards) == everybody(tables)
    assert {len(shard.subject_ids) for shard in shards} == {48}
    assert shards == shard_by_dirichlet(tables, 5, alpha=alpha, label=label, seed=3)


def test_a_smaller_alpha_makes_shards_that_differ_more(tables):
    def apart(alpha, seed):
        shards = shard_by_dirichlet(tables, 4, alpha=alpha, label="care-unit", seed=seed)
        return distances(profiles(tables, shards))["unit"]

    means = [np.mean([apart(alpha, seed) for seed in range(4)]) for alpha in (0.01, 1.0, 1000.0)]
    assert means[0] > 0.4
    assert means[0] > means[1] > means[2]
    assert means[2] < 0.2


def test_what_cannot_be_drawn_is_refused(tables):
    for alpha in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(DataError, match="alpha is"):
            shard_by_dirichlet(tables, 3, alpha=alpha, label="mortality")
    with pytest.raises(DataError, match="cannot be divided"):
        shard_by_dirichlet(tables, 100, alpha=1, label="mortality")


# -- how they differ -------------------------------------------------------------------------------------------------

mixtures = (
    st.lists(st.integers(0, 50), min_size=3, max_size=3).filter(any).map(lambda n: dict(zip("abc", n, strict=True)))
)


@given(mixtures, mixtures, mixtures)
def test_the_distance_is_a_metric_from_0_to_1(one, two, three):
    assert distance(one, one) == pytest.approx(0, abs=1e-7)
    assert 0 <= distance(one, two) <= 1
    assert distance(one, two) == pytest.approx(distance(two, one))
    assert distance(one, three) <= distance(one, two) + distance(two, three) + 1e-9


def test_distances_of_mixtures_that_are_known():
    assert distance({"a": 5, "b": 0}, {"a": 0, "b": 9}) == 1
    # H(1/4) - H(1/2) / 2 bits for (1/2, 1/2) against (0, 1), see Lin (1991), and its root
    assert distance({"a": 1, "b": 1}, {"a": 0, "b": 1}) == pytest.approx(np.sqrt(0.8112781 - 0.5))
    assert distance({"a": 0, "b": 0}, {"a": 0, "b": 1}) == 0


@given(st.dictionaries(st.text("abcdef", min_size=1, max_size=2), st.integers(0, 30), min_size=1, max_size=6))
def test_no_count_under_10_is_shown_nor_can_be_worked_out(counts):
    seen = shown(counts)
    hidden = [name for name, count in seen.items() if count is None]
    assert all(count is None or count >= 10 for count in seen.values())
    assert {name for name, count in counts.items() if count < 10} <= set(hidden)
    assert len(hidden) != 1 or len(counts) == 1
    assert all(seen[name] == counts[name] for name in counts if name not in hidden)


def test_profiles_count_everybody_once(tables):
    shards = shard_by_care_unit(tables, 5)
    found = profiles(tables, shards)
    assert [profile.patients for profile in found] == [len(shard.subject_ids) for shard in shards]
    assert sum(profile.admissions for profile in found) == tables.rows("SELECT count(*) FROM admissions")[0][0]
    for profile, shard in zip(found, shards, strict=True):
        for variable in ("age", "sex", "unit"):
            assert sum(profile.counts[variable].values()) == profile.patients
        for variable in ("type", "death", "stay"):
            assert sum(profile.counts[variable].values()) == profile.admissions
        assert profile.counts["unit"][shard.words] == profile.patients
    assert distances(found)["unit"] == 1
    assert distances(found[:1]) == {}


def test_the_page_needs_no_network_and_holds_no_small_count(mimic_demo, tmp_path):
    with ClinicalTables.open(mimic_demo) as tables:
        shards = shard_by_care_unit(tables, 3)
        page = write_shard_page(tables, shards, tmp_path / "page.html").read_text(encoding="utf-8")
        subjects = [subject for shard in shards for subject in shard.subject_ids]
    assert (tmp_path / "page.html").stat().st_mode & 0o777 == 0o600
    body = re.sub(r"<script[^>]*>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", body)
    assert "14 patients are in none of them" in body
    assert not any(re.search(rf"\b{subject}\b", body) for subject in subjects)
    assert page.count("&lt;10") + page.count("\\u003c10") > 20
    for words in VARIABLES.values():
        assert words[1:] in body


def test_the_command_says_who_is_in_no_shard_and_writes_the_page(synthetic, tmp_path):
    def run(*options):
        arguments = ["shard", synthetic, "--out", tmp_path / "out", *options]
        return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})

    assert isinstance(run("--alpha", 0.1).exception, ConfigError)
    assert isinstance(run("--by", "hash", "--label", "mortality").exception, ConfigError)
    assert not (tmp_path / "out").exists()
    done = run("--by", "admission-type", "--domains", 2, "--report", tmp_path / "page.html")
    assert re.search(r"In no shard: \d+ patients", done.output)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["elective", "emergency"]
    assert (tmp_path / "page.html").exists()

"""Cases have names of their own; a folder of records goes on where it stopped and takes nothing else for its own."""

import json

import pytest

from fedpriv.errors import ConfigError, ExistsError
from fedpriv.experiments.comparison.bench import RUNS, _twin, figures_options
from fedpriv.experiments.comparison.cases import EPSILON, PARTS, Case, cases_of
from fedpriv.experiments.comparison.leakage import leakage_cases
from fedpriv.experiments.comparison.methods import METHODS, in_order
from fedpriv.experiments.comparison.record import Cost, Quality, Record, Records, Settings

SETTINGS = Settings(model="tiny", model_digest="ab" * 32, tables="synthetic, seed 0", rounds=2, steps=4, max_tokens=64)


def record(case):
    cost = Cost(training_cpu_s=9.0, other_cpu_s=1.0, wall_s=5.0, peak_bytes=10**8, peak_all_bytes=10**9, load=0.5)
    quality = Quality(loss_before=3.0, loss=2.0, loss_by_domain={"micu": 2.0}, tokens=100)
    return Record(
        case=case, how="processes", parameters=10, rounds=2, bytes_up=40, bytes_down=40, cost=cost, quality=quality
    )


def test_every_case_has_a_name_of_its_own():
    cases = cases_of(PARTS, list(METHODS), 3)
    attacks = leakage_cases(list(METHODS))
    assert len({case.name for case in cases}) == len(cases) > 40
    assert len({case.name for case in attacks}) == len(attacks) > 20
    assert sum(case.part == "methods" for case in cases) == 3 * len(METHODS)


def test_only_the_methods_that_were_asked_for_are_compared():
    assert {case.method for case in cases_of(["methods", "domains"], ["fl", "fedpriv"], 1)} == {"fl", "fedpriv"}
    assert in_order(["fedpriv", "centralised", "fedpriv"]) == ["centralised", "fedpriv"]


def test_a_record_comes_back_as_it_was(tmp_path):
    case = Case(part="bits", method="fedpriv", seed=0, bits=6)
    records = Records(tmp_path / "out", SETTINGS)
    assert records.find("runs", case.name, Record) is None
    records.keep("runs", case.name, record(case))
    again = Records(tmp_path / "out", SETTINGS)
    assert again.find("runs", case.name, Record) == record(case)


def test_the_same_study_is_not_run_again_for_a_sweep_over_epsilon(tmp_path):
    records = Records(tmp_path, SETTINGS)
    (usual,) = (case for case in cases_of(["methods"], ["dp-fl"], 1))
    swept = {case.epsilon: case for case in cases_of(["epsilon"], ["dp-fl"], 1)}
    assert _twin(swept[EPSILON], records) is None
    records.keep(RUNS, usual.name, record(usual))
    assert _twin(swept[EPSILON], records) == record(swept[EPSILON])
    assert all(_twin(case, records) is None for epsilon, case in swept.items() if epsilon != EPSILON)
    assert _twin(Case(part="mortality", method="dp-fl", seed=0, epsilon=EPSILON), records) is None


def test_other_settings_need_another_folder(tmp_path):
    Records(tmp_path, SETTINGS)
    with pytest.raises(ExistsError, match=r"other settings \(steps\)"):
        Records(tmp_path, SETTINGS.model_copy(update={"steps": 5}))


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ExistsError, match="no comparison"):
        Records(tmp_path, SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("content", ["{", "[]", '{"record_version": 2}', "null"])
def test_a_record_that_is_none_is_not_read_as_one(tmp_path, content):
    records = Records(tmp_path, SETTINGS)
    path = records.path("runs", "case")
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(ExistsError, match="no record"):
        records.find("runs", "case", Record)
    assert path.read_text() == content


def test_a_number_that_is_none_is_not_read(tmp_path):
    case = Case(part="methods", method="fl", seed=0)
    records = Records(tmp_path, SETTINGS)
    records.keep("runs", case.name, record(case))
    path = records.path("runs", case.name)
    value = json.loads(path.read_text())
    value["bytes_up"] = -1
    path.write_text(json.dumps(value))
    with pytest.raises(ExistsError):
        records.find("runs", case.name, Record)


def test_a_part_or_method_that_is_none_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no part speed"):
        figures_options(out=tmp_path, parts=["speed"], methods=[])
    with pytest.raises(ConfigError, match="no method magic"):
        figures_options(out=tmp_path, parts=[], methods=["magic"])


def test_the_command_in_the_manifest_has_no_path(tmp_path):
    options = figures_options(out=tmp_path, parts=["leakage"], methods=["fl"], mimic=tmp_path, model="tiny", seeds=2)
    assert options.command == "fedpriv bench figures --mimic DIR --model tiny --seeds 2 --part leakage --method fl"
    assert options.leakage
    assert not options.parts

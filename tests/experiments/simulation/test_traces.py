"""Traces: what a file of them must be, how absences stretch work, and a study of many domains that they drive."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.errors import ConfigError
from fedpriv.experiments.simulation import Trace, read_traces, spread_traces
from fedpriv.researcher.events import RoundFinished
from tests.experiments.simulation.conftest import TRAINING


def written(path, traces):
    path.write_text("".join(f"{trace.model_dump_json()}\n" for trace in traces))
    return path


def test_a_file_gives_back_its_traces_and_its_first_wrong_line_is_named(tmp_path):
    traces = [*spread_traces(5, seed=1), Trace(away=((1.0, 2.0), (3.0, 4.0)))]
    assert read_traces(written(tmp_path / "traces.jsonl", traces)) == traces
    for wrong in ('{"step_s": 0}', '{"speed": 1}', "no JSON", json.dumps({"away": [[2, 1]]})):
        (tmp_path / "wrong.jsonl").write_text(f"{traces[0].model_dump_json()}\n{wrong}\n")
        with pytest.raises(ConfigError, match=r"wrong\.jsonl, line 2"):
            read_traces(tmp_path / "wrong.jsonl")


@given(st.lists(st.floats(0, 1000), max_size=8), st.floats(0, 1000), st.floats(0, 500))
def test_work_takes_its_seconds_of_presence(times, now, seconds):
    ends = sorted(times)[: len(times) // 2 * 2]
    trace = Trace(away=tuple(zip(ends[::2], ends[1::2], strict=True)))
    done = trace.moved_by(now, seconds)
    absent = sum(max(0.0, min(end, done) - max(start, now)) for start, end in trace.away)
    assert done - now - absent == pytest.approx(seconds, abs=1e-6)


def test_many_unequal_domains_end_with_one_adapter(federation, tmp_path):
    traces = read_traces(written(tmp_path / "traces.jsonl", spread_traces(12, seed=3)))
    study = federation(traces, training=TRAINING | {"rounds": 2})
    run = study.run()
    assert [len(event.weights) for event in run.of(RoundFinished)] == [12, 12]
    assert len({study.digest(email) for email in study.domains}) == 1
    assert run.seconds > 2 * TRAINING["steps"] * max(trace.step_s for trace in traces)

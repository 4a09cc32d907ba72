"""TensorBoard's own reader says what is drawn."""

import importlib.util
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedpriv.researcher.trackers.rows import MARK
from fedpriv.researcher.trackers.tensorboard_sink import TensorBoardSink

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="the extra tensorboard is not installed"
)


def folder(story):
    return story.folder / "tensorboard" / story.run.id


def read(story):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder(story)), size_guidance={"scalars": 0, "tensors": 0}).Reload()


def drawn(story):
    """Each name's steps and values, as TensorBoard draws them."""
    found = read(story)
    assert len(found.Tensors("plan/text_summary")) == 1
    return {tag: [(e.step, round(e.value, 4)) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def losses(*numbers):
    return [(number, round(3 / number, 4)) for number in numbers]


def test_a_study_is_drawn_round_by_round_to_its_end(story):
    story.start()
    for number in (1, 2, 3):
        story.round(number)
    story.finish()
    assert story.track(TensorBoardSink()) == []
    found = drawn(story)
    assert found[MARK] == [*losses(1, 2, 3), (4, 0.5)]
    assert found["weight/sicu"] == [(1, 0.75), (2, 0.75), (3, 0.75)]
    assert found["domain/micu/heldout_loss"] == [*losses(1, 2, 3), (4, 0.4)]
    assert found["final/loss_after"] == [(4, 0.5)]
    (first, *_) = read(story).Scalars(MARK)
    assert first.wall_time == pytest.approx(1_700_000_000 + 1.25 * 4)  # when it happened, whenever it is written


def test_the_plan_is_there_to_read_and_to_compare_by(story):
    story.round(1)
    story.track(TensorBoardSink())
    found = read(story)
    (text,) = found.Tensors("plan/text_summary")
    table = text.tensor_proto.string_val[0].decode()
    assert f"| study | {story.run.study} |" in table
    assert "| training.rounds | 3 |" in table
    assert "| title | a / b |" in table
    (started,) = found.PluginTagToContent("hparams").keys() & {"_hparams_/session_start_info"}
    assert b"training.rounds" in found.PluginTagToContent("hparams")[started]


def test_a_resumed_study_goes_on_in_the_same_folder(story):
    for number in (1, 2, 3):
        story.start(resumed=number > 1)
        story.round(number)
        assert story.track(TensorBoardSink()) == []
    story.finish()
    for _ in range(2):
        assert story.track(TensorBoardSink()) == []
    assert drawn(story)[MARK] == [*losses(1, 2, 3), (4, 0.5)]
    assert [path.name for path in (story.folder / "tensorboard").iterdir()] == [story.run.id]


def test_a_round_summed_again_takes_the_place_of_its_first_sum(story):
    for number in (1, 2):
        story.round(number)
    story.track(TensorBoardSink())
    story.summed(2, attempt=2)
    story.round(3)
    story.track(TensorBoardSink())
    found = drawn(story)
    assert found["attempt"] == [(1, 1.0), (2, 2.0), (3, 1.0)]
    assert found[MARK] == [(1, 3.0), (2, 2.5), (3, 1.0)]


@pytest.mark.parametrize("part", [0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 0.999])
def test_wherever_a_kill_cut_the_file_every_round_is_drawn_once(story, part):
    for number in (1, 2):
        story.round(number)
    story.track(TensorBoardSink())
    (path,) = folder(story).iterdir()
    whole = drawn(story)
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    story.round(3)
    assert story.track(TensorBoardSink()) == []
    found = drawn(story)
    assert found[MARK] == losses(1, 2, 3)
    assert set(found) == set(whole)
    for tag, points in whole.items():
        assert found[tag][:2] == points
        assert [step for step, _ in found[tag]] == [1, 2, 3]


def test_a_killed_process_leaves_a_run_that_is_gone_on_with(story):
    for number in (1, 2):
        story.round(number)
    code = (
        "import sys, threading; sys.path[:0] = sys.argv[3:]\n"
        "from pathlib import Path\n"
        "from tests.researcher.trackers.conftest import Story\n"
        "from fedpriv.researcher.trackers.tensorboard_sink import TensorBoardSink as Sink\n"
        "from fedpriv.researcher.trackers.rows import rows\n"
        "story, sink = Story(Path(sys.argv[1])), Sink()\n"
        "sink.open(story.run)\n"
        "sink.log(next(rows(story.history.events(), story.run.labels)))\n"
        "print('logged', flush=True); threading.Event().wait()\n"
    )
    command = [sys.executable, "-c", code, story.folder, "", Path(__file__).parents[3]]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "logged\n"
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    time.sleep(1)  # event files of one second are read in the order of their process ids
    assert story.track(TensorBoardSink()) == []
    assert drawn(story)[MARK] == losses(1, 2)
    assert len(list(folder(story).iterdir())) == 2


def test_a_place_that_cannot_be_written_is_told_and_no_more(story):
    (story.folder / "tensorboard").write_text("in the way")
    story.round(1)
    (event,) = story.track(TensorBoardSink(), "tensorboard")
    assert event.tracker == "tensorboard"
    assert "tensorboard" in event.reason


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard's writer says it, too
def test_a_disk_that_is_full_is_told_and_the_rest_is_made_up_for(story):
    for number in range(1, 30):
        story.round(number)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))  # the system refuses to let a file grow further
    try:
        (event,) = story.track(TensorBoardSink(), "tensorboard")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "File too large" in event.reason
    assert story.track(TensorBoardSink()) == []
    assert [step for step, _ in drawn(story)[MARK]] == list(range(1, 30))

import sys
import threading

import pytest

from fedpriv.training import child


def test_a_fence_is_refused_where_it_would_hold_for_one_of_several_threads(monkeypatch, tmp_path):
    for name in ("17", "18"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(child, "_THREADS", tmp_path)
    with pytest.raises(OSError, match="before the fence was up"):
        child._check_one_thread()
    (tmp_path / "18").rmdir()
    child._check_one_thread()


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")
def test_the_threads_that_are_looked_at_are_those_of_this_process():
    before = len(list(child._THREADS.iterdir()))
    wait = threading.Event()
    thread = threading.Thread(target=wait.wait)
    thread.start()
    assert len(list(child._THREADS.iterdir())) == before + 1
    wait.set()
    thread.join()

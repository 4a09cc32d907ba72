from fedpriv.researcher import live
from fedpriv.researcher.events import DomainProgress
from fedpriv.researcher.live import LIVE, LiveFile, read_live
from fedpriv.study import Progress

STUDY = "a" * 64


def progress(domain, step, time_s):
    told = Progress(study=STUDY, round=1, state="training", step=step, steps=9)
    return DomainProgress(study=STUDY, time_s=time_s, domain=domain, progress=told)


def test_the_last_progress_of_each_domain_is_read_by_others(tmp_path):
    file = LiveFile(tmp_path)
    for step in range(1, 5):
        file(progress("a@h.example", step, 100.0 + step))
    file(progress("b@h.example", 1, 99.0))
    file.close()
    assert read_live(tmp_path) == [progress("b@h.example", 1, 99.0), progress("a@h.example", 4, 104.0)]
    assert (tmp_path / LIVE).stat().st_mode & 0o077 == 0


def test_it_is_not_written_for_every_step(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(live, "write_json", lambda path, value, **_: written.append(value))
    file = LiveFile(tmp_path)
    for step in range(1000):
        file(progress("a@h.example", step, float(step)))
    assert 1 <= len(written) < 10


def test_what_is_missing_broken_or_too_large_shows_less(tmp_path):
    assert read_live(tmp_path) == []
    for text in ("{", '{"domains": {"x": 1}}', '{"domains": {"../x": [1, null]}}', '"' + "x" * 2_000_000 + '"'):
        (tmp_path / LIVE).write_text(text)
        assert read_live(tmp_path) == []


def test_a_full_disk_does_not_end_a_run(tmp_path, monkeypatch):
    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(live, "write_json", full)
    file = LiveFile(tmp_path)
    file(progress("a@h.example", 1, 1.0))
    file.close()
    assert read_live(tmp_path) == []

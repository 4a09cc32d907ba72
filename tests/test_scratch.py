import subprocess
import sys
import tempfile

import pytest

from fedpriv.scratch import scratch_folder


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def holding():
    """Return a process that holds a folder with a row in it."""
    code = (
        "from fedpriv.scratch import scratch_folder\n"
        "with scratch_folder('rows') as folder:\n"
        "    (folder / 'row').write_text('1')\n"
        "    print(folder, flush=True)\n"
        "    input()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_a_folder_is_private_and_gone_at_the_end_even_of_an_error(temporary):
    with pytest.raises(ValueError, match="in between"), scratch_folder("rows") as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "row").write_text("1")
        raise ValueError("in between")
    assert list(temporary.iterdir()) == []


def test_what_a_killed_process_left_is_removed_by_the_next_and_a_living_ones_is_not(temporary):
    killed, left = holding()
    living, kept = holding()
    killed.kill()
    killed.wait()
    with scratch_folder("rows") as folder:
        assert sorted(path.name for path in temporary.iterdir()) == sorted([folder.name, kept.rpartition("/")[2]])
    living.communicate("\n")
    assert living.returncode == 0
    assert list(temporary.iterdir()) == []
    assert left != kept


def test_what_is_not_ours_stays(temporary, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / ".in-use").touch()
    (temporary / "fedpriv-rows-link").symlink_to(elsewhere)
    (temporary / "fedpriv-rows-without-lock").mkdir()
    (temporary / "fedpriv-other-x").mkdir()
    (temporary / "fedpriv-other-x" / ".in-use").touch()
    with scratch_folder("rows"):
        pass
    assert (elsewhere / ".in-use").exists()
    assert len(list(temporary.iterdir())) == 3

from fedpriv.widgets.study_process import LOG, last_error, start_run


def test_a_run_is_a_process_of_its_own_whose_error_can_be_read(study):
    study.folder.state.mkdir(exist_ok=True)
    assert last_error(study) == ""
    process = start_run(study)
    assert process.wait(timeout=60) != 0
    assert "Next: " in last_error(study)
    assert "\n" not in last_error(study)
    assert (study.folder.state / LOG).stat().st_mode & 0o077 == 0

import tempfile

from fedpriv.experiments.federation import Federation


def test_the_tables_that_a_federation_is_made_of_are_not_left_in_the_temporary_folder(tmp_path, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with Federation.create(model="tiny", domains=3, work=tmp_path / "work") as federation:
        assert len(federation.domains) == 3
        assert list(temporary.iterdir()) == []

"""Finding a cohort: only with the keys that the plan pins, and not for ever."""

import pytest

from fedpriv.errors import SignatureError, StudyError
from fedpriv.protection import IdentityKeys, signed_identity
from fedpriv.researcher import connecting
from fedpriv.transport import show_to_all


def test_other_keys_on_the_store_than_the_plan_pins_stop_the_submission(researcher, study):
    stranger = IdentityKeys.create("micu@x.org", "micu", "11" * 32)
    show_to_all(researcher.config.store, "micu@x.org", {"identity.json": signed_identity(stranger)})
    with pytest.raises(SignatureError, match="not the pinned ones"):
        study.submit()
    assert not study.folder.is_submitted


def test_a_domain_that_never_appears_is_named(study, monkeypatch):
    monkeypatch.setattr(connecting, "CONNECT_SECONDS", 0.3)
    with pytest.raises(StudyError, match=r"the public keys of micu@x\.org, sicu@x\.org"):
        study.submit()

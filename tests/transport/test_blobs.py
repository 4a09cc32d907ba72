import os

import pytest

from fedpriv.errors import SignatureError, UntrustedError
from fedpriv.study import Progress
from tests.transport.conftest import OWNER, RESEARCHER


def test_a_blob_arrives_and_is_private_on_the_store(pair, tmp_path):
    data = os.urandom(200_000)
    reference = pair.owner.blobs.send(RESEARCHER, "update-1", data)
    path = pair.researcher.blobs.receive(OWNER, reference, tmp_path / "got")
    assert path.read_bytes() == data
    on_store = (pair.root / "store" / OWNER / "to" / RESEARCHER / "blobs" / "update-1").read_bytes()
    assert data[:64] not in on_store
    pair.owner.blobs.remove(RESEARCHER, "update-1")
    assert pair.researcher.blobs.receive(OWNER, reference, path).read_bytes() == data  # kept, not fetched again
    with pytest.raises(UntrustedError, match="announced update-1, which is not on the store"):
        pair.researcher.blobs.receive(OWNER, reference, tmp_path / "again")


def test_a_changed_or_swapped_blob_is_refused(pair, tmp_path):
    reference = pair.owner.blobs.send(RESEARCHER, "update-1", b"a" * 1000)
    path = pair.root / "store" / OWNER / "to" / RESEARCHER / "blobs" / "update-1"
    good = path.read_bytes()
    path.write_bytes(good[:500] + bytes([good[500] ^ 1]) + good[501:])
    with pytest.raises((SignatureError, UntrustedError)):
        pair.researcher.blobs.receive(OWNER, reference, tmp_path / "got")
    pair.owner.blobs.send(
        RESEARCHER, "update-1", b"b" * 1000
    )  # a newer one in its place: signed, but not the one meant
    with pytest.raises(UntrustedError, match="not what its message says"):
        pair.researcher.blobs.receive(OWNER, reference, tmp_path / "got")
    assert not (tmp_path / "got").exists()


def test_progress_is_a_courtesy(pair):
    assert pair.researcher.blobs.progress_of(OWNER) is None
    progress = Progress(study="0" * 64, round=1, state="training", step=1, steps=4)
    pair.owner.blobs.show_progress(RESEARCHER, progress)
    assert pair.researcher.blobs.progress_of(OWNER) == progress
    (pair.root / "store" / OWNER / "to" / RESEARCHER / "status").write_bytes(b"noise")
    assert pair.researcher.blobs.progress_of(OWNER) is None

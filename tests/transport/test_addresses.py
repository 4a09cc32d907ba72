"""Addresses of stores: what is refused, and that no secret of an address is ever shown."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.errors import ConfigError
from fedpriv.transport.address import check_endpoint, is_loopback
from fedpriv.transport.object_address import ObjectAddress
from fedpriv.transport.webdav import WebdavAddress


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("s3://", "lacks a bucket"),
        ("s3://UPPER/x", "lacks a bucket"),
        ("s3://key:secret@bucket/x", "holds a password"),
        ("s3://key@bucket/x", "holds a user"),
        ("s3://bucket:9000/x", "holds a user or a port"),
        ("s3://bucket/x?secret=secret", "unknown or doubled part 'secret'"),
        ("s3://bucket/x?region=eu&region=us", "unknown or doubled"),
        ("s3://bucket/x?region=EU%0a", "region"),
        ("s3://bucket/x#secret", "part after #"),
        ("s3://bucket/x?endpoint_url=http://store.example", "over http://"),
        ("s3://bucket/x?endpoint_url=http://10.0.0.1:9000", "over http://"),
        ("s3://bucket/x?endpoint_url=https://me:secret@store.example", "holds a password"),
        ("s3://bucket/x?endpoint_url=https://me@store.example", "no https:// address"),
        ("s3://bucket/x?endpoint_url=https://store.example:0", "port"),
        ("s3://bucket/x?endpoint_url=ftp://store.example", "no https:// address"),
        ("s3://bucket/x?endpoint_url=https://store.example?secret=secret", "unknown or doubled"),
        ("gs://bucket/x?region=eu", "unknown or doubled"),
        ("az://account", "lacks a bucket"),
        ("az://account/container?sas=secret", "unknown or doubled"),
    ],
)
def test_an_address_of_an_object_store_that_cannot_be_used_is_refused(url, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        ObjectAddress.parse(url)
    assert caught.value.todo
    assert "secret" not in str(caught.value).replace("part 'secret'", "")


def test_an_address_of_an_object_store_is_read():
    address = ObjectAddress.parse("s3://bucket/a/b/?endpoint_url=https://store.example:9000/&region=eu-central-1")
    assert (address.bucket, address.root, address.endpoint_url) == ("bucket", "a/b", "https://store.example:9000")
    assert address.region == "eu-central-1"
    assert not address.is_the_clouds_own
    address = ObjectAddress.parse("az://account/container/folder")
    assert (address.account, address.bucket, address.root) == ("account", "container", "folder")
    assert ObjectAddress.parse("gs://bucket").root == ""


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("webdavs://host", "lacks a host or a folder"),
        ("webdavs:///folder", "lacks a host or a folder"),
        ("webdavs://me:secret@host/folder", "holds a password"),
        ("webdavs://me@host/folder", "holds a user"),
        ("webdavs://host:99999/folder", "port"),
        ("webdav://host/folder", "over http://"),
        ("webdavs://host/folder?user=secret", "unknown or doubled"),
    ],
)
def test_an_address_of_a_webdav_server_that_cannot_be_used_is_refused(url, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        WebdavAddress.parse(url)
    assert "secret" not in str(caught.value)


def test_an_address_of_a_webdav_server_is_read():
    address = WebdavAddress.parse("webdavs://cloud.example/remote.php/dav/files/cohort/study/")
    assert address.base_url == "https://cloud.example"
    assert address.root == "/remote.php/dav/files/cohort/study"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "::1"])
def test_this_machine_may_be_called_unencrypted(host):
    assert is_loopback(host)
    shown = f"[{host}]" if ":" in host else host
    assert check_endpoint(f"http://{shown}:9000/", example="x") == f"http://{shown}:9000"


@pytest.mark.parametrize("host", ["127.0.0.1.example", "localhost.example", "0.0.0.0", "10.0.0.1", "127.1", ""])  # noqa: S104
def test_what_only_looks_like_this_machine_is_none(host):
    assert not is_loopback(host)


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=0x2FF), max_size=60))
def test_any_text_is_an_address_or_a_config_error(text):
    for scheme, parse in (
        ("s3", ObjectAddress.parse),
        ("az", ObjectAddress.parse),
        ("webdavs", WebdavAddress.parse),
        ("webdav", WebdavAddress.parse),
    ):
        with contextlib.suppress(ConfigError):
            parse(f"{scheme}://{text}")

"""Addresses of object stores: the cloud, the bucket, the folder in it, and the server that is not the cloud's own.

``s3://bucket/folder``, ``gs://bucket/folder`` and ``az://account/container/folder``. Options: ``endpoint_url=https://...``
for a server that speaks the cloud's protocol (MinIO, Ceph, Garage, ...), and ``region=`` for S3. Never a key.
"""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import unquote

from pydantic import Field

from fedpriv.errors import ConfigError
from fedpriv.study.section import Section
from fedpriv.transport.address import check_endpoint, split_address

Cloud = Literal["s3", "gs", "az"]
EXAMPLES: dict[Cloud, str] = {
    "s3": "write it like s3://bucket/folder, or s3://bucket/folder?endpoint_url=https://host:9000&region=us-east-1",
    "gs": "write it like gs://bucket/folder",
    "az": "write it like az://account/container/folder",
}
_OPTIONS: dict[Cloud, tuple[str, ...]] = {
    "s3": ("endpoint_url", "region"),
    "gs": ("endpoint_url",),
    "az": ("endpoint_url",),
}
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{1,221}")
"""A bucket, a container or an account: no cloud allows more."""
_REGION = re.compile(r"[a-z0-9-]{2,40}")


class ObjectAddress(Section):
    """Where an object store lies.

    Attributes
    ----------
    cloud : {"s3", "gs", "az"}
        Whose protocol its server speaks.
    account : str
        The storage account of Azure; else empty.
    bucket : str
        The bucket, or Azure's container.
    root : str
        The store's folder in it; empty for the whole bucket.
    endpoint_url, region : str
        The server and its region, where they are not the cloud's own and usual one.
    """

    cloud: Cloud
    account: str = ""
    bucket: str = Field(min_length=1)
    root: str = ""
    endpoint_url: str = ""
    region: str = ""

    @property
    def shown(self) -> str:
        """The store as people are shown it."""
        where = f" at {self.endpoint_url}" if self.endpoint_url else ""
        return f"{self.cloud}://{f'{self.account}/' if self.account else ''}{self.bucket}{where}"

    @property
    def is_the_clouds_own(self) -> bool:
        """Whether it is served by the cloud itself, which shows at once whatever was put."""
        return not self.endpoint_url

    @classmethod
    def parse(cls, url: str) -> ObjectAddress:
        """Read a URL.

        Raises
        ------
        ConfigError
            If a part is missing, unknown or a secret, or the server would be called unencrypted.
        """
        cloud = _cloud(url)
        example = EXAMPLES[cloud]
        parts, options = split_address(url, options=_OPTIONS[cloud], example=example)
        if parts.username is not None or ":" in parts.netloc:
            raise ConfigError("The store's address holds a user or a port", kept="It was not called", todo=example)
        names = [parts.netloc, *filter(None, unquote(parts.path).split("/"))]
        account = names.pop(0) if cloud == "az" else ""
        bucket, root = (names[0] if names else ""), "/".join(names[1:])
        if not _NAME.fullmatch(bucket) or (cloud == "az" and not _NAME.fullmatch(account)):
            raise ConfigError("The store's address lacks a bucket, or its name is none", todo=example)
        region = options.get("region", "")
        if region and not _REGION.fullmatch(region):
            raise ConfigError(f"The store's region {region[:40]!r} is none", todo=example)
        endpoint = options.get("endpoint_url", "")
        return cls(
            cloud=cloud,
            account=account,
            bucket=bucket,
            root=root,
            endpoint_url=check_endpoint(endpoint, example=example) if endpoint else "",
            region=region,
        )


def _cloud(url: str) -> Cloud:
    scheme = url.partition("://")[0]
    for cloud in EXAMPLES:
        if scheme == cloud:
            return cloud
    raise ConfigError(f"{scheme}:// is no object store", todo=EXAMPLES["s3"])

"""Programs of the system that the test bed needs, and where they are."""

from __future__ import annotations

import os
import shutil

from fedpriv.errors import ConfigError

_PACKAGES = {"sshd": "openssh-server", "ip": "iproute2", "nsenter": "util-linux", "setpriv": "util-linux"}


def program(name: str) -> str:
    """Return the path of a program, also of one that only root has on its path.

    Raises
    ------
    ConfigError
        If it is not installed, naming the package.
    """
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/local/sbin")
    if found is None:
        raise ConfigError(f"There is no {name} on this machine", todo=f"install the package {_PACKAGES[name]}")
    return found

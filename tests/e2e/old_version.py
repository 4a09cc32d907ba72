"""``fedpriv`` as another version would be: run with -c-like arguments VERSION CONTAINER CHECKS and then a command.

What it is has the constants of that version in a process of its own; all else is this version.
"""

import sys

import fedpriv
from fedpriv.protection import container

version, container_version, checks, *command = sys.argv[1:]
fedpriv.__version__ = version
container.VERSION = container_version
if checks == "trusting":  # as before versions were compared
    from fedpriv.researcher import study

    study.require_same_protocol = lambda *arguments: None
sys.argv = ["fedpriv", *command]

from fedpriv.cli.main import main  # noqa: E402

main()

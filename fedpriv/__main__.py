"""``python -m fedpriv`` is the command line."""

from fedpriv.cli.main import main

main()

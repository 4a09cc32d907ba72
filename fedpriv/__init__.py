"""Federated LoRA fine-tuning on clinical notes that stay in the building."""

import sys

__version__ = "0.1.0"

if "IPython" in sys.modules:  # in a notebook, a study, a plan or a ledger is shown as a sheet
    from fedpriv.widgets.registering import register

    register(getattr(sys.modules["IPython"], "get_ipython", lambda: None)())
    del register

"""The fixtures of the researcher's side: a study that was not submitted."""

from tests.researcher.conftest import members, researcher, study

__all__ = ["members", "researcher", "study"]

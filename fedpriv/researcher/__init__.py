"""The researcher's side: studies, their rounds, events and history."""

from fedpriv.researcher.researcher import Researcher, ResearcherConfig
from fedpriv.researcher.study import Study

__all__ = ["Researcher", "ResearcherConfig", "Study"]

"""Word lists of the synthetic tables: made up for this purpose, by care unit, taken from no patient.

Drug names and ICD-9 codes are public vocabulary; every phrase is our own.
"""

from fedpriv.clinical.words.cardiac import CARDIAC_SURGERY, CORONARY
from fedpriv.clinical.words.medical import MEDICAL
from fedpriv.clinical.words.profile import Diagnosis, Drug, UnitProfile
from fedpriv.clinical.words.surgical import SURGICAL, TRAUMA

PROFILES = (MEDICAL, SURGICAL, CORONARY, CARDIAC_SURGERY, TRAUMA)
"""By share of the patients, largest first."""

__all__ = ["PROFILES", "Diagnosis", "Drug", "UnitProfile"]

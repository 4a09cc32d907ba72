"""The laboratory values that texts tell, each with its one unit, and what other units come to.

Numbers are ITEMIDs of MIMIC-III's D_LABITEMS. Between amount of substance and mass the factors follow from molar masses
(creatinine 113.12 g/mol, glucose 180.16, urea's two nitrogens 28.01, bilirubin 584.66, lactate 90.08, calcium 40.08,
magnesium 24.305, phosphorus 30.974, a haemoglobin chain 16,114); 1 kPa is 7.50062 mm Hg and 1 ukat 60 U.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True)
class Analyte:
    """One laboratory value.

    Attributes
    ----------
    item : int
        Its ITEMID.
    name : str
        What texts call it.
    unit : str
        The unit of the common record; ``""`` for a number without one.
    others : dict of str to float
        Another unit, as :func:`spelled` has it, to the factor that makes it ``unit``.
    usual : tuple of float
        Where the middle nine tenths of an adult intensive care unit's values lie; synthetic ones are drawn from it.
    """

    item: int
    name: str
    unit: str
    usual: tuple[float, float]
    others: dict[str, float] = field(default_factory=dict)

    def factor(self, unit: str) -> float | None:
        """Return what a value in ``unit`` is multiplied by, or None for a unit that is not known."""
        spelling = spelled(unit)
        return 1.0 if spelling == spelled(self.unit) else self.others.get(spelling)


def spelled(unit: str) -> str:
    """Return a unit in the one spelling that is compared: lower case, ``u`` for micro, no blanks."""
    return re.sub(r"\s+", "", unit).lower().replace("µ", "u").replace("μ", "u").replace("mcg", "ug")


SPELLING_SQL = r"""replace(replace(replace(lower(regexp_replace(coalesce(unit, ''), '\s+', '', 'g')),
    'µ', 'u'), 'μ', 'u'), 'mcg', 'ug')"""
"""The same as :func:`spelled`, over ``unit``."""

_ENZYME = {"u/l": 1.0, "ukat/l": 60.0, "mu/ml": 1.0}
_IONS = {"mmol/l": 1.0}
_CELLS = {"10^9/l": 1.0, "10*9/l": 1.0, "g/l": 1.0, "10^3/ul": 1.0, "10*3/ul": 1.0, "/nl": 1.0, "k/mm3": 1.0}
_PRESSURE = {"kpa": 7.50062, "torr": 1.0}

ANALYTES = (
    Analyte(50912, "creatinine", "mg/dL", (0.3, 5.8), {"umol/l": 0.011312, "mmol/l": 11.312, "mg/l": 0.1}),
    Analyte(51006, "urea nitrogen", "mg/dL", (8, 89), {"mmol/l": 2.801, "mg/l": 0.1}),
    Analyte(50983, "sodium", "mEq/L", (130, 148), _IONS),
    Analyte(50971, "potassium", "mEq/L", (3.1, 5.2), _IONS),
    Analyte(50902, "chloride", "mEq/L", (94, 115), _IONS),
    Analyte(50882, "bicarbonate", "mEq/L", (18, 35), _IONS),
    Analyte(50868, "anion gap", "mEq/L", (8, 21), _IONS),
    Analyte(50931, "glucose", "mg/dL", (75, 232), {"mmol/l": 18.016, "g/l": 100.0}),
    Analyte(50893, "calcium", "mg/dL", (7.3, 9.9), {"mmol/l": 4.008, "meq/l": 2.004}),
    Analyte(50960, "magnesium", "mg/dL", (1.5, 2.8), {"mmol/l": 2.4305, "meq/l": 1.21525}),
    Analyte(50970, "phosphate", "mg/dL", (2.0, 6.5), {"mmol/l": 3.0974}),
    Analyte(50813, "lactate", "mmol/L", (0.8, 10.5), {"mg/dl": 0.11101, "meq/l": 1.0}),
    Analyte(50885, "bilirubin", "mg/dL", (0.2, 31.6), {"umol/l": 0.058466, "mg/l": 0.1}),
    Analyte(50862, "albumin", "g/dL", (2.1, 4.3), {"g/l": 0.1}),
    Analyte(50878, "AST", "IU/L", (11, 1696), _ENZYME),
    Analyte(50861, "ALT", "IU/L", (9, 1846), _ENZYME),
    Analyte(50863, "alkaline phosphatase", "IU/L", (50, 456), _ENZYME),
    Analyte(51003, "troponin T", "ng/mL", (0.01, 1.0), {"ng/l": 0.001, "ug/l": 1.0, "pg/ml": 0.001}),
    Analyte(51222, "haemoglobin", "g/dL", (7.8, 12.8), {"g/l": 0.1, "mmol/l": 1.6114}),
    Analyte(51221, "haematocrit", "%", (22.6, 37.6), {"l/l": 100.0, "1": 100.0}),
    Analyte(51301, "white cells", "K/uL", (1.8, 20.2), _CELLS),
    Analyte(51265, "platelets", "K/uL", (24, 417), _CELLS),
    Analyte(51237, "INR", "", (1.1, 3.7), {"1": 1.0, "ratio": 1.0}),
    Analyte(51275, "PTT", "sec", (24.8, 97.1), {"s": 1.0, "seconds": 1.0}),
    Analyte(50820, "pH", "units", (7.21, 7.5), {"1": 1.0, "ph": 1.0}),
    Analyte(50821, "pO2", "mm Hg", (51, 258), _PRESSURE),
    Analyte(50818, "pCO2", "mm Hg", (28, 70), _PRESSURE),
)
ANALYTE_OF = MappingProxyType({analyte.item: analyte for analyte in ANALYTES})

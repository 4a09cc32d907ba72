"""Words of what is charted during a stay: procedures, nursing notes, radiology reports. Every phrase is our own."""

from __future__ import annotations

PROCEDURES = (
    ("3893", "Venous cath NEC", "Venous catheterization, not elsewhere classified"),
    ("9604", "Insert endotracheal tube", "Insertion of endotracheal tube"),
    ("9671", "Cont inv mec ven <96 hrs", "Continuous invasive mechanical ventilation for less than 96 hours"),
    ("3891", "Arterial catheterization", "Arterial catheterization"),
    ("9904", "Packed cell transfusion", "Transfusion of packed cells"),
    ("3995", "Hemodialysis", "Hemodialysis"),
    ("966", "Entral infus nutrit sub", "Enteral infusion of concentrated nutritional substances"),
    ("8856", "Coronar arteriogr-2 cath", "Coronary arteriography using two catheters"),
    ("4513", "Sm bowel endoscopy NEC", "Other endoscopy of small intestine"),
    ("331", "Incision of lung", "Incision of lung"),
)
SHIFTS = (
    "Alert, follows commands, moves all limbs, asks for the glasses.",
    "Sleepy after the night dose, wakes to voice, pupils equal and brisk.",
    "Monitor shows sinus rhythm with rare extra beats, no runs.",
    "Drip weaned by a third, pressure holds, skin warm and dry.",
    "Lungs clear above, coarse at both bases, strong cough, thin white sputum.",
    "On nasal oxygen, no work of breathing, up to two litres on the walk.",
    "Vent settings as ordered, breath sounds on both sides, cuff checked.",
    "Belly soft, sounds present, took half of the breakfast, no nausea.",
    "Urine by catheter, clear yellow, forty to sixty an hour.",
    "Sacrum reddened but blanching, turned every two hours, heels up.",
    "Lines in the right neck and left wrist, dressings dry and dated.",
    "Family at the bedside all afternoon, questions taken by the team.",
    "Potassium replaced by protocol, next draw at four.",
    "Sugars covered by the sliding scale, no drip needed.",
    "Pain four of ten at the side, down to two after the tablet.",
    "Plan: keep the pressure up, wean oxygen, out of bed tomorrow.",
    "Plan: repeat cultures if hot again, follow the counts.",
    "Dressing changed, small amount of old blood, edges together.",
    "Restless at two, settled with the lights down and the door shut.",
    "Physiotherapy came, sat at the edge of the bed for ten minutes.",
)
STUDIES = (
    "CHEST (PORTABLE AP)",
    "CHEST (PA & LAT)",
    "CT HEAD W/O CONTRAST",
    "CT ABDOMEN W/CONTRAST",
    "RENAL U.S.",
    "PORTABLE ABDOMEN",
)
VIEWS = ("eval for change", "r/o pneumonia", "line placement", "please look for bleed", "?effusion", "interval change")
FINDINGS = (
    "The heart is at the upper limit of normal in size.",
    "A tube ends four cm above the carina.",
    "There is a small fluid rim at the left base, as before.",
    "The right neck line ends over the lower great vein.",
    "No free air is seen under the diaphragm.",
    "The lungs are low in volume with streaky density at the bases.",
    "Grey and white matter are told apart as usual.",
    "Both kidneys are of usual size, without widening of the collecting system.",
    "The bowel gas pattern is not specific.",
    "No fracture is seen on these views.",
    "Old scarring at the right apex has not changed.",
    "The feeding tube passes below the lower edge of the film.",
    "Vessels look mildly full, less than the day before.",
    "There is no shift of the middle line.",
)
IMPRESSIONS = (
    "No acute change since the last study.",
    "Less fluid than the day before.",
    "New density at the left base, infection or collapse.",
    "Tubes and lines as described.",
    "No bleed.",
    "Mild fullness of the vessels.",
)

"""Words of the coronary care unit and of cardiac surgery."""

from __future__ import annotations

from fedpriv.clinical.words.profile import UnitProfile, parse_diagnoses, parse_drugs

CORONARY = UnitProfile(
    unit="CCU",
    ward=7,
    service="CARDIOLOGY",
    share=20,
    emergency=85,
    ages=(44, 94),
    problems=(
        "heart attack of the front wall",
        "worsening heart failure with edema",
        "complete heart block with fainting",
        "fast atrial fibrillation with low pressure",
        "cardiac arrest outside the hospital",
        "fluid around the heart",
    ),
    diagnoses=parse_diagnoses(
        "41011|AMI anterior wall, init|Acute myocardial infarction of anterior wall, initial care",
        "42823|Ac on chr syst hrt fail|Acute on chronic systolic heart failure",
        "42731|Atrial fibrillation|Atrial fibrillation",
        "4260|Atriovent block complete|Atrioventricular block, complete",
        "4275|Cardiac arrest|Cardiac arrest",
        "41401|Crnry athrscl natve vssl|Coronary atherosclerosis of native coronary artery",
        "78551|Cardiogenic shock|Cardiogenic shock",
        "2724|Hyperlipidemia NEC/NOS|Other and unspecified hyperlipidemia",
        "4239|Pericardial disease NOS|Unspecified disease of pericardium",
        "4271|Parox ventric tachycard|Paroxysmal ventricular tachycardia",
        "40390|Hy kid NOS w cr kid I-IV|Hypertensive chronic kidney disease",
    ),
    drugs=parse_drugs(
        "Aspirin|325|mg|PO",
        "Clopidogrel|75|mg|PO",
        "Atorvastatin|80|mg|PO",
        "Metoprolol Tartrate|25|mg|PO",
        "Lisinopril|5|mg|PO",
        "Furosemide|40|mg|IV",
        "Amiodarone|400|mg|PO",
        "Nitroglycerin|100|mg|IV DRIP",
        "Eptifibatide|75|mg|IV DRIP",
        "Digoxin|0.125|mg|PO",
        "Spironolactone|25|mg|PO",
        "Warfarin|5|mg|PO",
    ),
    complaints=(
        "an elephant sitting on my chest",
        "legs swelling, sleeping in a chair",
        "blacked out in the kitchen",
        "heart racing since breakfast",
        "pressure down the left arm",
    ),
    exams=(
        "ECG: ST elevation V2 to V5 with reciprocal changes.",
        "TTE: EF 25 percent, apical akinesis, mild MR.",
        "JVP 14 cm, S3 gallop, pitting edema to the thighs.",
        "Tele: ventricular rate 38, AV dissociation.",
        "TTE: moderate effusion without tamponade physiology.",
        "Troponin T peaked at 6.3, CK 2400.",
    ),
    courses=(
        "# CORONARIES: taken to the lab, proximal LAD stented, TIMI 3 flow.",
        "# PUMP: diuresed eight liters, ACE inhibitor started low.",
        "# RHYTHM: rate controlled, cardioverted on day two, anticoagulated.",
        "# RHYTHM: dual chamber pacemaker placed, thresholds good.",
        "# PUMP: balloon pump removed after 48 hours, off inotropes.",
        "# NEURO: cooled for a day, followed commands on rewarming.",
        "# PERICARDIUM: 500 cc drained, echo without return of fluid.",
    ),
    plans=(
        "Weigh yourself every morning and call for a gain over three pounds.",
        "Do not stop clopidogrel without your cardiologist.",
        "Repeat echocardiogram in six weeks.",
        "INR check in the clinic on Monday.",
    ),
    note=(
        "Admission Date: {admitted}   Discharge Date: {discharged}\n\nService: {service}\n\nChief Complaint:\n"
        '"{complaint}"\n\nHPI:\n{person} was brought in by ambulance with {problem}.\n\nSTUDIES:\n{exam}\n\n'
        "HOSPITAL COURSE:\n{listed_courses}\n\nDISCHARGE MEDS:\n{drugs}\n\nINSTRUCTIONS:\n{plans}\nDr. {doctor}"
    ),
)

CARDIAC_SURGERY = UnitProfile(
    unit="CSRU",
    ward=14,
    service="CARDIOTHORACIC SURGERY",
    share=14,
    emergency=30,
    ages=(41, 86),
    problems=(
        "three vessel coronary disease for bypass",
        "tight aortic valve for replacement",
        "leaking mitral valve for repair",
        "ascending aorta too wide",
        "infected valve with emboli",
    ),
    diagnoses=parse_diagnoses(
        "4241|Aortic valve disorder|Aortic valve disorders",
        "4240|Mitral valve disorder|Mitral valve disorders",
        "4412|Thoracic aortic aneurysm|Thoracic aneurysm without rupture",
        "4111|Intermed coronary synd|Intermediate coronary syndrome",
        "9971|Surg compl-heart|Cardiac complication of surgery",
        "5119|Pleural effusion NOS|Unspecified pleural effusion",
        "4210|Ac/subac bact endocard|Acute and subacute bacterial endocarditis",
        "V4581|Aortocoronary bypass|Aortocoronary bypass status",
        "2875|Thrombocytopenia NOS|Thrombocytopenia, unspecified",
    ),
    drugs=parse_drugs(
        "Phenylephrine|60|mg|IV DRIP",
        "Propofol|1000|mg|IV DRIP",
        "Protamine Sulfate|50|mg|IV",
        "Cefuroxime|1.5|g|IV",
        "Oxycodone-Acetaminophen|2|TAB|PO",
        "Ranitidine|150|mg|PO",
        "Magnesium Sulfate|2|g|IV",
        "Potassium Chloride|20|mEq|IV",
        "Milrinone|20|mg|IV DRIP",
        "Aspirin EC|81|mg|PO",
    ),
    complaints=(
        "short of breath on one flight",
        "chest tightness with golf",
        "murmur found by dentist",
        "tired for months",
    ),
    exams=(
        "Cath: left main 60, LAD 80, RCA occluded.",
        "TEE: valve area 0.6, mean gradient 52.",
        "Sternum stable, incision dry, no click.",
        "CT: root 5.4 cm, arch normal.",
        "Vein harvest site clean, mild ecchymosis.",
    ),
    courses=(
        "POD 0: arrived intubated on propofol and phenylephrine, paced at 80.",
        "POD 1: extubated, chest tubes out, diuresis begun.",
        "POD 2: brief atrial fibrillation, beta blocker increased.",
        "POD 3: wires removed, transferred to the floor.",
        "POD 4: cleared by physical therapy, up the stairs.",
        "Bypass time 96 minutes, clamp time 71 minutes.",
        "LIMA to LAD, vein to OM and PDA, good flows.",
        "Tissue valve 23 mm seated, no leak on echo.",
    ),
    plans=(
        "Shower daily, pat incisions dry, no creams.",
        "No driving for one month.",
        "Sternal precautions for ten weeks.",
        "Wound check at the ward in one week.",
    ),
    note=(
        "Admission Date: {admitted}   Discharge Date: {discharged}\n\nService: {service}\n\nReason: {problem}\n"
        'Patient states "{complaint}".\n\nPREOP: {person_short} referred by Dr. {doctor} of {hospital}. {exam}\n\n'
        "OPERATION AND COURSE:\n{listed_courses}\n\nMEDICATIONS:\n{drugs}\n\n{plans}"
    ),
)

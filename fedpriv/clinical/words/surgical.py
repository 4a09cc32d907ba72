"""Words of the surgical and the trauma intensive care unit."""

from __future__ import annotations

from fedpriv.clinical.words.profile import UnitProfile, parse_diagnoses, parse_drugs

SURGICAL = UnitProfile(
    unit="SICU",
    ward=33,
    service="SURGERY",
    share=24,
    emergency=70,
    ages=(29, 88),
    problems=(
        "perforated diverticulum",
        "small bowel obstruction from adhesions",
        "gallstone pancreatitis with necrosis",
        "dead bowel after a clot",
        "planned removal of a pancreatic mass",
        "leak after a colon resection",
        "bleeding from a liver lesion",
    ),
    diagnoses=parse_diagnoses(
        "56211|Dvrtcli colon w/o hmrhg|Diverticulitis of colon without hemorrhage",
        "5679|Peritonitis NOS|Unspecified peritonitis",
        "56081|Intestinal adhes w obstr|Intestinal adhesions with obstruction",
        "5770|Acute pancreatitis|Acute pancreatitis",
        "5570|Ac vasc insuff intestine|Acute vascular insufficiency of intestine",
        "99749|Oth digestv system comp|Other digestive system complication of surgery",
        "1570|Mal neo pancreas head|Malignant neoplasm of head of pancreas",
        "56983|Perforation of intestine|Perforation of intestine",
        "5601|Paralytic ileus|Paralytic ileus",
        "99859|Other postop infection|Other postoperative infection",
        "2639|Protein-cal malnutr NOS|Unspecified protein-calorie malnutrition",
    ),
    drugs=parse_drugs(
        "Metronidazole|500|mg|IV",
        "Ciprofloxacin|400|mg|IV",
        "Cefazolin|2|g|IV",
        "HYDROmorphone|0.5|mg|IV",
        "Ondansetron|4|mg|IV",
        "Famotidine|20|mg|IV",
        "Ketorolac|15|mg|IV",
        "Lactated Ringers|1000|mL|IV",
        "Bupivacaine 0.1%|250|mL|EPIDURAL",
        "Octreotide Acetate|100|mcg|SC",
        "Docusate Sodium|100|mg|PO",
    ),
    complaints=(
        "belly pain, worst ever",
        "vomiting green",
        "no gas for three days",
        "hard and swollen abdomen",
        "pain after eating",
        "wound draining",
    ),
    exams=(
        "Abd: firm, distended, guarding in all quadrants.",
        "CT: free air, thick sigmoid, fluid in pelvis.",
        "Wound: midline, staples in place, no erythema.",
        "KUB: dilated loops, air fluid levels.",
        "Drains x2: serous output, 40 cc each shift.",
        "WBC 19.2, lipase 2200, lactate 2.8.",
    ),
    courses=(
        "To OR for exploratory laparotomy, resection, end colostomy.",
        "EBL 300 cc, 2 units PRBC, extubated in recovery.",
        "NPO with NGT to suction until return of bowel function.",
        "Pain: epidural, then PCA, then oral.",
        "ID: abscess drained by IR, cultures mixed flora.",
        "GI: ostomy pink, output 600 cc, diet advanced.",
        "Heme: Hct stable, SQ heparin resumed on day two.",
        "Wound: opened at bedside, packed wet to dry.",
    ),
    plans=(
        "No lifting over ten pounds.",
        "Staples out at clinic visit in two weeks.",
        "Ostomy nurse to visit at home.",
        "Call for fever, redness or vomiting.",
    ),
    note=(
        'Admission Date: {admitted}   Discharge Date: {discharged}\n\nService: {service}\n\nCC: "{complaint}"\n\n'
        "HPI: {person_short} w/ {problem}, transferred from {hospital}.\n\nEXAM:\n- {exam}\n\n"
        "COURSE BY SYSTEM:\n{bulleted_courses}\n\nMEDS:\n{drugs}\n\nPLAN:\n{bulleted_plans}"
    ),
)

TRAUMA = UnitProfile(
    unit="TSICU",
    ward=23,
    service="TRAUMA",
    share=10,
    emergency=98,
    ages=(18, 80),
    problems=(
        "fall from a ladder with head injury",
        "car crash with broken ribs",
        "motorcycle crash with pelvic fracture",
        "stab wound of the flank",
        "pedestrian struck with leg fractures",
    ),
    diagnoses=parse_diagnoses(
        "85221|Subdural hem w/o coma|Subdural hemorrhage following injury",
        "80704|Fracture four ribs-close|Closed fracture of four ribs",
        "8082|Fracture of pubis-closed|Closed fracture of pubis",
        "8600|Traum pneumothorax-close|Traumatic pneumothorax",
        "86503|Spleen parenchyma lacer|Laceration of spleen parenchyma",
        "82101|Fx femur shaft-closed|Closed fracture of shaft of femur",
        "E8120|MV collision NOS-driver|Collision of motor vehicle injuring driver",
        "E8810|Fall from ladder|Accidental fall from ladder",
        "86121|Lung contusion-closed|Contusion of lung without open wound",
    ),
    drugs=parse_drugs(
        "Levetiracetam|500|mg|IV",
        "Phenytoin|100|mg|IV",
        "Fentanyl Citrate|50|mcg|IV",
        "Midazolam|2|mg|IV",
        "Enoxaparin Sodium|30|mg|SC",
        "Tetanus-Diphtheria Toxoid|0.5|mL|IM",
        "Mannitol|50|g|IV",
        "Lidocaine 5% Patch|1|PTCH|TD",
        "OxycoDONE|5|mg|PO",
    ),
    complaints=("my leg, my leg", "what happened", "cannot breathe deep", "it hurts everywhere"),
    exams=(
        "GCS 14 (E4 V4 M6), pupils 3 to 2 bilaterally.",
        "FAST negative times four views.",
        "C-collar in place, logrolled, no step off.",
        "CT head: thin left subdural, no shift.",
        "Chest tube on the right, no air leak.",
    ),
    courses=(
        "Neurosurgery: repeat head CT stable at 6 hours, no operation.",
        "Orthopedics: rod placed through the femur, touch down weight bearing.",
        "Spleen: grade II, watched, hematocrits level every six hours.",
        "Pulmonary: epidural for ribs, incentive spirometry to 1500.",
        "Chest tube to water seal and out on day four.",
        "Spine cleared by exam and imaging.",
        "Pelvis: nonoperative, walker training.",
    ),
    plans=(
        "Hard collar until clinic.",
        "Seizure medicine for seven days only.",
        "No contact sport for three months.",
        "Rehabilitation bed accepted.",
    ),
    note=(
        "Admission Date: {admitted}   Discharge Date: {discharged}\n\nService: {service}\n\nMECHANISM: {problem}, "
        'flown from {hospital}.\nSAID ON ARRIVAL: "{complaint}"\n\nSURVEY: {person_short}. {exam}\n\n'
        "INJURIES MANAGED:\n{numbered_courses}\n\nMEDS: {drugs}\n\nDISPOSITION: {plans}"
    ),
)

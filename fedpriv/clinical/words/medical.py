"""Words of the medical intensive care unit."""

from __future__ import annotations

from fedpriv.clinical.words.profile import UnitProfile, parse_diagnoses, parse_drugs

MEDICAL = UnitProfile(
    unit="MICU",
    ward=52,
    service="MEDICINE",
    share=32,
    emergency=95,
    ages=(38, 93),
    problems=(
        "sepsis from a urinary source",
        "community acquired pneumonia with hypoxia",
        "bleeding from a gastric ulcer",
        "acute on chronic respiratory failure",
        "ketoacidosis in new diabetes",
        "confusion from liver failure",
        "overdose of a sedative",
        "severe asthma attack",
    ),
    diagnoses=parse_diagnoses(
        "99592|Severe sepsis|Severe sepsis",
        "5990|Urin tract infection NOS|Urinary tract infection, site not given",
        "51881|Acute respiratry failure|Acute respiratory failure",
        "486|Pneumonia, organism NOS|Pneumonia, unspecified",
        "5849|Acute kidney failure NOS|Acute kidney failure, unspecified",
        "2762|Acidosis|Acidosis",
        "5715|Cirrhosis of liver NOS|Cirrhosis of liver without alcohol",
        "2851|Ac posthemorrhag anemia|Acute blood loss anemia",
        "25013|DMI ketoacd uncontrold|Diabetes with ketoacidosis, uncontrolled",
        "78552|Septic shock|Septic shock",
        "49322|Ch obst asth w (ac) exac|Chronic obstructive asthma with acute exacerbation",
        "5722|Hepatic encephalopathy|Hepatic encephalopathy",
        "4019|Hypertension NOS|Essential hypertension, unspecified",
    ),
    drugs=parse_drugs(
        "Vancomycin|1000|mg|IV",
        "Piperacillin-Tazobactam|4.5|g|IV",
        "Levofloxacin|750|mg|IV",
        "Norepinephrine|8|mg|IV DRIP",
        "Pantoprazole|40|mg|IV",
        "Insulin|10|UNIT|SC",
        "Albuterol|1|NEB|IH",
        "Ipratropium Bromide|1|NEB|IH",
        "Lactulose|30|mL|PO",
        "Methylprednisolone|60|mg|IV",
        "Acetaminophen|650|mg|PO",
        "Heparin|5000|UNIT|SC",
    ),
    complaints=(
        "could not catch my breath",
        "burning and shaking all night",
        "too weak to get out of bed",
        "black stools",
        "he just stopped making sense",
        "thirsty all the time",
        "coughing up yellow stuff",
    ),
    exams=(
        "Coarse crackles were heard at both bases with scattered wheezing.",
        "The skin was warm and the lactate was 4.1.",
        "The abdomen was soft with shifting dullness.",
        "Asterixis was present and the sclerae were icteric.",
        "Mucous membranes were dry and breathing was deep and rapid.",
        "The chest film showed a right lower lobe opacity.",
    ),
    courses=(
        "Fluids and broad antibiotics were given early and pressors were weaned by the second morning.",
        "Cultures grew a sensitive gram negative rod and therapy was narrowed.",
        "Oxygen needs fell from a face mask to two liters over several days.",
        "Creatinine peaked and then came back toward baseline with careful hydration.",
        "The gap closed on an insulin infusion and a basal regimen was begun.",
        "Endoscopy found a clean based ulcer and no further bleeding was seen.",
        "Mental status cleared with lactulose and treatment of the infection.",
        "Steroids were tapered as wheezing settled.",
    ),
    plans=(
        "Finish the antibiotic course and repeat kidney function within a week.",
        "See the primary physician in ten days.",
        "Return for fever, confusion or trouble breathing.",
        "Keep a log of fingerstick glucose before meals.",
    ),
    note=(
        "Admission Date: {admitted}   Discharge Date: {discharged}\n\nService: {service}\n\nChief Complaint:\n"
        '"{complaint}"\n\nHistory of Present Illness:\n{person} presented to {hospital} with {problem}. {exam}\n\n'
        "Brief Hospital Course:\n{courses}\n\nDischarge Medications:\n{drugs}\n\nFollowup:\n{plans}"
    ),
)

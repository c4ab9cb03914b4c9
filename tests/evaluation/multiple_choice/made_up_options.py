"""Options of exam questions that are easily misread."""

from __future__ import annotations

DRUGS = ("Aspirin", "Ibuprofen", "Beta blocker", "Calcium channel blocker", "Warfarin")
DISEASES = ("肺炎", "支气管肺炎", "肺结核", "支气管哮喘", "肺癌")
MARKERS = ("维生素D", "C反应蛋白", "D-二聚体", "降钙素原")
BACTERIA = ("S. aureus", "E. coli", "P. aeruginosa", "A. baumannii", "C. difficile")
YEARS = ("5", "10", "15", "50")
GROUPS = ("A", "B", "AB", "O")
VITAMINS = ("Vitamin A", "Vitamin B12", "Vitamin C", "Vitamin D")
TYPES = ("A型行为", "B型行为", "C型行为", "D型行为")
EFFECTS = ("Increased heart rate", "Decreased heart rate", "No change in heart rate", "Cardiac arrest")
PHRASES = ("All of the above", "It is contagious", "None of the above", "It is hereditary")
DOSES = ("50 mg", "100 mg", "5 mg", "500 mg")

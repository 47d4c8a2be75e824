"""Rules in, a layer for the MITRE ATT&CK Navigator out: which techniques some rule looks for, and how proven it is.

The format is the Navigator's layer format 4.5. Ids of tactics become the short names that a layer wants, as ATT&CK 18
has them; the layer says so, and a newer Navigator offers to carry it over. Knows no event.
"""

import json
from collections.abc import Iterable
from typing import Final

from keytrail.domain.rules import DetectionRule, Maturity

_ATTACK: Final = "18"
_TACTICS: Final = {
    "TA0043": "reconnaissance", "TA0042": "resource-development", "TA0001": "initial-access", "TA0002": "execution",
    "TA0003": "persistence", "TA0004": "privilege-escalation", "TA0005": "defense-evasion",
    "TA0006": "credential-access", "TA0007": "discovery", "TA0008": "lateral-movement", "TA0009": "collection",
    "TA0011": "command-and-control", "TA0010": "exfiltration", "TA0040": "impact",
}  # fmt: skip
SCORES: Final = {Maturity.SANDBOX: 1, Maturity.INCUBATING: 2, Maturity.STABLE: 3}
_COLORS: Final = {Maturity.SANDBOX: "#fff3b0", Maturity.INCUBATING: "#a8d5a2", Maturity.STABLE: "#2e7d32"}


def attack_layer(rules: Iterable[DetectionRule]) -> str:
    """The layer as JSON; a technique has the score of the most proven rule that looks for it."""
    found: dict[tuple[str, str], list[DetectionRule]] = {}
    for rule in rules:
        for place in dict.fromkeys(rule.spec.mitre):
            found.setdefault((place.technique, place.tactic), []).append(rule)
    layer = {
        "name": "Keytrail detection rules",
        "versions": {"attack": _ATTACK, "navigator": "4.9.0", "layer": "4.5"},
        "domain": "enterprise-attack",
        "description": "Techniques that Keytrail's rules look for. Scores: stable 3, incubating 2, sandbox 1.",
        "filters": {"platforms": ["Containers", "IaaS", "Linux"]},
        "sorting": 3,
        "layout": {"layout": "side", "showID": True, "showName": True, "expandedSubtechniques": "annotated"},
        "techniques": [_technique(*place, found[place]) for place in sorted(found)],
        "gradient": {
            "colors": [_COLORS[maturity] for maturity in SCORES],
            "minValue": min(SCORES.values()),
            "maxValue": max(SCORES.values()),
        },
        "legendItems": [{"label": str(maturity), "color": color} for maturity, color in _COLORS.items()],
        "selectTechniquesAcrossTactics": False,
        "selectSubtechniquesWithParent": False,
    }
    return json.dumps(layer, indent=1) + "\n"


def _technique(technique: str, tactic: str, rules: list[DetectionRule]) -> dict[str, object]:
    # Without a tactic the Navigator marks the technique in every column that has it: right for one it does not know.
    column = {"tactic": _TACTICS[tactic]} if tactic in _TACTICS else {}
    names = sorted(f"{rule.name} ({rule.spec.maturity})" for rule in rules)
    score = max(SCORES[rule.spec.maturity] for rule in rules)
    return {"techniqueID": technique, **column, "score": score, "comment": ", ".join(names)}

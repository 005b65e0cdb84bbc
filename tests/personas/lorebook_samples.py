"""Lorebooks as other programs write them, about one mill."""

WHEEL = "Nine paddles of elm turn below the house."
LEDGER = "A page is torn out of the year of the flood."
RULES = "{{char}} speaks low at night."
DRAFT = "Unfinished."


def silly_tavern_entry(uid, keys, content, **more):
    """An entry with all fields that the program writes, at their defaults."""
    return {
        "uid": uid, "key": keys, "keysecondary": [], "comment": "", "content": content, "constant": False,
        "vectorized": False, "selective": True, "selectiveLogic": 0, "addMemo": True, "order": 100, "position": 0,
        "disable": False, "ignoreBudget": False, "excludeRecursion": False, "preventRecursion": False,
        "delayUntilRecursion": False, "probability": 100, "useProbability": True, "depth": 4, "group": "",
        "groupOverride": False, "groupWeight": 100, "scanDepth": None, "caseSensitive": None,
        "matchWholeWords": None, "useGroupScoring": None, "automationId": "", "role": None, "sticky": 0,
        "cooldown": 0, "delay": 0, "displayIndex": uid, "triggers": [],
        "characterFilter": {"isExclude": False, "names": [], "tags": []}, **more,
    }  # fmt: skip


SILLY_TAVERN = {
    "entries": {
        "0": silly_tavern_entry(
            0, ["wheel", "sluice", "/mill-?race/i"], WHEEL, comment="The wheel"
        ),
        "3": silly_tavern_entry(
            3,
            ["ledger"],
            LEDGER,
            keysecondary=["debt", "owed"],
            selectiveLogic=3,
            order=40,
            probability=50,
        ),
        "4": silly_tavern_entry(4, [], RULES, constant=True, position=4, sticky=2, group="mood"),
        "5": silly_tavern_entry(5, ["draft"], DRAFT, disable=True),
        "6": silly_tavern_entry(
            6, ["/(a+)+$/", "reeds"], "Reeds grow by the weir.", matchWholeWords=False
        ),
    }
}
NOVEL_AI = {
    "lorebookVersion": 5,
    "entries": [
        {
            "text": WHEEL,
            "contextConfig": {
                "prefix": "",
                "suffix": "\n",
                "tokenBudget": 2048,
                "budgetPriority": 400,
            },
            "displayName": "The wheel",
            "keys": ["wheel", "sluice"],
            "searchRange": 1000,
            "enabled": True,
            "forceActivation": False,
            "category": "",
            "loreBiasGroups": [{"phrases": [], "bias": 0, "enabled": True}],
        },
        {
            "text": LEDGER,
            "displayName": "",
            "keys": ["ledger & debt"],
            "enabled": True,
            "category": "",
        },
        {
            "text": RULES,
            "displayName": "Night",
            "keys": [],
            "enabled": True,
            "forceActivation": True,
            "category": "x",
        },
        {
            "text": DRAFT,
            "displayName": "Draft",
            "keys": ["draft"],
            "enabled": True,
            "category": "off",
        },
    ],
    "settings": {"orderByKeyLocations": False},
    "categories": [
        {"name": "Drafts", "id": "off", "enabled": False},
        {"name": "X", "id": "x", "enabled": True},
    ],
}
AGNAI = {
    "kind": "memory",
    "name": "Mill",
    "entries": [
        {
            "name": "The wheel",
            "entry": WHEEL,
            "keywords": ["wheel", "sluice"],
            "priority": 5,
            "weight": 7,
            "enabled": True,
        },
        {
            "name": "Draft",
            "entry": DRAFT,
            "keywords": ["draft"],
            "priority": 0,
            "weight": 0,
            "enabled": False,
        },
    ],
}
RISU = {
    "type": "risu",
    "ver": 1,
    "data": [
        {
            "key": "wheel, sluice", "secondkey": "", "comment": "The wheel", "content": WHEEL, "mode": "normal",
            "insertorder": 100, "alwaysActive": False, "selective": False,
        },
        {
            "key": "ledger", "secondkey": "debt, owed", "comment": "", "content": LEDGER, "mode": "normal",
            "insertorder": 30, "alwaysActive": False, "selective": True,
        },
        {"key": "", "comment": "A folder", "content": "", "mode": "folder", "insertorder": 1, "alwaysActive": False},
    ],
}  # fmt: skip
KOBOLD = {
    "gamestarted": True,
    "worldinfo": [
        {
            "key": "wheel,sluice", "keysecondary": "", "keyanti": "steam", "content": WHEEL, "comment": "",
            "selective": False, "constant": False, "probability": "100",
        },
    ],
}  # fmt: skip
V3 = {
    "spec": "lorebook_v3",
    "data": {
        "name": "Mill",
        "entries": [
            {
                "keys": ["wheel", "sluice"],
                "content": f"@@depth 4\n@@exclude_keys steam,oil\n{WHEEL}",
                "enabled": True,
                "insertion_order": 1,
                "use_regex": True,
                "extensions": {},
            },
            {
                "keys": ["x"],
                "content": "@@activate\nBells ring at dusk.",
                "enabled": True,
                "insertion_order": 2,
            },
        ],
    },
}

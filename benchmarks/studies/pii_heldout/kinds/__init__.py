"""Kinds of text, one a module, with their templates by language."""

from benchmarks.studies.pii_heldout.kinds.about_others import ABOUT_OTHERS
from benchmarks.studies.pii_heldout.kinds.classifieds import CLASSIFIED
from benchmarks.studies.pii_heldout.kinds.complaints import COMPLAINT
from benchmarks.studies.pii_heldout.kinds.cv_lines import CV_LINE
from benchmarks.studies.pii_heldout.kinds.family_talk import FAMILY_TALK
from benchmarks.studies.pii_heldout.kinds.group_chats import GROUP_CHAT
from benchmarks.studies.pii_heldout.kinds.introductions import INTRODUCTION
from benchmarks.studies.pii_heldout.kinds.notices import NOTICE
from benchmarks.studies.pii_heldout.kinds.orders import ORDER
from benchmarks.studies.pii_heldout.kinds.quoted_chats import QUOTED_CHAT
from benchmarks.studies.pii_heldout.kinds.signatures import SIGNATURE
from benchmarks.studies.pii_heldout.kinds.support_tickets import SUPPORT_TICKET
from benchmarks.studies.pii_heldout.kinds.travel_plans import TRAVEL_PLAN

KINDS = (
    SIGNATURE,
    QUOTED_CHAT,
    INTRODUCTION,
    ORDER,
    FAMILY_TALK,
    SUPPORT_TICKET,
    TRAVEL_PLAN,
    NOTICE,
    CLASSIFIED,
    ABOUT_OTHERS,
    CV_LINE,
    COMPLAINT,
    GROUP_CHAT,
)
"""All kinds."""

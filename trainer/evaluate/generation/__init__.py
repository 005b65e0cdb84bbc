"""Generates replies of all candidates and measures voice, facts, texts and safety."""

from trainer.evaluate.generation.reply_sections import ReplySections as ReplySections
from trainer.evaluate.generation.reply_sections import measure_replies as measure_replies

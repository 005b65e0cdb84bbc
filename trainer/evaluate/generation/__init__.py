"""What is measured of generated replies: voice, facts, texts, safety, and the sides side by side."""

from trainer.evaluate.generation.reply_sections import ReplySections as ReplySections
from trainer.evaluate.generation.reply_sections import measure_replies as measure_replies

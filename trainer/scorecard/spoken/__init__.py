"""What is measured of generated replies: voice, facts, texts, safety, and the sides side by side."""

from trainer.scorecard.spoken.measure import Spoken as Spoken
from trainer.scorecard.spoken.measure import measure_spoken as measure_spoken

"""What a persona is, and how it speaks. Imports neither `bot` nor `trainer`."""

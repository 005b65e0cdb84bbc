"""The optimiser steps that are measured."""

WARM_UP_STEPS = 2
MEASURED_STEPS = 5
STEPS = WARM_UP_STEPS + MEASURED_STEPS + 1
"""The last one is counted under the profiler."""
STEP_SAMPLES = 16
"""Samples of an optimiser step, as in the recipe."""

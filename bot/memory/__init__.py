"""What members ask personas to keep."""

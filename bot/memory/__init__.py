"""Memories: texts that members ask personas to keep."""

"""Gate: decides from a score card whether a version may go live, with reasons and advice."""

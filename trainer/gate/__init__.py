"""The gate: what is asked of a score card before its version may go live, and what to do where it is not."""

from trainer.gate.judge import judge as judge

"""Studies of many runs: growing data, sweeps of settings, and memorisation audits."""

"""Studies of methods: the gate, the blind test, the anonymiser. Only authors of the project run them."""

"""Studies of methods: the gate, the anonymiser. Only authors of the project run them."""

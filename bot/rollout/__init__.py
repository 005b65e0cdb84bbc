"""A version on trial: whom it answers, whether members fare worse with it, and what is done and said then."""

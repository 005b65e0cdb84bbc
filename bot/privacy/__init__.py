"""The people in it: what is kept about a member, whether it may train, and how it is forgotten.

`forget` is the state machine, `traces` says whom to look for, `files` and `cutting` take a person out of what lies on
the disk, `about` tells and exports what there is, `words` holds every sentence in English and Vietnamese.
"""

"""Turns material into an adapter. A process of its own; never imports `bot`, never opens the bot's
database.
"""

import logging

# It misses a package that nothing here needs, and says so whenever it is imported: which kernels
# compute, a run says.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

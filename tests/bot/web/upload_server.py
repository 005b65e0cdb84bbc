"""A server in a process of its own, for whoever measures its memory: prints its address, ends with
its input.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.bot.web.conftest import dashboard_in


async def serve() -> None:
    async with dashboard_in(Path(sys.argv[1])) as dashboard:
        print(dashboard.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve())

"""`python -m bot.sandbox`: the sandbox alone, for any discord.py bot to be pointed at."""

import argparse
import asyncio
import errno
import sys
from pathlib import Path

from bot.sandbox import (
    ChannelSeed,
    GuildSeed,
    MemberSeed,
    NotLoopback,
    Permission,
    RoleSeed,
    Sandbox,
    SandboxError,
)


def example_guild(name: str) -> GuildSeed:
    """Two channels, an owner who moderates, and a member who does not."""
    moderator = RoleSeed("Moderator", int(Permission.MANAGE_GUILD | Permission.MANAGE_MESSAGES), 0x2E8B57)
    return GuildSeed(
        name=name,
        channels=(ChannelSeed("general", "Anything at all"), ChannelSeed("workshop", "For trying things out")),
        members=(MemberSeed("Ada", ("Moderator",), owner=True), MemberSeed("Ben")),
        roles=(moderator,),
        bot_name="Bot",
    )


async def serve(sandbox: Sandbox, host: str, port: int) -> None:
    """Run until cancelled."""
    try:
        await sandbox.start(host, port)
        print(f"page   {sandbox.url}\ntoken  {sandbox.token}\nstop   Ctrl+C", flush=True)
        await asyncio.Event().wait()
    finally:
        await sandbox.stop()


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 2 if it cannot start."""
    parser = argparse.ArgumentParser(prog="python -m bot.sandbox", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="a loopback address (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8420, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--state", type=Path, help="SQLite file that keeps the guild (default: nothing is kept)")
    parser.add_argument("--name", default="Sandbox", help="the guild's name (default: %(default)s)")
    args = parser.parse_args(arguments)
    try:
        asyncio.run(serve(Sandbox(example_guild(args.name), args.state), args.host, args.port))
    except KeyboardInterrupt:
        return 0
    except SandboxError as error:
        print(f"{'--host' if isinstance(error, NotLoopback) else '--state'}: {error}", file=sys.stderr)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        print(f"port {args.port} is in use: stop what uses it, or choose another with --port", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())

"""`python -m sandbox`: the sandbox alone, for any discord.py bot."""

import argparse
import asyncio
import errno
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from sandbox import (
    SILENCED_PERMISSIONS,
    ChannelSeed,
    GuildSeed,
    MemberSeed,
    NotLoopback,
    Permission,
    RoleSeed,
    Sandbox,
    SandboxError,
)

LAST_PORT = 65_535
MAX_GUILDS = 100
MAX_SHARDS = 1_000
EPILOG = """examples:
  python -m sandbox
  python -m sandbox --port 0 --name "My test guild" --state guild.sqlite
  python -m sandbox --guilds 6 --shards 3

It prints the address of a page and a token; connect a bot to the same address with that token
(sandbox/README.md).

exit codes: 0 ended by Ctrl+C or SIGTERM, 1 it cannot start, 2 wrong usage"""


def example_guild(name: str) -> GuildSeed:
    moderator = RoleSeed(
        "Moderator", int(Permission.MANAGE_GUILD | Permission.MANAGE_MESSAGES), 0x2E8B57
    )
    return GuildSeed(
        name=name,
        channels=(
            ChannelSeed("general", "Anything at all"),
            ChannelSeed("workshop", "For trying things out"),
            ChannelSeed("cellar", "Age-restricted", nsfw=True),
        ),
        members=(
            MemberSeed("Ada Owner", owner=True),
            MemberSeed("Ben Moderator", ("Moderator",)),
            MemberSeed("Cleo Member", ("Regular",)),
            MemberSeed("Dan Newcomer"),
            MemberSeed("Eve Silenced", ("Silenced",)),
        ),
        roles=(
            RoleSeed("Regular", 0, 0xB07D3C),
            RoleSeed("Silenced", 0, denied=SILENCED_PERMISSIONS),
            moderator,
        ),
        bot_name="Bot",
    )


async def serve(sandbox: Sandbox, host: str, port: int) -> None:
    """Run until Ctrl+C or SIGTERM, also when a shell started it in the background with Ctrl+C
    ignored.
    """
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        _on_signal(number, ended.set)
    try:
        await sandbox.start(host, port)
        print(f"page   {sandbox.url}\ntoken  {sandbox.token}\nstop   Ctrl+C", flush=True)
        await ended.wait()
    finally:
        await sandbox.stop()


def _on_signal(number: signal.Signals, action: Callable[[], None]) -> None:
    """Have the running loop do something when a signal arrives."""
    loop = asyncio.get_running_loop()
    try:
        loop.add_signal_handler(number, action)
    except NotImplementedError:  # on Windows
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(action))


def _count(most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {most}")
        return int(text)

    return parse


def command_line() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sandbox",
        description="The sandbox alone, for any discord.py bot.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="a loopback address (default: %(default)s)"
    )
    parser.add_argument(
        "--port", type=int, default=8420, help="0 takes a free one (default: %(default)s)"
    )
    parser.add_argument(
        "--state", type=Path, help="SQLite file that stores the guild (default: in memory)"
    )
    parser.add_argument("--name", default="Sandbox", help="the guild's name (default: %(default)s)")
    for name, most, text in (
        ("guilds", MAX_GUILDS, "the number of guilds the bot is in"),
        ("shards", MAX_SHARDS, "the number of shards that GET /gateway/bot recommends"),
    ):
        parser.add_argument(
            f"--{name}", type=_count(most), default=1, help=f"{text} (default: %(default)s)"
        )
    return parser


def main(arguments: list[str] | None = None) -> int:
    parser = command_line()
    args = parser.parse_args(arguments)
    if not 0 <= args.port <= LAST_PORT:
        print(f"--port: {args.port} is no port; choose one from 0 to {LAST_PORT}", file=sys.stderr)
        return 2
    try:
        more = [example_guild(f"{args.name} {number}") for number in range(2, args.guilds + 1)]
        seed = example_guild(args.name)
        sandbox = Sandbox(seed, args.state, more_guilds=more, shards=args.shards)
        asyncio.run(serve(sandbox, args.host, args.port))
        return 0
    except SandboxError as error:
        option = "--host" if isinstance(error, NotLoopback) else "--state"
        print(f"{option}: {error}", file=sys.stderr)
    except OSError as error:
        why = f"cannot be used ({error}):"
        if error.errno == errno.EADDRINUSE:
            why = "is in use: stop what uses it, or"
        print(f"port {args.port} {why} choose another with --port", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())

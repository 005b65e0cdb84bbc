"""What is said about the bot's face in a server."""

from bot.faces.actions import FaceActions
from personas.schemas.chat import Persona


def face_text(faces: FaceActions, persona: Persona, guild_id: int) -> str:
    """Say which persona's face the bot has in a server, or is to have and why it has not."""
    if faces.is_worn(persona, guild_id):
        return (
            f"In this server, **{persona.name}** is the bot's face, and speaks as the bot itself."
        )
    problem = faces.problem(guild_id) or "Discord has yet to show it."
    return (
        f"In this server, **{persona.name}** is to be the bot's face. {problem} Until then it speaks "
        "as before."
    )

"""What is said about the bot's face in a server."""

from bot.faces.actions import FaceActions
from bot.platform.localisation import gettext_lazy
from bot.platform.messages import markdown_name
from personas.schemas.chat import Persona


def face_text(faces: FaceActions, persona: Persona, guild_id: int) -> str:
    """Say which persona's face the bot has in a server, or is to have and why it has not."""
    state = faces.state(guild_id)
    if state.is_shown:
        return gettext_lazy(
            "In this server, **{persona}** is the bot's face, and speaks as the bot itself.",
            persona=markdown_name(persona),
        )
    return gettext_lazy(
        "In this server, **{persona}** is to be the bot's face. {problem} Until then it speaks as "
        "before.",
        persona=markdown_name(persona),
        problem=state.problem,
    )

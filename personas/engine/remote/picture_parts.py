"""Pictures in requests with OpenAI's chat interface, as data URLs within a message's content.

Source of the form: platform.openai.com/docs/guides/images-vision; llama.cpp, vLLM, Ollama and
gateways take the same.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from personas.prompt.chat_template import break_turn_markers_in
from personas.prompt.renderer import picture_line
from personas.schemas.chat import Picture


def with_pictures(message: Mapping[str, Any], pictures: Sequence[Picture]) -> dict[str, Any]:
    """Put pictures behind the text of a message, each after its name.

    What looks like a control token is broken up: a placeholder that somebody typed would count as a
    picture.
    """
    text = f"{message['content']}\n"
    parts: list[dict[str, Any]] = []
    for picture in pictures:
        encoded = base64.b64encode(picture.data).decode()
        url = f"data:{picture.media_type};base64,{encoded}"
        # Templates join parts without anything between them.
        named = break_turn_markers_in(f"{text}{picture_line(picture.name)}\n")
        parts.append({"type": "text", "text": named})
        parts.append({"type": "image_url", "image_url": {"url": url}})
        text = "\n"
    return {**message, "content": parts}

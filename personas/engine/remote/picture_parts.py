"""Pictures in requests with OpenAI's chat interface, as data URLs within a message's content.

Source of the form: platform.openai.com/docs/guides/images-vision; llama.cpp, vLLM, Ollama and
gateways take the same.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from personas.prompt.chat_template import break_turn_markers_in
from personas.schemas.chat import Picture


def with_pictures(message: Mapping[str, Any], pictures: Sequence[Picture]) -> dict[str, Any]:
    """Put pictures behind the text of a message, each after its name, in which control tokens are
    broken up.
    """
    parts: list[dict[str, Any]] = [{"type": "text", "text": message["content"]}]
    for picture in pictures:
        encoded = base64.b64encode(picture.data).decode()
        url = f"data:{picture.media_type};base64,{encoded}"
        parts.append({"type": "text", "text": f"{break_turn_markers_in(picture.name)}:"})
        parts.append({"type": "image_url", "image_url": {"url": url}})
    return {**message, "content": parts}

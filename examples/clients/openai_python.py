"""The openai package, unmodified: models, chat whole and streamed, completions of token ids, an error. Needs `openai`.

python examples/clients/openai_python.py http://127.0.0.1:8000
"""

from __future__ import annotations

import json
import sys
from typing import Any

import openai


def main(url: str) -> None:
    """Asks; prints one JSON line with what was seen."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        model = client.models.list().data[0].id
        question: Any = [{"role": "user", "content": "What does os.path.join do?"}]
        options: dict[str, Any] = {"model": model, "max_tokens": 24, "temperature": 0, "seed": 1}
        whole = client.chat.completions.create(messages=question, **options)
        pieces, usage = [], None
        for chunk in client.chat.completions.create(
            messages=question, stream=True, stream_options={"include_usage": True}, **options
        ):
            pieces += [choice.delta.content for choice in chunk.choices if choice.delta.content]
            usage = chunk.usage or usage
        completion = client.completions.create(prompt=[0, 100, 101, 102], n=2, extra_body={"ignore_eos": True}, **options)
        try:
            client.chat.completions.create(model="nobody", messages=question)
            refused = ""
        except openai.NotFoundError as error:
            refused = f"{error.status_code} {error.code}"
    found = {
        "client": "openai-python",
        "version": openai.__version__,
        "model": model,
        "answer": whole.choices[0].message.content,
        "stream_equals_whole": "".join(pieces) == whole.choices[0].message.content,
        "stream_pieces": len(pieces),
        "usage": None if usage is None else [usage.prompt_tokens, usage.completion_tokens],
        "choices_of_token_ids": len(completion.choices),
        "completion_tokens": completion.usage.completion_tokens if completion.usage else None,
        "unknown_model": refused,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])

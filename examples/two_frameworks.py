"""Two prompts through two frameworks: prefill on OpenVINO, decode on ONNX Runtime. Run it from the repository's folder."""

from __future__ import annotations

import inlay


def main() -> None:
    """Print each continuation with the places that computed it."""
    with inlay.LLM("demo/target", roles=["prefill=cpu:0/openvino", "decode=cpu:1/onnxruntime"]) as llm:
        for completion in llm.generate(["import os\n", "def main():"], max_tokens=24, temperature=0.0):
            print(repr(completion.text), completion.prefill, "->", completion.decode, completion.timing)


if __name__ == "__main__":
    main()
